package gate

import (
	"io"
	"log"
	"strings"
	"sync/atomic"
	"time"

	"go.uber.org/zap"
	"go.uber.org/zap/zapcore"

	"ssegate/proxy"
)

// Logging is a node's logger and what can be changed of it while it runs. Its
// methods may be called concurrently.
type Logging struct {
	*zap.Logger
	level   zap.AtomicLevel
	sampled atomic.Uint64
}

// Of messages with the same level and text, the first sampleFirst within a
// second are written and then each sampleThen-th. Messages are constant and
// what varies is in their fields, so this bounds each place that logs.
const (
	sampleFirst = 100
	sampleThen  = 100
)

// NewLogging makes the logger that c describes; it writes to w, line by line.
// c must have passed Load: an unknown level is info, an unknown format JSON.
func NewLogging(c Log, w io.Writer) *Logging {
	l := &Logging{level: zap.NewAtomicLevel()}
	l.SetLevel(c.Level)

	enc := zap.NewProductionEncoderConfig()
	enc.TimeKey = "time"
	enc.EncodeTime = zapcore.RFC3339NanoTimeEncoder
	enc.EncodeDuration = zapcore.StringDurationEncoder
	encoder := zapcore.NewJSONEncoder(enc)
	if c.Format == "console" {
		enc.EncodeTime = zapcore.TimeEncoderOfLayout("15:04:05.000")
		enc.EncodeLevel = zapcore.CapitalLevelEncoder
		encoder = zapcore.NewConsoleEncoder(enc)
	}
	core := zapcore.NewCore(encoder, zapcore.Lock(zapcore.AddSync(w)), l.level)
	if c.Sampling {
		core = zapcore.NewSamplerWithOptions(core, time.Second, sampleFirst, sampleThen,
			zapcore.SamplerHook(func(_ zapcore.Entry, d zapcore.SamplingDecision) {
				if d&zapcore.LogDropped > 0 {
					l.sampled.Add(1)
				}
			}))
	}
	l.Logger = zap.New(core)
	return l
}

// SetLevel is what a reload calls: "debug", "info", "warn" or "error". It does
// nothing to a Logging that NewLogging has not made.
func (l *Logging) SetLevel(level string) {
	if l.level == (zap.AtomicLevel{}) {
		return
	}
	parsed, err := zapcore.ParseLevel(level)
	if err != nil {
		parsed = zapcore.InfoLevel
	}
	l.level.SetLevel(parsed)
}

// TakeStd sends what libraries write with package log here, for the whole
// process, until undo is called. What they quote is shortened: net/http does so
// with bytes of answers.
func (l *Logging) TakeStd() (undo func()) {
	flags, prefix, out := log.Flags(), log.Prefix(), log.Writer()
	log.SetFlags(0)
	log.SetPrefix("")
	log.SetOutput(stdLog{l.Logger.Named("std")})
	return func() {
		log.SetFlags(flags)
		log.SetPrefix(prefix)
		log.SetOutput(out)
	}
}

type stdLog struct{ log *zap.Logger }

func (s stdLog) Write(p []byte) (int, error) {
	s.log.Info(proxy.CutQuotes(strings.TrimSpace(string(p))))
	return len(p), nil
}

// Sampled counts the messages that sampling left out.
func (l *Logging) Sampled() uint64 { return l.sampled.Load() }

// Redact shortens a token or an id for a log: enough to tell two apart, too
// little to use. A short one shows no more than half of itself.
func Redact(s string) string {
	r := []rune(s)
	if len(r) == 0 {
		return ""
	}
	return string(r[:min(6, len(r)/2)]) + "…"
}

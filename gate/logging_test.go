package gate

import (
	"bytes"
	"encoding/json"
	"io"
	"log"
	"os"
	"strings"
	"testing"
	"time"

	"go.uber.org/zap"
	"go.uber.org/zap/zapcore"
)

func TestLoggingJSON(t *testing.T) {
	var out bytes.Buffer
	l := NewLogging(Log{Level: "info", Format: "json"}, &out)
	l.Named("bus").Warn("slow", zap.Duration("took", 1500*time.Millisecond))
	var line map[string]any
	if err := json.Unmarshal(out.Bytes(), &line); err != nil {
		t.Fatal(err)
	}
	when, err := time.Parse(time.RFC3339Nano, line["time"].(string))
	if err != nil || time.Since(when).Abs() > time.Minute {
		t.Error(when, err)
	}
	delete(line, "time")
	got, _ := json.Marshal(line)
	if want := `{"level":"warn","logger":"bus","msg":"slow","took":"1.5s"}`; string(got) != want {
		t.Errorf("got %s, want %s", got, want)
	}
}

func TestLoggingConsole(t *testing.T) {
	var out bytes.Buffer
	NewLogging(Log{Level: "info", Format: "console"}, &out).Info("ready", zap.Int("n", 1))
	_, got, _ := strings.Cut(out.String(), "\t")
	if want := "INFO\tready\t{\"n\": 1}\n"; got != want {
		t.Errorf("got %q, want %q", got, want)
	}
}

func TestLoggingLevelChanges(t *testing.T) {
	var out bytes.Buffer
	l := NewLogging(Log{Level: "warn", Format: "json"}, &out)
	child := l.Named("x")
	child.Info("one")
	l.SetLevel("debug")
	child.Debug("two")
	l.SetLevel("error")
	child.Warn("three")
	if s := out.String(); strings.Contains(s, "one") || !strings.Contains(s, "two") || strings.Contains(s, "three") {
		t.Error(s)
	}
	l.SetLevel("nonsense")
	if !child.Core().Enabled(zapcore.InfoLevel) || child.Core().Enabled(zapcore.DebugLevel) {
		t.Error("an unknown level is not info")
	}
	(&Logging{Logger: zap.NewNop()}).SetLevel("debug") // must not panic
}

func TestLoggingSamples(t *testing.T) {
	f := func(sampling bool) (lines int, left uint64) {
		var out bytes.Buffer
		l := NewLogging(Log{Level: "info", Format: "json", Sampling: sampling}, &out)
		now := time.Now()
		for i := range 1000 {
			if e := l.Check(zapcore.InfoLevel, "same"); e != nil {
				e.Time = now
				e.Write(zap.Int("i", i))
			}
		}
		l.Info("another")
		if !strings.Contains(out.String(), "another") {
			t.Error("sampling one message silenced another")
		}
		return strings.Count(out.String(), "same"), l.Sampled()
	}
	if lines, left := f(false); lines != 1000 || left != 0 {
		t.Errorf("unsampled: %d written, %d left out", lines, left)
	}
	// A second may begin in between, which lets up to 109 more pass.
	if lines, left := f(true); lines < 109 || lines > 218 || left != uint64(1000-lines) {
		t.Errorf("sampled: %d written, %d left out", lines, left)
	}
}

// Libraries quote what they read, as net/http does bytes of an answer that is
// too long.
func TestLoggingTakesStd(t *testing.T) {
	var out bytes.Buffer
	undo := NewLogging(Log{Level: "info", Format: "json"}, &out).TakeStd()
	log.Printf("Unsolicited response received on idle HTTP channel starting with %q; err=%v", "the secret of a user\"", nil)
	undo()
	log.SetOutput(io.Discard)
	defer log.SetOutput(os.Stderr)
	log.Print("not here")
	got := out.String()
	if want := `"logger":"std","msg":"Unsolicited response received on idle HTTP channel starting with \"the secr…\"; err=<nil>"}`; !strings.Contains(got, want) || strings.Count(got, "\n") != 1 {
		t.Errorf("got %s, want %s", got, want)
	}
}

func TestRedact(t *testing.T) {
	f := func(s, want string) {
		t.Helper()
		if got := Redact(s); got != want {
			t.Errorf("Redact(%q) = %q, want %q", s, got, want)
		}
	}
	f("", "")
	f("a", "…")
	f("abcd", "ab…")
	f("abcdefghijkl", "abcdef…")
	f("AAAAAAAAAAAAAAAAAAAAAA", "AAAAAA…")
	f("日本語日本語日本語日本語", "日本語日本語…")
}

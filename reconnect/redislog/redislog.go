// Package redislog puts the Log of package reconnect on Redis Streams.
//
// The log of a stream is one key, <prefix>:{<stream>}:log. A batch of frames is
// one entry (several if it is big), whose id is the position of its last frame,
// <epoch>-<seq>: Redis takes it whole or not at all, and only if its id is above
// the last one, so an owner that was fenced can add nothing. See codec.go.
//
// A topic has besides that, with the same tag, its numbering in :seq, the ids
// that it remembers in :once and :once0, and the position that was passed on in
// :passed. What is published to it becomes one entry as well, numbered by a
// script. See journal.go and lua/number.lua.
//
// A log is written and read with the keys of one tag at a time, so it runs on
// Redis Cluster; what is for several streams goes out as one pipeline, which
// the client splits by node. Redis 6.2 or newer is needed, or what speaks its
// language (Valkey).
//
// Limits.Length counts numbers: frames that never came take their places. Logs
// are trimmed once every eighth of it, and Redis drops several entries at
// once, so somewhat more is kept.
//
// What Redis has acknowledged may be lost when Redis itself fails over or
// restarts; a log that came back shorter is appended to from where the owner
// is, and shows the rest as a gap. Of one that did not come back the owner is
// told, see [reconnect.Batch].Follows.
package redislog

import (
	"context"
	_ "embed"
	"encoding/base64"
	"errors"
	"fmt"
	"strconv"
	"strings"
	"sync"
	"time"

	"github.com/redis/go-redis/v9"

	"ssegate/reconnect"
	"ssegate/sse"
)

// Log is a [reconnect.Log] in Redis. It may be used concurrently. Close it
// when the last call has returned.
type Log struct {
	client redis.UniversalClient
	prefix string

	interest func(sse.StreamID) string // the key with the nodes that follow a stream; nil: none
	replicas int                       // how many must have what is published
	patience time.Duration             // how long to wait for them

	append, fence, tail, terms, touch, trim *redis.Script
	open, publish, since, pass              *redis.Script

	frames sync.Pool      // of *[]sse.Frame: what one Append works on
	calls  sync.WaitGroup // pipelines in flight, also those that outlived their callers
}

var _ reconnect.Journal = (*Log)(nil)

// Option is a choice at [New].
type Option func(*Log)

// WithInterest has Publish tell who follows a topic. key names the sorted set
// of node ids, by the end of each one's interest in milliseconds of Redis'
// clock; it must have the hash tag {<stream>}, as redisreg's FollowKey.
func WithInterest(key func(sse.StreamID) string) Option {
	return func(l *Log) { l.interest = key }
}

// WithReplicas has Publish wait until so many replicas have what was published,
// but no longer than patience (0: a second) or three quarters of what ctx and
// the client's ReadTimeout allow.
func WithReplicas(n int, patience time.Duration) Option {
	return func(l *Log) { l.replicas, l.patience = n, patience }
}

var (
	//go:embed lua/append.lua
	appendSrc string
	//go:embed lua/fence.lua
	fenceSrc string
	//go:embed lua/tail.lua
	tailSrc string
	//go:embed lua/terms.lua
	termsSrc string
	//go:embed lua/touch.lua
	touchSrc string
	//go:embed lua/trim.lua
	trimSrc string

	//go:embed lua/number.lua
	numberSrc string // begins those that number
	//go:embed lua/open.lua
	openSrc string
	//go:embed lua/publish.lua
	publishSrc string
	//go:embed lua/since.lua
	sinceSrc string
	//go:embed lua/pass.lua
	passSrc string
)

// New returns the logs that are kept under prefix. The client stays the
// caller's. Nothing is sent before the first call.
func New(client redis.UniversalClient, prefix string, options ...Option) *Log {
	l := &Log{
		client:  client,
		prefix:  prefix,
		append:  redis.NewScript(appendSrc),
		fence:   redis.NewScript(fenceSrc),
		tail:    redis.NewScript(tailSrc),
		terms:   redis.NewScript(termsSrc),
		touch:   redis.NewScript(touchSrc),
		trim:    redis.NewScript(trimSrc),
		open:    redis.NewScript(numberSrc + openSrc),
		publish: redis.NewScript(numberSrc + publishSrc),
		since:   redis.NewScript(sinceSrc),
		pass:    redis.NewScript(passSrc),
		frames:  sync.Pool{New: func() any { return new([]sse.Frame) }},
	}
	for _, o := range options {
		o(l)
	}
	return l
}

// Close waits for what outlived the context of its call, because the client
// does not let go of a connection before its own timeout. Closing the client
// first ends that at once. No method may be called after it. It returns nil.
func (l *Log) Close() error {
	l.calls.Wait()
	return nil
}

// tag is what the names of all keys of one stream begin with. The braces make
// Redis Cluster keep them together.
func (l *Log) tag(stream sse.StreamID) string {
	b := make([]byte, 0, 64)
	b = append(append(b, l.prefix...), ":{"...)
	b = base64.RawURLEncoding.AppendEncode(b, stream[:])
	return string(append(b, "}:"...))
}

func (l *Log) key(stream sse.StreamID) string { return l.tag(stream) + "log" }

// both are the keys of what may be a topic.
func (l *Log) both(stream sse.StreamID) []string {
	tag := l.tag(stream)
	return []string{tag + "log", tag + "seq"}
}

// call is one command of a pipeline: a script run for one log, or, without a
// script, whatever args say.
type call struct {
	script *redis.Script
	keys   []string // the first names the log in errors
	args   []any
	once   bool       // not to be sent again by the client
	reply  *redis.Cmd // set by run
	after  error      // what is wrong although the reply is well
}

func (c *call) queue(ctx context.Context, pipe redis.Pipeliner, whole bool) {
	c.after = nil
	var to redis.Scripter = pipe
	if c.once {
		to = careful{pipe}
	}
	switch {
	case c.script == nil:
		c.reply = pipe.Do(ctx, c.args...)
	case whole:
		c.reply = c.script.Eval(ctx, to, c.keys, c.args...)
	default:
		c.reply = c.script.EvalSha(ctx, to, c.keys, c.args...)
	}
}

// run makes calls in one round trip, each with a reply of its own. Scripts
// that Redis does not know (it was restarted) take a second one. The error is
// ctx's; the replies must then be left alone.
func (l *Log) run(ctx context.Context, calls []call) error {
	pipe := l.client.Pipeline()
	for i := range calls {
		calls[i].queue(ctx, pipe, false)
	}
	if err := l.exec(ctx, pipe); err != nil {
		return err
	}
	pipe = l.client.Pipeline()
	for i := range calls {
		if calls[i].unknown() {
			calls[i].queue(ctx, pipe, true)
		}
	}
	if pipe.Len() == 0 {
		return nil
	}
	return l.exec(ctx, pipe)
}

// unknown reports whether Redis did not know the script.
func (c *call) unknown() bool { return redis.HasErrorPrefix(c.reply.Err(), "NOSCRIPT") }

// exec sends a pipeline and waits for its replies, but no longer than ctx. The
// client itself minds a deadline only if it was told to, and a cancel never.
func (l *Log) exec(ctx context.Context, pipe redis.Pipeliner) error {
	if err := ctx.Err(); err != nil {
		return err
	}
	if ctx.Done() == nil {
		_, _ = pipe.Exec(ctx) // each command has its own error
		return nil
	}
	done := make(chan struct{})
	l.calls.Go(func() {
		_, _ = pipe.Exec(ctx)
		close(done)
	})
	select {
	case <-done:
		return nil
	case <-ctx.Done():
		return ctx.Err()
	}
}

// failure is what a reply's error means to callers.
func failure(err error) error {
	switch {
	case err == nil:
		return nil
	case errors.Is(err, redis.Nil): // the scripts' answer when there is no log
		return reconnect.ErrUnknown
	case strings.Contains(err.Error(), "WRONGTYPE"): // a script may put words before it
		return fmt.Errorf("%w: %w", reconnect.ErrBroken, err)
	case redis.HasErrorPrefix(err, "BROKEN"): // what our scripts say
		return fmt.Errorf("%w: %w", reconnect.ErrBroken, err)
	}
	return err
}

// millis is a TTL as Redis takes it: "0" for none, and never so short that it
// would delete at once.
func millis(ttl time.Duration) string {
	if ttl <= 0 {
		return "0"
	}
	return strconv.FormatInt(int64((ttl+time.Millisecond-1)/time.Millisecond), 10)
}

// Tails implements [reconnect.Log].
func (l *Log) Tails(ctx context.Context, streams []sse.StreamID) ([]reconnect.Tail, error) {
	calls := make([]call, len(streams))
	for i, id := range streams {
		calls[i] = call{script: l.tail, keys: l.both(id)}
	}
	tails := make([]reconnect.Tail, len(streams))
	if len(calls) == 0 {
		return tails, nil
	}
	if err := l.run(ctx, calls); err != nil {
		return nil, fmt.Errorf("redislog: tails: %w", err)
	}
	for i := range calls {
		tail, err := decodeTail(calls[i].reply)
		switch {
		case err == nil:
			tails[i] = tail
		case !errors.Is(err, reconnect.ErrUnknown):
			return nil, fmt.Errorf("redislog: tails: %s: %w", calls[i].keys[0], err)
		}
	}
	return tails, nil
}

// Touch implements [reconnect.Log].
func (l *Log) Touch(ctx context.Context, streams []sse.StreamID, ttl time.Duration) error {
	calls := make([]call, len(streams))
	for i, id := range streams {
		calls[i] = call{script: l.touch, keys: l.both(id), args: []any{millis(ttl), millis(reconnect.NumberingTTL(ttl))}}
	}
	if len(calls) == 0 {
		return nil
	}
	if err := l.run(ctx, calls); err != nil {
		return fmt.Errorf("redislog: touch: %w", err)
	}
	for i := range calls {
		if err := failure(calls[i].reply.Err()); err != nil {
			return fmt.Errorf("redislog: touch: %w", err)
		}
	}
	return nil
}

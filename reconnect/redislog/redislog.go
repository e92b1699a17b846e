// Package redislog puts the Log of package reconnect on Redis Streams.
//
// The log of a stream is one key, <prefix>:{<stream>}:log. A batch of frames is
// one entry (several if it is big), whose id is the position of its last frame,
// <epoch>-<seq>: Redis takes it whole or not at all, and only if its id is above
// the last one, so an owner that was fenced can add nothing. See codec.go.
//
// A log is written and read with one key at a time, so it runs on Redis
// Cluster; what is for several streams goes out as one pipeline, which the
// client splits by node. Redis 6.2 or newer is needed, or what speaks its
// language (Valkey).
//
// Limits.Length counts numbers: frames that never came take their places. Logs
// are trimmed once every eighth of it, and Redis drops several entries at
// once, so somewhat more is kept.
//
// What Redis has acknowledged may be lost when Redis itself fails over or
// restarts; a log that came back shorter or empty is appended to from where
// the owner is, and shows the rest as a gap.
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

	append, fence, tail, terms, touch, trim *redis.Script

	calls sync.WaitGroup // pipelines in flight, also those that outlived their callers
}

var _ reconnect.Log = (*Log)(nil)

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
)

// New returns the logs that are kept under prefix. The client stays the
// caller's. Nothing is sent before the first call.
func New(client redis.UniversalClient, prefix string) *Log {
	return &Log{
		client: client,
		prefix: prefix,
		append: redis.NewScript(appendSrc),
		fence:  redis.NewScript(fenceSrc),
		tail:   redis.NewScript(tailSrc),
		terms:  redis.NewScript(termsSrc),
		touch:  redis.NewScript(touchSrc),
		trim:   redis.NewScript(trimSrc),
	}
}

// Close waits for what outlived the context of its call, because the client
// does not let go of a connection before its own timeout. Closing the client
// first ends that at once. No method may be called after it. It returns nil.
func (l *Log) Close() error {
	l.calls.Wait()
	return nil
}

// key is the name of a stream's log. The braces make Redis Cluster keep all
// keys of one stream together.
func (l *Log) key(stream sse.StreamID) string {
	b := make([]byte, 0, 64)
	b = append(append(b, l.prefix...), ":{"...)
	b = base64.RawURLEncoding.AppendEncode(b, stream[:])
	return string(append(b, "}:log"...))
}

// call is one command of a pipeline: a script run for one log, or, without a
// script, whatever args say.
type call struct {
	script *redis.Script
	key    string
	args   []any
	reply  *redis.Cmd // set by run
}

func (c *call) queue(ctx context.Context, pipe redis.Pipeliner, whole bool) {
	switch {
	case c.script == nil:
		c.reply = pipe.Do(ctx, c.args...)
	case whole:
		c.reply = c.script.Eval(ctx, pipe, []string{c.key}, c.args...)
	default:
		c.reply = c.script.EvalSha(ctx, pipe, []string{c.key}, c.args...)
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
		if redis.HasErrorPrefix(calls[i].reply.Err(), "NOSCRIPT") {
			calls[i].queue(ctx, pipe, true)
		}
	}
	if pipe.Len() == 0 {
		return nil
	}
	return l.exec(ctx, pipe)
}

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
		calls[i] = call{script: l.tail, key: l.key(id)}
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
			return nil, fmt.Errorf("redislog: tails: %s: %w", calls[i].key, err)
		}
	}
	return tails, nil
}

// Touch implements [reconnect.Log].
func (l *Log) Touch(ctx context.Context, streams []sse.StreamID, ttl time.Duration) error {
	calls := make([]call, len(streams))
	for i, id := range streams {
		calls[i] = call{script: l.touch, key: l.key(id), args: []any{millis(ttl)}}
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

package redislog

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strconv"
	"time"

	"github.com/redis/go-redis/v9"

	"ssegate/reconnect"
	"ssegate/sse"
)

// due is what is to be added to one log.
type due struct {
	batch  int
	key    string
	limits reconnect.Limits
	follow bool // only if there is a log
	frames []sse.Frame
	call   int // the one that adds them
	err    error
}

func (d *due) first() sse.Pos { return d.frames[0].Pos }
func (d *due) last() sse.Pos  { return d.frames[len(d.frames)-1].Pos }

// Append implements [reconnect.Log]. A batch becomes one entry, which Redis
// takes whole or not at all. A big one becomes several, added by a script that
// stops where one is refused: of a pipeline of plain commands Redis would take
// the later ones all the same, and there would be a hole. What was refused
// takes one round trip more, in order to learn why.
func (l *Log) Append(ctx context.Context, batches []reconnect.Batch) []error {
	var errs []error
	fail := func(batch int, err error) {
		if errs == nil {
			errs = make([]error, len(batches))
		}
		errs[batch] = err
	}
	n := 0
	for i := range batches {
		n += batches[i].Len()
	}
	buf := l.frames.Get().(*[]sse.Frame)
	frames := slices.Grow((*buf)[:0], n)
	defer func() {
		clear(frames)
		*buf = frames
		l.frames.Put(buf)
	}()
	left := make([]due, 0, len(batches))
	for i := range batches {
		b := &batches[i]
		if err := b.Check(); err != nil {
			fail(i, err)
			continue
		}
		had := len(frames)
		for j := range b.Runs {
			frames = b.Runs[j].Append(frames)
		}
		if len(frames) > had {
			left = append(left, due{batch: i, key: l.key(b.Stream), limits: b.Limits, follow: b.Follows, frames: frames[had:]})
		}
	}
	for len(left) > 0 {
		l.add(ctx, left)
		l.explain(ctx, left)
		again := left[:0]
		for _, d := range left {
			switch {
			case d.err == reconnect.ErrFenced, d.err == reconnect.ErrUnknown:
				fail(d.batch, d.err)
			case d.err != nil:
				fail(d.batch, fmt.Errorf("redislog: append: %s: %w", d.key, d.err))
			case len(d.frames) > 0:
				again = append(again, d)
			}
		}
		left = again
	}
	return errs
}

// add sends what is due, in one round trip. What was taken is due no more; for
// the rest err says why.
func (l *Log) add(ctx context.Context, left []due) {
	calls := make([]call, 0, 2*len(left)+8)
	var ttl any // most have the same
	var ttlOf time.Duration
	for i := range left {
		d := &left[i]
		d.call = len(calls)
		key := any(d.key) // once, for two commands
		if n := fit(d.frames); n == len(d.frames) {
			id, field, value := encode(d.frames)
			args := make([]any, 0, 6)
			args = append(args, "xadd", key)
			if d.follow {
				args = append(args, "nomkstream")
			}
			calls = append(calls, call{args: append(args, id, field, value)})
		} else {
			args := make([]any, 0, 4+3*(len(d.frames)/n))
			args = append(args, d.follow)
			for rest := d.frames; len(rest) > 0; rest = rest[n:] {
				n = fit(rest)
				id, field, value := encode(rest[:n])
				args = append(args, id, field, value)
			}
			calls = append(calls, call{script: l.append, keys: []string{d.key}, args: args})
		}
		if ttl == nil || ttlOf != d.limits.TTL {
			ttl, ttlOf = millis(d.limits.TTL), d.limits.TTL
		}
		if d.limits.TTL > 0 {
			calls = append(calls, call{args: []any{"pexpire", key, ttl}})
		} else {
			calls = append(calls, call{args: []any{"persist", key}})
		}
		if keep := keepFrom(d); keep > 0 {
			calls = append(calls, call{script: l.trim, keys: []string{d.key}, args: []any{
				appendPos(nil, d.last()), strconv.FormatUint(keep, 10),
			}})
		}
	}
	err := l.run(ctx, calls)
	for i := range left {
		d := &left[i]
		d.err = err
		if err == nil {
			d.err = calls[d.call].reply.Err()
		}
		switch d.err {
		case nil:
			d.frames = nil
		case redis.Nil:
			d.err = reconnect.ErrUnknown
		}
	}
}

// keepFrom is the first Seq that is to be kept when d is in, if it is time to
// trim the log, else 0. That is once in a while only, for to find out what to
// drop costs more than to add an entry.
func keepFrom(d *due) uint64 {
	length, last := uint64(max(0, d.limits.Length)), d.last().Seq
	if step := max(1, length/8); length == 0 || last <= length || (d.first().Seq-1)/step == last/step {
		return 0
	}
	return last - length + 1
}

// explain finds out whether what Redis refused is in the log already, in part
// or whole, or cannot be because of a newer owner. What is in is due no more.
func (l *Log) explain(ctx context.Context, left []due) {
	var calls []call
	var refused []*due
	for i := range left {
		d := &left[i]
		if _, is := errors.AsType[redis.Error](d.err); is {
			refused = append(refused, d)
			calls = append(calls, call{script: l.tail, keys: []string{d.key}})
		}
	}
	if len(calls) == 0 {
		return
	}
	failed := l.run(ctx, calls)
	for i, d := range refused {
		if failed != nil {
			d.err = failed
			continue
		}
		tail, err := decodeTail(calls[i].reply)
		first, last := d.first(), d.last()
		switch {
		case err == reconnect.ErrUnknown: // refused for another reason
		case err != nil:
			d.err = err
		case tail.Pos.Epoch > first.Epoch:
			d.err = reconnect.ErrFenced
		case tail.Pos.Epoch == first.Epoch && tail.Pos.Seq >= first.Seq:
			d.err = nil
			d.frames = d.frames[min(tail.Pos.Seq, last.Seq)-first.Seq+1:]
		}
	}
}

// Fence implements [reconnect.Log].
func (l *Log) Fence(ctx context.Context, stream sse.StreamID, epoch uint64, limits reconnect.Limits) (sse.Frame, error) {
	// The client may send a command again when the connection broke. What the
	// fence bears tells this call's from another's in the same epoch.
	field := append(appendField(nil, sse.KindFence, sse.EndNone), ':')
	field = append(field, sse.NewStreamID().String()...)
	key := l.key(stream)
	calls := []call{{script: l.fence, keys: []string{key}, args: []any{strconv.FormatUint(epoch, 10), field, millis(limits.TTL)}}}
	err := l.run(ctx, calls)
	if err == nil {
		err = failure(calls[0].reply.Err())
	}
	var frame sse.Frame
	if err == nil {
		frame, err = decodeFenced(calls[0].reply.Val())
	}
	if err != nil && err != reconnect.ErrUnknown && err != reconnect.ErrFenced {
		err = fmt.Errorf("redislog: fence: %s: %w", key, err)
	}
	return frame, err
}

// decodeFenced reads the reply of fence.lua.
func decodeFenced(reply any) (sse.Frame, error) {
	if reply == "FENCED" {
		return sse.Frame{}, reconnect.ErrFenced
	}
	parts, _ := reply.([]any)
	if len(parts) == 2 {
		e, err := parseEntry(parts[1])
		if err != nil {
			return sse.Frame{}, err
		}
		frames, _, err := e.appendFrames(nil, make([]byte, e.size()), e.pos.Seq, e.pos.Seq)
		if err != nil {
			return sse.Frame{}, err
		}
		return frames[0], nil
	}
	if len(parts) == 1 {
		id, _ := parts[0].(string)
		if pos, ok := parsePos(id); ok {
			return sse.Frame{Pos: pos}, nil
		}
	}
	return sse.Frame{}, broken("fence", reply)
}

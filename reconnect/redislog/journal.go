package redislog

import (
	"context"
	"fmt"
	"strconv"
	"time"

	"ssegate/reconnect"
	"ssegate/sse"
)

// maxSeq is above what any numbering reaches: the scripts count in numbers
// that are whole only up to 2^53, which is in the year 2255.
const maxSeq = 1 << 53

// Open implements [reconnect.Journal].
func (l *Log) Open(ctx context.Context, topics []reconnect.OpenTopic) ([]sse.Pos, error) {
	calls := make([]call, len(topics))
	for i := range topics {
		t := &topics[i]
		if err := checkAfter(t.After); err != nil {
			return nil, fmt.Errorf("redislog: open: %w", err)
		}
		tag := l.tag(t.Stream)
		calls[i] = call{
			script: l.open,
			keys:   []string{tag + "seq", tag + "log"},
			args:   []any{t.After.Seq, millis(reconnect.NumberingTTL(t.TTL))},
		}
	}
	tails := make([]sse.Pos, len(topics))
	if len(calls) == 0 {
		return tails, nil
	}
	if err := l.run(ctx, calls); err != nil {
		return nil, fmt.Errorf("redislog: open: %w", err)
	}
	for i := range calls {
		pos, err := decodePos(calls[i].reply.Slice())
		if err != nil {
			return nil, fmt.Errorf("redislog: open: %s: %w", calls[i].keys[0], err)
		}
		tails[i] = pos
	}
	return tails, nil
}

// checkAfter returns an error for what no topic comes as far as.
func checkAfter(pos sse.Pos) error {
	if pos.Seq >= maxSeq-reconnect.EpochSeqs {
		return fmt.Errorf("%w: no topic comes as far as %v", reconnect.ErrBatch, pos)
	}
	return nil
}

// decodePos reads epoch and Seq from the front of a script's reply.
func decodePos(parts []any, err error) (sse.Pos, error) {
	if err != nil {
		return sse.Pos{}, failure(err)
	}
	if len(parts) >= 2 {
		epoch, ok1 := parts[0].(int64)
		seq, ok2 := parts[1].(int64)
		if ok1 && ok2 && epoch > 0 && seq > 0 {
			return sse.Pos{Epoch: uint64(epoch), Seq: uint64(seq)}, nil
		}
	}
	return sse.Pos{}, broken("numbering", parts)
}

// Publish implements [reconnect.Journal]. It takes one round trip, and one
// script for each topic. What has no Once is not sent again when the
// connection breaks: nobody would know whether it is then there twice.
func (l *Log) Publish(ctx context.Context, batch []reconnect.Posts) []reconnect.Posted {
	done := make([]reconnect.Posted, len(batch))
	calls := make([]call, 0, len(batch))
	at := make([]int, 0, len(batch)) // where in the batch each call is from
	for i := range batch {
		if len(batch[i].Posts) == 0 {
			continue
		}
		if err := checkAfter(batch[i].After); err != nil {
			done[i].Err = fmt.Errorf("redislog: publish: %w", err)
			continue
		}
		calls = append(calls, l.post(&batch[i]))
		at = append(at, i)
	}
	if len(calls) == 0 {
		return done
	}
	var err error
	if l.replicas > 0 {
		err = l.runReplicated(ctx, calls)
	} else {
		err = l.run(ctx, calls)
	}
	for j := range calls {
		c, d := &calls[j], &done[at[j]]
		d.Err = err
		if err == nil {
			d.Err = c.decodePosted(d, len(batch[at[j]].Posts))
		}
		if d.Err == nil {
			d.Err = c.after
		} else {
			*d = reconnect.Posted{Err: fmt.Errorf("redislog: publish: %s: %w", c.keys[0], d.Err)}
		}
	}
	return done
}

// post makes the call for one topic's posts.
func (l *Log) post(b *reconnect.Posts) call {
	var once time.Duration
	again := true
	for i := range b.Posts {
		if p := &b.Posts[i]; p.Once > 0 && len(p.ID) > 0 {
			once = max(once, p.Once)
		} else {
			again = false
		}
	}
	tag := l.tag(b.Stream)
	keys := append(make([]string, 0, 5), tag+"seq", tag+"log")
	args := append(make([]any, 0, 8), max(0, b.Limits.Length), millis(b.Limits.TTL), millis(reconnect.NumberingTTL(b.Limits.TTL)), millis(once), b.After.Seq)
	if once > 0 {
		keys = append(keys, tag+"once", tag+"once0")
	}
	if l.interest != nil {
		keys = append(keys, l.interest(b.Stream))
	}
	for rest := b.Posts; len(rest) > 0; {
		n, size := fitPosts(rest)
		value := make([]byte, 0, size)
		at := len(args)
		args = append(args, n, nil)
		for i := range rest[:n] {
			p := &rest[i]
			before := len(value)
			value = packPost(value, p)
			if once == 0 {
				continue
			}
			span := "0"
			if len(p.ID) > 0 {
				span = millis(p.Once)
			}
			args = append(args, len(value)-before, span, p.ID)
		}
		args[at+1] = value
		rest = rest[n:]
	}
	return call{script: l.publish, keys: keys, args: args, once: !again}
}

// fitPosts is how many of the posts go into one entry, and a bound of what
// they take.
func fitPosts(posts []reconnect.Post) (n, size int) {
	for n < len(posts) && n < entryFrames {
		p := &posts[n]
		more := len(p.ID) + len(p.Meta) + len(p.Block) + 16
		if n > 0 && size+more > entryBytes {
			break
		}
		n++
		size += more
	}
	return n, size
}

// decodePosted reads the reply of publish.lua.
func (c *call) decodePosted(d *reconnect.Posted, posts int) error {
	parts, err := c.reply.Slice()
	last, err := decodePos(parts, err)
	if err != nil {
		return err
	}
	if len(parts) != 5 {
		return broken("publish", parts)
	}
	taken, ok1 := parts[2].(int64)
	who, ok2 := parts[3].([]any)
	dups, ok3 := parts[4].([]any)
	if !ok1 || !ok2 || !ok3 || len(dups)%2 != 0 || len(dups) > 2*posts {
		return broken("publish", parts)
	}
	d.Time = taken
	if len(who) > 0 {
		d.Followers = make([]string, len(who))
		for i := range who {
			d.Followers[i], _ = who[i].(string)
		}
	}
	d.Pos = make([]sse.Pos, posts)
	if len(dups) > 0 {
		d.Dup = make([]bool, posts)
	}
	for i := 0; i < len(dups); i += 2 {
		which, ok1 := dups[i].(int64)
		text, _ := dups[i+1].(string)
		pos, ok2 := parsePos(text)
		if !ok1 || !ok2 || which < 1 || int(which) > posts {
			return broken("publish", parts)
		}
		d.Pos[which-1], d.Dup[which-1] = pos, true
	}
	next := last
	next.Seq -= uint64(posts - len(dups)/2)
	for i := range d.Pos {
		if d.Dup == nil || !d.Dup[i] {
			next.Seq++
			d.Pos[i] = next
		}
	}
	return nil
}

// Since implements [reconnect.Journal]. Redis looks for the place by halves.
func (l *Log) Since(ctx context.Context, stream sse.StreamID, t time.Time) (sse.Pos, error) {
	tag := l.tag(stream)
	calls := []call{{script: l.since, keys: []string{tag + "seq", tag + "log"}, args: []any{max(0, t.UnixMilli())}}}
	err := l.run(ctx, calls)
	var pos sse.Pos
	if err == nil {
		pos, err = decodePos(calls[0].reply.Slice())
	}
	if err != nil && err != reconnect.ErrUnknown {
		err = fmt.Errorf("redislog: since: %s: %w", calls[0].keys[0], err)
	}
	return pos, err
}

// Back implements [reconnect.Journal].
func (l *Log) Back(ctx context.Context, stream sse.StreamID, n int) (sse.Pos, error) {
	keys := l.both(stream)
	pos, err := l.back(ctx, keys, max(0, n))
	if err != nil && err != reconnect.ErrUnknown {
		err = fmt.Errorf("redislog: back: %s: %w", keys[0], err)
	}
	return pos, err
}

func (l *Log) back(ctx context.Context, keys []string, n int) (sse.Pos, error) {
	calls := []call{{script: l.tail, keys: keys}, {script: l.terms, keys: keys}}
	if err := l.run(ctx, calls); err != nil {
		return sse.Pos{}, err
	}
	tail, err := decodeTail(calls[0].reply)
	if err != nil || n == 0 {
		return tail.Pos, err
	}
	w, err := decodeWritten(calls[1].reply)
	if err != nil && err != reconnect.ErrUnknown {
		return sse.Pos{}, err
	}
	pos := tail.Pos
	for i := len(w.terms) - 1; i >= 0 && n > 0; i-- {
		t := w.terms[i]
		most := min(t.to-t.from+1, uint64(n))
		pos = sse.Pos{Epoch: t.epoch, Seq: t.to - most}
		n -= int(most)
	}
	return pos, nil
}

// Pass implements [reconnect.Journal].
func (l *Log) Pass(ctx context.Context, stream sse.StreamID, pos sse.Pos, ttl time.Duration) error {
	key := l.tag(stream) + "passed"
	calls := []call{{script: l.pass, keys: []string{key}, args: []any{
		strconv.FormatUint(pos.Epoch, 10), strconv.FormatUint(pos.Seq, 10), millis(ttl),
	}}}
	err := l.run(ctx, calls)
	if err == nil {
		err = failure(calls[0].reply.Err())
	}
	if err != nil {
		return fmt.Errorf("redislog: pass: %s: %w", key, err)
	}
	return nil
}

// Passed implements [reconnect.Journal].
func (l *Log) Passed(ctx context.Context, stream sse.StreamID) (sse.Pos, error) {
	key := l.tag(stream) + "passed"
	calls := []call{{args: []any{"get", key}}}
	err := l.run(ctx, calls)
	var text string
	if err == nil {
		text, err = calls[0].reply.Text()
		err = failure(err)
	}
	if err == reconnect.ErrUnknown {
		return sse.Pos{}, nil
	}
	pos, ok := parsePos(text)
	if err == nil && !ok {
		err = broken("position", text)
	}
	if err != nil {
		return sse.Pos{}, fmt.Errorf("redislog: passed: %s: %w", key, err)
	}
	return pos, nil
}

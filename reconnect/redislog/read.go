package redislog

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"math"
	"slices"
	"strconv"
	"strings"

	"github.com/redis/go-redis/v9"

	"ssegate/reconnect"
	"ssegate/sse"
)

const (
	firstPage = 16      // entries asked for before it is known how big they are
	pageBytes = 4 << 20 // about, in one page after the first
	readBytes = 8 << 20 // after which Read takes no further page
	findPage  = 1000    // frames that Find reads at once
)

// Read implements [reconnect.Log]. A place in the newest owner's part of the
// log takes one round trip a page; else it asks first who wrote what.
func (l *Log) Read(ctx context.Context, stream sse.StreamID, after sse.Pos, most int) ([]sse.Frame, error) {
	keys := l.both(stream)
	r := reader{log: l, key: keys[0], numbering: keys[1], next: after.Seq + 1, most: max(1, most)}
	err := r.read(ctx, after)
	switch {
	case err == reconnect.ErrUnknown:
		return nil, err
	case err != nil:
		return nil, fmt.Errorf("redislog: read: %s: %w", r.key, err)
	case r.gap != nil:
		return r.frames, r.gap
	}
	return r.frames, nil
}

// reader gathers the frames of one Read.
type reader struct {
	log       *Log
	key       string
	numbering string // another key, if it is a topic
	most      int
	next      uint64 // the Seq that is wanted next
	frames    []sse.Frame
	gap       *reconnect.Gap // before the first frame
	full      bool           // no more: enough, or a hole follows
	again     int            // how often it was begun again

	entries, bytes int // read so far
}

func (r *reader) read(ctx context.Context, after sse.Pos) error {
	page, asked := r.page(after.Epoch)
	page.args[3] = "+" // it may go on with another owner
	calls := []call{page, {script: r.log.tail, keys: []string{r.key, r.numbering}}}
	if err := r.log.run(ctx, calls); err != nil {
		return err
	}
	tail, err := decodeTail(calls[1].reply)
	if err != nil || tail.Pos.Seq <= after.Seq {
		return err
	}
	entries, err := decodePage(calls[0].reply)
	if err != nil {
		return err
	}
	newest := term{epoch: tail.Pos.Epoch, from: r.next, to: math.MaxUint64}
	first := slices.IndexFunc(entries, func(e entry) bool { return e.kind != sse.KindFence })
	if first >= 0 && entries[first].pos.Epoch == newest.epoch && entries[first].first <= r.next {
		// The newest owner wrote what is wanted, so nobody has replaced it.
		if err := r.take(newest, entries); err != nil || len(entries) < asked {
			return err
		}
		return r.term(ctx, newest)
	}

	// Where the log ends, and all else, as of now: since the tail was asked for
	// the numbering may have begun anew.
	calls = []call{{script: r.log.terms, keys: []string{r.key, r.numbering}}}
	if err := r.log.run(ctx, calls); err != nil {
		return err
	}
	w, err := decodeWritten(calls[0].reply)
	if err != nil || w.end.Seq <= after.Seq {
		return err
	}
	// unbroken reports whether nothing is missing between what is wanted next
	// and the start of a numbering: what came before it is kept, or is known to
	// be the end of the one before.
	at, had := after.Seq, uint64(0)
	unbroken := func(epoch uint64) bool {
		return w.begun > 0 && at > 0 && r.next == at+1 && (had == at || slices.Contains(w.unbroken[epoch], at))
	}
	for _, t := range w.terms {
		if t.from == reconnect.Origin(t.epoch).Seq+1 && t.from > r.next && unbroken(t.epoch) {
			r.next = t.from
		}
		if had = t.to; len(r.frames) > 0 && t.from > r.next {
			break // a hole
		}
		if err := r.term(ctx, t); err != nil {
			return err
		}
	}
	if len(r.frames) > 0 || w.end == reconnect.Origin(w.begun) && unbroken(w.begun) {
		return nil
	}
	if n := len(w.terms); n > 0 && w.terms[n-1].to >= r.next && r.again < 3 { // it was trimmed meanwhile
		r.again++
		return r.read(ctx, after)
	}
	r.gap = &reconnect.Gap{From: r.next, To: w.end.Seq}
	return nil
}

// term takes what is wanted of a term, page by page.
func (r *reader) term(ctx context.Context, t term) error {
	for !r.full && r.next <= t.to {
		page, asked := r.page(t.epoch)
		calls := []call{page}
		if err := r.log.run(ctx, calls); err != nil {
			return err
		}
		entries, err := decodePage(calls[0].reply)
		if err != nil {
			return err
		}
		if err := r.take(t, entries); err != nil || len(entries) < asked {
			return err
		}
	}
	return nil
}

// page asks for what an epoch has of what comes next, and says for how many
// entries. The entry with the frame that is wanted is the first whose id, that
// is, whose last frame, is at or above it.
func (r *reader) page(epoch uint64) (c call, asked int) {
	asked = firstPage
	if r.entries > 0 {
		asked = max(1, pageBytes/(r.bytes/r.entries+1))
	}
	asked = min(asked, r.most-len(r.frames))
	from := appendPos(nil, sse.Pos{Epoch: epoch, Seq: r.next})
	to := appendPos(nil, sse.Pos{Epoch: epoch, Seq: math.MaxUint64})
	return call{args: []any{"xrange", r.key, from, to, "count", asked}}, asked
}

// take adds what a page has of a term, as far as it goes on without a hole.
func (r *reader) take(t term, entries []entry) (err error) {
	size := 0
	for i := range entries {
		size += entries[i].size()
	}
	r.entries += len(entries)
	r.bytes += size
	buf := make([]byte, size) // one for the page: its frames come and go together
	for i := range entries {
		e := &entries[i]
		if e.kind == sse.KindFence || e.pos.Epoch != t.epoch || e.pos.Seq < r.next {
			continue
		}
		from := max(e.first, r.next)
		if from > t.to {
			break
		}
		if from > r.next {
			if r.full = len(r.frames) > 0; r.full {
				break
			}
			r.gap = &reconnect.Gap{From: r.next, To: from - 1}
		}
		to := min(t.to, e.pos.Seq)
		if room := uint64(r.most - len(r.frames)); to-from >= room {
			to = from + room - 1
		}
		if r.frames, buf, err = e.appendFrames(r.frames, buf, from, to); err != nil {
			return err
		}
		r.next = to + 1
		if r.full = len(r.frames) >= r.most || r.next == 0; r.full {
			break
		}
	}
	r.full = r.full || r.bytes >= readBytes
	return nil
}

// decodePage reads the reply to XRANGE.
func decodePage(reply *redis.Cmd) ([]entry, error) {
	parts, err := reply.Slice()
	if err != nil {
		return nil, failure(err)
	}
	entries := make([]entry, len(parts))
	for i := range parts {
		if entries[i], err = parseEntry(parts[i]); err != nil {
			return nil, err
		}
	}
	return entries, nil
}

// Find implements [reconnect.Log]. It reads the log from its start.
func (l *Log) Find(ctx context.Context, stream sse.StreamID, id []byte) (sse.Pos, error) {
	var after sse.Pos
	for {
		frames, err := l.Read(ctx, stream, after, findPage)
		if _, gap := errors.AsType[*reconnect.Gap](err); err != nil && !gap {
			return sse.Pos{}, err
		}
		for i := range frames {
			if len(id) > 0 && bytes.Equal(frames[i].ID, id) {
				return frames[i].Pos, nil
			}
		}
		if len(frames) == 0 || len(id) == 0 {
			return sse.Pos{}, reconnect.ErrUnknown
		}
		after = frames[len(frames)-1].Pos
	}
}

// decodeTail reads the reply of tail.lua.
func decodeTail(reply *redis.Cmd) (reconnect.Tail, error) {
	parts, err := reply.Slice()
	if err != nil {
		return reconnect.Tail{}, failure(err)
	}
	var e entry
	var ok bool
	switch len(parts) {
	case 1:
		id, _ := parts[0].(string)
		e.pos, ok = parsePos(id)
	case 2:
		id, _ := parts[0].(string)
		field, _ := parts[1].(string)
		ok = e.parseHead(id, field)
	}
	if !ok {
		return reconnect.Tail{}, broken("tail", parts)
	}
	return reconnect.Tail{Pos: e.pos, Kind: e.kind, End: e.end}, nil
}

// term is what one epoch wrote: the frames from..to, as far as they are kept,
// without those that a newer epoch has replaced.
type term struct {
	epoch    uint64
	from, to uint64
}

// written is what a log has, as of one moment.
type written struct {
	end      sse.Pos
	terms    []term              // those with frames that count; their numbers ascend
	begun    uint64              // the epoch of a topic's numbering, else 0
	unbroken map[uint64][]uint64 // by epoch, the Seqs after which nothing is missing before it
}

// decodeWritten reads the reply of terms.lua.
func decodeWritten(reply *redis.Cmd) (w written, err error) {
	parts, err := reply.Slice()
	if err != nil {
		return w, failure(err)
	}
	var head [4]string
	if len(parts) < len(head) {
		return w, broken("terms", parts)
	}
	for i := range head {
		head[i], _ = parts[i].(string)
	}
	var ok bool
	if w.end, ok = parsePos(head[0]); !ok {
		return w, broken("tail", parts)
	}
	if head[1] != "" {
		w.unbroken = map[uint64][]uint64{}
		if w.begun, ok = w.begins(head[1], strings.Fields(head[2])); !ok {
			return w, broken("numbering", parts)
		}
		for one := range strings.FieldsSeq(head[3]) {
			epoch, ends, _ := strings.Cut(one, ":")
			if _, ok = w.begins(epoch, strings.Split(ends, ",")); !ok {
				return w, broken("numbering", parts)
			}
		}
	}
	w.terms, err = decodeTerms(parts[len(head):])
	return w, err
}

// begins notes where a numbering goes on without a gap.
func (w *written) begins(epoch string, ends []string) (begun uint64, ok bool) {
	begun, err := strconv.ParseUint(epoch, 10, 64)
	if err != nil {
		return 0, false
	}
	for _, end := range ends {
		at, err := strconv.ParseUint(end, 10, 64)
		if err != nil {
			return 0, false
		}
		w.unbroken[begun] = append(w.unbroken[begun], at)
	}
	return begun, true
}

// decodeTerms reads what terms.lua says of each term.
func decodeTerms(parts []any) (terms []term, err error) {
	for _, part := range parts {
		ids, _ := part.([]any)
		if len(ids) != 3 {
			return nil, broken("a term", part)
		}
		first, _ := ids[0].(string)
		field, _ := ids[1].(string)
		last, _ := ids[2].(string)
		var e entry
		to, ok := parsePos(last)
		if !ok || !e.parseHead(first, field) {
			return nil, broken("a term", part)
		}
		t := term{epoch: e.pos.Epoch, from: e.first, to: to.Seq}
		if e.kind == sse.KindFence {
			t.from++ // what it bears is the last frame before it
		}
		// What the terms before wrote from here on counts no more.
		for n := len(terms); n > 0 && terms[n-1].to >= t.from; n-- {
			if t.from > terms[n-1].from {
				terms[n-1].to = t.from - 1
				break
			}
			terms = terms[:n-1]
		}
		if t.from <= t.to {
			terms = append(terms, t)
		}
	}
	return terms, nil
}

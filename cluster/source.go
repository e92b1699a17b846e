package cluster

import (
	"context"
	"errors"
	"slices"
	"sync/atomic"
	"time"

	"ssegate/hub"
	"ssegate/reconnect"
	"ssegate/sse"
)

// source is where the stream's followers read what its ring does not have.
func (s *Stream) source() hub.Source {
	l := &logSource{s: s, log: reconnect.NewReplayer(s.node.cfg.Log, s.ID, &s.node.count.gaps)}
	if s.local.CutGap {
		return withoutWord{l}
	}
	return l
}

// logSource is a stream's log. It tells of a gap when the log is gone that had
// what is asked for, and takes back who was led astray by an owner that did not
// know yet that it was succeeded.
type logSource struct {
	s     *Stream
	log   *reconnect.Replayer
	since atomic.Int64 // Unix nanoseconds; when the log was first found gone, 0 when it is there
	asked atomic.Int64 // the same; when the owner was last told so
}

// goneFor is how long a log that forgot everything may take to be written
// again before what it had counts as gone; that is, by us. Of another owner that
// is known only when it had the time to see by itself that the log has
// forgotten, or is dead: Config.DeadAfter.
const goneFor = 500 * time.Millisecond

// Read implements hub.Source.
func (l *logSource) Read(ctx context.Context, after sse.Pos, max int) ([]sse.Frame, error) {
	if first, sure := l.s.ownFork(after); sure && first.Pos.Seq > 0 {
		return []sse.Frame{l.s.back(first, after)}, nil
	}
	frames, err := l.log.Read(ctx, after, max)
	if err == nil && (len(frames) == 0 || frames[0].Pos.Epoch > after.Epoch) {
		first, err := l.s.fork(ctx, after)
		switch {
		case err != nil:
			return nil, err
		case first.Pos.Seq > 0:
			return []sse.Frame{l.s.back(first, after)}, nil
		}
	}
	if err == nil {
		l.since.Store(0)
	}
	if !errors.Is(err, reconnect.ErrUnknown) || !l.s.wasLogged(after.Seq+1) {
		return frames, err
	}
	now, most := time.Now(), goneFor
	if !l.s.owned.Load() {
		if asked := l.asked.Load(); now.UnixNano()-asked >= int64(goneFor) && l.asked.CompareAndSwap(asked, now.UnixNano()) {
			l.s.lacks(after.Seq)
		}
		if !l.s.over.Load() {
			most, err = l.s.node.cfg.DeadAfter, hub.ErrNotYet
		}
	}
	if l.since.CompareAndSwap(0, now.UnixNano()) || now.Sub(time.Unix(0, l.since.Load())) < most {
		return nil, err
	}
	to := l.s.hub.Tail()
	if next := l.s.hub.Frames(after.Seq, 1, 1); len(next) > 0 {
		to = next[0].Pos
		to.Seq--
	}
	if to.Seq <= after.Seq {
		return nil, err // the ring has what comes next
	}
	l.s.node.count.gaps.Add(1)
	gap := reconnect.AppendGap(nil, after.Seq+1, to.Seq, reconnect.GapTrimmed, sse.EOL(l.s.eol.Load()))
	return []sse.Frame{{Kind: sse.KindNote, Pos: to, Block: gap}}, nil
}

// term is what an owner knows of the beginning of its own term.
type term struct {
	old   uint64  // the epoch of the last frame before it
	fence sse.Pos // its epoch, and that frame's Seq
}

// fork is the first frame of a newer epoch, if the stream has gone on with it
// at or before a position; see reconnect.Fork. The errors are the log's.
func (s *Stream) fork(ctx context.Context, after sse.Pos) (first sse.Frame, err error) {
	first, sure := s.ownFork(after)
	if sure {
		return first, nil
	}
	found, err := reconnect.Fork(ctx, s.node.cfg.Log, s.ID, after)
	if err == nil && found.Pos.Seq > 0 {
		first = found
	}
	return first, err
}

// ownFork is fork as far as is known here: what an owner has numbered may not
// be in the log yet. Where it is not sure the log may know of an earlier one.
func (s *Stream) ownFork(after sse.Pos) (first sse.Frame, sure bool) {
	if after.Seq == 0 || after.Epoch == 0 || after.Epoch >= s.epoch() {
		return first, true
	}
	t := s.term.Load()
	if t == nil || after.Seq <= t.fence.Seq || s.hub.Tail().Seq <= t.fence.Seq {
		return first, false
	}
	first = sse.Frame{Pos: sse.Pos{Epoch: t.fence.Epoch, Seq: t.fence.Seq + 1}, Kind: sse.KindEvent}
	if next := s.hub.Frames(t.fence.Seq, 1, 1); len(next) > 0 && next[0].Pos == first.Pos {
		first.Kind = next[0].Kind
	}
	return first, after.Epoch == t.old
}

// back is what takes a follower back to where the stream has forked: a note
// that says so, or, where nothing comes but the end, only the place.
func (s *Stream) back(first sse.Frame, after sse.Pos) sse.Frame {
	note := sse.Frame{Kind: sse.KindNote, Pos: sse.Pos{Epoch: first.Pos.Epoch, Seq: first.Pos.Seq - 1}}
	if first.Kind != sse.KindEnd {
		s.node.count.gaps.Add(1)
		note.Block = reconnect.AppendGap(nil, first.Pos.Seq, after.Seq, reconnect.GapReplaced, sse.EOL(s.eol.Load()))
	}
	return note
}

// Replaced reports whether a client that has everything up to a position has
// events that count no more, or may have: then there is more to be said to it
// than what follows that number.
func (s *Stream) Replaced(ctx context.Context, after sse.Pos) bool {
	ctx, cancel := context.WithTimeout(ctx, s.node.cfg.Ask)
	defer cancel()
	first, err := s.fork(ctx, after)
	return err != nil || first.Pos.Seq > 0 && first.Kind != sse.KindEnd
}

// wasLogged reports whether the log has had the frame seq.
func (s *Stream) wasLogged(seq uint64) bool {
	if s.owned.Load() {
		return s.logged.Load() >= seq
	}
	return s.hub.Tail().Seq >= seq // all that a replica has was in the log before
}

// withoutWord leaves out the notes that tell of a gap, at which the hub then
// cuts.
type withoutWord struct{ hub.Source }

func (w withoutWord) Read(ctx context.Context, after sse.Pos, max int) ([]sse.Frame, error) {
	frames, err := w.Source.Read(ctx, after, max)
	for i := range frames {
		if f := &frames[i]; f.Kind == sse.KindNote && len(f.Block) > 0 && f.Pos.Epoch > after.Epoch && f.Pos.Seq < after.Seq {
			// A frame that does not fit: the stream is not what the client has.
			return []sse.Frame{{Kind: sse.KindBare, Pos: f.Pos}}, err
		}
	}
	said := func(f sse.Frame) bool { return f.Kind == sse.KindNote && len(f.Block) > 0 }
	return slices.DeleteFunc(frames, said), err
}

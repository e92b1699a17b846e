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

// logSource is a stream's log, and tells of a gap when the log is gone that
// had what is asked for.
type logSource struct {
	s     *Stream
	log   *reconnect.Replayer
	since atomic.Int64 // Unix nanoseconds; when the log was first found gone
}

// goneFor is how long a log that forgot everything may take to be written
// again before what it had counts as gone.
const goneFor = 500 * time.Millisecond

// Read implements hub.Source.
func (l *logSource) Read(ctx context.Context, after sse.Pos, max int) ([]sse.Frame, error) {
	frames, err := l.log.Read(ctx, after, max)
	if !errors.Is(err, reconnect.ErrUnknown) || !l.s.wasLogged(after.Seq+1) {
		return frames, err
	}
	now := time.Now()
	if l.since.CompareAndSwap(0, now.UnixNano()) || now.Sub(time.Unix(0, l.since.Load())) < goneFor {
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
	return slices.DeleteFunc(frames, func(f sse.Frame) bool { return f.Kind == sse.KindNote }), err
}

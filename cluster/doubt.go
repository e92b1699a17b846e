package cluster

import (
	"context"
	"time"

	"ssegate/sse"
)

// askOwner bounds the question whether a stream is still ours, which is asked
// while a local client waits.
const askOwner = 300 * time.Millisecond

// beaten notes what came of a beat that began at a time since the start.
func (n *Node) beaten(at time.Duration, lapsed bool, err error) {
	if err == nil {
		if lapsed {
			n.lapses.Add(1) // before the lease looks fresh
		}
		n.renewed.Store(int64(at))
	}
	n.beatFails.Store(err != nil)
}

// lapse is the number of times that the others may have taken this node for
// dead, by the registry's word or by our own clock. The latter says it first
// when the process was stopped and goes on. A registry that is away says
// nothing.
func (n *Node) lapse() uint64 {
	lapses := n.lapses.Load()
	since := time.Since(n.cfg.Self.Started) - time.Duration(n.renewed.Load())
	if since > n.cfg.DeadAfter && !n.beatFails.Load() {
		lapses++ // what the beat that is due will find
	}
	return lapses
}

// doubtful reports whether somebody may have taken the stream over since that
// was last asked. The pump's.
func (s *Stream) doubtful() bool {
	if !s.heritable {
		return false
	}
	lapse := s.node.lapse()
	was := s.lapse
	s.lapse = lapse
	return lapse > was
}

// stillOurs reports whether the log bears no fence of a newer owner, as far as
// can be told within askOwner; if it does, the stream is given up.
func (s *Stream) stillOurs(ctx context.Context) bool {
	ctx, cancel := context.WithTimeout(ctx, askOwner)
	defer cancel()
	tails, err := s.node.cfg.Log.Tails(ctx, []sse.StreamID{s.ID})
	if err != nil || tails[0].Pos.Epoch <= s.epoch() {
		return true
	}
	s.fenced()
	return false
}

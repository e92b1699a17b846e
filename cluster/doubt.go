package cluster

import (
	"context"
	"time"

	"ssegate/sse"
)

// askOwner bounds the question whether a stream is still ours, which is asked
// while a local client waits.
const askOwner = 300 * time.Millisecond

// beaten notes what came of a beat that began at a time since the start and
// had so long for it.
func (n *Node) beaten(at, most time.Duration, lapsed bool, err error) {
	now := time.Since(n.cfg.Self.Started)
	if err != nil && now-at >= 2*most && now-time.Duration(n.renewed.Load()) > n.cfg.DeadAfter {
		lapsed = true // it failed because we were stopped: that says nothing of the registry
	}
	if lapsed {
		n.lapses.Add(1) // before the lease looks fresh, or the registry away
	}
	if err == nil {
		n.renewed.Store(int64(at))
	}
	n.beatFails.Store(err != nil)
}

// lapse is when the others may have taken this node for dead.
type lapse struct {
	found uint64 // how often that was found by a beat
	late  int64  // what our own clock says: Node.renewed, and 1, of the lease that is over; or 0
}

// lapse is what is known now. Our own clock says it first when the process was
// stopped and goes on. A registry that is away says nothing.
func (n *Node) lapse() (l lapse) {
	renewed := n.renewed.Load()
	since := time.Since(n.cfg.Self.Started) - time.Duration(renewed)
	if since > n.cfg.DeadAfter && !n.beatFails.Load() {
		l.late = renewed + 1
	}
	l.found = n.lapses.Load() // last: what made the above look well has counted here before
	return l
}

// doubtful reports whether somebody may have taken the stream over since that
// was last asked. The pump's.
func (s *Stream) doubtful() bool {
	if !s.heritable {
		return false
	}
	now, was := s.node.lapse(), s.lapse
	s.lapse = now
	return now.found != was.found || now.late != 0 && now.late != was.late
}

// inherits reports whether another node may go on with the stream.
func (s *Stream) inherits() bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	return len(s.rec.Request) > 0
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

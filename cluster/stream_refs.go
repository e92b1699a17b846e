package cluster

import (
	"bytes"
	"slices"
	"time"

	"ssegate/hub"
	"ssegate/sse"
)

// Follow attaches a client's connection; the caller's reference becomes the
// follower's and is released when it has left.
func (s *Stream) Follow(c hub.Conn, o hub.FollowOptions) *hub.Follower {
	return s.hub.Follow(c, o)
}

// Followers is how many clients of this node follow the stream.
func (s *Stream) Followers() int { return s.hub.Followers() }

// All is the hub's view of the followers.
func (s *Stream) Hub() *hub.Stream { return s.hub }

// Stop cancels the upstream of an owned stream.
func (s *Stream) cancel(cause error) {
	s.mu.Lock()
	cancel := s.spec.Cancel
	s.mu.Unlock()
	if cancel != nil && s.owned.Load() {
		cancel(cause)
	}
}

// acquire takes a reference; false when the stream is being dropped.
func (s *Stream) acquire() bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.gone {
		return false
	}
	s.refs++
	s.settle()
	return true
}

// deserted reports whether nobody but the caller has a reference.
func (s *Stream) deserted() bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.refs <= 1
}

// Release gives a reference back. Who attached with Follow must not call it:
// the follower's leaving does.
func (s *Stream) Release() {
	s.mu.Lock()
	s.refs--
	s.settle()
	drop := s.refs == 0 && !s.owned.Load()
	s.mu.Unlock()
	if drop {
		s.node.dropReplica(s)
	}
}

// settle starts or stops the detach clock. s.mu is held.
func (s *Stream) settle() {
	if !s.owned.Load() || s.over.Load() {
		return
	}
	if s.refs > 0 || len(s.nodes) > 0 {
		s.aloneAt.Store(0)
		if s.alone != nil {
			s.alone.Stop()
			s.alone = nil
		}
		return
	}
	if s.alone != nil || s.spec.Cancel == nil {
		return
	}
	s.aloneAt.Store(max(s.hub.Tail().Seq, 1))
	cancel := s.spec.Cancel
	if s.spec.DetachFor <= 0 {
		cancel(ErrDetached)
		return
	}
	var t *time.Timer
	t = time.AfterFunc(s.spec.DetachFor, func() {
		s.mu.Lock()
		still := s.alone == t
		s.mu.Unlock()
		if still {
			cancel(ErrDetached)
		}
	})
	s.alone = t
}

// announce marks the record as news for the registry.
func (s *Stream) announce() {
	if s.owned.Load() && !s.quiet.Load() {
		s.node.regs.mark(s)
	}
}

// fenced ends our ownership: a newer owner holds the stream. Followers are
// cut so that they come back and find it.
func (s *Stream) fenced() {
	if !s.owned.CompareAndSwap(true, false) {
		return
	}
	s.over.Store(true)
	s.mu.Lock()
	cancel := s.spec.Cancel
	s.mu.Unlock()
	if cancel != nil {
		cancel(ErrFenced)
	}
	s.node.unlist(s) // before anybody comes back
	for f := range s.hub.All() {
		f.Kick(ReasonMoved, nil, false)
	}
	s.hub.Close()
	s.node.cfg.Report(Report{What: "stream was taken over by another node", Stream: s.ID})
}

// forget drops a stream.
func (n *Node) forget(s *Stream) {
	n.unlist(s)
	s.hub.Close()
}

// unlist takes a stream out of the node's tables.
func (n *Node) unlist(s *Stream) {
	s.mu.Lock()
	s.gone = true
	key, print := s.key, s.print
	s.mu.Unlock()
	n.mu.Lock()
	if n.streams[s.ID] == s {
		delete(n.streams, s.ID)
	}
	n.dropBid(key, s.ID)
	if left := slices.DeleteFunc(n.prints[print], func(id sse.StreamID) bool { return id == s.ID }); len(left) > 0 {
		n.prints[print] = left
	} else {
		delete(n.prints, print)
	}
	n.mu.Unlock()
}

// eolOf tells the line end of an encoded block.
func eolOf(block []byte) (sse.EOL, bool) {
	switch {
	case bytes.HasSuffix(block, []byte("\r\n\r\n")):
		return sse.CRLF, true
	case bytes.HasSuffix(block, []byte("\n\n")):
		return sse.LF, true
	case bytes.HasSuffix(block, []byte("\r\r")):
		return sse.CR, true
	}
	return 0, false
}

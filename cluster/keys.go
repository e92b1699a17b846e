package cluster

import (
	"bytes"
	"context"
	"errors"
	"slices"
	"time"

	"ssegate/bus"
	"ssegate/reconnect"
	"ssegate/registry"
	"ssegate/sse"
)

// ErrOtherBody says that the same key came with another request body.
var ErrOtherBody = errors.New("cluster: the key was used with another body")

// bid is the local half of an election: the first request of this node holds
// the election, the others wait for its outcome.
type bid struct {
	done  chan struct{}
	now   registry.Bid
	err   error
	until time.Time // when an ended stream's key is free again; zero: while it runs
}

// Elect puts s up for a key and tells which stream holds it now: s itself
// (won), or another, which the caller joins with Join. The election among
// nodes is bounded by Config.Elect; when it cannot be held the error is
// ErrUnavailable, unless runAnyway, which lets s win on this node.
// ErrOtherBody when the key's stream was started with another body.
func (n *Node) Elect(ctx context.Context, key string, s *Stream, sum []byte, runAnyway bool) (now registry.Bid, won bool, err error) {
	own := registry.Bid{Stream: s.ID, Owner: n.ID(), Sum: sum}
	n.mu.Lock()
	b := n.keys[key]
	if b != nil && !b.until.IsZero() && time.Now().After(b.until) {
		b = nil
	}
	if b == nil {
		b = &bid{done: make(chan struct{})}
		n.keys[key] = b
		n.mu.Unlock()
		b.now, won, b.err = n.elect(ctx, key, own, runAnyway)
		if won {
			s.mu.Lock()
			s.key = key
			s.mu.Unlock()
		} else {
			n.mu.Lock()
			if n.keys[key] == b {
				delete(n.keys, key) // the next one asks the registry again
			}
			n.mu.Unlock()
		}
		close(b.done)
	} else {
		n.mu.Unlock()
		select {
		case <-b.done:
		case <-ctx.Done():
			return registry.Bid{}, false, ErrUnavailable
		}
	}
	if b.err == nil && !won && !bytes.Equal(b.now.Sum, sum) {
		return b.now, false, ErrOtherBody
	}
	return b.now, won, b.err
}

func (n *Node) elect(ctx context.Context, key string, own registry.Bid, runAnyway bool) (registry.Bid, bool, error) {
	ctx, cancel := context.WithTimeout(ctx, n.cfg.Elect)
	defer cancel()
	now, won, err := n.cfg.Registry.Elect(ctx, key, own, n.cfg.DeadAfter)
	switch {
	case err == nil:
		return now, won, nil
	case runAnyway:
		n.count.electionsUnheld.Add(1)
		return own, true, nil
	default:
		return registry.Bid{}, false, ErrUnavailable
	}
}

// bidOf returns the bid that stands under a key on this node, or nil.
func (n *Node) bidOf(key string) *registry.Bid {
	n.mu.Lock()
	b := n.keys[key]
	n.mu.Unlock()
	if b == nil {
		return nil
	}
	select {
	case <-b.done:
		return &b.now
	default:
		return nil
	}
}

// dropBid forgets that a stream holds a key on this node. n.mu is held.
func (n *Node) dropBid(key string, id sse.StreamID) {
	b := n.keys[key]
	if b == nil {
		return
	}
	select {
	case <-b.done:
		if b.now.Stream == id {
			delete(n.keys, key)
		}
	default: // an election that is being held: not this stream's any more
	}
}

// free gives a key back whose stream never came to be.
func (n *Node) free(key string, s *Stream) {
	n.mu.Lock()
	n.dropBid(key, s.ID)
	n.mu.Unlock()
	n.regs.do(func(ctx context.Context) error { return n.cfg.Registry.Release(ctx, key, s.ID) })
}

// Join opens the stream that holds a key, for a client from the start, and
// waits until its upstream has answered, at most until ctx is done. ErrUnknown
// when there is no stream to join after all: its upstream answered with
// something else, or its owner died before.
func (n *Node) Join(ctx context.Context, now registry.Bid, local func(registry.Record) Local) (*Stream, error) {
	if s := n.lookup(now.Stream); s != nil {
		select {
		case <-s.begun:
		case <-ctx.Done():
			s.Release()
			return nil, ErrUnavailable
		}
		if s.Record().State == registry.StateRefused {
			s.Release()
			return nil, ErrUnknown
		}
		return s, nil
	}
	// The owner's tag, since the registry may not have heard of it yet.
	open := func() (*Stream, error) {
		return n.Open(ctx, now.Stream, reconnect.OwnerTag(now.Owner), sse.Pos{}, local)
	}
	if now.Owner == n.ID() {
		return open()
	}
	for {
		actx, cancel := context.WithTimeout(ctx, time.Second)
		rec, err := n.call(actx, now.Owner, bus.Message{Kind: kindAsk, Stream: now.Stream, Body: []byte{1}})
		cancel()
		answered := err == nil
		if !answered {
			gctx, cancel := context.WithTimeout(ctx, n.cfg.Ask)
			rec, err = n.cfg.Registry.Get(gctx, now.Stream)
			cancel()
		}
		switch {
		case err == nil && rec.State == registry.StateRefused:
			return nil, ErrUnknown
		case err == nil && rec.State != registry.StateStarting:
			return open()
		case !answered && (err == nil || errors.Is(err, registry.ErrUnknown)):
			peers := *n.peers.Load()
			if _, alive := peers[now.Owner]; !alive && n.mayJudge(peers) {
				return nil, ErrUnknown
			}
		}
		if ctx.Err() != nil {
			return nil, ErrUnavailable
		}
		sleep(ctx, 20*time.Millisecond)
	}
}

// addPrint notes that a request's fingerprint leads to a stream.
func (n *Node) addPrint(print string, s *Stream) {
	s.mu.Lock()
	s.print = print
	s.mu.Unlock()
	n.mu.Lock()
	if !slices.Contains(n.prints[print], s.ID) {
		n.prints[print] = append(n.prints[print], s.ID)
	}
	n.mu.Unlock()
	n.regs.do(func(ctx context.Context) error {
		return n.cfg.Registry.AddPrint(ctx, print, s.ID, n.cfg.Keep)
	})
}

// ErrPending says that a stream of this request exists, but who could say
// whether it has the client's event does not answer: the stream may be about
// to change its owner.
var ErrPending = errors.New("cluster: a stream of this request is between two owners")

// registered is how long what another node does may take to reach registry
// and log: who is back sooner is looked for once more.
const registered = 40 * time.Millisecond

// ByPrint finds the one stream that a request with this fingerprint led to
// and that has an event with this id of the backend's, and its position.
// ErrUnknown when none has it, or several; ErrPending; ErrUnavailable when
// nothing is known.
func (n *Node) ByPrint(ctx context.Context, print string, id []byte) (sse.StreamID, sse.Pos, error) {
	n.mu.Lock()
	here := slices.Clone(n.prints[print])
	n.mu.Unlock()
	// A stream of this node's needs nobody else.
	found, pos, err := n.search(ctx, here, id)
	for tries := 0; errors.Is(err, ErrUnknown) && tries < 2; tries++ {
		if tries > 0 {
			sleep(ctx, registered)
		}
		rctx, cancel := context.WithTimeout(ctx, n.cfg.Ask)
		more, rerr := n.cfg.Registry.ByPrint(rctx, print)
		cancel()
		if rerr != nil {
			return sse.StreamID{}, sse.Pos{}, ErrUnavailable
		}
		elsewhere := slices.DeleteFunc(more, func(id sse.StreamID) bool { return slices.Contains(here, id) })
		found, pos, err = n.search(ctx, elsewhere, id)
	}
	return found, pos, err
}

// search finds the one of these streams that has an id. ErrUnknown when none
// has it, or several.
func (n *Node) search(ctx context.Context, streams []sse.StreamID, id []byte) (found sse.StreamID, at sse.Pos, err error) {
	matches := 0
	err = ErrUnknown
	for _, s := range streams {
		pos, ferr := n.FindID(ctx, s, id)
		switch {
		case ferr == nil:
			found, at = s, pos
			matches++
		case !errors.Is(ferr, ErrUnknown):
			err = ferr
		}
	}
	if matches == 1 {
		return found, at, nil
	}
	if matches > 1 {
		err = ErrUnknown
	}
	return sse.StreamID{}, sse.Pos{}, err
}

// FindID finds the first frame of a stream that bears an id of the backend's:
// in the log, else in the owner's ring, which has what the log does not have
// yet. Errors: ErrUnknown, ErrPending, ErrUnavailable.
func (n *Node) FindID(ctx context.Context, id sse.StreamID, want []byte) (sse.Pos, error) {
	ctx, cancel := context.WithTimeout(ctx, 3*n.cfg.Ask)
	defer cancel()
	if s := n.local(id); s != nil && s.owned.Load() {
		if pos, ok := s.findInRing(want); ok {
			return pos, nil
		}
	}
	lctx, lcancel := context.WithTimeout(ctx, n.cfg.Ask)
	pos, err := n.cfg.Log.Find(lctx, id, want)
	lcancel()
	if err == nil {
		return pos, nil
	}
	if s := n.local(id); s != nil && s.owned.Load() {
		return sse.Pos{}, unknownOr(err)
	}
	gctx, gcancel := context.WithTimeout(ctx, n.cfg.Ask)
	rec, rerr := n.cfg.Registry.Get(gctx, id)
	gcancel()
	if rerr != nil || rec.State == registry.StateEnded || rec.Owner == n.ID() {
		return sse.Pos{}, unknownOr(err)
	}
	rec, aerr := n.call(ctx, rec.Owner, bus.Message{Kind: kindFind, Stream: id, Body: want})
	switch {
	case aerr == nil:
		return rec.Tail, nil
	case errors.Is(aerr, ErrUnknown):
		return sse.Pos{}, unknownOr(err)
	}
	return sse.Pos{}, ErrPending
}

func unknownOr(err error) error {
	if errors.Is(err, reconnect.ErrUnknown) {
		return ErrUnknown
	}
	return ErrUnavailable
}

// findInRing finds the first frame in memory that bears an id.
func (s *Stream) findInRing(id []byte) (sse.Pos, bool) {
	for _, f := range s.hub.Frames(0, 1<<20, 1<<30) {
		if bytes.Equal(f.ID, id) {
			return f.Pos, true
		}
	}
	return sse.Pos{}, false
}

// Stop cancels the upstream of a stream, wherever it runs, and returns what
// is known of it. Errors: ErrUnknown, ErrUnavailable.
func (n *Node) Stop(ctx context.Context, rec registry.Record) error {
	if s := n.local(rec.Stream); s != nil && s.owned.Load() {
		s.cancel(ErrStopped)
		return nil
	}
	ctx, cancel := context.WithTimeout(ctx, 2*time.Second)
	defer cancel()
	_, err := n.call(ctx, rec.Owner, bus.Message{Kind: kindStop, Stream: rec.Stream})
	return err
}

// Watched tells how many clients follow a stream in the whole cluster, and how
// far it is, as well as can be told within a moment.
func (n *Node) Watched(rec registry.Record) (followers int, seq uint64) {
	if s := n.local(rec.Stream); s != nil && s.owned.Load() {
		return s.watched(), s.hub.Tail().Seq
	}
	if rec.State != registry.StateEnded {
		ctx, cancel := context.WithTimeout(n.ctx, n.cfg.Ask)
		defer cancel()
		if now, err := n.call(ctx, rec.Owner, bus.Message{Kind: kindAsk, Stream: rec.Stream}); err == nil {
			return now.Followers, now.Tail.Seq
		}
	}
	if s := n.local(rec.Stream); s != nil {
		return s.hub.Followers(), max(rec.Tail.Seq, s.hub.Tail().Seq)
	}
	return 0, rec.Tail.Seq
}

func (s *Stream) watched() int {
	s.mu.Lock()
	defer s.mu.Unlock()
	n := s.hub.Followers()
	for _, in := range s.nodes {
		n += in.clients
	}
	return n
}

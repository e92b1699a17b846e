package cluster

import (
	"context"
	"errors"
	"time"

	"ssegate/bus"
	"ssegate/hub"
	"ssegate/reconnect"
	"ssegate/registry"
	"ssegate/sse"
)

// Open finds a stream for a client that has everything up to after, and takes
// a reference on it: the local one, or a replica that is fed by its owner.
// owner is the tag that the client's id bears, zero when it bears none.
// Errors: ErrUnknown, ErrUnavailable.
func (n *Node) Open(ctx context.Context, id sse.StreamID, owner [8]byte, after sse.Pos, local func(registry.Record) Local) (*Stream, error) {
	if s := n.lookup(id); s != nil {
		if !s.owned.Load() || after.Epoch <= s.epoch() || s.stillOurs(ctx) {
			return s, nil
		}
		s.Release() // the client comes from the node that has succeeded us
	}
	rec, err := n.find(ctx, id, owner)
	if err != nil {
		return nil, err
	}
	if rec.State == registry.StateRefused {
		return nil, ErrUnknown
	}
	return n.replicate(ctx, rec, after, local(rec))
}

// Find tells what is known of a stream, from whoever knows first.
func (n *Node) Find(ctx context.Context, id sse.StreamID, owner [8]byte) (registry.Record, error) {
	if s := n.local(id); s != nil && s.owned.Load() {
		return s.Record(), nil
	}
	return n.find(ctx, id, owner)
}

// find asks the registry, and the owner where the registry does not know, or
// not that the upstream has answered: a client may be back, or join, before its
// stream's record has got there.
func (n *Node) find(ctx context.Context, id sse.StreamID, owner [8]byte) (registry.Record, error) {
	gctx, cancel := context.WithTimeout(ctx, n.cfg.Ask)
	rec, err := n.cfg.Registry.Get(gctx, id)
	cancel()
	switch {
	case err != nil:
	case rec.State != registry.StateStarting:
		return rec, nil
	case rec.Owner != n.ID():
		actx, cancel := context.WithTimeout(ctx, n.cfg.Ask)
		told, aerr := n.call(actx, rec.Owner, bus.Message{Kind: kindAsk, Stream: id})
		cancel()
		if aerr == nil {
			told.Request = rec.Request // which no answer bears
			return told, nil
		}
		return rec, nil
	default:
		return rec, nil
	}
	known := errors.Is(err, registry.ErrUnknown)
	ask := bus.Message{Kind: kindAsk, Stream: id}
	who := n.nodeByTag(owner)
	if who == "" && owner != [8]byte{} && known {
		// A node that joined a moment ago may not be listed yet.
		lctx, cancel := context.WithTimeout(ctx, n.cfg.Ask)
		n.listPeers(lctx)
		cancel()
		who = n.nodeByTag(owner)
	}
	switch {
	case owner == [8]byte{}: // a bare name: it may be anybody's
		if told, _ := n.callAll(ctx, ask); len(told) > 0 {
			return told[0], nil
		}
	case who != "" && who != n.ID():
		actx, cancel := context.WithTimeout(ctx, n.cfg.Ask)
		rec, aerr := n.call(actx, who, ask)
		cancel()
		if aerr == nil {
			return rec, nil
		}
	}
	if known {
		return registry.Record{}, ErrUnknown
	}
	return registry.Record{}, ErrUnavailable
}

// replicate opens a replica: subscribe first, then see where the log ends, so
// that whatever comes later is either in the log or on its way.
func (n *Node) replicate(ctx context.Context, rec registry.Record, after sse.Pos, local Local) (*Stream, error) {
	tctx, cancel := context.WithTimeout(ctx, n.cfg.Ask)
	tails, err := n.cfg.Log.Tails(tctx, []sse.StreamID{rec.Stream})
	cancel()
	var end []sse.Frame // what the ring of an ended stream holds: its end
	tail := after       // the log is away: the owner may still have in memory what comes next
	claimed := true     // by the client alone
	switch {
	case err != nil && rec.State == registry.StateEnded:
		return nil, ErrUnavailable
	case err != nil:
	case tails[0].Kind == sse.KindEnd:
		tail, claimed = tails[0].Pos, false
		rec.State, rec.End, rec.Tail = registry.StateEnded, tails[0].End, tail
		tctx, cancel := context.WithTimeout(ctx, n.cfg.Ask)
		end, err = n.cfg.Log.Read(tctx, rec.Stream, sse.Pos{Epoch: tail.Epoch, Seq: tail.Seq - 1}, 1)
		cancel()
		if err != nil || len(end) == 0 {
			return nil, ErrUnavailable
		}
		tail.Seq--
	case rec.State == registry.StateEnded && after.Seq+1 < rec.Tail.Seq:
		// It has ended, and the log does not have the end: not yet, if the
		// owner still writes it, else not any more.
		actx, cancel := context.WithTimeout(ctx, n.cfg.Ask)
		_, err := n.call(actx, rec.Owner, bus.Message{Kind: kindAsk, Stream: rec.Stream})
		cancel()
		if err != nil {
			return nil, ErrUnknown
		}
		rec.State, rec.End = registry.StateLive, sse.EndNone
		tail, claimed = tails[0].Pos, false
	case rec.State == registry.StateEnded:
		tail, claimed = sse.Pos{Epoch: rec.Tail.Epoch, Seq: rec.Tail.Seq - 1}, false
		end = []sse.Frame{{Pos: rec.Tail, Kind: sse.KindEnd, End: rec.End}}
	case !n.logReaches(ctx, rec.Stream, after, tails[0].Pos):
		// The log has lost what comes next (it was emptied, say). The owner
		// may have it in memory: begin where the client is, and let it send.
	default:
		tail, claimed = tails[0].Pos, false
	}
	first := sse.Pos{Seq: tail.Seq + 1} // of no epoch: nobody can vouch for what is before it
	if !claimed {
		tail.Epoch = max(tail.Epoch, rec.Epoch)
		first.Epoch = tail.Epoch
	}
	local.capRing(local.Limits)
	s := &Stream{
		ID: rec.Stream, node: n, local: local, begun: make(chan struct{}), rec: rec, refs: 1,
		tail: tail,
	}
	if rec.State != registry.StateStarting {
		close(s.begun)
	}
	s.hub = n.cfg.Hub.Open(hub.StreamOptions{
		First:      first,
		Heartbeat:  local.Heartbeat,
		Slow:       local.Slow,
		RingEvents: local.RingEvents, RingBytes: local.RingBytes,
		Hold:   local.Limits.Length, // from a takeover on
		Source: s.source(),
		Left:   s.left,
	})
	if end != nil {
		s.receive(end)
	}
	n.mu.Lock()
	if other := n.streams[rec.Stream]; other != nil && other.acquire() {
		n.mu.Unlock()
		s.hub.Close()
		return other, nil // two clients came at once
	}
	n.streams[rec.Stream] = s
	n.mu.Unlock()
	if s.over.Load() {
		return s, nil
	}
	n.regs.do(func(ctx context.Context) error {
		if n.local(s.ID) != s {
			return nil
		}
		return n.cfg.Registry.Follow(ctx, s.ID, n.ID(), n.keeps())
	})
	s.refollow(ctx, after.Seq)
	if !n.cares(*n.peers.Load(), rec.Owner) {
		n.wg.Go(func() { n.reconsider(n.ctx, s, "") })
	}
	return s, nil
}

// learn tells a replica that was opened from an old record what the upstream
// has answered since.
func (s *Stream) learn(rec registry.Record) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.owned.Load() || s.rec.State != registry.StateStarting || rec.State == registry.StateStarting {
		return
	}
	s.rec.Head, s.rec.UpstreamID = rec.Head, rec.UpstreamID
	s.rec.UpstreamIDs, s.rec.UpstreamRetry = rec.UpstreamIDs, rec.UpstreamRetry
	s.rec.State = registry.StateLive // its end is told by its last frame
	if rec.State == registry.StateRefused {
		s.rec.State = rec.State
	}
	s.open()
}

// open closes begun. s.mu is held.
func (s *Stream) open() {
	select {
	case <-s.begun:
	default:
		close(s.begun)
	}
}

// logReaches reports whether a log has what comes after a position, or nothing
// newer.
func (n *Node) logReaches(ctx context.Context, id sse.StreamID, after, tail sse.Pos) bool {
	if tail.Seq <= after.Seq {
		return true
	}
	ctx, cancel := context.WithTimeout(ctx, n.cfg.Ask)
	defer cancel()
	_, err := n.cfg.Log.Read(ctx, id, after, 1)
	return !errors.Is(err, reconnect.ErrGap)
}

// dropReplica forgets a replica that nobody follows any more.
func (n *Node) dropReplica(s *Stream) {
	n.mu.Lock()
	s.mu.Lock()
	if s.refs > 0 || s.gone || s.owned.Load() {
		s.mu.Unlock()
		n.mu.Unlock()
		return
	}
	s.gone = true
	owner := s.rec.Owner
	s.mu.Unlock()
	if n.streams[s.ID] == s {
		delete(n.streams, s.ID)
	}
	n.mu.Unlock()
	s.hub.Close()
	if s.over.Load() {
		return
	}
	n.post(owner, bus.Message{Kind: kindUnfollow, Stream: s.ID})
	n.regs.do(func(ctx context.Context) error {
		if n.local(s.ID) != nil {
			return nil
		}
		return n.cfg.Registry.Unfollow(ctx, s.ID, n.ID())
	})
}

// receive takes frames that another node or the log has for a replica. A jump
// is not waited for: the ring begins anew behind it, and each follower is
// brought across it from the log before anything newer goes out to it. Where a
// newer owner writes what is here already, what is here counts no more.
func (s *Stream) receive(frames []sse.Frame) {
	s.feed.Lock()
	if s.owned.Load() || s.over.Load() {
		s.feed.Unlock()
		return
	}
	for len(frames) > 0 {
		f := frames[0]
		if f.Kind == sse.KindFence {
			s.tail.Epoch = max(s.tail.Epoch, f.Pos.Epoch)
		} else if f.Pos.Seq > s.tail.Seq && f.Pos.Epoch >= s.tail.Epoch || f.Pos.Epoch > s.tail.Epoch {
			break
		}
		frames = frames[1:]
	}
	if len(frames) == 0 {
		s.feed.Unlock()
		return
	}
	if frames[0].Pos.Seq > s.tail.Seq+1 {
		s.node.count.jumps.Add(1)
	}
	if s.tail.Seq == 0 || !s.eolKnown {
		if eol, ok := eolOf(frames[0].Block); ok {
			s.SetEOL(eol)
			s.eolKnown = true
		}
	}
	last := frames[len(frames)-1]
	if last.Kind == sse.KindEnd && len(last.Block) > 0 {
		s.endAhead(last)
	}
	s.hub.Append(frames)
	s.tail = last.Pos
	s.hub.Flushed(last.Pos.Seq) // the log had it before we did
	if last.Kind == sse.KindEnd {
		s.over.Store(true)
		s.mu.Lock()
		s.rec.State, s.rec.End, s.rec.Tail = registry.StateEnded, last.End, last.Pos
		s.mu.Unlock()
	}
	s.feed.Unlock()
	s.hub.Flush()
	s.reportProgress()
}

// endAhead ends the followers that have more than the log of a dead owner ever
// got: they would pass over what the end says.
func (s *Stream) endAhead(end sse.Frame) {
	for f := range s.hub.All() {
		if f.Pos().Seq >= end.Pos.Seq {
			f.Kick(hub.ReasonLost, end.Block, end.End.Clean())
		}
	}
}

// reportProgress tells the owner how far the fastest follower here is, when
// it has moved by a good part of what the owner allows for.
func (s *Stream) reportProgress() {
	fastest := s.fastest()
	if fastest < s.told.Load()+256 {
		return
	}
	s.refollow(s.node.ctx, fastest)
}

func (s *Stream) fastest() uint64 {
	var seq uint64
	for f := range s.hub.All() {
		seq = max(seq, f.Pos().Seq)
	}
	return seq
}

// news is what the owner is told of our following.
func (s *Stream) news(fastest uint64) (owner string, m bus.Message) {
	s.feed.Lock()
	f := following{have: s.tail.Seq, fastest: fastest, clients: uint64(s.hub.Followers())}
	s.feed.Unlock()
	s.told.Store(fastest)
	s.mu.Lock()
	owner = s.rec.Owner
	s.mu.Unlock()
	return owner, bus.Message{Kind: kindFollow, Stream: s.ID, Body: f.encode()}
}

// refollow tells the owner that we follow, and from where on.
func (s *Stream) refollow(ctx context.Context, fastest uint64) {
	owner, m := s.news(fastest)
	ctx, cancel := context.WithTimeout(ctx, 50*time.Millisecond)
	defer cancel()
	s.node.sendTo(ctx, owner, m)
}

// lacks tells the owner that the log forgot what comes after seq, so that it
// writes that again if it has it.
func (s *Stream) lacks(seq uint64) {
	f := following{have: seq, fastest: s.told.Load(), clients: uint64(s.hub.Followers())}
	s.mu.Lock()
	owner := s.rec.Owner
	s.mu.Unlock()
	s.node.post(owner, bus.Message{Kind: kindFollow, Stream: s.ID, Body: f.encode()})
}

// refollow says again, for all replicas, that we follow: one parcel an owner.
func (n *Node) refollow(ctx context.Context) {
	byOwner := map[string][]bus.Message{}
	for _, s := range n.all(func(s *Stream) bool { return !s.owned.Load() && !s.over.Load() }) {
		owner, m := s.news(s.fastest())
		byOwner[owner] = append(byOwner[owner], m)
	}
	for owner, msgs := range byOwner {
		sctx, cancel := context.WithTimeout(ctx, 50*time.Millisecond)
		n.sendTo(sctx, owner, msgs...)
		cancel()
	}
}

// watch compares tails with the log: now and then while the bus carries, and
// often while it does not, which is how remote followers are fed then.
func (n *Node) watch(ctx context.Context) {
	const fast, idle = 15 * time.Millisecond, 200 * time.Millisecond
	pace := fast
	said := time.Now()
	for ctx.Err() == nil {
		if n.busUp.Load() {
			pace = n.cfg.TailCheck
		}
		select {
		case <-ctx.Done():
		case <-n.busFell:
		case <-time.After(pace):
		}
		moved := n.checkTails(ctx)
		if !n.busUp.Load() {
			if moved || pace > idle {
				pace = fast
			} else {
				pace = min(2*pace, idle)
			}
		}
		if time.Since(said) >= n.cfg.TailCheck {
			said = time.Now()
			n.refollow(ctx)
		}
	}
}

// checkTails brings every replica up to its log's tail; moved reports whether
// any was behind.
func (n *Node) checkTails(ctx context.Context) (moved bool) {
	replicas := n.all(func(s *Stream) bool { return !s.owned.Load() && !s.over.Load() })
	if len(replicas) == 0 {
		return false
	}
	tctx, cancel := context.WithTimeout(ctx, time.Second)
	defer cancel()
	tails, err := n.cfg.Log.Tails(tctx, ids(replicas))
	if err != nil {
		n.count.logErrors.Add(1)
		return false
	}
	for i, s := range replicas {
		s.feed.Lock()
		at := tails[i].Pos
		behind := at.Seq > s.tail.Seq || at.Epoch > s.tail.Epoch && tails[i].Kind != sse.KindFence
		s.feed.Unlock()
		if behind && n.busUp.Load() {
			n.count.foundByCheck.Add(1)
		}
		if behind {
			moved = true
			s.readOn(tctx, at.Epoch)
		}
	}
	return moved
}

// readOn feeds a replica from the log, whose tail is known to be of this epoch,
// until it has reached the tail.
func (s *Stream) readOn(ctx context.Context, epoch uint64) {
	const page = 512
	for {
		s.feed.Lock()
		after := s.tail
		s.feed.Unlock()
		frames, err := s.node.cfg.Log.Read(ctx, s.ID, after, page)
		if err != nil && !errors.Is(err, reconnect.ErrGap) {
			return
		}
		if len(frames) > 0 {
			epoch = frames[0].Pos.Epoch
		}
		if epoch > after.Epoch { // perhaps it has not only come further
			fork, err := reconnect.Fork(ctx, s.node.cfg.Log, s.ID, after)
			if err == nil && fork.Pos.Seq > 0 {
				frames = []sse.Frame{fork} // and from there on
			}
		}
		if len(frames) == 0 {
			return
		}
		s.receive(frames)
		if ctx.Err() != nil || s.over.Load() {
			return
		}
	}
}

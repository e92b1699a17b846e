package cluster

import (
	"context"
	"errors"
	"sync"
	"time"

	"ssegate/bus"
	"ssegate/reconnect"
	"ssegate/registry"
	"ssegate/sse"
)

// renew keeps our lease. Nothing else is done in its goroutine: a beat that is
// late makes a healthy node dead.
func (n *Node) renew(ctx context.Context) {
	n.beat(ctx)
	beat := time.NewTicker(n.cfg.Heartbeat)
	defer beat.Stop()
	for {
		select {
		case <-ctx.Done():
			return
		case <-beat.C:
			n.beat(ctx)
		}
	}
}

// members learns who lives, acts when an owner is dead, and sweeps after the
// dead when it is our turn.
func (n *Node) members(ctx context.Context) {
	n.listPeers(ctx)
	check := time.NewTicker(n.cfg.CheckEvery)
	defer check.Stop()
	for {
		select {
		case <-ctx.Done():
			return
		case <-check.C:
			n.check(ctx)
		}
	}
}

// Beat renews the lease at once, so that a change of state (draining) is told.
func (n *Node) Beat(ctx context.Context) { n.beat(ctx) }

func (n *Node) beat(ctx context.Context) {
	most := max(n.cfg.Heartbeat/2, 50*time.Millisecond)
	ctx, cancel := context.WithTimeout(ctx, most)
	defer cancel()
	self := n.cfg.Self
	self.Connections = n.Connections()
	self.Streams, _ = n.Streams()
	self.Draining = n.cfg.Draining()
	at := time.Since(self.Started)
	lapsed, err := n.cfg.Registry.Beat(ctx, self, n.cfg.DeadAfter)
	if err == nil && time.Since(self.Started)-time.Duration(n.renewed.Load()) >= n.cfg.DeadAfter {
		// A registry that stood still does what it was asked meanwhile when it
		// goes on: a beat of ours whose answer we did not wait for may have found
		// the lease gone, and this one then finds it there.
		lapsed = true
	}
	n.mu.Lock()
	first := n.lapsed.IsZero()
	if err == nil && lapsed {
		n.lapsed = time.Now()
		if !first {
			n.forgotten = n.lapsed
		}
	}
	n.mu.Unlock()
	n.beaten(at, most, lapsed && !first, err)
	if err != nil {
		n.count.registryErrors.Add(1)
		n.sent.tell(&n.topics) // the log is often where the registry is
		return
	}
	if lapsed {
		if !first {
			n.cfg.Report(Report{What: "lease had lapsed; registering everything again", Node: n.ID()})
		}
		n.regs.again()
		// The log is often where the registry is.
		for _, s := range n.all(func(s *Stream) bool { return s.owned.Load() }) {
			n.out.look(s)
		}
	}
	n.prolong(ctx)
}

// prolong puts off the end of what is quiet but alive.
func (n *Node) prolong(ctx context.Context) {
	live := n.all(func(s *Stream) bool { return s.owned.Load() && !s.over.Load() })
	if len(live) == 0 {
		return
	}
	if err := n.cfg.Registry.Touch(ctx, ids(live), n.keeps()); err != nil {
		n.count.registryErrors.Add(1)
	}
	byTTL := map[time.Duration][]sse.StreamID{}
	for _, s := range live {
		byTTL[s.spec.Limits.TTL] = append(byTTL[s.spec.Limits.TTL], s.ID)
		s.mu.Lock()
		key, print := s.key, s.print
		fades := print != "" && time.Since(s.printed) > n.renewal()
		s.mu.Unlock()
		if fades {
			n.addPrint(print, s)
		}
		if key != "" {
			n.regs.do(func(ctx context.Context) error {
				return n.cfg.Registry.Extend(ctx, key, s.ID, max(n.cfg.DeadAfter, s.spec.JoinFor))
			})
		}
	}
	for ttl, ids := range byTTL {
		if err := n.cfg.Log.Touch(ctx, ids, ttl); err != nil {
			n.count.logErrors.Add(1)
		}
	}
}

// listPeers learns who lives. The error is told, not kept: the last list
// stands while the registry is away.
func (n *Node) listPeers(ctx context.Context) (now map[string]registry.Node, ok bool) {
	ctx, cancel := context.WithTimeout(ctx, n.cfg.CheckEvery)
	defer cancel()
	list, err := n.cfg.Registry.List(ctx)
	if err != nil {
		n.count.registryErrors.Add(1)
		return nil, false
	}
	now = make(map[string]registry.Node, len(list))
	for _, p := range list {
		now[p.ID] = p
	}
	before := *n.peers.Swap(&now)
	for id := range before {
		if _, still := now[id]; !still && id != n.ID() {
			n.died.Store(int64(time.Since(n.cfg.Self.Started)))
			n.cfg.Report(Report{What: nodeGone, Node: id})
			n.count.nodesGone.Add(1)
		}
	}
	for id := range now {
		if _, known := before[id]; !known && id != n.ID() {
			n.cfg.Report(Report{What: "node joined", Node: id})
		}
	}
	return now, true
}

func (n *Node) check(ctx context.Context) {
	now, ok := n.listPeers(ctx)
	if !ok {
		return
	}
	if n.far.measuring.CompareAndSwap(false, true) { // while a bus stalls it takes its time
		n.wg.Go(func() {
			defer n.far.measuring.Store(false)
			n.measure(ctx)
		})
	}
	if _, self := now[n.ID()]; !self {
		// The registry has forgotten us, so it has forgotten others too:
		// nobody is dead because of that.
		n.beat(ctx)
	}
	if n.mayJudge(now) {
		n.bury(ctx, now)
	}
	lead := n.cfg.Lead
	if lead == nil {
		lead = func(ctx context.Context) (bool, error) {
			return n.cfg.Registry.Lead(ctx, n.ID(), max(n.cfg.DeadAfter, 2*n.cfg.CheckEvery))
		}
	}
	lctx, cancel := context.WithTimeout(ctx, n.cfg.CheckEvery)
	defer cancel()
	if mine, err := lead(lctx); err != nil || !mine {
		return
	}
	dead, err := n.cfg.Registry.Sweep(lctx)
	if err != nil {
		n.count.registryErrors.Add(1)
	}
	for _, id := range dead {
		n.cfg.Report(Report{What: nodeSwept, Node: id})
	}
}

// orphans is how many streams of dead owners are seen to at once.
const orphans = 16

// bury sees to the streams that nobody who lives cares for: each owner is asked
// once whether it is really dead, and then their streams have their turn, many
// at a time.
func (n *Node) bury(ctx context.Context, living map[string]registry.Node) {
	byOwner := map[string][]*Stream{}
	for _, s := range n.all(func(s *Stream) bool { return !s.owned.Load() && !s.over.Load() }) {
		if owner := s.Record().Owner; !n.cares(living, owner) {
			byOwner[owner] = append(byOwner[owner], s)
		}
	}
	var wg sync.WaitGroup
	room := make(chan struct{}, orphans)
	for owner, streams := range byOwner {
		wg.Go(func() {
			if n.answers(ctx, owner) {
				return
			}
			for _, s := range streams {
				room <- struct{}{}
				wg.Go(func() {
					defer func() { <-room }()
					n.reconsider(ctx, s, owner)
				})
			}
		})
	}
	wg.Wait()
}

// answers reports whether another node answers over the bus, whatever the
// registry says of it.
func (n *Node) answers(ctx context.Context, node string) bool {
	if node == n.ID() {
		return false
	}
	ctx, cancel := context.WithTimeout(ctx, n.cfg.Ask)
	defer cancel()
	_, err := n.call(ctx, node, bus.Message{Kind: kindAsk})
	return errors.Is(err, ErrUnknown) // nobody has the zero stream
}

// disowns reports whether another node says that a stream is not its own, nor
// about to be.
func (n *Node) disowns(ctx context.Context, node string, id sse.StreamID) bool {
	ctx, cancel := context.WithTimeout(ctx, n.cfg.Ask)
	defer cancel()
	_, err := n.call(ctx, node, bus.Message{Kind: kindAsk, Stream: id})
	return errors.Is(err, ErrUnknown)
}

// listedSince reports whether we are among the nodes that live, and have been for
// Config.DeadAfter, so that everybody had the time to register as well.
func (n *Node) listedSince(now map[string]registry.Node, when *time.Time) bool {
	n.mu.Lock()
	at := *when
	n.mu.Unlock()
	_, self := now[n.ID()]
	return self && time.Since(at) >= n.cfg.DeadAfter
}

// mayJudge reports whether absence from the list means death: not while the
// registry has forgotten us too, nor until everybody had the time to register
// again after that, nor as long as this node is young.
func (n *Node) mayJudge(now map[string]registry.Node) bool { return n.listedSince(now, &n.lapsed) }

// settled reports whether no node has gone of late, whose streams may not have
// found another owner yet.
func (n *Node) settled() bool {
	died := time.Duration(n.died.Load())
	return died == 0 || time.Since(n.cfg.Self.Started)-died >= n.cfg.DeadAfter
}

// knows reports whether the list has all who live, as far as the registry has
// forgotten nobody who did not have the time to register again.
func (n *Node) knows(now map[string]registry.Node) bool { return n.listedSince(now, &n.forgotten) }

// cares reports whether a stream of that owner is in good hands: those of
// another node that lives. A replica whose owner is this node was claimed, and
// then the log could not be reached.
func (n *Node) cares(now map[string]registry.Node, owner string) bool {
	_, alive := now[owner]
	return alive && owner != n.ID()
}

// reconsider looks again who owns a replica's stream, and acts when that is
// nobody: follow the new owner, take over, or say that it is lost.
// dead is an owner that is known to be dead, "" for none.
func (n *Node) reconsider(ctx context.Context, s *Stream, dead string) {
	if !s.acquire() { // or the last client that leaves takes it away meanwhile
		return
	}
	defer s.Release()
	if !s.thinking.CompareAndSwap(false, true) {
		return
	}
	defer s.thinking.Store(false)
	if s.owned.Load() || s.over.Load() { // while somebody waited for its turn
		return
	}
	gctx, cancel := context.WithTimeout(ctx, n.cfg.Ask)
	defer cancel()
	rec, err := n.cfg.Registry.Get(gctx, s.ID)
	forgotten := errors.Is(err, registry.ErrUnknown)
	switch {
	case err != nil && !forgotten:
		return // nothing is known; the next check asks again
	case forgotten:
		rec = s.Record()
	default:
		s.mu.Lock()
		moved := rec.Owner != s.rec.Owner
		if was := &s.rec; rec.State == registry.StateStarting { // the registry may be late
			rec.State, rec.Head, rec.UpstreamID = was.State, was.Head, was.UpstreamID
			rec.UpstreamIDs, rec.UpstreamRetry = was.UpstreamIDs, was.UpstreamRetry
		}
		s.rec = rec
		if rec.State != registry.StateStarting {
			s.open()
		}
		s.mu.Unlock()
		if moved && rec.Owner != n.ID() {
			s.refollow(ctx, s.fastest())
		}
		if moved || rec.State == registry.StateEnded {
			s.readOn(gctx, rec.Epoch)
		}
		if s.over.Load() || rec.State == registry.StateRefused {
			return
		}
		// An end that is not in the log is its owner's to write, like all else.
	}
	if rec.Owner != dead || dead == "" {
		peers, ok := n.listPeers(gctx)
		if !ok || !n.mayJudge(peers) {
			return
		}
		if n.cares(peers, rec.Owner) {
			// Unless it says that it does not: it claimed the stream from a
			// dead one, say, and then it could not reach the log.
			if !n.disowns(ctx, rec.Owner, s.ID) {
				return
			}
		} else if n.answers(ctx, rec.Owner) { // the registry says dead; it knows better
			return
		}
	}
	if s.deserted() {
		return // whoever comes back finds it as we did
	}
	if forgotten {
		// As the dead owner would have registered it, so that one of us can
		// claim it; if another was faster, the claim says so.
		if err := n.cfg.Registry.Put(gctx, []registry.Record{rec}, n.keeps()); err != nil && err[0] != nil {
			return
		}
	}
	n.succeed(ctx, s, rec)
}

// succeed makes this node the owner of a dead node's stream, in order to go
// on with it where the route allows that, else to end it.
func (n *Node) succeed(ctx context.Context, s *Stream, rec registry.Record) {
	ctx, cancel := context.WithTimeout(ctx, 2*time.Second)
	defer cancel()
	old := rec.Epoch
	rec.Owner, rec.Epoch = n.ID(), newEpoch(max(old, s.Record().Tail.Epoch))
	goOn := len(rec.Request) > 0 && n.cfg.Resume != nil && rec.State == registry.StateLive && !n.cfg.Draining()
	// That it has ended is said once the log has the end: who comes before
	// that follows it like any other.
	if err := n.cfg.Registry.Claim(ctx, rec, old, n.keeps()); err != nil {
		return // somebody else was first, or nothing is known: the next check tells
	}
	limits := s.local.Limits
	if limits.TTL == 0 {
		limits.TTL = n.keeps()
	}
	last, err := n.cfg.Log.Fence(ctx, s.ID, rec.Epoch, limits)
	if err != nil && !errors.Is(err, reconnect.ErrUnknown) {
		n.cfg.Report(Report{What: "dead owner's log could not be fenced", Stream: s.ID, Node: rec.Owner, Err: err})
		return
	}
	s.readOn(ctx, rec.Epoch)
	ahead := uint64(0)
	if !goOn {
		ahead = s.fastest() // clients that have more than the log ever got are to see the end too
	}
	s.feed.Lock()
	s.tail.Epoch = rec.Epoch
	if !goOn || err != nil {
		last.Pos.Seq = max(s.tail.Seq, last.Pos.Seq, ahead)
	}
	s.tail.Seq = last.Pos.Seq
	s.term.Store(&term{old: last.Pos.Epoch, fence: s.tail})
	s.hub.Append([]sse.Frame{{Pos: s.tail, Kind: sse.KindFence}})
	s.logged.Store(s.tail.Seq)
	s.mu.Lock()
	over := s.over.Load()
	if over { // the log has its end: nothing is lost
		rec.State, rec.End = s.rec.State, s.rec.End
	}
	s.rec = rec
	s.spec.Limits = limits
	s.spec.Route, s.spec.Principal, s.spec.Request = rec.Route, rec.Principal, rec.Request
	s.minter = reconnect.NewMinter(s.ID, n.tag, rec.Epoch)
	s.mu.Unlock()
	s.heritable, s.lapse = len(rec.Request) > 0, n.lapse()
	s.owned.Store(true)
	s.feed.Unlock()
	if over {
		s.finish(rec.End)
		return
	}
	n.count.takeovers.Add(1)
	if goOn {
		n.cfg.Report(Report{What: "stream taken over from a dead node", Stream: s.ID})
		n.cfg.Resume(s, rec, last)
		return
	}
	n.cfg.Report(Report{What: "stream lost with a dead node", Stream: s.ID})
	s.Fail(sse.EndLost, "upstream_lost", "the node that read the upstream died")
}

// tend forgets ended streams and followers that have not been heard of.
func (n *Node) tend(ctx context.Context) {
	tick := time.NewTicker(max(n.cfg.TailCheck/2, 10*time.Millisecond))
	defer tick.Stop()
	for {
		select {
		case <-ctx.Done():
			return
		case <-tick.C:
			n.expire(time.Now())
		}
	}
}

func (n *Node) expire(now time.Time) {
	n.mu.Lock()
	ended := n.ended
	n.ended = nil
	n.mu.Unlock()
	var keep []*Stream
	for _, s := range ended {
		age := now.Sub(s.ended())
		flushed := s.logged.Load() >= s.hub.Tail().Seq
		if age < max(n.cfg.Grace, s.spec.JoinFor) || !flushed && age < s.spec.Limits.TTL {
			keep = append(keep, s)
			continue
		}
		n.forget(s)
	}
	n.mu.Lock()
	n.ended = append(keep, n.ended...)
	for key, b := range n.keys {
		if !b.until.IsZero() && now.After(b.until) {
			delete(n.keys, key)
		}
	}
	n.mu.Unlock()
	for _, s := range n.all(func(s *Stream) bool { return s.owned.Load() }) {
		s.mu.Lock()
		for id, in := range s.nodes {
			if now.Sub(in.seen) > 4*n.cfg.TailCheck {
				delete(s.nodes, id)
				s.wanted.Store(len(s.nodes) > 0)
			}
		}
		s.settle()
		s.mu.Unlock()
	}
}

func (s *Stream) ended() time.Time {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.endedAt
}

package cluster

import (
	"bytes"
	"context"
	"encoding/binary"
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

// joinLook is how long who joins a stream waits to be told that the upstream
// has answered before it looks again who would know.
const joinLook = time.Second

// Join opens the stream that holds a key, for a client from the start, and
// waits until its upstream has answered, at most until ctx is done. ErrUnknown
// when there is no stream to join after all: its upstream answered with
// something else, or its owner died before.
func (n *Node) Join(ctx context.Context, now registry.Bid, local func(registry.Record) Local) (*Stream, error) {
	s := n.lookup(now.Stream)
	for s != nil && s.owned.Load() && !s.hasBegun(ctx, joinLook) {
		s.Release()
		if ctx.Err() != nil {
			return nil, ErrUnavailable
		}
		s = n.lookup(now.Stream) // unless it was taken from us
	}
	if s == nil || !s.hasBegun(ctx, 0) {
		rec, err := n.started(ctx, now)
		if err == nil && s == nil {
			// The owner's tag, since the registry may not have heard of it yet.
			s, err = n.Open(ctx, now.Stream, reconnect.OwnerTag(rec.Owner), sse.Pos{}, local)
		}
		if err != nil {
			if s != nil {
				s.Release()
			}
			return nil, err
		}
		s.learn(rec)
	}
	if s.Record().State == registry.StateRefused {
		s.Release()
		return nil, ErrUnknown
	}
	return s, nil
}

// started waits for the record of a stream of another node's whose upstream has
// answered, at most until ctx is done. The owner tells when it does; no message
// is relied on, since all is asked again. Errors: as Join.
func (n *Node) started(ctx context.Context, now registry.Bid) (registry.Record, error) {
	for {
		err := error(ErrUnavailable)
		var rec registry.Record
		if now.Owner != n.ID() {
			actx, cancel := context.WithTimeout(ctx, joinLook)
			rec, err = n.call(actx, now.Owner, bus.Message{Kind: kindAsk, Stream: now.Stream, Body: []byte{1}})
			cancel()
		}
		answered, forgotten := err == nil, errors.Is(err, ErrUnknown)
		if !answered {
			gctx, cancel := context.WithTimeout(ctx, n.cfg.Ask)
			rec, err = n.cfg.Registry.Get(gctx, now.Stream)
			cancel()
		}
		known := err == nil || errors.Is(err, registry.ErrUnknown)
		switch {
		case err == nil && rec.State == registry.StateRefused:
			return rec, ErrUnknown
		case err == nil && rec.State != registry.StateStarting:
			return rec, nil
		case err == nil && rec.Owner != now.Owner:
			now.Owner = rec.Owner
		case now.Owner == n.ID() && n.local(now.Stream) == nil:
			if !known {
				return rec, ErrUnavailable
			}
			return rec, ErrUnknown // it was ours, and is no more
		case forgotten && known && err != nil:
			return rec, ErrUnknown // neither its owner nor the registry has it
		case !answered && known:
			peers := *n.peers.Load()
			if _, alive := peers[now.Owner]; !alive && n.mayJudge(peers) {
				return rec, ErrUnknown
			}
		}
		if ctx.Err() != nil {
			return rec, ErrUnavailable
		}
		sleep(ctx, 20*time.Millisecond)
	}
}

// hasBegun waits so long, and no longer than ctx, for the upstream's answer.
func (s *Stream) hasBegun(ctx context.Context, wait time.Duration) bool {
	select {
	case <-s.begun:
		return true
	default:
	}
	if wait <= 0 {
		return false
	}
	look := time.NewTimer(wait)
	defer look.Stop()
	select {
	case <-s.begun:
		return true
	case <-look.C:
	case <-ctx.Done():
	}
	return false
}

// addPrint notes that a request's fingerprint leads to a stream.
func (n *Node) addPrint(print string, s *Stream) {
	s.mu.Lock()
	s.print, s.printed = print, time.Now()
	s.mu.Unlock()
	n.mu.Lock()
	if !slices.Contains(n.prints[print], s.ID) {
		n.prints[print] = append(n.prints[print], s.ID)
	}
	n.mu.Unlock()
	n.regs.do(func(ctx context.Context) error {
		return n.cfg.Registry.AddPrint(ctx, print, s.ID, n.keeps())
	})
}

// ErrPending says that a stream of this request exists, but who could say
// whether it has the client's event does not answer: the stream may be about
// to change its owner.
var ErrPending = errors.New("cluster: a stream of this request is between two owners")

// ByPrint finds the one stream that a request with this fingerprint led to
// and that has an event with this id of the backend's, and its position.
// ErrUnknown when none has it, or several; ErrPending; ErrUnavailable when that
// is not known: while the registry is away the peers' memory is asked, and only
// all of them together can say that there is none.
func (n *Node) ByPrint(ctx context.Context, print string, id []byte) (Place, error) {
	n.mu.Lock()
	here := slices.Clone(n.prints[print])
	n.mu.Unlock()
	// A stream of this node's needs nobody else.
	if found, err := n.search(ctx, here, id); err != nil || len(found) > 0 {
		return only(found, err)
	}
	rctx, cancel := context.WithTimeout(ctx, n.cfg.Ask)
	defer cancel()
	more, err := n.cfg.Registry.ByPrint(rctx, print)
	if err != nil {
		found, all := n.askAll(ctx, print, id)
		if len(found) == 0 && !all {
			return Place{}, ErrUnavailable
		}
		return only(found, nil)
	}
	elsewhere := slices.DeleteFunc(more, func(id sse.StreamID) bool { return slices.Contains(here, id) })
	if found, err := n.search(ctx, elsewhere, id); err != nil || len(found) > 0 {
		return only(found, err)
	}
	// The client may be back before its stream's fingerprint has reached the
	// registry: its owner knows.
	found, all := n.askAll(ctx, print, id)
	if len(found) == 0 && !all && n.emptied(ctx) {
		return Place{}, ErrUnavailable
	}
	return only(found, nil)
}

// emptied reports whether the registry has lost what it had, and not all of it
// may be there again.
func (n *Node) emptied(ctx context.Context) bool {
	n.mu.Lock()
	begun := !n.lapsed.IsZero()
	n.mu.Unlock()
	if !begun {
		return false // it never had anything of ours
	}
	ctx, cancel := context.WithTimeout(ctx, n.cfg.Ask)
	defer cancel()
	peers, ok := n.listPeers(ctx)
	return !ok || !n.knows(peers)
}

// Place is where a stream has an id of the backend's.
type Place struct {
	Stream sse.StreamID
	Pos    sse.Pos
	// Owner is the tag of the stream's owner, for Open, where it was the one
	// to say so; the registry may not know the stream yet.
	Owner [8]byte
}

// only is the one place that was found, ErrUnknown where there is not one.
func only(found []Place, err error) (Place, error) {
	switch {
	case len(found) == 1:
		return found[0], nil
	case err == nil || len(found) > 1:
		err = ErrUnknown
	}
	return Place{}, err
}

// search finds those of these streams that have an id. The error is one that
// leaves it open.
func (n *Node) search(ctx context.Context, streams []sse.StreamID, id []byte) (found []Place, open error) {
	for _, s := range streams {
		pos, err := n.FindID(ctx, s, id)
		switch {
		case err == nil:
			found = append(found, Place{Stream: s, Pos: pos})
		case !errors.Is(err, ErrUnknown):
			open = err
		}
	}
	return found, open
}

// askAll asks every live peer for a stream of its own with this fingerprint
// and this id of the backend's, at most for Config.Ask. all says that every one
// of them could tell.
func (n *Node) askAll(ctx context.Context, print string, id []byte) (found []Place, all bool) {
	body := append(binary.AppendUvarint(nil, uint64(len(print))), print...)
	known, all := n.callAll(ctx, bus.Message{Kind: kindFindPrint, Body: append(body, id...)})
	for _, rec := range known {
		if rec.Tail.Seq == 0 {
			all = false
			continue
		}
		found = append(found, Place{rec.Stream, rec.Tail, reconnect.OwnerTag(rec.Owner)})
	}
	return found, all
}

// findPrint is the answering end of askAll: what this node's memory has,
// nothing where it has several. Where it has none, but not all of a stream
// either, the answer names that stream and no place.
func (n *Node) findPrint(question []byte) (rec registry.Record, ok bool) {
	size, k := binary.Uvarint(question)
	if k <= 0 || size > uint64(len(question)-k) {
		return rec, false
	}
	print, id := question[k:k+int(size)], question[k+int(size):]
	n.mu.Lock()
	streams := slices.Clone(n.prints[string(print)])
	n.mu.Unlock()
	for _, sid := range streams {
		s := n.local(sid)
		if s == nil || !s.owned.Load() {
			continue
		}
		pos, whole := s.findInRing(id)
		switch {
		case pos.Seq > 0 && rec.Tail.Seq > 0:
			return rec, false
		case pos.Seq > 0 || !whole && !ok:
			rec, ok = registry.Record{Stream: sid, Owner: n.ID(), Tail: pos}, true
		}
	}
	return rec, ok
}

// FindID finds the first frame of a stream that bears an id of the backend's:
// in the log, else in the owner's ring, which has what the log does not have
// yet. Errors: ErrUnknown, ErrPending, ErrUnavailable.
func (n *Node) FindID(ctx context.Context, id sse.StreamID, want []byte) (sse.Pos, error) {
	ctx, cancel := context.WithTimeout(ctx, 3*n.cfg.Ask)
	defer cancel()
	s := n.local(id)
	mine := s != nil && s.owned.Load()
	if mine {
		switch pos, whole := s.findInRing(want); {
		case whole && pos.Seq > 0:
			return pos, nil // the first one for sure, and nobody was asked
		case whole && (!s.inherits() || s.stillOurs(ctx)):
			return sse.Pos{}, ErrUnknown
		}
		mine = s.owned.Load()
	}
	lctx, lcancel := context.WithTimeout(ctx, n.cfg.Ask)
	pos, err := n.cfg.Log.Find(lctx, id, want)
	lcancel()
	if err == nil {
		return pos, nil
	}
	if mine {
		if pos, _ := s.findInRing(want); pos.Seq > 0 {
			return pos, nil
		}
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
	if peers := *n.peers.Load(); !n.cares(peers, rec.Owner) && n.mayJudge(peers) {
		return sse.Pos{}, unknownOr(err) // it died before the log had the event: nobody has it any more
	}
	return sse.Pos{}, ErrPending
}

func unknownOr(err error) error {
	if errors.Is(err, reconnect.ErrUnknown) {
		return ErrUnknown
	}
	return ErrUnavailable
}

// findInRing finds the first frame in memory that bears an id, the zero Pos for
// none. whole says that memory has the stream from its beginning.
func (s *Stream) findInRing(id []byte) (at sse.Pos, whole bool) {
	frames := s.hub.Frames(0, 1<<20, 1<<30)
	whole = len(frames) > 0 && frames[0].Pos.Seq == 1
	for _, f := range frames {
		if bytes.Equal(f.ID, id) {
			return f.Pos, whole
		}
	}
	return sse.Pos{}, whole
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

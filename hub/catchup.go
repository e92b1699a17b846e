package hub

import (
	"context"
	"errors"
	"math/rand/v2"
	"sync"
	"time"

	"ssegate/sse"
)

const (
	// readTimeout bounds one Read of a Source.
	readTimeout = 5 * time.Second
	// patience is how long a follower waits for a Source that does not have
	// what the ring no longer has, or fails.
	patience = 10 * time.Second
	// pageFrames and pageBytes are the size of a page: the first one, and
	// what the later ones aim at.
	pageFrames = 32
	pageBytes  = 256 << 10
	// copyBytes is how much of a page is framed at once.
	copyBytes = 32 << 10
)

// ErrNotYet is the answer of a Source that cannot say anything now and will be
// able to: the follower waits for as long as that takes, with heartbeats.
var ErrNotYet = errors.New("hub: not to be read yet")

// A catchUp is the state of a follower that is away from the ring.
type catchUp struct {
	page  []sse.Frame // read and not yet written; shared
	max   int         // frames to ask for
	fell  bool        // the ring left it behind
	noted bool        // the last thing written was a note, so numbers may be missing
	end   uint32      // as Stream.end, when the page had it

	state catchState
	tries int    // in a row that brought nothing
	since uint32 // tick of the first of them
	again uint32 // tick of the next one
	woken uint32 // tick of the last one that a Flush called for
}

type catchState uint8

const (
	idle    catchState = iota
	queued             // for a slot of the pool
	reading            // has one
	waiting            // for the Source to get what it lacks
)

// goCatch begins a catch-up: the frame that comes next is not in the ring.
func (f *Follower) goCatch(fell bool) {
	f.catch = &catchUp{max: pageFrames, fell: fell}
	f.s.h.count.catching.Add(1)
	f.s.h.count.catchUps.Add(1)
}

func (f *Follower) endCatch() {
	if f.catch == nil {
		return
	}
	if f.catch.state == waiting {
		f.s.unqueue(f)
	}
	f.catch = nil
	f.s.h.count.catching.Add(-1)
}

// catchUp takes the next step of a follower that is away from the ring.
func (f *Follower) catchUp() (verdict, bool) {
	c, s := f.catch, f.s
	switch {
	case len(c.page) > 0:
		f.copyPage()
		return verdict{}, false
	case c.end != 0:
		how := sse.End(c.end &^ endSet)
		f.parting = &parting{why: reasonOf(how), clean: how.Clean()}
		return verdict{}, false
	case f.flip(false):
		return verdict{}, false
	case c.fell && s.o.Slow == SlowCut:
		f.parting = &parting{why: ReasonSlow}
		return verdict{}, false
	case s.o.Source == nil:
		f.parting = &parting{why: ReasonGap}
		return verdict{}, false
	}
	f.blocked = false
	f.parked.Store(true)
	if c.state != idle {
		return verdict{}, true
	}
	c.state = queued
	return verdict{do: read}, true
}

// flip goes back to the ring if that has what comes next; asked says that the
// Source has nothing.
func (f *Follower) flip(asked bool) bool {
	s := f.s
	s.mu.Lock()
	seg, at, ok := s.locate(f.at(), asked)
	if ok {
		f.enter(seg, at)
	}
	s.mu.Unlock()
	if ok {
		f.endCatch()
	}
	return ok
}

// copyPage frames the next part of the page.
func (f *Follower) copyPage() {
	c := f.catch
	p := &private{pos: f.at()}
	for len(c.page) > 0 && len(p.rest) < copyBytes {
		fr := &c.page[0]
		switch {
		case fr.Kind == sse.KindNote:
			p.rest = f.frame(p.rest, fr.Block)
			c.noted = true
			if fr.Pos.Seq > p.pos.Seq || fr.Pos.Epoch > p.pos.Epoch {
				p.pos = fr.Pos
			}
		case fr.Kind == sse.KindFence || fr.Pos.Seq <= p.pos.Seq && fr.Pos.Epoch <= p.pos.Epoch:
		case fr.Pos.Seq != p.pos.Seq+1 && !c.noted:
			if len(p.rest) == 0 {
				c.page = nil
				f.parting = &parting{why: ReasonGap}
			}
			f.pended(p)
			return
		case !f.wants(fr):
			p.pos, c.noted = fr.Pos, false
			f.s.h.count.skipped.Add(1)
		default:
			block := fr.Block
			if f.retry > 0 && fr.Kind == sse.KindEvent {
				p.rest = f.withRetry(p.rest, block)
			} else {
				p.rest = f.frame(p.rest, block)
			}
			p.pos, c.noted = fr.Pos, false
			f.s.h.count.deliveries.Add(1)
			if fr.Kind == sse.KindEnd {
				c.end = endSet | uint32(fr.End)
				c.page = nil
				f.pended(p)
				return
			}
		}
		c.page = c.page[1:]
	}
	f.pended(p)
}

// pended makes p what is written next.
func (f *Follower) pended(p *private) {
	if len(p.rest) > 0 {
		f.pend = p
	} else {
		f.reach(p.pos)
	}
}

// took puts a page that was read in hand, or has the follower wait.
func (f *Follower) took(page []sse.Frame, err error) verdict {
	c, s := f.catch, f.s
	c.state = idle
	after, bytes, fresh := f.at(), 0, false
	for i := range page {
		pos := page[i].Pos
		bytes += len(page[i].Block)
		fresh = fresh || (pos.Seq > after.Seq || pos.Epoch > after.Epoch) && page[i].Kind != sse.KindFence
	}
	if fresh {
		c.page, c.tries = page, 0
		c.max = min(max(pageBytes/max(bytes/len(page), 1), 8), 16*pageFrames)
		return f.advance()
	}
	now := s.h.now()
	c.tries++
	later := errors.Is(err, ErrNotYet)
	if later {
		c.since = now
	}
	switch {
	case (err == nil || later) && s.closed.Load():
		f.parting = &parting{why: ReasonClosed}
		return f.advance()
	case now-c.since > s.h.ticks(patience):
		f.parting = &parting{why: ReasonGap}
		if err != nil {
			f.parting.why = ReasonSource
		}
		return f.advance()
	case f.flip(true):
		return f.advance()
	}
	c.state = waiting
	c.again = now + 1 + rand.Uint32N(uint32(min(c.tries, 5)))
	s.mu.Lock()
	if s.waiters == nil {
		s.waiters = make(map[*Follower]struct{})
	}
	s.waiters[f] = struct{}{}
	s.stuck.Store(int32(len(s.waiters)))
	s.mu.Unlock()
	s.h.wheel.put(f, f.nextLook())
	return verdict{}
}

// requeue has a follower that waits try its Source again.
func (f *Follower) requeue() verdict {
	f.catch.state = queued
	f.s.unqueue(f)
	return verdict{do: read}
}

func (s *Stream) unqueue(f *Follower) {
	s.mu.Lock()
	delete(s.waiters, f)
	s.stuck.Store(int32(len(s.waiters)))
	s.mu.Unlock()
}

// retry has those who wait for the Source try again: at once when the log is
// known to have grown, once a tick when only the ring has.
func (s *Stream) retry(ring bool) {
	s.mu.Lock()
	all := make([]*Follower, 0, len(s.waiters))
	for f := range s.waiters {
		all = append(all, f)
	}
	s.mu.Unlock()
	now := s.h.now()
	for _, f := range all {
		f.mu.Lock()
		var v verdict
		if c := f.catch; c != nil && c.state == waiting && (!ring || c.woken != now) {
			if ring {
				c.woken = now
			}
			v = f.requeue()
		}
		f.mu.Unlock()
		f.act(v)
	}
}

// catchUps is the pool that reads from Sources. A slot is held for one Read,
// never for a client: that the page is written is the follower's affair.
type catchUps struct {
	h       *Hub
	mu      sync.Mutex
	queue   []*Follower
	running int
}

func (p *catchUps) add(f *Follower) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.queue = append(p.queue, f)
	if p.running < p.h.cfg.CatchUps && p.h.spawn(p.work) {
		p.running++
	}
}

func (p *catchUps) work() {
	for {
		p.mu.Lock()
		if len(p.queue) == 0 || p.h.ctx.Err() != nil {
			p.running--
			p.mu.Unlock()
			return
		}
		f := p.queue[0]
		p.queue[0] = nil
		p.queue = p.queue[1:]
		p.mu.Unlock()
		p.read(f)
	}
}

// read gets the next page for a follower.
func (p *catchUps) read(f *Follower) {
	f.mu.Lock()
	c := f.catch
	if c == nil {
		f.mu.Unlock()
		return
	}
	c.state = reading
	if c.tries == 0 {
		c.since = p.h.now()
	}
	after := f.at()
	f.mu.Unlock()
	ctx, cancel := context.WithTimeout(p.h.ctx, readTimeout)
	page, err := f.s.o.Source.Read(ctx, after, c.max)
	cancel()
	f.mu.Lock()
	var v verdict
	if f.catch == c {
		v = f.took(page, err)
	}
	f.mu.Unlock()
	f.act(v)
}

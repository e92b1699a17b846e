package hub

import (
	"slices"

	"ssegate/sse"
)

// advance writes until there is nothing more, or no room. It is the only
// place that writes events. The caller holds the lock.
func (f *Follower) advance() verdict {
	if f.state != following {
		return verdict{}
	}
	// Before the ring is looked at: who appends either sees this, or is seen.
	f.parked.Store(false)
	// No further than this: who appends more will flush it, and others wait.
	upTo := f.s.appended.Load()
	for {
		var v verdict
		var done bool
		switch {
		case f.pend != nil:
			v, done = f.drain()
		case f.parting != nil && !f.mid:
			v, done = f.part()
		case f.seg.Load() != nil:
			v, done = f.live(upTo)
		default:
			v, done = f.catchUp()
		}
		if done {
			return v
		}
	}
}

// drain writes what is private.
func (f *Follower) drain() (verdict, bool) {
	p := f.pend
	n, v, ok := f.write(p.rest)
	p.rest = p.rest[n:]
	if !ok {
		return v, true
	}
	if len(p.rest) > 0 {
		return f.block(), true
	}
	f.pend = nil
	if !p.pos.IsZero() {
		f.reach(p.pos)
	}
	return verdict{}, false
}

// part says goodbye, and leaves when that is written.
func (f *Follower) part() (verdict, bool) {
	p := f.parting
	if p.said {
		how := CloseFlush
		if !p.clean && !f.chunked {
			how = CloseReset
		}
		return f.leaving(p.why, how), true
	}
	p.said = true
	bye := withEOL(p.bye, f.s.beat.Load().eol)
	if f.chunked {
		bye = appendChunk(nil, bye)
		if p.clean {
			bye = append(bye, lastChunk...)
		}
	}
	if len(bye) > 0 {
		f.pend = &private{rest: bye}
	}
	return verdict{}, false
}

// live writes from the ring: everything of one segment at once, as far as it
// goes to all followers alike, but not beyond so many frames of the stream.
func (f *Follower) live(frames uint64) (verdict, bool) {
	s, seg := f.s, f.seg.Load()
	// In this order: what was published before the end, is in n.
	end, closed := s.end.Load(), s.closed.Load()
	next := seg.next.Load()
	n := seg.n.Load()
	if f.idx == n {
		switch {
		case next != nil:
			f.enter(next, 0)
			return verdict{}, false
		case seg.moved.Load() != nil: // also after end
			f.move(seg.moved.Load())
			return verdict{}, false
		case end != 0:
			how := sse.End(end &^ endSet)
			f.parting = &parting{why: reasonOf(how), clean: how.Clean()}
			return verdict{}, false
		case closed:
			f.parting = &parting{why: ReasonClosed}
			return verdict{}, false
		}
		f.blocked = false
		return verdict{}, true
	}
	if seg.first+uint64(f.idx) >= frames {
		f.blocked = false
		return verdict{}, true
	}
	if !f.mid {
		switch f.check(seg, &seg.index[f.idx]) {
		case skip:
			f.idx, f.off = f.idx+1, seg.index[f.idx].end
			return verdict{}, false
		case hole:
			f.enter(nil, 0)
			f.goCatch(false)
			return verdict{}, false
		}
	}
	upTo := n
	if f.choice != nil {
		if !f.chunked {
			upTo = f.idx + 1
		}
		if upTo = f.wanted(seg, upTo); upTo == f.idx {
			f.passOver(seg)
			return verdict{}, false
		}
	}
	if f.retry > 0 {
		if e := &seg.index[f.idx]; e.kind == sse.KindEvent && !f.mid {
			from, to := e.block()
			f.pend = &private{rest: f.withRetry(nil, seg.buf[from:to]), pos: sse.Pos{Epoch: seg.epoch, Seq: e.seq}}
			f.idx, f.off = f.idx+1, e.end
			return verdict{}, false
		}
		all := upTo
		for upTo = f.idx + 1; upTo < all && seg.index[upTo].kind != sse.KindEvent; upTo++ {
		}
	}
	if !f.chunked {
		return f.liveBlock(seg)
	}
	to := seg.index[upTo-1].end
	if f.off < to {
		wrote, v, ok := f.write(seg.buf[f.off:to])
		f.off += uint32(wrote)
		if !ok {
			return v, true
		}
	}
	if f.off == to {
		f.passed(seg, upTo)
		return verdict{}, false
	}
	at := f.idx
	for seg.index[at].end <= f.off {
		at++
	}
	f.passed(seg, at)
	f.mid = f.off > seg.index[at].start
	return f.block(), true
}

// liveBlock writes one block without chunk framing.
func (f *Follower) liveBlock(seg *segment) (verdict, bool) {
	e := &seg.index[f.idx]
	from, to := e.block()
	at := max(f.off, from)
	if at < to {
		wrote, v, ok := f.write(seg.buf[at:to])
		if !ok {
			return v, true
		}
		at += uint32(wrote)
		if at < to {
			f.off, f.mid = at, at > from
			return f.block(), true
		}
	}
	f.off = e.end
	f.passed(seg, f.idx+1)
	return verdict{}, false
}

type place uint8

const (
	right place = iota // comes next
	skip               // the follower has it already
	hole               // something is missing before it
)

// check says how an entry stands to what the follower has.
func (f *Follower) check(seg *segment, e *entry) place {
	want := f.seq.Load()
	if e.numbered() {
		want++
	}
	switch {
	case e.seq < want && !e.numbered():
		return skip
	case !seg.vouches(f.at()):
		return hole // the Source knows whether the follower has frames that count no more
	case e.seq < want:
		return skip
	case e.seq > want:
		return hole
	}
	return right
}

// passed notes that all entries before at are wholly written.
func (f *Follower) passed(seg *segment, at int32) {
	f.mid = false
	if at == f.idx {
		return
	}
	before := f.seq.Load()
	f.idx = at
	f.reach(sse.Pos{Epoch: seg.epoch, Seq: seg.index[at-1].seq})
	f.s.h.count.deliveries.Add(int64(f.seq.Load() - before))
}

func (f *Follower) reach(p sse.Pos) {
	f.epoch = p.Epoch
	if back := f.seq.Swap(p.Seq) > p.Seq; back {
		f.s.mu.Lock()
		f.s.dirty = true
		f.s.mu.Unlock()
	}
	f.s.reached(p.Seq)
}

// withRetry appends an event's block with the retry hint inside, framed for
// this follower, who has been told then.
func (f *Follower) withRetry(dst, block []byte) []byte {
	told := sse.AppendRetry(nil, block, int(f.retry), f.s.beat.Load().eol)
	f.retry = 0
	return f.frame(dst, told)
}

// frame appends bytes in the follower's framing.
func (f *Follower) frame(dst, b []byte) []byte {
	if f.chunked {
		return appendChunk(dst, b)
	}
	return append(dst, b...)
}

// write makes one attempt. When it fails ok is false and v says what follows.
func (f *Follower) write(p []byte) (n int, v verdict, ok bool) {
	n, err := f.conn.TryWrite(p)
	if n > 0 {
		f.lastWrite = f.s.h.now()
		f.blocked = false
		f.s.h.count.bytes.Add(int64(n))
	}
	if err != nil {
		return n, f.leaving(reasonOfError(err), CloseNow), false
	}
	return n, verdict{}, true
}

// block waits for the connection to tell that there is room.
func (f *Follower) block() verdict {
	if !f.blocked {
		f.blocked = true
		f.lastWrite = f.s.h.now()
	}
	f.parked.Store(true)
	return verdict{}
}

// fallOff takes a follower that is blocked out of a dropped segment. What is
// half written is kept for it.
func (f *Follower) fallOff() {
	seg := f.seg.Load()
	for seg != nil && seg.gone.Load() {
		n := seg.n.Load()
		if next := seg.next.Load(); f.idx == n && n == seg.n.Load() && next != nil {
			f.enter(next, 0)
			seg = next
			continue
		}
		if f.mid {
			e := &seg.index[f.idx]
			to := e.end
			if !f.chunked {
				_, to = e.block()
			}
			f.pend = &private{rest: slices.Clone(seg.buf[f.off:to]), pos: sse.Pos{Epoch: seg.epoch, Seq: e.seq}}
		}
		f.enter(nil, 0)
		f.goCatch(true)
		return
	}
}

package hub

import (
	"errors"
	"slices"
	"sync"
	"sync/atomic"
	"syscall"
	"time"

	"ssegate/sse"
)

// FollowOptions say how a client follows a stream.
type FollowOptions struct {
	// After is the last position that the client has; only its Seq counts.
	// Zero: from the start.
	After sse.Pos
	// Head is the HTTP response head; it is written first, as it is.
	Head []byte
	// Chunked is HTTP/1.1 chunk framing. Without it the body ends with the
	// connection (HTTP/1.0), and a cut is a reset.
	Chunked bool
	// Retry, when above 0, rides inside the first event that this follower
	// gets.
	Retry time.Duration
	// Heartbeat is the silence after which one is written; 0: none.
	Heartbeat time.Duration
	// WriteTimeout is how long a blocked follower may make no progress
	// before it is cut with ReasonSlow; default 30s.
	WriteTimeout time.Duration
	// Tag is the caller's own.
	Tag any
}

// A Follower is one client on one stream. While the client keeps up it is a
// place in the ring; else it reads pages from the stream's Source, until the
// ring has what it needs next.
type Follower struct {
	s    *Stream
	conn Conn
	tag  any

	parked atomic.Bool             // Flush has nothing to do here: blocked, or away at the Source
	seq    atomic.Uint64           // last frame wholly handed over; changes under mu
	seg    atomic.Pointer[segment] // where the cursor is; nil while catching up; changes under mu

	mu      sync.Mutex
	epoch   uint64 // of seq
	idx     int32  // next entry of seg
	off     uint32 // next byte of seg.buf
	pend    *private
	catch   *catchUp
	parting *parting

	retry     uint32 // milliseconds still to be told
	heartbeat uint32 // ticks; 0: none
	timeout   uint32 // ticks
	lastWrite uint32 // tick
	blockedAt uint32 // tick

	state   state
	chunked bool
	mid     bool // the cursor is inside an event
	blocked bool // the connection takes nothing now

	// The hub's lists, under their locks.
	slot      int32
	wheelAt   int32
	wheelNext *Follower
	wheelPrev *Follower
}

type state uint8

const (
	joining state = iota // not yet to be written to
	following
	left
)

// private is what only this follower gets: it is written before anything
// else, and then the follower has come to pos.
type private struct {
	rest []byte
	pos  sse.Pos
}

// parting is how a follower is to be ended at the next place between two
// events.
type parting struct {
	why   Reason
	bye   []byte
	clean bool
	said  bool // the goodbye is on its way
}

// verdict is what is to be done when a follower's lock is released.
type verdict struct {
	do  action
	why Reason
	how Closing
}

type action uint8

const (
	stay action = iota
	read        // a page from the Source
	leave
)

// Follow makes the client of c a follower, from o.After on. Whatever goes
// wrong, now or later, ends it through Left. c belongs to the hub and is
// closed by it.
func (s *Stream) Follow(c Conn, o FollowOptions) *Follower {
	h := s.h
	if o.WriteTimeout <= 0 {
		o.WriteTimeout = 30 * time.Second
	}
	f := &Follower{
		s: s, conn: c, tag: o.Tag, chunked: o.Chunked, slot: -1, wheelAt: -1,
		epoch: o.After.Epoch, lastWrite: h.now(),
		retry: uint32(o.Retry.Milliseconds()), heartbeat: h.ticks(o.Heartbeat), timeout: h.ticks(o.WriteTimeout),
	}
	f.seq.Store(o.After.Seq)
	if len(o.Head) > 0 {
		f.pend = &private{rest: o.Head}
	}
	f.mu.Lock()
	s.mu.Lock()
	s.insert(f)
	if seg, at, ok := s.locate(o.After.Seq); ok {
		f.enter(seg, at)
	}
	s.mu.Unlock()
	if f.seg.Load() == nil {
		f.goCatch(false)
	}
	f.mu.Unlock()
	s.unwait()
	h.count.followers.Add(1)
	if s.o.Joined != nil {
		s.o.Joined(f, "")
	}
	err := c.Start((*peer)(f), 2*o.WriteTimeout) // who merely reads slowly is found sooner, and by another name
	f.mu.Lock()
	f.state = following
	var v verdict
	switch {
	case f.parting != nil && f.parting.said: // told to end while it joined
		v = f.leaving(f.parting.why, CloseNow)
	case !h.wheel.put(f, f.nextLook()):
		v = f.leaving(ReasonShutdown, CloseNow)
	case err != nil:
		v = f.leaving(ReasonConn, CloseNow)
	default:
		v = f.advance()
	}
	f.mu.Unlock()
	f.act(v)
	return f
}

// Stream returns the stream that is followed.
func (f *Follower) Stream() *Stream { return f.s }

// Tag returns the Tag of the FollowOptions.
func (f *Follower) Tag() any { return f.tag }

// Pos returns the position of the last frame that was wholly handed to the
// connection, or a little less while the follower reads from the Source.
func (f *Follower) Pos() sse.Pos {
	f.mu.Lock()
	defer f.mu.Unlock()
	return sse.Pos{Epoch: f.epoch, Seq: f.seq.Load()}
}

// Kick ends the follower at the next place between two whole events: bye
// (whole lines, ended by "\n") is written there, then the response ends
// cleanly or is cut. Of several calls the first counts.
func (f *Follower) Kick(why Reason, bye []byte, clean bool) {
	f.mu.Lock()
	if f.parting != nil || f.state == left {
		f.mu.Unlock()
		return
	}
	f.parting = &parting{why: why, bye: bye, clean: clean}
	var v verdict
	if !f.blocked {
		v = f.advance()
	}
	f.mu.Unlock()
	f.act(v)
}

// peer is what a follower's connection talks to.
type peer Follower

func (p *peer) Writable() { (*Follower)(p).run() }

func (p *peer) Gone(err error) {
	why := reasonOfError(err)
	if why == ReasonWrite {
		why = ReasonClient // however it broke, nothing was being written
	}
	(*Follower)(p).end(why)
}

// reasonOfError tells what an error of a connection means.
func reasonOfError(err error) Reason {
	switch {
	case errors.Is(err, syscall.ETIMEDOUT):
		return ReasonGhost
	case errors.Is(err, syscall.EPIPE), errors.Is(err, syscall.ECONNRESET):
		return ReasonClient
	}
	return ReasonWrite
}

// run writes what can be written now.
func (f *Follower) run() {
	f.mu.Lock()
	v := f.advance()
	f.mu.Unlock()
	f.act(v)
}

// end ends the follower at once.
func (f *Follower) end(why Reason) {
	f.mu.Lock()
	var v verdict
	if f.state == joining {
		f.parting = &parting{why: why, said: true}
	} else {
		how := CloseNow
		if why == ReasonShutdown && f.chunked {
			how = CloseFlush
		}
		v = f.leaving(why, how)
	}
	f.mu.Unlock()
	f.act(v)
}

// evict gets the follower out of a segment that was dropped.
func (f *Follower) evict() {
	f.mu.Lock()
	var v verdict
	if !f.blocked {
		v = f.advance() // perhaps it was only not flushed yet
	}
	if f.blocked && f.state == following {
		f.fallOff()
		if f.s.o.Slow == SlowCut || f.s.o.Source == nil {
			v = f.advance() // no page to be read and kept meanwhile
		}
	}
	f.mu.Unlock()
	f.act(v)
}

// act does what a verdict says. The caller holds no lock.
func (f *Follower) act(v verdict) {
	switch v.do {
	case read:
		f.s.h.catchUps.add(f)
	case leave:
		h := f.s.h
		h.wheel.remove(f)
		f.s.remove(f)
		f.conn.Close(v.how)
		h.count.followers.Add(-1)
		h.count.leave(v.why)
		if f.s.o.Left != nil {
			f.s.o.Left(f, v.why)
		}
	}
}

// leaving is the last thing that happens under the lock.
func (f *Follower) leaving(why Reason, how Closing) verdict {
	if f.state == left {
		return verdict{}
	}
	f.state = left
	f.parked.Store(true)
	f.enter(nil, 0)
	f.endCatch()
	f.pend = nil
	return verdict{leave, why, how}
}

// enter moves the cursor to an entry of seg, or out of the ring.
func (f *Follower) enter(seg *segment, at int32) {
	f.idx, f.off, f.mid = at, 0, false
	if seg != nil {
		seg.readers.Add(1)
		if at > 0 {
			f.off = seg.index[at-1].end
		}
	}
	// Counted here or there all the time: whoever drops both sees it.
	if old := f.seg.Swap(seg); old != nil {
		old.readers.Add(-1)
	}
}

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
	if p.pos.Seq > 0 {
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
		switch f.check(&seg.index[f.idx]) {
		case skip:
			f.idx, f.off = f.idx+1, seg.index[f.idx].end
			return verdict{}, false
		case hole:
			f.enter(nil, 0)
			f.goCatch(false)
			return verdict{}, false
		}
		if f.retry > 0 && seg.index[f.idx].kind == sse.KindEvent {
			e := &seg.index[f.idx]
			from, to := e.block()
			f.pend = &private{rest: f.withRetry(nil, seg.buf[from:to]), pos: sse.Pos{Epoch: seg.epoch, Seq: e.seq}}
			f.idx, f.off = f.idx+1, e.end
			return verdict{}, false
		}
	}
	upTo := n
	if f.retry > 0 {
		for upTo = f.idx + 1; upTo < n && seg.index[upTo].kind != sse.KindEvent; upTo++ {
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
func (f *Follower) check(e *entry) place {
	want := f.seq.Load()
	if e.numbered() {
		want++
	}
	switch {
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
	f.seq.Store(p.Seq)
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
		f.blockedAt = f.s.h.now()
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

// tick looks at the follower when its time in the wheel has come.
func (f *Follower) tick(now uint32) {
	f.mu.Lock()
	if f.state == left {
		f.mu.Unlock()
		return
	}
	var v verdict
	switch {
	case f.blocked:
		if now-f.blockedAt > f.timeout {
			v = f.leaving(ReasonSlow, CloseNow)
		}
	case f.heartbeat > 0 && now-f.lastWrite > f.heartbeat:
		v = f.beat()
	}
	if c := f.catch; c != nil && c.state == waiting && int32(now-c.again) >= 0 && v.do == stay {
		v = f.requeue()
	}
	if v.do != leave {
		f.s.h.wheel.put(f, f.nextLook())
	}
	f.mu.Unlock()
	f.act(v)
}

// beat writes a heartbeat, if the follower stands between two events.
func (f *Follower) beat() verdict {
	beat := f.s.beat.Load()
	b := beat.plain
	if f.chunked {
		b = beat.chunked
	}
	if len(b) == 0 || f.pend != nil || f.mid || f.parting != nil {
		return verdict{}
	}
	f.s.h.count.heartbeats.Add(1)
	n, v, ok := f.write(b)
	if !ok {
		return v
	}
	if n < len(b) {
		f.pend = &private{rest: b[n:]}
		return f.block()
	}
	return verdict{}
}

// nextLook is the tick when the follower is next worth looking at.
func (f *Follower) nextLook() uint32 {
	now := f.s.h.now()
	in := f.timeout
	if f.blocked {
		in -= now - f.blockedAt
	}
	if f.heartbeat > 0 {
		// Also while it is blocked: it may not be for long.
		if silent := now - f.lastWrite; silent <= f.heartbeat {
			in = min(in, f.heartbeat-silent)
		} else {
			in = min(in, f.heartbeat)
		}
	}
	in++
	if c := f.catch; c != nil && c.state == waiting {
		in = min(in, uint32(max(int32(c.again-now), 1)))
	}
	return now + in
}

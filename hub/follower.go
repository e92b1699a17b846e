package hub

import (
	"errors"
	"sync"
	"sync/atomic"
	"syscall"
	"time"

	"ssegate/sse"
)

// FollowOptions say how a client follows a stream.
type FollowOptions struct {
	// After is the last position that the client has. Zero: from the start;
	// with an Epoch of 0 only its Seq counts.
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
	// Want says whether the client is to get a frame; nil: it gets all. It is
	// asked once about each event that bears Meta, ring or Source, in order.
	// A frame that it refuses is passed over, as if it had been written. It
	// is called with the follower's lock held: it must return soon and call
	// nothing of this follower or its stream.
	Want func(m FrameMeta) bool
	// Until is when Expired is called, once and a tick late at most, unless
	// the follower has left before; whoever kicks it is Expired. Zero: never.
	// No lock is held, but other followers wait meanwhile.
	Until   time.Time
	Expired func(f *Follower)
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
	slot   int32                   // in the stream's list, under its lock
	seq    atomic.Uint64           // last frame wholly handed over; changes under mu
	seg    atomic.Pointer[segment] // where the cursor is; nil while catching up; changes under mu

	mu      sync.Mutex
	since   sse.Pos
	epoch   uint64 // of seq
	idx     int32  // next entry of seg
	off     uint32 // next byte of seg.buf
	pend    *private
	catch   *catchUp
	parting *parting
	choice  *choice // nil: wants everything, for ever

	retry     uint32 // milliseconds still to be told
	heartbeat uint32 // ticks; 0: none
	timeout   uint32 // ticks
	lastWrite uint32 // tick; while blocked, of the last try that counts for the timeout

	state   state
	chunked bool
	mid     bool // the cursor is inside an event
	blocked bool // the connection takes nothing now

	// The wheel's list, under its lock.
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
		since: o.After, epoch: o.After.Epoch, lastWrite: h.now(),
		retry: uint32(o.Retry.Milliseconds()), heartbeat: h.ticks(o.Heartbeat), timeout: h.ticks(o.WriteTimeout),
	}
	f.seq.Store(o.After.Seq)
	f.choice = h.choiceOf(&o)
	if len(o.Head) > 0 {
		f.pend = &private{rest: o.Head}
	}
	f.mu.Lock()
	s.mu.Lock()
	s.insert(f)
	if seg, at, ok := s.locate(o.After, false); ok {
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
	return f.at()
}

// at is Pos for who holds the lock.
func (f *Follower) at() sse.Pos { return sse.Pos{Epoch: f.epoch, Seq: f.seq.Load()} }

// Since returns the After of the FollowOptions: what the client had when it
// came.
func (f *Follower) Since() sse.Pos { return f.since }

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
		h.count.leave(v.why) // before it hears of it, who may look at once
		f.conn.Close(v.how)
		h.count.followers.Add(-1)
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
		if now-f.lastWrite > f.timeout {
			v = f.leaving(ReasonSlow, CloseNow)
		}
	case f.heartbeat > 0 && now-f.lastWrite > f.heartbeat:
		v = f.beat()
	}
	if c := f.catch; c != nil && c.state == waiting && int32(now-c.again) >= 0 && v.do == stay {
		v = f.requeue()
	}
	var expired func(*Follower)
	if v.do != leave {
		expired = f.choice.due(now)
		f.s.h.wheel.put(f, f.nextLook())
	}
	f.mu.Unlock()
	f.act(v)
	if expired != nil {
		expired(f)
	}
	if f.s.loose.Load() {
		f.s.tighten()
	}
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
		in -= now - f.lastWrite
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
	if c := f.choice; c != nil && c.expired != nil {
		in = min(in, uint32(max(int32(c.until-now), 1)))
	}
	return now + in
}

package link

import (
	"context"
	"errors"
	"io"
	"sync"
	"sync/atomic"
	"time"

	"ssegate/bus"
)

// Session is one life of the connection, as its driver sees it. Its methods
// may be called concurrently and do not wait.
//
// A session begins shut. Again and again it sends this node an empty parcel,
// the probe, through the broker; the first that comes back opens it. So Up(true)
// is said when a message has really made the whole way, and a probe that stays
// away tells of a broker that stands still, or forgot us, when nothing else is
// under way.
type Session struct {
	Node string
	Wire *Wire // what every connection of the session is opened with

	l     *Link
	stamp stamp
	began time.Time
	end   context.CancelCauseFunc
	turn  chan struct{} // blocked has changed: one token

	self    atomic.Bool           // something other than probes was sent to this node
	blocked atomic.Pointer[error] // why the broker takes nothing for now
	probing atomic.Bool           // a probe is queued or under way
	asked   atomic.Int64          // when it was handed to the broker; 0 before
	heard   atomic.Int64          // when something arrived last, or its handling ended
	busy    atomic.Bool           // the handler has a parcel in hand

	// Guarded by l.calls.
	open   bool // up
	live   bool // was open once: what arrives is handed over
	over   bool
	opened time.Time
}

// Lost reports that a parcel to a node did not arrive.
func (s *Session) Lost(to string, why bus.LostReason) {
	if to == s.Node {
		if why == bus.LostUnroutable {
			s.end(errNotRouted)
		}
		if !s.self.Load() {
			return // only a probe
		}
	}
	s.l.lost.add(to, why)
}

// Fail ends the session for the reason why.
func (s *Session) Fail(why error) { s.end(why) }

// Blocked reports that the broker takes nothing for now, though it is there,
// or, with nil, that it does so again.
func (s *Session) Blocked(why error) {
	if why != nil {
		s.blocked.Store(&why)
	} else {
		s.unprobe() // a probe may be stuck, and is not to be blamed for it
		s.blocked.Store(nil)
	}
	select {
	case s.turn <- struct{}{}:
	default:
	}
}

// unprobe forgets the probe under way, if there is one.
func (s *Session) unprobe() {
	s.asked.Store(0)
	s.probing.Store(false)
}

// now is the session's clock, in nanoseconds, never 0.
func (s *Session) now() int64 { return int64(time.Since(s.began)) + 1 }

// session connects and stays until the connection is lost or ctx is done. It
// returns for how long it was up, and why it ended.
func (l *Link) session(ctx context.Context, n uint64) (up time.Duration, err error) {
	sctx, end := context.WithCancelCause(context.WithoutCancel(ctx))
	defer end(nil)
	s := &Session{
		Node: l.node, Wire: newWire(sctx, l.opt.Stall),
		l: l, stamp: stamp{l.run, n}, began: time.Now(), end: end, turn: make(chan struct{}, 1),
	}
	defer s.Wire.cut()
	conn, err := s.connect(ctx)
	if err != nil {
		return 0, err
	}

	var wg sync.WaitGroup
	left := make(chan struct{}) // the writer has ended
	wg.Go(func() {
		defer close(left)
		end(s.write(sctx, conn))
	})
	wg.Go(func() { end(conn.Receive(sctx, s.deliver)) })
	wg.Go(func() { end(s.watch(sctx)) })

	select {
	case <-sctx.Done():
	case <-ctx.Done():
		l.queue.end()
		select {
		case <-left:
		case <-time.After(l.opt.Linger):
		}
		end(errLeft)
	}
	s.Wire.cut()
	err = context.Cause(sctx)
	up = s.close(ctx.Err() != nil, err)
	wg.Wait()
	conn.Close()
	return up, err
}

// connect dials, for a bounded time.
func (s *Session) connect(ctx context.Context) (Conn, error) {
	ctx, cancel := context.WithTimeout(ctx, s.l.opt.Dial)
	defer cancel()
	// Client libraries do not listen to ctx in all that they do.
	stop := context.AfterFunc(ctx, s.Wire.cut)
	conn, err := s.l.dial(ctx, s)
	if !stop() && err == nil {
		conn.Close()
		err = ctx.Err()
	}
	if err != nil {
		s.Wire.cut()
		return nil, err
	}
	return conn, nil
}

// close shuts the session and returns for how long it was up. The handler is
// told, except at the end of Run.
func (s *Session) close(ended bool, why error) (up time.Duration) {
	l := s.l
	l.calls.Lock()
	defer l.calls.Unlock()
	s.over = true
	if ended {
		s.shut(bus.ErrClosed)
		return 0
	}
	l.setErr(why)
	if s.shut(bus.ErrDown) {
		up = time.Since(s.opened)
		l.h.Up(false)
	}
	return up
}

// shut lets nothing be sent, and reports whether it could be before. What is
// queued is lost. l.calls is held.
func (s *Session) shut(why error) (was bool) {
	for _, to := range s.l.queue.stop(why) {
		s.l.lost.add(to, bus.LostRefused)
	}
	was, s.open = s.open, false
	return was
}

// write publishes what is queued until the session is over.
func (s *Session) write(ctx context.Context, conn Conn) error {
	l := s.l
	for {
		parcels, err := l.queue.take(ctx, l.opt.Take)
		if errors.Is(err, io.EOF) {
			leave, cancel := context.WithTimeout(context.WithoutCancel(ctx), l.opt.Linger)
			defer cancel()
			conn.Leave(leave)
			return errLeft
		}
		if err != nil {
			return err
		}
		for _, p := range parcels {
			switch {
			case p.To != s.Node:
			case len(p.Data) == 1:
				s.asked.Store(s.now())
			default:
				s.self.Store(true)
			}
			p.Data = s.stamp.append(p.Data)
		}
		err = conn.Publish(ctx, parcels)
		l.queue.written(parcels)
		if err != nil {
			return err
		}
	}
}

// deliver takes a parcel that arrived.
func (s *Session) deliver(data []byte) {
	l := s.l
	s.busy.Store(true)
	defer func() {
		s.heard.Store(s.now())
		s.busy.Store(false)
	}()
	parcel, st, ok := cutStamp(data)
	var msgs []bus.Message
	if ok {
		var err error
		msgs, err = bus.DecodeMessages(parcel)
		ok = err == nil
	}
	if !ok {
		l.garbled.Add(1)
		return
	}
	l.calls.Lock()
	defer l.calls.Unlock()
	if len(msgs) == 0 {
		if st == s.stamp {
			s.probed()
		}
		return
	}
	// What comes before Up(true) was sent before it: lost, as that says.
	if s.over || !s.live || l.senders.stale(msgs[0].From, st) {
		return
	}
	l.h.Receive(msgs)
}

// probed books that a probe has made the round. l.calls is held.
func (s *Session) probed() {
	s.unprobe()
	if s.over || s.open || s.blocked.Load() != nil {
		return
	}
	s.open, s.live, s.opened = true, true, time.Now()
	s.l.setErr(nil)
	s.l.queue.start()
	s.l.h.Up(true)
}

// watch sends the probes and returns when one stays away for too long.
func (s *Session) watch(ctx context.Context) error {
	l := s.l
	tick := time.NewTicker(l.opt.Stall / 4)
	defer tick.Stop()
	for {
		if why := s.blocked.Load(); why != nil {
			l.calls.Lock()
			if !s.over {
				l.setErr(*why)
				if s.shut(bus.ErrDown) {
					l.h.Up(false)
				}
			}
			l.calls.Unlock()
			s.unprobe() // thrown away with the queue
		} else {
			asked := s.asked.Load()
			silent := s.now() - max(asked, s.heard.Load())
			switch {
			case !s.probing.Swap(true):
				l.queue.probe(s.Node)
			case asked != 0 && !s.busy.Load() && silent > int64(l.opt.Stall):
				return errSilent
			}
		}
		select {
		case <-ctx.Done():
			return context.Cause(ctx)
		case <-s.turn:
		case <-tick.C:
		}
	}
}

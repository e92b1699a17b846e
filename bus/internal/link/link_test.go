package link

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"ssegate/bus"
)

// broker is a stand-in for a broker that does what no real one does on
// command. The real ones are in the drivers' tests.
type broker struct {
	mu      sync.Mutex
	conns   []*conn       // one a session that was dialled
	dials   []time.Time   // the beginning of each attempt
	refuse  error         // what dial says
	hang    bool          // dial waits for ctx
	silent  bool          // nothing arrives
	stuck   bool          // Publish waits for ctx
	latency time.Duration // of each Publish
}

type conn struct {
	b            *broker
	s            *Session
	arrive       chan []byte
	left, closed bool

	mu   sync.Mutex
	sent []string // parcels, as "to: text text"
}

// published returns the parcels that were published.
func (c *conn) published() []string {
	c.mu.Lock()
	defer c.mu.Unlock()
	return slices.Clone(c.sent)
}

func (b *broker) dial(ctx context.Context, s *Session) (Conn, error) {
	c := &conn{b: b, s: s, arrive: make(chan []byte, 1000)}
	b.mu.Lock()
	b.dials = append(b.dials, time.Now())
	refuse, hang := b.refuse, b.hang
	if refuse == nil && !hang {
		b.conns = append(b.conns, c)
	}
	b.mu.Unlock()
	if hang {
		<-ctx.Done()
		return nil, ctx.Err()
	}
	return c, refuse
}

// attempts returns when it was tried to connect.
func (b *broker) attempts() []time.Time {
	b.mu.Lock()
	defer b.mu.Unlock()
	return slices.Clone(b.dials)
}

// set changes what the broker does.
func (b *broker) set(change func()) {
	b.mu.Lock()
	defer b.mu.Unlock()
	change()
}

// last is the newest connection.
func (b *broker) last() *conn {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.conns[len(b.conns)-1]
}

func (c *conn) Publish(ctx context.Context, parcels []*Parcel) error {
	c.b.mu.Lock()
	silent, stuck, latency := c.b.silent, c.b.stuck, c.b.latency
	c.b.mu.Unlock()
	sleep(ctx, latency)
	for _, p := range parcels {
		data, _, _ := cutStamp(p.Data)
		msgs, err := bus.DecodeMessages(data)
		if err != nil {
			return err
		}
		var s strings.Builder
		s.WriteString(p.To + ":")
		for _, m := range msgs {
			s.WriteString(" " + string(m.Body))
		}
		if len(msgs) > 0 {
			c.mu.Lock()
			c.sent = append(c.sent, s.String())
			c.mu.Unlock()
		}
		if p.To == c.s.Node && !silent && !stuck {
			c.arrive <- slices.Clone(p.Data)
		}
		if stuck {
			c.s.Lost(p.To, bus.LostRefused)
		}
	}
	if stuck {
		<-ctx.Done()
		return ctx.Err()
	}
	return nil
}

func (c *conn) Leave(context.Context) { c.left = true }

func (c *conn) Receive(ctx context.Context, deliver func([]byte)) error {
	for {
		select {
		case <-ctx.Done():
			return ctx.Err()
		case data := <-c.arrive:
			deliver(data)
		}
	}
}

func (c *conn) Close() { c.closed = true }

// from hands over a parcel as a session of another node sent it.
func (c *conn) from(node string, s stamp, text string) {
	c.arrive <- s.append(bus.AppendMessages(nil, []bus.Message{{From: node, Body: []byte(text)}}))
}

// handler remembers its calls, in order.
type handler struct {
	mu    sync.Mutex
	calls []string
	hold  chan struct{}
}

func (h *handler) add(format string, args ...any) {
	h.mu.Lock()
	defer h.mu.Unlock()
	h.calls = append(h.calls, fmt.Sprintf(format, args...))
}

func (h *handler) Receive(msgs []bus.Message) {
	for _, m := range msgs {
		h.add("%s: %s", m.From, m.Body)
	}
	if h.hold != nil {
		<-h.hold
	}
}
func (h *handler) Lost(to string, why bus.LostReason) { h.add("lost %s: %s", to, why) }
func (h *handler) Up(up bool)                         { h.add("up %t", up) }

// saw wants exactly these calls since the last time.
func (h *handler) saw(t *testing.T, want ...string) {
	t.Helper()
	synctest.Wait()
	h.mu.Lock()
	defer h.mu.Unlock()
	if !slices.Equal(h.calls, want) {
		t.Fatalf("handler saw %q, want %q", h.calls, want)
	}
	h.calls = nil
}

// sawSome wants exactly these calls since the last time, which are sorted, in
// any order.
func (h *handler) sawSome(t *testing.T, want ...string) {
	t.Helper()
	synctest.Wait()
	h.mu.Lock()
	slices.Sort(h.calls)
	h.mu.Unlock()
	h.saw(t, want...)
}

// linked runs a Link in a bubble of fake time.
func linked(t *testing.T, b *broker, f func(t *testing.T, l *Link, h *handler, stop func())) {
	synctest.Test(t, func(t *testing.T) {
		opt := Defaults()
		opt.Queue = 10_000
		l := New("me", opt, b.dial)
		h := new(handler)
		ctx, cancel := context.WithCancel(t.Context())
		var wg sync.WaitGroup
		wg.Go(func() {
			if err := l.Run(ctx, h); err != nil {
				t.Errorf("Run: %v", err)
			}
		})
		stop := func() {
			cancel()
			wg.Wait()
		}
		defer stop()
		f(t, l, h, stop)
		stop()
		for _, c := range b.conns {
			if !c.closed {
				t.Error("a connection was not closed")
			}
		}
	})
}

func say(t *testing.T, l *Link, to, text string) {
	t.Helper()
	if err := l.Send(t.Context(), to, []bus.Message{{Body: []byte(text)}}); err != nil {
		t.Fatal(err)
	}
}

// A broker that answers is probed now and then, and nothing else happens.
func TestUpAndQuiet(t *testing.T) {
	b := new(broker)
	linked(t, b, func(t *testing.T, l *Link, h *handler, stop func()) {
		h.saw(t, "up true")
		if l.Err() != nil {
			t.Fatal(l.Err())
		}
		time.Sleep(time.Hour)
		h.saw(t)
		if n := len(b.attempts()); n != 1 {
			t.Fatalf("%d attempts to connect", n)
		}
		say(t, l, "you", "hello")
		say(t, l, "me", "note")
		h.saw(t, "me: note")
		stop()
		h.saw(t)
		if c := b.last(); !c.left || !slices.Equal(c.published(), []string{"you: hello", "me: note"}) {
			t.Fatalf("left %t, sent %q", c.left, c.published())
		}
	})
}

// A broker that no longer answers, while nothing is sent, is noticed by the
// probe within the time limit and the probe's interval.
func TestSilenceIsNoticed(t *testing.T) {
	b := new(broker)
	linked(t, b, func(t *testing.T, l *Link, h *handler, _ func()) {
		h.saw(t, "up true")
		time.Sleep(time.Minute)
		b.set(func() { b.silent = true })
		time.Sleep(l.opt.Stall - time.Millisecond)
		h.saw(t)
		time.Sleep(l.opt.Stall/2 + 2*time.Millisecond)
		h.saw(t, "up false")
		if err := l.Send(t.Context(), "you", []bus.Message{{}}); !errors.Is(err, bus.ErrDown) {
			t.Fatal(err)
		}
		if !errors.Is(l.Err(), errSilent) {
			t.Fatal(l.Err())
		}
		// Connections that cannot be used are not taken for up.
		time.Sleep(time.Minute)
		h.saw(t)
		b.set(func() { b.silent = false })
		time.Sleep(l.opt.MaxWait + 2*l.opt.Stall) // the attempt under way may still fail
		h.saw(t, "up true")
	})
}

// Deliveries from others are no proof that what we send arrives, but as long
// as they come, the way to us is not silent.
func TestBacklogIsNotSilence(t *testing.T) {
	b := new(broker)
	linked(t, b, func(t *testing.T, l *Link, h *handler, _ func()) {
		h.saw(t, "up true")
		c := b.last()
		b.set(func() { b.silent = true }) // our probe waits behind the others' messages
		for range 20 {
			time.Sleep(l.opt.Stall / 2)
			c.from("you", stamp{1, 1}, "x")
		}
		h.saw(t, slices.Repeat([]string{"you: x"}, 20)...)
		b.set(func() { b.silent = false })
	})
}

// A handler that takes its time is not a silent broker.
func TestSlowHandlerIsNotSilence(t *testing.T) {
	b := new(broker)
	linked(t, b, func(t *testing.T, l *Link, h *handler, _ func()) {
		h.saw(t, "up true")
		h.hold = make(chan struct{})
		b.last().from("you", stamp{1, 1}, "take your time")
		time.Sleep(10 * l.opt.Stall)
		h.saw(t, "you: take your time")
		close(h.hold)
		time.Sleep(10 * l.opt.Stall)
		h.saw(t)
	})
}

// Attempts to connect are spread: waits double up to the longest, and each is
// somewhere in the upper half of what it may be.
func TestBackoff(t *testing.T) {
	b := &broker{refuse: errors.New("refused")}
	linked(t, b, func(t *testing.T, l *Link, h *handler, _ func()) {
		time.Sleep(time.Minute)
		h.saw(t)
		if !errors.Is(l.Err(), b.refuse) {
			t.Fatal(l.Err())
		}
		limit, odd := l.opt.Backoff, 0
		dials := b.attempts()
		for i, at := range dials[1:] {
			wait := at.Sub(dials[i])
			if wait < limit/2 || wait > limit {
				t.Fatalf("attempt %d came after %v, want %v to %v", i+1, wait, limit/2, limit)
			}
			if wait != limit && wait != limit/2 {
				odd++
			}
			limit = min(2*limit, l.opt.MaxWait)
		}
		if len(dials) < 60/3 || odd == 0 {
			t.Fatalf("%d attempts, %d with jitter", len(dials), odd)
		}
	})
}

// An attempt that hangs is given up.
func TestDialIsBounded(t *testing.T) {
	b := &broker{hang: true}
	linked(t, b, func(t *testing.T, l *Link, h *handler, stop func()) {
		time.Sleep(time.Minute)
		if n := len(b.attempts()); n < 60/8 || n > 60/5 {
			t.Fatalf("%d attempts in a minute", n)
		}
		began := time.Now()
		stop()
		if took := time.Since(began); took != 0 {
			t.Fatalf("Run ended after %v", took)
		}
	})
}

// Send never waits, whatever the writer does: what is too much is lost, and so
// is what was queued when the session ends. Both are told.
func TestSendNeverWaits(t *testing.T) {
	b := new(broker)
	linked(t, b, func(t *testing.T, l *Link, h *handler, _ func()) {
		h.saw(t, "up true")
		b.set(func() { b.stuck = true })
		began := time.Now()
		for range 1000 {
			say(t, l, "you", "0123456789")
			say(t, l, "them", "0123456789")
		}
		synctest.Wait()
		if took := time.Since(began); took != 0 {
			t.Fatalf("Send waited %v", took)
		}
		b.last().s.Fail(errors.New("cut"))
		synctest.Wait()
		h.mu.Lock()
		slices.Sort(h.calls)
		h.calls = slices.Compact(h.calls)
		h.mu.Unlock()
		h.saw(t, "lost them: overflow", "lost them: refused", "lost you: overflow", "lost you: refused", "up false")
	})
}

// A handler that takes its time is not told the same again and again.
func TestLossesAreToldOnce(t *testing.T) {
	l := losses{wake: make(chan struct{}, 1)}
	for range 1000 {
		l.add("you", bus.LostOverflow)
		l.add("you", bus.LostRefused)
		l.add("them", bus.LostOverflow)
	}
	want := []loss{{"you", bus.LostOverflow}, {"you", bus.LostRefused}, {"them", bus.LostOverflow}}
	if got := l.take(); !slices.Equal(got, want) {
		t.Fatalf("%v", got)
	}
	l.add("you", bus.LostOverflow)
	if got := l.take(); !slices.Equal(got, want[:1]) {
		t.Fatalf("%v", got)
	}
}

// While a parcel is under way, what is sent to the same node waits together.
func TestBatching(t *testing.T) {
	b := new(broker)
	linked(t, b, func(t *testing.T, l *Link, h *handler, _ func()) {
		h.saw(t, "up true")
		b.set(func() { b.latency = 10 * time.Millisecond })
		say(t, l, "you", "1") // at once, alone
		synctest.Wait()
		for _, s := range []string{"2", "3", "4"} {
			say(t, l, "you", s)
			time.Sleep(time.Millisecond)
		}
		time.Sleep(100 * time.Millisecond)
		if c := b.last(); !slices.Equal(c.published(), []string{"you: 1", "you: 2 3 4"}) {
			t.Fatalf("sent %q", c.published())
		}
	})
}

// A broker that blocks publishers is down, but the session lives on and what
// arrives is handed over.
func TestBlocked(t *testing.T) {
	b := new(broker)
	linked(t, b, func(t *testing.T, l *Link, h *handler, _ func()) {
		h.saw(t, "up true")
		why := errors.New("memory")
		b.set(func() { b.silent = true })
		b.last().s.Blocked(why)
		h.saw(t, "up false")
		if !errors.Is(l.Err(), why) {
			t.Fatal(l.Err())
		}
		if err := l.Send(t.Context(), "you", []bus.Message{{}}); !errors.Is(err, bus.ErrDown) {
			t.Fatal(err)
		}
		b.last().from("you", stamp{1, 1}, "still here")
		h.saw(t, "you: still here")
		time.Sleep(time.Hour)
		h.saw(t)
		b.set(func() { b.silent = false })
		b.last().s.Blocked(nil)
		h.saw(t, "up true")
		if n := len(b.attempts()); n != 1 {
			t.Fatalf("%d attempts to connect", n)
		}
		// And a silence after that is one.
		b.set(func() { b.silent = true })
		time.Sleep(2 * l.opt.Stall)
		h.saw(t, "up false")
		b.set(func() { b.silent = false })
	})
}

// What a broker kept of a session that its sender gave up does not come behind
// newer messages.
func TestLateParcelsAreDropped(t *testing.T) {
	b := new(broker)
	linked(t, b, func(t *testing.T, l *Link, h *handler, _ func()) {
		h.saw(t, "up true")
		c := b.last()
		c.from("you", stamp{7, 1}, "one")
		c.from("you", stamp{7, 2}, "three")
		c.from("you", stamp{7, 1}, "two, too late")
		c.from("you", stamp{7, 2}, "four")
		h.saw(t, "you: one", "you: three", "you: four")
	})
}

package bustest

import (
	"bytes"
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"reflect"
	"runtime"
	"slices"
	"sync"
	"testing"
	"time"

	"ssegate/bus"
	"ssegate/sse"
)

// World is what the suite is told of a transport.
type World struct {
	// Open returns the bus of a node; it is not run yet.
	Open func(tb testing.TB, node string) bus.Bus
	// Restart ends the broker and starts it again, empty. It is nil where
	// there is no broker, and then so are Pause and Resume.
	Restart func(testing.TB)
	// Pause makes the broker stand still, connections open; Resume lets it go
	// on.
	Pause, Resume func(testing.TB)
	// Left lists what of nodes is found at the broker: queues, subscriptions,
	// keys.
	Left func(testing.TB) []string
}

// Run runs the suite. Every node id has t's name in it, so that suites may
// share a broker one after the other.
func Run(t *testing.T, w World) {
	t.Run("carries all of a message", w.carries)
	t.Run("to oneself", w.self)
	t.Run("in order, both ways", w.order)
	t.Run("in order from many at once", w.many)
	t.Run("bodies", w.bodies)
	t.Run("whose bytes", w.bytes)
	t.Run("nobody there", w.unroutable)
	t.Run("gone and back", w.back)
	t.Run("last words", w.lastWords)
	t.Run("a handler that stands still", w.slow)
	t.Run("before, after and twice", w.states)
	t.Run("leaves nothing", w.leaves)
	if w.Restart != nil {
		t.Run("broker restarts", w.restart)
		t.Run("broker stands still", w.pause)
		t.Run("ends while the broker stands still", w.pausedEnd)
	}
}

// node starts a node of the world.
func (w World) node(tb testing.TB, id string) *Node {
	tb.Helper()
	return Start(tb, w.Open(tb, id), id)
}

func (w World) carries(t *testing.T) {
	NoLeak(t)
	a, b := w.node(t, "a"), w.node(t, "b")
	stream := sse.NewStreamID()
	want := []bus.Message{
		{From: "a", Kind: 1, Stream: stream, Call: 1 << 60, Body: []byte("one")},
		{From: "a", Kind: 255, Stream: sse.NewStreamID(), Body: []byte{0, 255}},
		{From: "a", Kind: 0},
		{From: "a", Kind: 2, Call: 7},
	}
	sent := make([]bus.Message, len(want))
	copy(sent, want)
	for i := range sent {
		sent[i].From = "" // the driver says who we are
	}
	a.Say(t, "b", sent...)
	if got := b.WaitMessages(t, len(want)); !reflect.DeepEqual(got, want) {
		t.Fatalf("got %+v\nwant %+v", got, want)
	}
	if sent[0].From != "" {
		t.Fatal("Send wrote into the caller's messages")
	}
	a.Say(t, "b") // nothing at all
	b.Say(t, "a", want[0])
	if got := a.WaitMessages(t, 1); got[0].From != "b" {
		t.Fatalf("from %q", got[0].From)
	}
	if ups := a.Ups(); !slices.Equal(ups, []bool{true}) {
		t.Fatalf("ups: %v", ups)
	}
}

func (w World) self(t *testing.T) {
	NoLeak(t)
	a := w.node(t, "a")
	a.Say(t, "a", bus.Message{Kind: 9, Body: []byte("note to self")})
	got := a.WaitMessages(t, 1)[0]
	if got.From != "a" || string(got.Body) != "note to self" {
		t.Fatalf("%+v", got)
	}
}

// numbered is the i-th message of a row, with a body that tells.
func numbered(i int, kind bus.Kind) bus.Message {
	body := binary.BigEndian.AppendUint64(nil, uint64(i))
	return bus.Message{Kind: kind, Call: uint64(i + 1), Body: append(body, bytes.Repeat([]byte{byte(i)}, i%300)...)}
}

// check says whether m is the i-th message of its row.
func check(m bus.Message, i int) error {
	want := numbered(i, m.Kind)
	if m.Call != want.Call || !bytes.Equal(m.Body, want.Body) {
		return fmt.Errorf("message %d of %s: call %d, %d bytes", i, m.From, m.Call, len(m.Body))
	}
	return nil
}

func (w World) order(t *testing.T) {
	NoLeak(t)
	const count = 10_000
	a, b := w.node(t, "a"), w.node(t, "b")
	var wg sync.WaitGroup
	for _, way := range [][2]*Node{{a, b}, {b, a}} {
		wg.Go(func() {
			for i := 0; i < count; {
				var msgs []bus.Message
				for range 1 + i%3 { // in parcels of one to three
					msgs = append(msgs, numbered(i, 1))
					i++
				}
				if err := way[0].Send(t.Context(), way[1].ID, msgs); err != nil {
					t.Errorf("Send: %v", err)
					return
				}
			}
		})
	}
	wg.Wait()
	for _, n := range []*Node{a, b} {
		for i, m := range n.WaitMessages(t, count) {
			if err := check(m, i); err != nil {
				t.Fatalf("%s: %v", n.ID, err)
			}
		}
	}
}

func (w World) many(t *testing.T) {
	NoLeak(t)
	const senders, count = 8, 500
	a, b, c := w.node(t, "a"), w.node(t, "b"), w.node(t, "c")
	var wg sync.WaitGroup
	for k := range senders {
		wg.Go(func() {
			for i := range count {
				for _, to := range []string{"b", "c"} {
					if err := a.Send(t.Context(), to, []bus.Message{numbered(i, bus.Kind(k))}); err != nil {
						t.Errorf("Send: %v", err)
						return
					}
				}
			}
		})
	}
	wg.Wait()
	for _, n := range []*Node{b, c} {
		var next [senders]int
		for _, m := range n.WaitMessages(t, senders*count) {
			if err := check(m, next[m.Kind]); err != nil {
				t.Fatalf("%s: sender %d: %v", n.ID, m.Kind, err)
			}
			next[m.Kind]++
		}
	}
}

func (w World) bodies(t *testing.T) {
	NoLeak(t)
	a, b := w.node(t, "a"), w.node(t, "b")
	body := make([]byte, bus.MaxBody+1)
	for i := range body {
		body[i] = byte(i * 7 >> 3)
	}
	for _, size := range []int{0, 1, 64 << 10, 1 << 20, bus.MaxBody, 3} {
		b.Forget()
		a.Say(t, "b", bus.Message{Kind: 1, Body: body[:size]})
		if got := b.WaitMessages(t, 1)[0]; !bytes.Equal(got.Body, body[:size]) {
			t.Fatalf("a body of %d bytes arrived as %d others", size, len(got.Body))
		}
	}
	b.Forget()
	small := bus.Message{Kind: 2, Body: []byte("small")}
	if err := a.Send(t.Context(), "b", []bus.Message{small, {Body: body}}); !errors.Is(err, bus.ErrTooBig) {
		t.Fatalf("MaxBody+1: %v", err)
	}
	a.Say(t, "b", bus.Message{Kind: 3})
	if got := b.WaitMessages(t, 1)[0]; got.Kind != 3 {
		t.Fatal("part of what was refused was sent")
	}
	b.Forget()
	big := bus.Message{Kind: 4, Body: body[:1<<20]}
	a.Say(t, "b", big, small, big, small, big) // more than a parcel of any driver
	for i, m := range b.WaitMessages(t, 5) {
		if (m.Kind == 2) != (i%2 == 1) {
			t.Fatalf("message %d is of kind %d", i, m.Kind)
		}
	}
}

// A body is the caller's again after Send, and the handler's after Receive.
func (w World) bytes(t *testing.T) {
	NoLeak(t)
	const count = 1000
	a, b := w.node(t, "a"), w.node(t, "b")
	body := make([]byte, 100)
	for i := range count {
		for j := range body {
			body[j] = byte(i)
		}
		a.Say(t, "b", bus.Message{Kind: 1, Body: body})
	}
	got := b.WaitMessages(t, count)
	for i, m := range got {
		for _, c := range m.Body {
			if c != byte(i) {
				t.Fatalf("message %d was written over", i)
			}
		}
		clear(m.Body[:cap(m.Body)]) // the next one must not notice
	}
}

func (w World) unroutable(t *testing.T) {
	NoLeak(t)
	a := w.node(t, "a")
	a.Say(t, "nobody", bus.Message{Kind: 1, Body: []byte("anybody?")})
	a.WaitLost(t, "nobody", bus.LostUnroutable)
	a.Reach(t, a) // and goes on
	if len(a.Losses()) != 1 || len(a.Ups()) != 1 {
		t.Fatalf("lost %v, ups %v", a.Losses(), a.Ups())
	}
}

func (w World) back(t *testing.T) {
	NoLeak(t)
	a, b := w.node(t, "a"), w.node(t, "b")
	a.Reach(t, b)
	b.Stop(t)
	a.Say(t, "b", bus.Message{Kind: 1})
	a.WaitLost(t, "b", bus.LostUnroutable)
	again := w.node(t, "b")
	a.Say(t, "b", bus.Message{Kind: 2})
	if m := again.WaitMessages(t, 1)[0]; m.Kind != 2 {
		t.Fatalf("got %+v", m)
	}
	again.Reach(t, a)
}

// What was handed over before Run was ended still goes out.
func (w World) lastWords(t *testing.T) {
	NoLeak(t)
	a, b := w.node(t, "a"), w.node(t, "b")
	const count = 1000
	for i := range count {
		a.Say(t, "b", numbered(i, 1))
	}
	a.Stop(t)
	for i, m := range b.WaitMessages(t, count) {
		if err := check(m, i); err != nil {
			t.Fatal(err)
		}
	}
}

// A handler that stands still costs nobody else anything; what it cannot take
// is bounded, and lost only with a word: to the sender, or by Up(true) here.
func (w World) slow(t *testing.T) {
	NoLeak(t)
	a, b, c := w.node(t, "a"), w.node(t, "b"), w.node(t, "c")
	last, count := 0, 0
	b.Each(func(m bus.Message) {
		if n := int(m.Call); n > 0 && n <= last {
			t.Errorf("message %d after %d", n, last)
		}
		last, count = max(last, int(m.Call)), count+1
	})
	b.Hold()
	const size, sent = 256 << 10, 1200 // 300 MiB
	body := make([]byte, size)
	before := heap()
	for i := range sent {
		a.Say(t, "b", bus.Message{Kind: 1, Call: uint64(i + 1), Body: body})
		if i%50 == 0 {
			a.Reach(t, c)
			c.Forget()
		}
	}
	if grown := heap() - before; grown > 200<<20 {
		t.Errorf("%d MiB more on the heap", grown>>20)
	}
	b.Release()
	b.Wait(t, "the rest", func() bool {
		if count == sent {
			return true
		}
		lost := a.Losses()
		return lost[Loss{"b", bus.LostOverflow}]+lost[Loss{"b", bus.LostRefused}]+lost[Loss{"b", bus.LostUnroutable}] > 0 ||
			b.countUps(true) > 1
	})
	b.Each(nil)
	a.Reach(t, b)
	t.Logf("of %d, lost %v, ups %v", sent, a.Losses(), b.Ups())
}

// heap returns the bytes of live objects.
func heap() int64 {
	runtime.GC()
	var m runtime.MemStats
	runtime.ReadMemStats(&m)
	return int64(m.HeapAlloc)
}

func (w World) states(t *testing.T) {
	NoLeak(t)
	a := w.Open(t, "a")
	msg := []bus.Message{{Kind: 1}}
	if err := a.Send(t.Context(), "a", msg); !errors.Is(err, bus.ErrDown) {
		t.Fatalf("before Run: %v", err)
	}
	n := Start(t, a, "a")
	gone, cancel := context.WithCancel(t.Context())
	cancel()
	if err := a.Send(gone, "a", msg); !errors.Is(err, context.Canceled) {
		t.Fatalf("with a ctx that is done: %v", err)
	}
	if err := a.Run(t.Context(), n); !errors.Is(err, bus.ErrClosed) {
		t.Fatalf("Run a second time: %v", err)
	}
	n.Stop(t)
	if err := a.Send(t.Context(), "a", msg); !errors.Is(err, bus.ErrClosed) {
		t.Fatalf("after Run: %v", err)
	}
}

func (w World) leaves(t *testing.T) {
	NoLeak(t)
	a, b := w.node(t, "a"), w.node(t, "b")
	a.Reach(t, b)
	if w.Left == nil {
		return
	}
	if len(w.Left(t)) == 0 {
		t.Fatal("Left finds nothing of two running nodes: it would not find what they leave")
	}
	a.Stop(t)
	b.Stop(t)
	if left := w.Left(t); len(left) > 0 {
		t.Fatalf("left: %q", left)
	}
}

func (w World) restart(t *testing.T) {
	NoLeak(t)
	a, b := w.node(t, "a"), w.node(t, "b")
	a.Reach(t, b)
	w.Restart(t)
	for _, n := range []*Node{a, b} {
		n.WaitDown(t, 1)
		n.WaitUp(t, 2)
	}
	a.Reach(t, b)
	b.Reach(t, a)
	for _, n := range []*Node{a, b} {
		for i, up := range n.Ups() {
			if up != (i%2 == 0) {
				t.Fatalf("%s: ups %v", n.ID, n.Ups())
			}
		}
	}
}

// sendWithin is the ctx of each Send to a paused broker, and slack what a busy
// machine may add.
const (
	sendWithin = 100 * time.Millisecond
	slack      = time.Second
)

func (w World) pause(t *testing.T) {
	NoLeak(t)
	a, b := w.node(t, "a"), w.node(t, "b")
	last := map[string]uint64{}
	b.Each(func(m bus.Message) {
		if m.Call == 0 {
			b.got = append(b.got, m)
			return
		}
		if m.Call <= last[m.From] {
			t.Errorf("message %d after %d", m.Call, last[m.From])
		}
		last[m.From] = m.Call
	})
	a.Reach(t, b)
	before := heap()
	body := make([]byte, 64<<10)
	call := uint64(0)
	longest := time.Duration(0)
	send := func() error {
		call++
		ctx, cancel := context.WithTimeout(t.Context(), sendWithin)
		defer cancel()
		began := time.Now()
		err := a.Send(ctx, "b", []bus.Message{{Kind: 1, Call: call, Body: body}})
		longest = max(longest, time.Since(began))
		return err
	}
	defer w.Resume(t) // whatever happens
	w.Pause(t)
	began := time.Now()
	for !slices.Contains(a.Ups(), false) { // up to 64 MiB a second
		if time.Since(began) > patience {
			t.Fatal("nobody noticed that the broker stands still")
		}
		_ = send()
		time.Sleep(time.Millisecond)
	}
	noticed := time.Since(began)
	b.WaitDown(t, 1) // who does not send notices as well
	for range 1000 {
		if err := send(); !errors.Is(err, bus.ErrDown) {
			t.Fatalf("Send while down: %v", err)
		}
	}
	if longest > sendWithin+slack {
		t.Errorf("a Send took %v", longest)
	}
	if grown := heap() - before; grown > 100<<20 {
		t.Errorf("%d MiB more on the heap", grown>>20)
	}
	if lost := a.Losses(); lost[Loss{"b", bus.LostRefused}] == 0 {
		t.Errorf("what was sent was not told to be lost: %v", lost)
	}
	w.Resume(t)
	for _, n := range []*Node{a, b} {
		n.WaitUp(t, 2)
	}
	began = time.Now()
	for sent := 0; sent < 100; {
		switch err := send(); {
		case err == nil:
			sent++
		case time.Since(began) > patience: // a broker that has much to catch up with lets senders wait
			t.Fatalf("Send after the pause: %v", err)
		}
	}
	a.Reach(t, b)
	t.Logf("noticed after %v, longest Send %v, lost %v", noticed.Round(time.Millisecond), longest, a.Losses())
}

func (w World) pausedEnd(t *testing.T) {
	NoLeak(t)
	a := w.node(t, "a")
	w.Pause(t)
	defer w.Resume(t)
	a.Say(t, "a", bus.Message{Kind: 1, Body: make([]byte, bus.MaxBody)})
	began := time.Now()
	a.Stop(t)
	if took := time.Since(began); took > 10*time.Second {
		t.Fatalf("Run took %v to end", took)
	}
	w.Resume(t)
	if w.Left == nil {
		return
	}
	for range int(patience / (100 * time.Millisecond)) { // the broker is told by the kernel
		if len(w.Left(t)) == 0 {
			return
		}
		time.Sleep(100 * time.Millisecond)
	}
	t.Fatalf("left: %q", w.Left(t))
}

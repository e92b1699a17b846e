package link

import (
	"context"
	"errors"
	"fmt"
	"io"
	"slices"
	"strings"
	"testing"

	"ssegate/bus"
)

func texts(texts ...string) (msgs []bus.Message) {
	for _, s := range texts {
		msgs = append(msgs, bus.Message{From: "me", Body: []byte(s)})
	}
	return msgs
}

func mustAdd(t *testing.T, q *queue, to string, msgs ...string) {
	t.Helper()
	if err := q.add(to, texts(msgs...)); err != nil {
		t.Fatal(err)
	}
}

// taken is what take returns, as "to: text text".
func taken(t *testing.T, q *queue, most int) (list []string) {
	t.Helper()
	parcels, err := q.take(t.Context(), most)
	if err != nil {
		t.Fatal(err)
	}
	for _, p := range parcels {
		msgs, err := bus.DecodeMessages(p.Data)
		if err != nil {
			t.Fatal(err)
		}
		var s strings.Builder
		s.WriteString(p.To + ":")
		for _, m := range msgs {
			s.WriteString(" " + string(m.Body))
		}
		list = append(list, s.String())
	}
	q.written(parcels)
	return list
}

func want(t *testing.T, got []string, want ...string) {
	t.Helper()
	if !slices.Equal(got, want) {
		t.Fatalf("got %q, want %q", got, want)
	}
}

// What is sent to a node while an earlier parcel to it still waits goes into
// that parcel; nodes do not overtake each other.
func TestQueueBatches(t *testing.T) {
	q := newQueue(1<<20, 1<<10)
	q.start()
	mustAdd(t, q, "a", "1")
	mustAdd(t, q, "b", "2", "3")
	mustAdd(t, q, "a", "4")
	q.probe("me")
	mustAdd(t, q, "b", "5")
	mustAdd(t, q, "me", "6")
	want(t, taken(t, q, 1), "a: 1 4")
	mustAdd(t, q, "a", "7")
	want(t, taken(t, q, 1<<20), "b: 2 3 5", "me:", "me: 6", "a: 7")
}

// A parcel is as big as a batch, or is one message.
func TestQueueParcelSizes(t *testing.T) {
	q := newQueue(1<<20, 1<<10)
	q.start()
	big := string(make([]byte, 5000))
	half := string(make([]byte, 600))
	for range 3 {
		mustAdd(t, q, "a", "small", big, "small", half, half, "small")
	}
	var sizes []int
	for {
		ctx, cancel := context.WithCancel(t.Context())
		cancel()
		parcels, err := q.take(ctx, 1)
		if err != nil {
			break
		}
		msgs, _ := bus.DecodeMessages(parcels[0].Data)
		sizes = append(sizes, len(msgs))
		if len(parcels[0].Data) > 1<<10 && len(msgs) > 1 {
			t.Fatalf("%d messages in %d bytes", len(msgs), len(parcels[0].Data))
		}
		q.written(parcels)
	}
	want(t, []string{fmt.Sprint(sizes)}, "[1 1 2 3 1 2 3 1 2 2]")
	if q.size != 0 {
		t.Fatalf("%d bytes in an empty queue", q.size)
	}
}

func TestQueueIsBounded(t *testing.T) {
	q := newQueue(1000, 100)
	q.start()
	mustAdd(t, q, "a", string(make([]byte, 5000))) // into an empty one goes everything
	if err := q.add("a", texts("x")); !errors.Is(err, errFull) {
		t.Fatal(err)
	}
	taken(t, q, 1)
	n := 0
	for q.add("a", texts("0123456789")) == nil {
		n++
	}
	if n < 20 || n > 90 {
		t.Fatalf("%d messages of 10 bytes in a queue of 1000", n)
	}
	taken(t, q, 1)
	mustAdd(t, q, "a", "room again")
}

func TestQueueStops(t *testing.T) {
	q := newQueue(1<<20, 1<<10)
	if err := q.add("a", texts("x")); !errors.Is(err, bus.ErrDown) {
		t.Fatal(err)
	}
	q.start()
	mustAdd(t, q, "a", "1")
	q.probe("me")
	mustAdd(t, q, "b", "2")
	want(t, q.stop(bus.ErrDown), "a", "b") // a probe is nobody's loss
	if err := q.add("a", texts("x")); !errors.Is(err, bus.ErrDown) {
		t.Fatal(err)
	}
	q.start()
	mustAdd(t, q, "a", "3")
	q.end()
	if err := q.add("a", texts("x")); !errors.Is(err, bus.ErrClosed) {
		t.Fatal(err)
	}
	want(t, taken(t, q, 1), "a: 3")
	if _, err := q.take(t.Context(), 1); !errors.Is(err, io.EOF) {
		t.Fatal(err)
	}
}

func TestStamp(t *testing.T) {
	s := stamp{run: 1 << 63, session: 7}
	parcel, got, ok := cutStamp(s.append([]byte("x")))
	if !ok || got != s || string(parcel) != "x" {
		t.Fatal(string(parcel), got, ok)
	}
	for n := range stampSize + 1 {
		if _, _, ok := cutStamp(make([]byte, n)); ok {
			t.Fatalf("%d bytes have a stamp", n)
		}
	}
}

func TestStaleSessions(t *testing.T) {
	m := senders{}
	f := func(from string, run, session uint64, want bool) {
		t.Helper()
		if got := m.stale(from, stamp{run, session}); got != want {
			t.Fatalf("%s %d.%d: stale %t", from, run, session, got)
		}
	}
	f("a", 10, 2, false)
	f("a", 10, 2, false)
	f("a", 10, 1, true)
	f("a", 10, 3, false)
	f("a", 10, 2, true)
	f("b", 10, 1, false) // another node
	f("a", 5, 1, false)  // started again
	f("a", 10, 4, true)  // its run before
	f("a", 5, 2, false)
	f("a", 5, 1, true)
	for i := range 3 * manySenders {
		f(fmt.Sprint("node-", i), 1, 1, false)
	}
	if len(m) > manySenders {
		t.Fatalf("%d senders remembered", len(m))
	}
}

func BenchmarkQueue(b *testing.B) {
	q := newQueue(1<<20, 256<<10)
	q.start()
	msgs := []bus.Message{{From: "me", Kind: 1, Body: make([]byte, 200)}}
	b.ReportAllocs()
	for b.Loop() {
		if q.add("a", msgs) == nil {
			continue
		}
		parcels, err := q.take(b.Context(), 1<<20)
		if err != nil {
			b.Fatal(err)
		}
		q.written(parcels)
	}
}

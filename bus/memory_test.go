package bus_test

import (
	"context"
	"errors"
	"slices"
	"sync"
	"testing"
	"testing/synctest"

	"ssegate/bus"
	"ssegate/internal/gatetest/bustest"
)

func TestMemory(t *testing.T) {
	var mu sync.Mutex
	nets := map[string]*bus.Memory{} // one a test
	bustest.Run(t, bustest.World{
		Open: func(tb testing.TB, node string) bus.Bus {
			mu.Lock()
			defer mu.Unlock()
			if nets[tb.Name()] == nil {
				nets[tb.Name()] = bus.NewMemory()
			}
			return nets[tb.Name()].Node(node)
		},
	})
}

// log is a handler that remembers its calls in order.
type log struct {
	mu    sync.Mutex
	calls []string
}

func (l *log) add(s string) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.calls = append(l.calls, s)
}

func (l *log) Receive(msgs []bus.Message) {
	for _, m := range msgs {
		l.add(m.From + " says " + string(m.Body))
	}
}

func (l *log) Lost(to string, why bus.LostReason) { l.add("lost to " + to + ": " + string(why)) }

func (l *log) Up(up bool) {
	if up {
		l.add("up")
	} else {
		l.add("down")
	}
}

// inBubble runs two nodes, a and b, on a network in a bubble of fake time.
func inBubble(t *testing.T, f func(t *testing.T, net *bus.Memory, a, b bus.Bus, saw func(node string, want ...string))) {
	synctest.Test(t, func(t *testing.T) {
		net := bus.NewMemory()
		ctx, cancel := context.WithCancel(t.Context())
		var wg sync.WaitGroup
		logs := map[string]*log{}
		nodes := map[string]bus.Bus{}
		for _, id := range []string{"a", "b"} {
			node, h := net.Node(id), new(log)
			nodes[id], logs[id] = node, h
			wg.Go(func() {
				if err := node.Run(ctx, h); err != nil {
					t.Errorf("Run: %v", err)
				}
			})
		}
		saw := func(node string, want ...string) {
			t.Helper()
			synctest.Wait()
			if got := logs[node].calls; !slices.Equal(got, want) {
				t.Fatalf("%s saw %q, want %q", node, got, want)
			}
			logs[node].calls = nil
		}
		saw("a", "up")
		saw("b", "up")
		f(t, net, nodes["a"], nodes["b"], saw)
		cancel()
		wg.Wait()
	})
}

func say(t *testing.T, from bus.Bus, to, text string) {
	t.Helper()
	if err := from.Send(t.Context(), to, []bus.Message{{Body: []byte(text)}}); err != nil {
		t.Fatal(err)
	}
}

func TestMemoryCut(t *testing.T) {
	inBubble(t, func(t *testing.T, net *bus.Memory, a, b bus.Bus, saw func(string, ...string)) {
		net.Cut("b")
		net.Cut("b")
		say(t, a, "b", "lost")
		saw("a", "lost to b: unroutable")
		if err := b.Send(t.Context(), "a", []bus.Message{{}}); !errors.Is(err, bus.ErrDown) {
			t.Fatalf("Send while cut: %v", err)
		}
		saw("b", "down")
		net.Heal("b")
		net.Heal("b")
		say(t, a, "b", "here")
		saw("b", "up", "a says here")
		saw("a")
	})
}

// What waits for the handler is lost with the connection.
func TestMemoryCutLosesWhatWaits(t *testing.T) {
	net := bus.NewMemory()
	a := bustest.Start(t, net.Node("a"), "a")
	b := bustest.Start(t, net.Node("b"), "b")
	b.Hold()
	a.Say(t, "b", bus.Message{Kind: 1})
	b.WaitMessages(t, 1)
	a.Say(t, "b", bus.Message{Kind: 2})
	net.Cut("b")
	net.Heal("b")
	a.Say(t, "b", bus.Message{Kind: 3})
	b.Release()
	b.WaitDown(t, 1)
	b.WaitUp(t, 2)
	if got := b.WaitMessages(t, 2); got[1].Kind != 3 {
		t.Fatalf("got %+v", got)
	}
}

func TestMemoryDrop(t *testing.T) {
	inBubble(t, func(t *testing.T, net *bus.Memory, a, _ bus.Bus, saw func(string, ...string)) {
		net.Drop(func(from, to string, m bus.Message) bool {
			return from == "a" && to == "b" && m.Kind == 1
		})
		if err := a.Send(t.Context(), "b", []bus.Message{{Kind: 0, Body: []byte("0")}, {Kind: 1}, {Kind: 2, Body: []byte("2")}}); err != nil {
			t.Fatal(err)
		}
		saw("b", "a says 0", "a says 2")
		saw("a") // nobody is told
		net.Drop(nil)
		if err := a.Send(t.Context(), "b", []bus.Message{{Kind: 1, Body: []byte("1")}}); err != nil {
			t.Fatal(err)
		}
		saw("b", "a says 1")
	})
}

// A node that takes nothing is told on, and the same word is not said twice.
func TestMemoryOverflow(t *testing.T) {
	net := bus.NewMemory()
	a := bustest.Start(t, net.Node("a"), "a")
	b := bustest.Start(t, net.Node("b"), "b")
	b.Hold()
	body := make([]byte, 1<<20)
	for range 100 {
		a.Say(t, "b", bus.Message{Body: body})
	}
	a.WaitLost(t, "b", bus.LostOverflow)
	b.Release()
	a.Reach(t, b)
	if got := len(b.WaitMessages(t, 1)); got < 32 || got > 40 {
		t.Fatalf("%d MiB were kept for a node that takes nothing", got)
	}
}

func BenchmarkMemory(b *testing.B) {
	net := bus.NewMemory()
	bustest.Bench(b, bustest.World{Open: func(_ testing.TB, node string) bus.Bus { return net.Node(node) }})
}

package e2e

import (
	"fmt"
	"io"
	"net"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"

	. "ssegate/internal/gatetest"
	"ssegate/internal/gatetest/service"
)

// cable is one node's way to Redis, which can be cut.
type cable struct {
	addr string
	cut  atomic.Bool
	mu   sync.Mutex
	open map[net.Conn]bool
}

func newCable(t *testing.T, to string) *cable {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	c := &cable{addr: l.Addr().String(), open: map[net.Conn]bool{}}
	var wg sync.WaitGroup
	wg.Go(func() {
		for {
			in, err := l.Accept()
			if err != nil {
				return
			}
			wg.Go(func() { c.carry(in, to) })
		}
	})
	t.Cleanup(func() {
		l.Close()
		c.Cut()
		wg.Wait()
	})
	return c
}

func (c *cable) carry(in net.Conn, to string) {
	defer in.Close()
	out, err := net.Dial("tcp", to)
	if err != nil {
		return
	}
	defer out.Close()
	c.mu.Lock()
	if c.cut.Load() {
		c.mu.Unlock()
		return
	}
	c.open[in], c.open[out] = true, true
	c.mu.Unlock()
	var wg sync.WaitGroup
	pipe := func(to, from net.Conn) { io.Copy(to, from); in.Close(); out.Close() }
	wg.Go(func() { pipe(out, in) })
	pipe(in, out)
	wg.Wait()
	c.mu.Lock()
	delete(c.open, in)
	delete(c.open, out)
	c.mu.Unlock()
}

// Cut ends all connections, and there are no more until Mend.
func (c *cable) Cut() {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.cut.Store(true)
	for conn := range c.open {
		conn.Close()
	}
}

func (c *cable) Mend() { c.cut.Store(false) }

// says sends the events from..to of one of the service's runs, each run's
// different from another's.
func says(r *Run, run string, from, to int) {
	for i := from; i <= to; i++ {
		r.Send(fmt.Sprintf("id: %d\ndata: %s%d\n\n", i, run, i))
	}
}

// stop stops a node where it stands, each thread of it.
func stop(t *testing.T, n *Node) {
	t.Helper()
	pid := processOf(t, n).pid
	n.Signal(syscall.SIGSTOP)
	Eventually(t, n.Name+" is stopped", func() bool {
		tasks, err := filepath.Glob(fmt.Sprintf("/proc/%d/task/*/stat", pid))
		for _, task := range tasks {
			stat, err := os.ReadFile(task)
			if _, state, ok := strings.Cut(string(stat), ") "); err == nil && ok && state[0] != 'T' {
				return false
			}
		}
		return err == nil && len(tasks) > 0
	})
}

// TestStoppedOwner: a node is stopped for longer than it takes to be dead, and
// goes on. Another has its stream by then, and the service's second answer is
// not what the first would have been. Nobody's events are mixed in silence.
func TestStoppedOwner(t *testing.T) {
	setUp := func(t *testing.T) (a, b *Node, w *world, c *cable) {
		w = &world{redis: service.Redis(t), backend: NewBackend(t)}
		c = newCable(t, w.redis.Addr)
		conf := w.together("takeover = \"last-event-id\"\nids = \"edge\"")
		a = Start(t, bin, "a", strings.Replace(conf, w.redis.URL, "redis://"+c.addr+"/0", 1))
		b = Start(t, bin, "b", conf)
		t.Cleanup(func() { a.Signal(syscall.SIGCONT) })
		acquainted(t, a, b)
		return a, b, w, c
	}
	begin := func(t *testing.T, a, b *Node, w *world) (near *Stream, far *Stream, first *Run) {
		asked := make(chan *Stream)
		go func() { asked <- EventSource(t, a.URL+"/hold", "") }()
		first = w.backend.Next()
		first.Head()
		near = <-asked
		says(first, "a", 1, 5)
		got := near.Take(5)
		want(t, got, []string{"a1", "a2", "a3", "a4", "a5"})
		far = EventSource(t, b.URL+"/hold", got[1].ID)
		want(t, far.Take(3), []string{"a3", "a4", "a5"})
		return near, far, first
	}
	second := func(t *testing.T, w *world) *Run {
		r := w.backend.Next()
		if id := r.Request.Header.Get("Last-Event-ID"); id != "5" {
			t.Fatalf("the service is to go on from %q", id)
		}
		r.Head()
		return r
	}

	t.Run("nothing was delivered", func(t *testing.T) {
		a, b, w, _ := setUp(t)
		near, far, first := begin(t, a, b, w)
		stop(t, a)
		says(first, "a", 6, 8) // a will find them when it goes on
		r := second(t, w)
		says(r, "b", 6, 7)
		want(t, far.Take(2), []string{"b6", "b7"})
		a.Signal(syscall.SIGCONT)
		a.Await("stream was taken over")
		if rest, clean := near.Rest(); len(rest) > 0 || clean {
			t.Fatalf("a's client got %q, and its end was clean: %v", Data(rest), clean)
		}
		first.Cancelled(t)
		back := EventSource(t, a.URL+"/hold", near.LastID)
		want(t, back.Take(2), []string{"b6", "b7"})
		says(r, "b", 8, 10)
		r.End()
		for _, s := range []*Stream{far, back} {
			rest, clean := s.Rest()
			want(t, rest, []string{"b8", "b9", "b10"})
			if !clean {
				t.Error("the end was not clean")
			}
		}
	})

	t.Run("some was delivered", func(t *testing.T) {
		a, b, w, c := setUp(t)
		near, far, first := begin(t, a, b, w)
		c.Cut()
		says(first, "a", 6, 8)
		want(t, near.Take(3), []string{"a6", "a7", "a8"}) // that no log ever got
		stop(t, a)
		r := second(t, w)
		gap := `{"from":6,"to":8,"reason":"replaced"}`
		early := EventSource(t, b.URL+"/hold", near.LastID)
		says(r, "b", 6, 6)
		want(t, far.Take(1), []string{"b6"})
		hop := EventSource(t, b.URL+"/hold", near.LastID)
		for _, s := range []*Stream{early, hop} {
			want(t, s.Take(2), []string{gap, "b6"})
		}
		c.Mend()
		a.Signal(syscall.SIGCONT)
		a.Await("stream was taken over")
		if rest, clean := near.Rest(); len(rest) > 0 || clean {
			t.Fatalf("a's client got %q, and its end was clean: %v", Data(rest), clean)
		}
		back := EventSource(t, a.URL+"/hold", near.LastID)
		want(t, back.Take(2), []string{gap, "b6"})
		says(r, "b", 7, 10)
		r.End()
		for _, s := range []*Stream{far, early, hop, back} {
			rest, _ := s.Rest()
			want(t, rest, []string{"b7", "b8", "b9", "b10"})
		}
		// Also who comes back when it is all over.
		for _, n := range []*Node{a, b} {
			all, clean := EventSource(t, n.URL+"/hold", near.LastID).Rest()
			want(t, all, []string{gap, "b6", "b7", "b8", "b9", "b10"})
			if !clean {
				t.Error("the end was not clean")
			}
		}
		if n := w.backend.Runs("/hold"); n != 2 {
			t.Errorf("the service ran %d times", n)
		}
	})
}

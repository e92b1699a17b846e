package cluster

import (
	"context"
	"fmt"
	"math/rand/v2"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"ssegate/bus"
	"ssegate/hub"
	"ssegate/sse"
)

// TestFollowElsewhere: a client of another node gets what is in the log, and
// then each event as it comes, without waiting for a tail check.
func TestFollowElsewhere(t *testing.T) {
	inWorld(t, func(w *world) {
		n := w.join(nil, "a", "b")
		s := n[0].begin(nil)
		s.send(20)
		synctest.Wait()
		far := n[1].open(s.ID, "a", 5)
		synctest.Wait()
		far.has(6, 20)
		for i := range 50 {
			s.send(1)
			synctest.Wait()
			far.has(6, uint64(21+i))
		}
		s.End(sse.EndFinished, nil)
		synctest.Wait()
		far.has(6, 70)
		far.leftFor(hub.ReasonFinished)
		if st := n[1].Stats(); st.Jumps != 0 || st.FoundByCheck != 0 || st.FramesReceived == 0 {
			t.Errorf("it did not come by the bus alone: %+v", st)
		}
	})
}

// TestLostMessage: what the bus loses, and tells nobody of, is found by the
// tail check, in time and once.
func TestLostMessage(t *testing.T) {
	inWorld(t, func(w *world) {
		n := w.join(nil, "a", "b")
		s := n[0].begin(nil)
		s.send(1)
		far := n[1].open(s.ID, "a", 0)
		synctest.Wait()
		w.bus.Drop(func(_, _ string, m bus.Message) bool { return m.Kind == kindFrames })
		s.send(10)
		synctest.Wait()
		far.has(1, 1)
		wait(tailCheck)
		far.has(1, 11)
		if found := n[1].Stats().FoundByCheck; found != 1 {
			t.Errorf("FoundByCheck is %d, want 1", found)
		}
		// A jump does not wait for the check: the next message shows it.
		s.send(3)
		synctest.Wait()
		w.bus.Drop(nil)
		s.send(1)
		wait(50 * time.Millisecond) // the hub reads the log at its own tick
		far.has(1, 15)
		if jumps := n[1].Stats().Jumps; jumps != 1 {
			t.Errorf("Jumps is %d, want 1", jumps)
		}
		// The end is not lost either.
		w.bus.Drop(func(_, _ string, m bus.Message) bool { return m.Kind == kindFrames })
		s.send(2)
		s.End(sse.EndClean, nil)
		wait(tailCheck)
		far.has(1, 17)
		far.leftFor(hub.ReasonEnded)
	})
}

// TestFollowMessageLost: the owner that never heard of a follower hears of it
// with the next tail check, and the follower is fed until then.
func TestFollowMessageLost(t *testing.T) {
	inWorld(t, func(w *world) {
		n := w.join(nil, "a", "b")
		s := n[0].begin(func(spec *Spec) { spec.DetachFor = 3 * tailCheck })
		w.bus.Drop(func(_, _ string, m bus.Message) bool { return m.Kind == kindFollow })
		far := n[1].open(s.ID, "a", 0)
		s.Release()
		s.send(5)
		wait(tailCheck)
		far.has(1, 5)
		w.bus.Drop(nil)
		wait(tailCheck)
		s.send(1)
		synctest.Wait()
		far.has(1, 6)
		wait(10 * tailCheck)
		if why := s.why(); why != nil {
			t.Errorf("the upstream was cancelled although a client follows: %v", why)
		}
		far.leave()
		wait(3*tailCheck - 10*time.Millisecond)
		if why := s.why(); why != nil {
			t.Errorf("the upstream was cancelled too soon: %v", why)
		}
		wait(20 * time.Millisecond)
		if why := s.why(); why != ErrDetached {
			t.Errorf("detached: cancelled with %v", why)
		}
	})
}

// TestShuffledFrames: frames that come late, in another order and twice reach
// every client once and in order.
func TestShuffledFrames(t *testing.T) {
	for seed := range uint64(20) {
		t.Run(fmt.Sprint("seed ", seed), func(t *testing.T) {
			inWorld(t, func(w *world) {
				rng := rand.New(rand.NewPCG(seed, 1))
				n := w.join(func(c *Config) {
					c.Bus = &shuffled{c.Bus, rand.New(rand.NewPCG(seed, uint64(len(w.nodes))))}
				}, "a", "b", "c")
				s := n[0].begin(nil)
				s.send(1)
				synctest.Wait()
				var all []*client
				for range 6 {
					all = append(all, n[1].open(s.ID, "a", 0), n[2].open(s.ID, "a", 0))
					for range 40 {
						s.send(1 + rng.IntN(4))
						wait(time.Duration(rng.IntN(4)) * time.Millisecond)
					}
				}
				s.End(sse.EndFinished, nil)
				wait(tailCheck)
				for _, c := range all {
					c.has(1, s.count)
					c.leftFor(hub.ReasonFinished)
				}
			})
		})
	}
}

// TestBusAway: without a bus the log is followed; a node that is cut off is
// found again, and nothing is lost on either way.
func TestBusAway(t *testing.T) {
	inWorld(t, func(w *world) {
		n := w.join(nil, "a", "b")
		s := n[0].begin(nil)
		s.send(1)
		far := n[1].open(s.ID, "a", 0)
		synctest.Wait()
		w.bus.Cut("b")
		synctest.Wait()
		if n[1].Stats().BusUp || n[1].reported("bus is down; following the log instead") != 1 {
			t.Error("the node does not say that its bus is down")
		}
		for i := range 40 {
			s.send(1)
			wait(200 * time.Millisecond)
			far.has(1, uint64(2+i))
		}
		w.bus.Heal("b")
		synctest.Wait()
		if !n[1].Stats().BusUp {
			t.Error("the bus is not up again")
		}
		for i := range 20 {
			s.send(1)
			synctest.Wait()
			far.has(1, uint64(42+i))
		}
		// The owner's end cut: the same.
		w.bus.Cut("a")
		s.send(7)
		wait(tailCheck)
		far.has(1, 68)
		w.bus.Heal("a")
		s.send(1)
		wait(tailCheck)
		s.send(1)
		synctest.Wait()
		far.has(1, 70)
	})
}

// TestPace: a backend is read no further ahead of the only client than the log
// keeps, wherever the client is, so that being slow costs it nothing.
func TestPace(t *testing.T) {
	const length = 1000
	for name, where := range map[string]int{"here": 0, "elsewhere": 1} {
		for _, ring := range []int{100, 400, 10_000} {
			t.Run(fmt.Sprint(name, ", ring of ", ring), func(t *testing.T) {
				inWorld(t, func(w *world) {
					n := w.join(nil, "a", "b")
					s := n[0].begin(func(spec *Spec) {
						spec.Limits.Length, spec.Local.RingEvents = length, ring
						spec.Local.RingBytes = 1 << 20
					})
					c := n[where].open(s.ID, "a", 0)
					s.Release()
					c.reads(false)
					synctest.Wait() // till then the owner knows of nobody, and waits for nobody
					ctx, stop := context.WithCancel(context.Background())
					var pump sync.WaitGroup
					pump.Go(func() {
						for s.Wait(ctx) == nil && s.count < 20_000 {
							s.send(1 + rand.IntN(20))
						}
					})
					wait(10 * time.Second)
					ahead := s.count
					t.Logf("%d events ahead", ahead)
					if ahead > length || ahead < uint64(min(ring, length)/2) {
						t.Errorf("%d events ahead of who reads nothing", ahead)
					}
					for s.count < 20_000 { // reads now and then
						c.reads(true)
						synctest.Wait()
						c.reads(false)
						wait(100 * time.Millisecond)
					}
					c.reads(true)
					stop()
					pump.Wait()
					s.End(sse.EndFinished, nil)
					wait(20 * time.Second)
					c.has(1, s.count)
					c.leftFor(hub.ReasonFinished)
				})
			})
		}
	}
}

// TestManyLosses is a long life among losses of every sort: messages lost,
// late, twice, the bus and the log away for a while, and clients that hop from
// node to node. Each of them must have got every event once.
func TestManyLosses(t *testing.T) {
	for seed := range uint64(30) {
		t.Run(fmt.Sprint("seed ", seed), func(t *testing.T) {
			inWorld(t, func(w *world) { manyLosses(w, rand.New(rand.NewPCG(seed, 2))) })
		})
	}
}

// hopper is a client over all its connections.
type hopper struct {
	c    *client
	from uint64 // after which this connection began
}

func manyLosses(w *world, rng *rand.Rand) {
	seed := rng.Uint64()
	n := w.join(func(c *Config) {
		c.Bus = &shuffled{c.Bus, rand.New(rand.NewPCG(seed, uint64(len(w.nodes))))}
	}, "a", "b", "c")
	s := n[0].begin(nil)
	hoppers := make([]hopper, 8)
	for i := range hoppers {
		hoppers[i].c = n[i%3].open(s.ID, "a", 0)
	}
	lossy := rand.New(rand.NewPCG(seed, 99))
	var lose atomic.Int64 // messages in a hundred
	w.bus.Drop(func(_, _ string, m bus.Message) bool { return lossy.Int64N(100) < lose.Load() })
	for range 400 {
		switch rng.IntN(40) {
		case 0:
			lose.Store(rng.Int64N(60))
		case 1:
			w.bus.Cut(n[rng.IntN(3)].ID())
		case 2, 3, 4:
			for _, one := range n {
				w.bus.Heal(one.ID())
			}
		case 5:
			w.log.set(away("append"))
		case 6:
			w.log.set(away())
		case 7, 8, 9, 10:
			w.log.set(nil)
		case 11, 12, 13, 14, 15:
			h := &hoppers[rng.IntN(len(hoppers))]
			if closed, how, why := h.c.ended(); closed {
				w.Fatalf("a client was let go: %v %v", how, why)
			}
			to := n[rng.IntN(3)]
			h.c.leave()
			synctest.Wait()
			seq := h.check(w)
			c, err := to.try(s.ID, "a", seq)
			for err != nil { // the registry is there, but the log may be away
				if err != ErrUnavailable {
					w.Fatal(err)
				}
				w.log.set(nil)
				c, err = to.try(s.ID, "a", seq)
			}
			*h = hopper{c: c, from: seq}
		}
		s.send(1 + rng.IntN(5))
		if rng.IntN(3) == 0 {
			wait(time.Duration(rng.IntN(300)) * time.Millisecond)
		}
	}
	w.log.set(nil)
	w.bus.Drop(nil)
	for _, one := range n {
		w.bus.Heal(one.ID())
	}
	wait(30 * time.Second) // the longest wait between two tries
	s.End(sse.EndFinished, nil)
	wait(2 * tailCheck)
	for i := range hoppers {
		h := &hoppers[i]
		h.c.leftFor(hub.ReasonFinished)
		if last := h.check(w); last != s.count {
			w.Fatalf("a client got events up to %d of %d", last, s.count)
		}
	}
	logged := w.logged(s.ID)
	if len(logged) != int(s.count)+1 {
		w.Errorf("the log has %d frames, want %d", len(logged), s.count+1)
	}
	for i, f := range logged {
		if f.Pos.Seq != uint64(i+1) {
			w.Fatalf("frame %d of the log is %v", i+1, f.Pos)
		}
	}
}

// check checks that a connection got only what it should, and returns the last
// event, with which the client comes back.
func (h *hopper) check(w *world) (last uint64) {
	w.Helper()
	numbers, rest := h.c.events()
	for i, n := range numbers {
		if n != h.from+uint64(i)+1 {
			w.Fatalf("event %d stands where %d should", n, h.from+uint64(i)+1)
		}
	}
	if len(rest) > 0 {
		w.Fatalf("besides events there is %q", rest)
	}
	return h.from + uint64(len(numbers))
}

package cluster

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"ssegate/bus"
	"ssegate/hub"
	"ssegate/reconnect"
	"ssegate/registry"
	"ssegate/sse"
)

// apart is a world whose node a can be cut off from everything alone, or
// stopped, while the others go on.
type apart struct {
	*world
	log *shakyLog // a's way to the log
	reg *shakyRegistry
	n   []*node
	s   *feed   // a's stream: 5 events are in the log
	all *client // follows it on b
}

func inApart(t *testing.T, f func(w *apart)) {
	t.Helper()
	inWorld(t, func(w *world) {
		p := &apart{world: w, log: &shakyLog{now: w.log.now}, reg: &shakyRegistry{now: w.reg.now}}
		p.n = w.join(func(c *Config) {
			takesOver(w)(c)
			if c.Self.ID == "a" {
				c.Log, c.Registry = p.log, p.reg
			}
		}, "a", "b", "c")
		p.s = p.n[0].begin(func(spec *Spec) { spec.Request = []byte("again") })
		p.s.send(5)
		synctest.Wait()
		p.all = p.n[1].open(p.s.ID, "a", 0)
		synctest.Wait()
		defer p.log.set(nil)
		defer p.reg.set(nil)
		f(p)
	})
}

// cut cuts a off from log, registry and bus.
func (w *apart) cut() {
	w.log.set(away())
	w.reg.set(away())
	w.bus.Cut("a")
}

func (w *apart) heal() {
	w.log.set(nil)
	w.reg.set(nil)
	w.bus.Heal("a")
}

// succeed waits for another node to take the stream over, and calls it b. Its
// pump gets other events than a's: 101 and so on.
func (w *apart) succeed() *feed {
	w.Helper()
	wait(deadAfter + 2*checkEvery)
	if len(w.n[1].resume) == 0 {
		w.n[1], w.n[2] = w.n[2], w.n[1]
	}
	if len(w.n[1].resume) == 0 {
		w.Fatal("nobody took the stream over")
	}
	r := <-w.n[1].resume
	if r.from.Pos.Seq != 5 {
		w.Fatalf("it is to go on from %v", r.from.Pos)
	}
	f := &feed{Stream: r.s, n: w.n[1], count: 100}
	r.s.Adopt(30*time.Second, 10*time.Second, f.cancelled)
	return f
}

// hop is a client that comes to a node with a position of a's.
func (w *apart) hop(n *node, seq uint64) *client {
	w.Helper()
	return w.comes(n, sse.Pos{Epoch: w.s.Record().Epoch, Seq: seq})
}

func (w *apart) comes(n *node, at sse.Pos) *client {
	w.Helper()
	s, err := n.Open(context.Background(), w.s.ID, reconnect.OwnerTag("a"), at, n.w.local)
	if err != nil {
		w.Fatalf("%s opens: %v", n.ID(), err)
	}
	c := &client{w: n.w}
	c.f = s.Follow(c, hub.FollowOptions{After: at, Tag: c})
	synctest.Wait()
	return c
}

// gets checks the events that the client got, and before them the gap that it
// was told, if any.
func (c *client) gets(gap string, numbers ...uint64) {
	c.w.Helper()
	want := []byte(gap)
	for _, n := range numbers {
		want = fmt.Appendf(want, "data: %d\n\n", n)
	}
	if got := c.text(); got != string(want) {
		c.w.Fatalf("the client got %q, want %q", got, want)
	}
}

func replaced(from, to uint64) string {
	return fmt.Sprintf("event: ssegate.gap\ndata: {\"from\":%d,\"to\":%d,\"reason\":\"replaced\"}\n\n", from, to)
}

// TestLedAstray: an owner that is cut off from everything delivers on, and is
// succeeded. Who has events from it that are in no log is told so, wherever it
// comes back and whenever, and gets what the others get in their place.
func TestLedAstray(t *testing.T) {
	inApart(t, func(w *apart) {
		n, s := w.n, w.s
		near := n[0].follow(s.Stream, 0)
		w.cut()
		s.send(3)
		synctest.Wait()
		near.gets("", 1, 2, 3, 4, 5, 6, 7, 8)
		w.all.gets("", 1, 2, 3, 4, 5)
		early := []*client{w.hop(n[1], 8), w.hop(n[2], 8), w.hop(n[1], 6), w.hop(n[2], 5)}
		f := w.succeed()
		fenced := []*client{w.hop(n[1], 8), w.hop(n[2], 8), w.hop(n[2], 5)}
		for _, c := range append(early, fenced...) {
			c.gets("") // what comes in place of its events is not known yet
		}
		f.send(1)
		wait(tailCheck)
		first := []*client{w.hop(n[1], 8), w.hop(n[2], 8), w.hop(n[2], 5), w.hop(n[1], 3)}
		f.send(4)
		wait(tailCheck)
		late := []*client{w.hop(n[1], 8), w.hop(n[2], 8), w.hop(n[2], 6), w.hop(n[1], 6), w.hop(n[2], 3)}
		f.send(1)
		f.End(sse.EndFinished, nil)
		wait(tailCheck)
		rest := []uint64{101, 102, 103, 104, 105, 106}
		for i, c := range early[:3] {
			c.gets(replaced(6, []uint64{8, 8, 6}[i]), rest...)
		}
		early[3].gets("", rest...)
		fenced[0].gets(replaced(6, 8), rest...)
		fenced[1].gets(replaced(6, 8), rest...)
		fenced[2].gets("", rest...)
		first[0].gets(replaced(6, 8), rest...)
		first[1].gets(replaced(6, 8), rest...)
		first[2].gets("", rest...)
		first[3].gets("", append([]uint64{4, 5}, rest...)...)
		for i, c := range late[:4] {
			c.gets(replaced(6, []uint64{8, 8, 6, 6}[i]), rest...)
		}
		late[4].gets("", append([]uint64{4, 5}, rest...)...)
		w.all.gets("", append([]uint64{1, 2, 3, 4, 5}, rest...)...)
		for _, c := range append(append(early, fenced...), append(first, late...)...) {
			c.leftFor(hub.ReasonFinished)
		}
		// Who comes after the end has more to hear than the end.
		r, err := n[2].Open(context.Background(), s.ID, reconnect.OwnerTag("a"), sse.Pos{}, w.local)
		if err != nil {
			t.Fatal(err)
		}
		for seq, want := range map[uint64]bool{4: false, 5: false, 6: true, 8: true, 200: true} {
			if got := r.Replaced(context.Background(), sse.Pos{Epoch: s.Record().Epoch, Seq: seq}); got != want {
				t.Errorf("replaced up to %d: %v", seq, got)
			}
		}
		r.Release()
		w.hop(n[2], 200).gets(replaced(6, 200), rest...)
		w.hop(n[1], 200).gets(replaced(6, 200), rest...)

		// a learns of it before it delivers anything more.
		if takeovers(n) != 1 || s.why() != nil {
			t.Fatal("a was cut off?")
		}
		w.heal()
		s.send(1)
		wait(2 * heartbeat)
		if err := s.why(); !errors.Is(err, ErrFenced) {
			t.Errorf("a's upstream was cancelled with %v", err)
		}
		near.leftFor(ReasonMoved)
		if len(w.logged(s.ID)) != 12 {
			t.Errorf("the log has %d frames", len(w.logged(s.ID)))
		}
	})
}

// TestCameFromSuccessor: a client that was with the new owner already comes
// back to the old one, who learns by this that it was succeeded.
func TestCameFromSuccessor(t *testing.T) {
	inApart(t, func(w *apart) {
		w.cut()
		w.s.send(3)
		f := w.succeed()
		f.send(2)
		synctest.Wait()
		at := f.Record().Tail
		w.log.set(nil) // the registry and the bus are still away
		if c, err := w.n[0].Open(context.Background(), w.s.ID, [8]byte{}, at, w.local); !errors.Is(err, ErrUnavailable) {
			t.Errorf("a serves a stream that it does not own: %v, %v", c, err)
		}
		if w.s.Owned() {
			t.Error("a still holds the stream")
		}
		w.heal()
		wait(2 * heartbeat)
		c := w.comes(w.n[0], at)
		f.send(2)
		wait(tailCheck)
		c.gets("", 103, 104)
	})
}

// TestStoppedOwner: an owner that was stopped for longer than it takes to be
// dead asks before it delivers more, so that nobody is led astray. It does not
// wait for a log that does not answer.
func TestStoppedOwner(t *testing.T) {
	stop := func(w *apart) (goOn func()) {
		on := make(chan struct{})
		stopped := func(context.Context, string) error { <-on; return nil }
		w.log.set(stopped)
		w.reg.set(stopped)
		w.bus.Drop(func(from, to string, _ bus.Message) bool { return from == "a" || to == "a" })
		return func() { close(on); w.bus.Drop(nil) }
	}
	t.Run("succeeded", func(t *testing.T) {
		inApart(t, func(w *apart) {
			near := w.n[0].follow(w.s.Stream, 0)
			goOn := stop(w)
			f := w.succeed()
			f.send(3)
			synctest.Wait()
			w.log.set(nil)
			w.s.send(2) // read from the upstream before anything else went on
			near.gets("", 1, 2, 3, 4, 5)
			near.leftFor(ReasonMoved)
			goOn()
			w.reg.set(nil)
			wait(heartbeat)
			w.hop(w.n[0], 5).gets("", 101, 102, 103)
			if got := w.n[0].Stats().Gaps + w.n[1].Stats().Gaps; got != 0 {
				t.Errorf("%d gaps were told", got)
			}
		})
	})
	// The beat that is under way when it goes on fails, for its time is over. What
	// comes after it finds the lease gone. Whichever the pump is behind, or beside,
	// it asks.
	for name, first := range map[string]func(){
		"and the beat was beside":       func() {},
		"and the beat was first":        synctest.Wait,
		"and a second one was as well":  func() { wait(heartbeat) },
		"and it was a while ago by now": func() { wait(3 * deadAfter) },
	} {
		t.Run(name, func(t *testing.T) {
			inApart(t, func(w *apart) {
				near := w.n[0].follow(w.s.Stream, 0)
				goOn := stop(w)
				w.succeed().send(3)
				synctest.Wait()
				w.log.set(nil)
				goOn()
				first()
				w.s.send(2)
				wait(heartbeat)
				near.gets("", 1, 2, 3, 4, 5)
				near.leftFor(ReasonMoved)
			})
		})
	}
	t.Run("not succeeded", func(t *testing.T) {
		inApart(t, func(w *apart) {
			near := w.n[0].follow(w.s.Stream, 0)
			w.log.set(nil)
			asked := 0
			w.reg.set(func(ctx context.Context, op string) error { <-ctx.Done(); return ctx.Err() })
			wait(deadAfter / 3)
			w.reg.set(nil)
			wait(heartbeat)
			w.log.set(func(_ context.Context, op string) error {
				if op == "tails" {
					asked++
				}
				return nil
			})
			for range 20 {
				w.s.send(1)
				wait(10 * time.Millisecond)
			}
			near.has(1, 25)
			if asked > 0 {
				t.Errorf("the log was asked %d times", asked)
			}
		})
	})
	t.Run("the log hangs", func(t *testing.T) {
		inApart(t, func(w *apart) {
			near := w.n[0].follow(w.s.Stream, 0)
			goOn := stop(w)
			w.succeed()
			w.log.set(hung)
			before := time.Now()
			for range 5 {
				w.s.send(1)
			}
			if took := time.Since(before); took > askOwner {
				t.Errorf("local clients waited for %v", took)
			}
			near.has(1, 10)
			goOn()
		})
	})
	t.Run("all is away", func(t *testing.T) {
		inApart(t, func(w *apart) {
			near := w.n[0].follow(w.s.Stream, 0)
			w.log.set(hung)
			w.reg.set(hung)
			wait(3 * deadAfter)
			before := time.Now()
			for range 5 {
				w.s.send(1)
			}
			if took := time.Since(before); took > 0 {
				t.Errorf("local clients waited for %v", took)
			}
			near.has(1, 10)
		})
	})
}

// TestDoubtBesideBeat: a pump that asks itself whether it was taken for dead,
// while the beat that finds it so comes back, sees the one or the other.
func TestDoubtBesideBeat(t *testing.T) {
	beats := map[string]func(n *Node, now time.Duration){
		"lapsed": func(n *Node, now time.Duration) { n.beaten(now, time.Second, true, nil) },
		"failed": func(n *Node, now time.Duration) { n.beaten(now-time.Minute, time.Second, false, errAway) },
	}
	for name, beat := range beats {
		t.Run(name, func(t *testing.T) {
			for range 20_000 {
				n := &Node{cfg: Config{Self: registry.Node{Started: time.Now().Add(-time.Hour)}, DeadAfter: deadAfter}}
				s := &Stream{node: n, heritable: true}
				var wg sync.WaitGroup
				wg.Go(func() { beat(n, time.Hour) })
				doubtful := s.doubtful()
				wg.Wait()
				if !doubtful {
					t.Fatal("it does not ask")
				}
				s.doubtful() // perhaps once more
				if s.doubtful() {
					t.Fatal("it asks again and again")
				}
			}
		})
	}
}

// TestSuccessorWithoutLog: followers of the new owner's own node go on, and are
// told of the fork, while the log is away.
func TestSuccessorWithoutLog(t *testing.T) {
	inApart(t, func(w *apart) {
		w.cut()
		w.s.send(3)
		hop := w.hop(w.n[1], 8)
		f := w.succeed()
		w.world.log.set(away())
		f.send(2)
		synctest.Wait()
		hop.gets(replaced(6, 8), 101, 102)
		w.all.gets("", 1, 2, 3, 4, 5, 101, 102)
	})
}

// TestClaimProvedWrong: a node that had to believe a client's position, for the
// log was away, finds out.
func TestClaimProvedWrong(t *testing.T) {
	for _, more := range []int{2, 3, 4, 7} {
		t.Run(fmt.Sprint(more, " events"), func(t *testing.T) {
			inApart(t, func(w *apart) {
				w.cut()
				w.s.send(3)
				w.world.log.set(away())
				hop := w.hop(w.n[2], 8)
				w.world.log.set(nil)
				f := w.succeed()
				var want []uint64
				for i := range more {
					f.send(1)
					want = append(want, uint64(101+i))
				}
				wait(2 * tailCheck)
				hop.gets(replaced(6, 8), want...)
				f.End(sse.EndFinished, nil)
				wait(tailCheck)
				hop.leftFor(hub.ReasonFinished)
			})
		})
	}
}

// TestOnlyTheEnd: where the new owner adds nothing but the end, nobody's events
// are replaced; all hear the end.
func TestOnlyTheEnd(t *testing.T) {
	inApart(t, func(w *apart) {
		w.cut()
		w.s.send(3)
		early := []*client{w.hop(w.n[1], 8), w.hop(w.n[2], 8), w.hop(w.n[2], 6)}
		f := w.succeed()
		f.Fail(sse.EndLost, "upstream_lost", "the node that read the upstream died")
		wait(tailCheck)
		for _, c := range append(early, w.hop(w.n[1], 5), w.hop(w.n[2], 5)) {
			c.gets(lost)
			c.leftFor(hub.ReasonLost)
		}
	})
}

// TestReplacedIsCut: with gap = "cut" nobody is told, but cut.
func TestReplacedIsCut(t *testing.T) {
	inApart(t, func(w *apart) {
		w.cut()
		w.s.send(3)
		f := w.succeed()
		f.send(6)
		wait(tailCheck)
		at := sse.Pos{Epoch: w.s.Record().Epoch, Seq: 8}
		w.all.leave()
		synctest.Wait()
		s := w.n[2].local(w.s.ID)
		if s != nil {
			t.Fatal("c follows already")
		}
		r, err := w.n[2].Open(context.Background(), w.s.ID, reconnect.OwnerTag("a"), at, strict)
		if err != nil {
			t.Fatal(err)
		}
		c := &client{w: w.world}
		r.Follow(c, hub.FollowOptions{After: at, Tag: c})
		synctest.Wait()
		c.gets("")
		c.leftFor(hub.ReasonGap)
	})
}

// TestSameIDs: where the service gives ids and goes on behind the one that it is
// asked for, a client with an id that only the old owner had sent is found in
// the log, and gets each event once.
func TestSameIDs(t *testing.T) {
	inApart(t, func(w *apart) {
		w.cut()
		w.s.send(3)
		f := w.succeed()
		f.count = 5
		f.send(5)
		wait(tailCheck)
		for _, n := range w.n[1:] {
			at, err := n.FindID(context.Background(), w.s.ID, []byte("u8"))
			if err != nil {
				t.Fatal(err)
			}
			w.comes(n, at).gets("", 9, 10)
		}
		if strings.Contains(w.all.text(), "gap") {
			t.Error("a gap was told")
		}
	})
}

func strict(registry.Record) Local { return Local{Slow: hub.SlowLog, CutGap: true, Left: left} }

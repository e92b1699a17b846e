package cluster

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"ssegate/bus"
	"ssegate/hub"
	"ssegate/registry"
	"ssegate/sse"
)

// TestSuccessionFails: who has claimed a dead node's stream and cannot put its
// fence into the log tries again, and when it dies over it, another does.
func TestSuccessionFails(t *testing.T) {
	for _, goOn := range []bool{false, true} {
		t.Run(fmt.Sprint("takeover ", goOn), func(t *testing.T) {
			setUp := func(w *world) (n []*node, s *feed, all []*client) {
				change := func(*Config) {}
				if goOn {
					change = takesOver(w)
				}
				n = w.join(change, "a", "b", "c")
				s = n[0].begin(func(spec *Spec) {
					if goOn {
						spec.Request = []byte("again")
					}
				})
				s.send(10)
				synctest.Wait()
				all = []*client{n[1].open(s.ID, "a", 0), n[2].open(s.ID, "a", 0)}
				synctest.Wait()
				return n, s, all
			}
			over := func(w *world, n []*node, all []*client) {
				w.Helper()
				for _, one := range n {
					for len(one.resume) > 0 {
						r := <-one.resume
						r.s.Fail(sse.EndLost, "upstream_lost", "the node that read the upstream died")
						wait(tailCheck)
					}
				}
				for _, c := range all {
					c.hasThenLost(1, 10)
				}
			}
			t.Run("for a while", func(t *testing.T) {
				inWorld(t, func(w *world) {
					n, _, all := setUp(w)
					w.log.set(away("fence"))
					n[0].kill()
					wait(deadAfter + 3*checkEvery)
					if n[1].reported("dead owner's log could not be fenced")+n[2].reported("dead owner's log could not be fenced") == 0 {
						t.Fatal("nobody tried")
					}
					w.log.set(nil)
					wait(deadAfter)
					over(w, n[1:], all)
				})
			})
			t.Run("and it dies", func(t *testing.T) {
				inWorld(t, func(w *world) {
					n, s, all := setUp(w)
					w.log.set(func(ctx context.Context, op string) error {
						if op == "fence" {
							<-ctx.Done()
							return ctx.Err()
						}
						return nil
					})
					n[0].kill()
					wait(deadAfter + 3*checkEvery)
					rec, err := w.reg.Get(context.Background(), s.ID)
					if err != nil || rec.Owner == "a" {
						t.Fatalf("nobody has claimed it: %+v, %v", rec, err)
					}
					left := 1
					if rec.Owner == "b" {
						left = 2
					}
					n[3-left].kill()
					w.log.set(nil)
					wait(2*deadAfter + 2*checkEvery)
					over(w, n[left:left+1], all[left-1:left])
				})
			})
		})
	}
}

// TestEndedOwnerDies: a stream whose end is in the log is not lost with its
// owner, even if nobody elsewhere has seen the end yet.
func TestEndedOwnerDies(t *testing.T) {
	inWorld(t, func(w *world) {
		n := w.join(func(c *Config) { takesOver(w)(c); c.TailCheck = 10 * deadAfter; c.Grace = deadAfter }, "a", "b")
		s := n[0].begin(func(spec *Spec) { spec.Request = []byte("again") })
		s.send(3)
		far := n[1].open(s.ID, "a", 0)
		synctest.Wait()
		w.bus.Drop(func(_, _ string, m bus.Message) bool { return m.Kind == kindFrames })
		w.reg.set(away("put"))
		s.send(3)
		s.End(sse.EndFinished, nil)
		synctest.Wait()
		n[0].kill()
		w.reg.set(nil)
		wait(deadAfter + 2*checkEvery)
		far.has(1, 6)
		far.leftFor(hub.ReasonFinished)
		if takeovers(n[1:]) != 0 || len(n[1].resume) != 0 {
			t.Error("a finished stream was taken over")
		}
		if rec, err := w.reg.Get(context.Background(), s.ID); err != nil || rec.End != sse.EndFinished {
			t.Errorf("the registry has %+v, %v", rec, err)
		}
		wait(20 * deadAfter)
		if n[1].local(s.ID) != nil {
			t.Error("it is held for ever")
		}
	})
}

// TestForgottenOwnerDies: the registry forgets a stream whose owner is dead and
// cannot register it again. Its followers are told all the same.
func TestForgottenOwnerDies(t *testing.T) {
	inWorld(t, func(w *world) {
		n := w.join(nil, "a", "b", "c")
		s := n[0].begin(nil)
		s.send(10)
		synctest.Wait()
		all := []*client{n[1].open(s.ID, "a", 0), n[2].open(s.ID, "a", 0)}
		synctest.Wait()
		n[0].kill()
		w.reg.forget()
		wait(2*deadAfter + 4*checkEvery)
		for _, c := range all {
			c.hasThenLost(1, 10)
		}
		if sum := takeovers(n[1:]); sum != 1 {
			t.Errorf("%d nodes took it, want 1", sum)
		}
	})
}

// TestOwnerIsOnlySlow: a node that the registry takes for dead, but that
// answers, keeps its streams.
func TestOwnerIsOnlySlow(t *testing.T) {
	inWorld(t, func(w *world) {
		n := w.join(func(c *Config) {
			if c.Self.ID == "a" {
				c.Registry = &deafNode{shakyRegistry: w.reg}
			}
		}, "a", "b")
		s := n[0].begin(nil)
		s.send(3)
		far := n[1].open(s.ID, "a", 0)
		synctest.Wait()
		n[0].cfg.Registry.(*deafNode).deaf = true
		for i := range 20 {
			s.send(1)
			wait(deadAfter / 5)
			far.has(1, uint64(4+i))
		}
		if _, listed := n[1].Peers()["a"]; listed {
			t.Fatal("the owner still counts as alive")
		}
		if sum := takeovers(n); sum != 0 || s.why() != nil {
			t.Errorf("%d nodes took the stream of a living one: %v", sum, s.why())
		}
	})
}

// deafNode is a registry whose Beat does not get through.
type deafNode struct {
	*shakyRegistry
	deaf bool
}

func (d *deafNode) Beat(ctx context.Context, n registry.Node, ttl time.Duration) (bool, error) {
	if d.deaf {
		return false, errAway
	}
	return d.shakyRegistry.Beat(ctx, n, ttl)
}

// TestOwnerDiesAsTheyCome: clients come to the other nodes just before, while
// and after the owner of their streams dies, some before its registry and log
// have heard of the stream. Whoever was let in is told in time that it is lost;
// nobody waits in silence.
func TestOwnerDiesAsTheyCome(t *testing.T) {
	for seed := range uint64(20) {
		t.Run(fmt.Sprint("seed ", seed), func(t *testing.T) {
			inWorld(t, func(w *world) {
				rng := rand.New(rand.NewPCG(seed, 5))
				n := w.join(func(c *Config) { c.Keep = 2 * deadAfter }, "a", "b", "c")
				slow := func(ctx context.Context, _ string) error { // each call takes its time
					sleep(ctx, time.Duration(rand.IntN(20))*time.Millisecond)
					return ctx.Err()
				}
				w.log.set(slow)
				w.reg.set(slow)
				var wg sync.WaitGroup
				var mu sync.Mutex
				var all []*client
				died := time.Now().Add(300 * time.Millisecond)
				for range 60 {
					starts := time.Duration(rng.IntN(300)) * time.Millisecond
					comes := starts + time.Duration(rng.IntN(200))*time.Millisecond
					to := n[1+rng.IntN(2)]
					wg.Go(func() {
						time.Sleep(starts)
						if n[0].gone() {
							return
						}
						s := n[0].begin(func(spec *Spec) { spec.Limits.TTL = deadAfter / 3 })
						s.send(3)
						time.Sleep(comes - starts)
						if c, err := to.try(s.ID, "a", 2); err == nil {
							mu.Lock()
							all = append(all, c)
							mu.Unlock()
						} else if err != ErrUnknown && err != ErrUnavailable {
							t.Error(err)
						}
					})
				}
				time.Sleep(time.Until(died))
				n[0].kill()
				wg.Wait()
				wait(3*deadAfter + 2*checkEvery)
				for i, c := range all {
					closed, how, why := c.ended()
					if !closed || why != hub.ReasonLost || how != hub.CloseFlush || strings.Count(c.text(), "upstream_lost") != 1 {
						t.Fatalf("client %d of %d left: %v %v for %q; it got %q", i, len(all), closed, how, why, c.text())
					}
				}
				t.Logf("%d were let in", len(all))
			})
		})
	}
}

// TestLeftInSuccession: the last client of a node leaves it while that node is
// about to take a stream over. Whoever comes back, there or elsewhere, gets what
// follows, and the upstream is asked once.
func TestLeftInSuccession(t *testing.T) {
	for _, step := range []string{"get", "claim", "fence"} {
		for back := range 2 {
			t.Run(fmt.Sprintf("%s, back on %d", step, back), func(t *testing.T) {
				inWorld(t, func(w *world) {
					n := w.join(takesOver(w), "a", "b", "c")
					s := n[0].begin(func(spec *Spec) { spec.Request = []byte("again") })
					s.send(10)
					synctest.Wait()
					near := n[1].open(s.ID, "a", 0)
					synctest.Wait()
					var once sync.Once
					leave := func(_ context.Context, op string) error {
						if op == step {
							once.Do(func() { near.leave(); time.Sleep(time.Millisecond) })
						}
						return nil
					}
					n[0].kill()
					w.log.set(leave)
					w.reg.set(leave)
					wait(deadAfter + 2*checkEvery)
					near.leftFor(hub.ReasonClient)
					far := n[1+back].open(s.ID, "a", 10)
					wait(2 * checkEvery)
					f := w.goesOn(10)
					f.send(5)
					wait(2 * tailCheck)
					far.has(11, 15)
					f.End(sse.EndFinished, nil)
					wait(2 * tailCheck)
					far.leftFor(hub.ReasonFinished)
					if sum := takeovers(n[1:]); sum != 1 {
						t.Errorf("%d takeovers", sum)
					}
				})
			})
		}
	}
}

// TestClaimedAndLeft: who has claimed a dead node's stream and could not put its
// fence into the log has nobody left who wants it, and lives. Others do not wait
// for it.
func TestClaimedAndLeft(t *testing.T) {
	inWorld(t, func(w *world) {
		n := w.join(takesOver(w), "a", "b", "c")
		s := n[0].begin(func(spec *Spec) { spec.Request = []byte("again") })
		s.send(10)
		synctest.Wait()
		near := n[1].open(s.ID, "a", 0)
		synctest.Wait()
		w.log.set(func(_ context.Context, op string) error {
			if op != "fence" {
				return nil
			}
			near.leave()
			time.Sleep(time.Millisecond)
			return errors.New("away")
		})
		n[0].kill()
		wait(deadAfter + 2*checkEvery)
		if rec, err := w.reg.Get(context.Background(), s.ID); err != nil || rec.Owner != "b" || n[1].local(s.ID) != nil {
			t.Fatalf("b was to have claimed it and let go: %+v, %v", rec, err)
		}
		w.log.set(nil)
		far := n[2].open(s.ID, "a", 10)
		wait(2 * tailCheck)
		f := w.goesOn(10)
		f.send(5)
		wait(tailCheck)
		far.has(11, 15)
		if sum := takeovers(n[1:]); sum != 1 || !f.Owned() {
			t.Errorf("%d takeovers", sum)
		}
	})
}

// goesOn is the feed of the one node that was told to go on with a stream of so
// many events.
func (w *world) goesOn(count uint64) (f *feed) {
	w.Helper()
	for _, n := range w.nodes {
		for len(n.resume) > 0 {
			r := <-n.resume
			if f != nil {
				w.Fatalf("%s and %s went on", f.n.ID(), n.ID())
			}
			f = &feed{Stream: r.s, n: n, count: count}
			r.s.Adopt(30*time.Second, 10*time.Second, f.cancelled)
		}
	}
	if f == nil {
		w.Fatal("nobody went on")
	}
	return f
}

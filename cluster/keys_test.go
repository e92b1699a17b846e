package cluster

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"ssegate/hub"
	"ssegate/reconnect"
	"ssegate/registry"
	"ssegate/sse"
)

// asker is a client that bears an attach key.
type asker struct {
	n   *node
	s   *feed   // what it put up
	got *client // how it follows the winner
	won bool
	err error
}

// ask puts a stream up for a key and joins the one that holds it.
func (n *node) ask(key, sum string) *asker {
	a := &asker{n: n, s: &feed{n: n}}
	a.s.Stream = n.Begin(Spec{
		Limits: reconnect.Limits{Length: 1000, TTL: time.Minute}, DetachFor: 30 * time.Second, JoinFor: 10 * time.Second, Quiet: true,
		Local: n.w.local(registry.Record{}), Cancel: a.s.cancelled,
	})
	now, won, err := n.Elect(context.Background(), key, a.s.Stream, []byte(sum), false)
	a.won, a.err = won, err
	switch {
	case won:
		a.s.Announce()
		return a
	case err != nil:
		a.lose()
		return a
	}
	a.lose()
	ctx, cancel := context.WithTimeout(context.Background(), time.Minute)
	defer cancel()
	s, err := n.Join(ctx, now, n.w.local)
	if err != nil {
		a.err = err
		return a
	}
	a.got = n.follow(s, 0)
	return a
}

func (a *asker) lose() { a.s.Refuse(); a.s.Release() }

// TestElection: of many who bring the same key to all nodes at the same time,
// one runs, and all others follow it from the start.
func TestElection(t *testing.T) {
	for seed := range uint64(20) {
		t.Run(fmt.Sprint("seed ", seed), func(t *testing.T) {
			inWorld(t, func(w *world) {
				rng := rand.New(rand.NewPCG(seed, 3))
				n := w.join(nil, "a", "b", "c")
				w.reg.set(func(context.Context, string) error { // each call takes its time
					sleep(context.Background(), time.Duration(rand.IntN(20))*time.Millisecond)
					return nil
				})
				const clients = 12
				late := make([]time.Duration, clients)
				for i := range late {
					late[i] = time.Duration(rng.IntN(60)) * time.Millisecond
				}
				askers := make([]*asker, clients)
				var wg sync.WaitGroup
				for i := range clients {
					wg.Go(func() {
						time.Sleep(late[i])
						a := n[i%3].ask("key", "body")
						askers[i] = a
						if a.won { // its upstream answers after a while
							time.Sleep(200 * time.Millisecond)
							a.s.SetHead([]byte("head"))
							a.s.send(1)
							a.got = a.n.follow(a.s.Stream, 0)
							a.s.send(9)
						}
					})
				}
				wg.Wait()
				synctest.Wait()
				winners := 0
				for i, a := range askers {
					if a.err != nil {
						t.Fatalf("client %d: %v", i, a.err)
					}
					if a.won {
						winners++
						a.s.End(sse.EndFinished, nil)
					}
				}
				wait(tailCheck)
				if winners != 1 {
					t.Fatalf("%d won", winners)
				}
				for _, a := range askers {
					a.got.has(1, 10)
					a.got.leftFor(hub.ReasonFinished)
				}
			})
		})
	}
}

// TestKeyLife: a key leads to its stream while it runs and for JoinFor after,
// and is then free; another body under it is refused.
func TestKeyLife(t *testing.T) {
	inWorld(t, func(w *world) {
		n := w.join(nil, "a", "b")
		first := n[0].ask("key", "body")
		if !first.won {
			t.Fatal(first.err)
		}
		first.s.SetHead([]byte("head"))
		wait(5 * deadAfter) // a quiet stream keeps its key
		for _, one := range n {
			if a := one.ask("key", "body"); a.got == nil {
				t.Errorf("%s: did not join: %v, won %v", one.ID(), a.err, a.won)
			}
			if a := one.ask("key", "another"); !errors.Is(a.err, ErrOtherBody) {
				t.Errorf("%s: another body under the same key: %v", one.ID(), a.err)
			}
			if a := one.ask("other key", "body"); !a.won {
				t.Errorf("%s: another key did not win", one.ID())
			} else {
				a.lose() // and gives it back
			}
			synctest.Wait()
		}
		first.s.send(3)
		first.s.End(sse.EndFinished, nil)
		wait(9 * time.Second)
		for _, one := range n {
			a := one.ask("key", "body")
			synctest.Wait()
			if a.got == nil {
				t.Fatalf("%s: did not join the ended stream: %v", one.ID(), a.err)
			}
			a.got.has(1, 3)
		}
		wait(2 * time.Second)
		again := n[1].ask("key", "another")
		if !again.won {
			t.Fatalf("the key is not free again: %v", again.err)
		}
		again.s.SetHead([]byte("head"))
		if a := n[0].ask("key", "another"); a.got == nil || a.got.f.Stream() == nil {
			t.Fatalf("the second stream is not joined: %v, won %v", a.err, a.won)
		}
	})
}

// TestKeyOfNoStream: whoever waits for a stream that turns out to be none is
// told so at once, and the key is free.
func TestKeyOfNoStream(t *testing.T) {
	inWorld(t, func(w *world) {
		n := w.join(nil, "a", "b")
		first := n[0].ask("key", "body")
		var wg sync.WaitGroup
		for _, one := range n {
			wg.Go(func() {
				begun := time.Now()
				if a := one.ask("key", "body"); !errors.Is(a.err, ErrUnknown) {
					t.Errorf("%s: joined a stream that is none: %v", one.ID(), a.err)
				}
				if d := time.Since(begun); d < 5*time.Second || d > 6*time.Second {
					t.Errorf("%s: was told after %v", one.ID(), d)
				}
			})
		}
		wait(5 * time.Second)
		first.lose()
		wg.Wait()
		synctest.Wait()
		for _, one := range []*node{n[1], n[0]} {
			a := one.ask("key", "another")
			if !a.won {
				t.Fatalf("%s: the key is not free: %v", one.ID(), a.err)
			}
			a.lose()
			synctest.Wait()
		}
	})
}

// TestKeyOfTheDead: a key whose owner died is free once it counts as dead, and
// who waits for it does not wait longer than that.
func TestKeyOfTheDead(t *testing.T) {
	inWorld(t, func(w *world) {
		n := w.join(nil, "a", "b")
		if first := n[0].ask("key", "body"); !first.won {
			t.Fatal(first.err)
		}
		done := make(chan *asker)
		go func() { done <- n[1].ask("key", "body") }()
		synctest.Wait()
		n[0].kill()
		died := time.Now()
		if a := <-done; !errors.Is(a.err, ErrUnknown) || time.Since(died) > deadAfter+2*checkEvery {
			t.Fatalf("the waiting one got %v after %v", a.err, time.Since(died))
		}
		if a := n[1].ask("key", "body"); !a.won {
			t.Fatalf("the key of a dead node is not free: %v", a.err)
		}
	})
}

// TestNoElection: with the registry away, the route decides whether the client
// runs or is refused; either is soon, and then the equal keys of one node still
// run once.
func TestNoElection(t *testing.T) {
	inWorld(t, func(w *world) {
		n := w.join(nil, "a")
		w.reg.set(hung)
		begun := time.Now()
		if a := n[0].ask("key", "body"); !errors.Is(a.err, ErrUnavailable) {
			t.Fatalf("refuse: %v, won %v", a.err, a.won)
		}
		if d := time.Since(begun); d != 300*time.Millisecond {
			t.Errorf("an election that cannot be held took %v", d)
		}
		one, two := n[0].begin(nil), n[0].begin(nil)
		var wg sync.WaitGroup
		won := make([]bool, 2)
		for i, s := range []*feed{one, two} {
			wg.Go(func() {
				now, w, err := n[0].Elect(context.Background(), "run", s.Stream, nil, true)
				if err != nil || now.Owner != "a" {
					t.Errorf("run: %+v, %v", now, err)
				}
				won[i] = w
			})
		}
		wg.Wait()
		if won[0] == won[1] {
			t.Errorf("of two with one key these won: %v", won)
		}
		if n[0].Stats().ElectionsUnheld != 1 {
			t.Error("it was not counted")
		}
	})
}

// TestPrints: a client that comes back with an id of the backend's is found by
// its fingerprint on any node; two streams that match are none.
func TestPrints(t *testing.T) {
	inWorld(t, func(w *world) {
		n := w.join(nil, "a", "b")
		s := n[0].begin(nil)
		s.SetUpstreamIDs("print")
		s.send(10)
		synctest.Wait()
		on := func(n *node, id string) (sse.StreamID, sse.Pos, error) {
			at, err := n.ByPrint(context.Background(), "print", []byte(id))
			return at.Stream, at.Pos, err
		}
		find := func(id string) (sse.StreamID, sse.Pos, error) { // the same on each node
			t.Helper()
			is, pos, err := on(n[0], id)
			for _, one := range n[1:] {
				if is2, pos2, err2 := on(one, id); is2 != is || pos2.Seq != pos.Seq || !errors.Is(err2, err) {
					t.Errorf("%s finds %v %v %v, a %v %v %v", one.ID(), is2, pos2, err2, is, pos, err)
				}
			}
			return is, pos, err
		}
		if is, pos, err := find("u7"); is != s.ID || pos.Seq != 7 || err != nil {
			t.Fatalf("found %v %v %v", is, pos, err)
		}
		if _, _, err := find("u11"); !errors.Is(err, ErrUnknown) {
			t.Fatalf("an id that no event has: %v", err)
		}
		other := n[0].begin(nil)
		other.SetUpstreamIDs("print")
		other.send(8)
		synctest.Wait()
		if _, _, err := find("u7"); !errors.Is(err, ErrUnknown) {
			t.Fatalf("an id of two streams: %v", err)
		}
		if is, _, err := find("u9"); is != s.ID || err != nil {
			t.Fatalf("an id of one of two streams: %v %v", is, err)
		}
		// With everything away, a stream of this node's is found in its ring.
		w.log.set(hung)
		w.reg.set(hung)
		if is, pos, err := on(n[0], "u9"); is != s.ID || pos.Seq != 9 || err != nil {
			t.Errorf("with everything away: %v %v %v", is, pos, err)
		}
		if is, pos, err := on(n[1], "u9"); is != s.ID || pos.Seq != 9 || err != nil {
			t.Errorf("with everything away but the bus, elsewhere: %v %v %v", is, pos, err)
		}
	})
}

// TestKeyBeforeRecord: who joins a stream that the registry has not heard of
// asks its owner, and does not run a second time.
func TestKeyBeforeRecord(t *testing.T) {
	inWorld(t, func(w *world) {
		n := w.join(nil, "a", "b")
		w.reg.set(away("put"))
		first := n[0].ask("key", "body")
		first.s.SetHead([]byte("head"))
		first.s.send(3)
		synctest.Wait()
		second := n[1].ask("key", "body")
		if second.got == nil {
			t.Fatalf("did not join: %v, won %v", second.err, second.won)
		}
		synctest.Wait()
		second.got.has(1, 3)
	})
}

package cluster

import (
	"context"
	"errors"
	"slices"
	"testing"
	"testing/synctest"
	"time"

	"ssegate/hub"
	"ssegate/reconnect"
	"ssegate/registry"
	"ssegate/sse"
)

// full is everything that a node can have registered.
type full struct {
	w    *world
	n    []*node
	s    *feed
	far  *client
	conn string
}

func fill(w *world) *full {
	f := &full{w: w, n: w.join(nil, "a", "b"), conn: "a-1"}
	a := f.n[0].ask("key", "body")
	f.s = a.s
	f.s.SetHead([]byte("head"))
	f.s.SetUpstreamIDs("print")
	f.s.send(5)
	f.n[0].Connected(registry.Connection{ID: f.conn, Stream: f.s.ID, Remote: "here"})
	synctest.Wait()
	f.far = f.n[1].open(f.s.ID, "a", 0)
	synctest.Wait()
	return f
}

// missing names what the registry does not have of it.
func (f *full) missing() (what []string) {
	ctx := context.Background()
	is := func(ok bool, name string) {
		if !ok {
			what = append(what, name)
		}
	}
	nodes, err := f.w.reg.List(ctx)
	is(err == nil && len(nodes) == 2, "nodes")
	rec, err := f.w.reg.Get(ctx, f.s.ID)
	is(err == nil && rec.Owner == "a" && rec.State == registry.StateLive && rec.UpstreamIDs && string(rec.Head) == "head", "record")
	followers, err := f.w.reg.Followers(ctx, []sse.StreamID{f.s.ID})
	is(err == nil && slices.Equal(followers[0], []string{"b"}), "interest")
	now, won, err := f.w.reg.Elect(ctx, "key", registry.Bid{Stream: f.s.ID, Owner: "a"}, deadAfter)
	is(err == nil && won && now.Stream == f.s.ID, "key")
	prints, err := f.w.reg.ByPrint(ctx, "print")
	is(err == nil && slices.Equal(prints, []sse.StreamID{f.s.ID}), "fingerprint")
	conns, err := f.w.reg.Conns(ctx)
	is(err == nil && len(conns) == 1 && conns[0].ID == f.conn && conns[0].Node == "a", "connection")
	return what
}

// TestRegistryEmptied: everything is registered again by itself, nobody is
// taken for dead meanwhile, and clients feel nothing of it.
func TestRegistryEmptied(t *testing.T) {
	inWorld(t, func(w *world) {
		f := fill(w)
		if lacks := f.missing(); lacks != nil {
			t.Fatalf("not registered in the first place: %q", lacks)
		}
		for range 3 {
			w.reg.forget()
			emptied := time.Now()
			for range 10 {
				f.s.send(1)
				wait(checkEvery / 2)
			}
			f.far.has(1, f.s.count)
			wait(deadAfter)
			// Elect of missing would put the key there itself.
			if now, _, _ := w.reg.Elect(context.Background(), "key", registry.Bid{Stream: sse.NewStreamID(), Owner: "b"}, time.Second); now.Stream != f.s.ID {
				t.Error("the key is not registered again")
			}
			if lacks := f.missing(); lacks != nil {
				t.Fatalf("not registered again within %v: %q", time.Since(emptied), lacks)
			}
			// A client that comes back with the backend's id, elsewhere.
			if at, err := f.n[1].ByPrint(context.Background(), "print", []byte("u3")); at.Stream != f.s.ID || at.Pos.Seq != 3 {
				t.Errorf("by print: %v %v", at, err)
			}
		}
		if takeovers(f.n) != 0 || f.s.why() != nil {
			t.Errorf("somebody was taken for dead: %v", f.s.why())
		}
	})
}

// TestRegistryStoodStill: a registry that stood still for longer than a lease
// holds goes on with a beat that nobody waits for any more. All is registered
// again, though the next beat finds a lease.
func TestRegistryStoodStill(t *testing.T) {
	inWorld(t, func(w *world) {
		f := fill(w)
		for range 3 {
			w.reg.set(hung)
			wait(deadAfter + 3*checkEvery)
			for _, n := range f.n {
				if lapsed, err := w.reg.now.Beat(context.Background(), n.cfg.Self, deadAfter); err != nil || !lapsed {
					t.Fatalf("the late beat of %s: %v, %v", n.ID(), lapsed, err)
				}
			}
			w.reg.set(nil)
			wait(deadAfter + 3*checkEvery)
			if lacks := f.missing(); lacks != nil {
				t.Fatalf("not registered again: %q", lacks)
			}
		}
		f.far.has(1, f.s.count)
		if takeovers(f.n) != 0 || f.s.why() != nil {
			t.Errorf("somebody was taken for dead: %v", f.s.why())
		}
	})
}

// TestRegistryAway: while the registry is away streams flow here and
// elsewhere, what is known stays known, and what happened meanwhile is
// registered when it is back.
func TestRegistryAway(t *testing.T) {
	for name, ask := range map[string]func(context.Context, string) error{"refused": away(), "hung": hung} {
		t.Run(name, func(t *testing.T) {
			inWorld(t, func(w *world) {
				f := fill(w)
				w.reg.set(ask)
				fresh := f.n[0].begin(nil)
				fresh.send(2)
				for i := range 60 {
					f.s.send(1)
					wait(time.Second)
					f.far.has(1, uint64(6+i))
				}
				if len(f.n[0].Peers()) != 2 || takeovers(f.n) != 0 {
					t.Errorf("peers %v", f.n[0].Peers())
				}
				// A stream that was begun meanwhile is found through its owner.
				far := f.n[1].open(fresh.ID, "a", 0)
				synctest.Wait()
				far.has(1, 2)
				// Nothing may be concluded about one that nobody knows.
				_, err := f.n[1].Find(context.Background(), sse.NewStreamID(), reconnect.OwnerTag("a"))
				if !errors.Is(err, ErrUnavailable) {
					t.Errorf("a stream that nobody knows: %v", err)
				}
				f.n[0].Disconnected(f.conn)
				f.conn = "a-2"
				f.n[0].Connected(registry.Connection{ID: f.conn, Stream: fresh.ID})
				w.reg.set(nil)
				wait(2 * deadAfter)
				if lacks := f.missing(); lacks != nil {
					t.Errorf("not registered when it was back: %q", lacks)
				}
				if _, err := w.reg.Get(context.Background(), fresh.ID); err != nil {
					t.Errorf("the new stream: %v", err)
				}
				_, err = f.n[1].Find(context.Background(), sse.NewStreamID(), reconnect.OwnerTag("a"))
				if !errors.Is(err, ErrUnknown) {
					t.Errorf("a stream that nobody knows: %v", err)
				}
			})
		})
	}
}

// TestNothingStays: of streams that ended in every way neither the node nor
// the registry keeps anything once their time is over.
func TestNothingStays(t *testing.T) {
	inWorld(t, func(w *world) {
		n := w.join(func(c *Config) { c.Keep = time.Minute; c.Grace = 5 * time.Second }, "a", "b", "c")
		limits := func(spec *Spec) { spec.Limits.TTL = time.Minute; spec.DetachFor = 5 * time.Second }
		for i := range 200 {
			owner, other := n[i%3], n[(i+1)%3]
			var s *feed
			if i%5 == 0 {
				a := owner.ask(string(rune('A'+i)), "body")
				s = a.s
				if i%2 == 0 {
					a.lose()
					continue
				}
				s.SetHead([]byte("head"))
			} else {
				s = owner.begin(limits)
			}
			s.SetUpstreamIDs(string(rune('a' + i%7)))
			s.send(3)
			near := owner.follow(s.Stream, 0)
			synctest.Wait()
			var far *client
			if i%3 > 0 {
				far = other.open(s.ID, owner.ID(), 1)
			}
			switch i % 4 {
			case 0:
				s.End(sse.EndFinished, nil)
			case 1:
				near.leave()
				wait(time.Millisecond)
				s.Fail(sse.EndCut, "because", "of this")
			case 2: // everybody leaves: detached
				near.leave()
				if far != nil {
					far.leave()
				}
			case 3: // stopped from elsewhere
				rec, err := other.Find(context.Background(), s.ID, reconnect.OwnerTag(owner.ID()))
				if err == nil {
					err = other.Stop(context.Background(), rec)
				}
				if err != nil || s.why() != ErrStopped {
					t.Fatalf("stop: %v, cancelled with %v", err, s.why())
				}
				s.End(sse.EndStopped, nil)
			}
			if i%4 == 2 { // as its pump does
				go func() {
					for s.why() == nil {
						time.Sleep(time.Second)
					}
					s.End(sse.EndDetached, nil)
				}()
			}
		}
		wait(3 * time.Minute)
		for _, one := range n {
			one.Node.mu.Lock()
			if len(one.streams)+len(one.keys)+len(one.prints)+len(one.calls)+len(one.ended) > 0 {
				t.Errorf("%s holds %d streams, %d keys, %d prints, %d calls, %d ended",
					one.ID(), len(one.streams), len(one.keys), len(one.prints), len(one.calls), len(one.ended))
			}
			one.Node.mu.Unlock()
			one.regs.mu.Lock()
			if len(one.regs.recs)+len(one.regs.conns)+len(one.regs.ops)+len(one.regs.held) > 0 {
				t.Errorf("%s still has to register something", one.ID())
			}
			one.regs.mu.Unlock()
			if st := one.hub.Stats(); st.Streams != 0 || st.Followers != 0 || st.RingBytes != 0 {
				t.Errorf("%s: hub %+v", one.ID(), st)
			}
			if one.Stats().Outbox != 0 {
				t.Errorf("%s still has something to log", one.ID())
			}
		}
		w.log.now.Sweep()
		if st := w.log.now.Stats(); st.Logs != 0 || st.Bytes != 0 {
			t.Errorf("the log keeps %+v", st)
		}
	})
}

// TestLeave: who leaves in order gives up the lease, and with it its interest
// and connections, at once; the others do not wait until it counts as dead.
func TestLeave(t *testing.T) {
	inWorld(t, func(w *world) {
		f := fill(w)
		f.s.spec.DetachFor = time.Second
		f.s.Release()
		f.n[1].leave()
		if nodes, _ := w.reg.List(context.Background()); len(nodes) != 1 {
			t.Errorf("the lease is still there: %v", nodes)
		}
		if followers, _ := w.reg.Followers(context.Background(), []sse.StreamID{f.s.ID}); len(followers[0]) != 0 {
			t.Errorf("its interest still counts: %v", followers)
		}
		f.far.leftFor(hub.ReasonShutdown)
		wait(4*tailCheck + tailCheck + time.Second)
		if f.s.why() != ErrDetached {
			t.Errorf("the upstream still runs for nobody: %v", f.s.why())
		}
	})
}

// TestNodeOfFollowersDies: an upstream does not run for ever for the followers
// of a node that is dead.
func TestNodeOfFollowersDies(t *testing.T) {
	inWorld(t, func(w *world) {
		f := fill(w)
		f.s.Release()
		wait(10 * tailCheck)
		if f.s.why() != nil {
			t.Fatalf("cancelled under a follower: %v", f.s.why())
		}
		f.n[1].kill()
		wait(4*tailCheck + tailCheck + 30*time.Second)
		if f.s.why() != ErrDetached {
			t.Errorf("the upstream still runs for nobody: %v", f.s.why())
		}
	})
}

// TestWordIsKept: what was due when a node was told to leave is written before
// it has left.
func TestWordIsKept(t *testing.T) {
	inWorld(t, func(w *world) {
		n := w.join(nil, "a")
		w.log.set(away("append"))
		w.reg.set(away("put"))
		s := n[0].begin(nil)
		s.send(100)
		wait(100 * time.Millisecond)
		w.log.set(nil)
		w.reg.set(nil)
		s.send(5)
		s.End(sse.EndFinished, nil)
		n[0].leave()
		if got := len(w.logged(s.ID)); got != 106 {
			t.Errorf("the log has %d frames, want 106", got)
		}
		if rec, err := w.reg.Get(context.Background(), s.ID); err != nil || rec.State != registry.StateEnded {
			t.Errorf("the registry has %+v, %v", rec, err)
		}
	})
}

// TestKeepAtLeast: what a stream that began after it has registered lives as
// long as was asked for, and a shorter time that is asked for later takes
// nothing from it.
func TestKeepAtLeast(t *testing.T) {
	inWorld(t, func(w *world) {
		n := w.join(func(c *Config) { c.Keep = 5 * time.Second; c.Grace = time.Second }, "a", "b")
		for _, one := range n {
			if got := one.KeepAtLeast(time.Minute); got != time.Minute {
				t.Errorf("records are kept for %v", got)
			}
			if got := one.KeepAtLeast(time.Second); got != time.Minute {
				t.Errorf("records are kept for %v after a shorter time was asked for", got)
			}
		}
		s := n[0].begin(func(spec *Spec) { spec.Limits.TTL = time.Minute })
		s.send(3)
		s.End(sse.EndFinished, nil)
		wait(45 * time.Second)
		if _, err := w.reg.Get(context.Background(), s.ID); err != nil {
			t.Fatalf("its log is there, and nothing leads to it: %v", err)
		}
		c := n[1].open(s.ID, "a", 1)
		synctest.Wait()
		c.has(2, 3)
	})
}

// TestKeepAtLeastRenews: what was registered before it is renewed before the
// shorter time is over that it was registered for.
func TestKeepAtLeastRenews(t *testing.T) {
	inWorld(t, func(w *world) {
		n := w.join(func(c *Config) { c.Keep = time.Minute }, "a", "b")
		a := n[0].ask("key", "body")
		a.s.SetHead([]byte("head"))
		a.s.SetUpstreamIDs("print")
		n[1].subscribe(CursorFrom{}, nil, "user/1")
		synctest.Wait()
		for _, one := range n {
			one.KeepAtLeast(time.Hour)
		}
		topic := []sse.StreamID{TopicOf("user/1").ID}
		for at := range 120 {
			prints, err := w.reg.ByPrint(context.Background(), "print")
			if err != nil || len(prints) != 1 {
				t.Fatalf("after %d s the fingerprint leads to %v, %v", at, prints, err)
			}
			if who, err := w.reg.Followers(context.Background(), topic); err != nil || len(who[0]) != 1 {
				t.Fatalf("after %d s the topic is followed by %v, %v", at, who, err)
			}
			wait(time.Second)
		}
	})
}

// TestLongLife: what a stream has registered lives as long as the stream, and
// not just as long as the registry keeps what it hears nothing of.
func TestLongLife(t *testing.T) {
	inWorld(t, func(w *world) {
		f := fill(w)
		wait(time.Hour) // six times Config.Keep
		if lacks := f.missing(); lacks != nil {
			t.Errorf("no longer registered: %q", lacks)
		}
		f.s.send(1)
		synctest.Wait()
		f.far.has(1, 6)
		late := f.n[1].open(f.s.ID, "a", 2)
		synctest.Wait()
		late.has(3, 6)
	})
}

// TestYoungNodesJudgeNobody: a registry that is emptied when nodes have just
// begun makes nobody dead who is late to register again, even while none can
// ask another.
func TestYoungNodesJudgeNobody(t *testing.T) {
	inWorld(t, func(w *world) {
		a := w.join(nil, "a")[0]
		wait(150 * time.Millisecond) // so that b is the first to look
		b := w.join(nil, "b")[0]
		s := a.begin(nil)
		s.send(10)
		far := b.open(s.ID, "a", 0)
		synctest.Wait()
		w.bus.Cut("a")
		w.reg.forget()
		for range 4 {
			w.reg.set(func(_ context.Context, op string) error {
				if peers, err := w.reg.now.List(context.Background()); op == "beat" && err == nil && len(peers) > 0 {
					return errors.New("away") // one was in time
				}
				return nil
			})
			wait(checkEvery)
		}
		if peers := b.Peers(); len(peers) != 1 || peers["b"].ID != "b" {
			t.Fatalf("b was to be in time alone: %v", peers)
		}
		w.reg.set(nil)
		s.send(5)
		wait(tailCheck)
		far.has(1, 15)
	})
}

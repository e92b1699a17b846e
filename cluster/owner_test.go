package cluster

import (
	"context"
	"fmt"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"ssegate/hub"
	"ssegate/reconnect"
	"ssegate/sse"
)

// lost is what a client is told last of a stream whose owner died.
const lost = "event: ssegate.error\ndata: {\"reason\":\"upstream_lost\",\"detail\":\"the node that read the upstream died\"}\n\n"

// hasThenLost checks that the client got exactly from..to, then the word that
// the stream is lost, once, and a clean end.
func (c *client) hasThenLost(from, to uint64) {
	c.w.Helper()
	var want strings.Builder
	for i := from; i <= to; i++ {
		fmt.Fprintf(&want, "data: %d\n\n", i)
	}
	want.WriteString(lost)
	if got := c.text(); got != want.String() {
		c.w.Fatalf("the client got %q, want %q", got, want.String())
	}
	if closed, how, why := c.ended(); !closed || how != hub.CloseFlush || why != hub.ReasonLost {
		c.w.Fatalf("the client left: %v, %v, %q", closed, how, why)
	}
}

// takeovers is how often a node of these made itself owner of a dead node's
// stream.
func takeovers(nodes []*node) (sum uint64) {
	for _, n := range nodes {
		sum += n.Stats().Takeovers
	}
	return sum
}

// TestOwnerDies: the followers of a dead node's stream get the log's tail, the
// word that it is lost, and the end, each of them once, however many nodes
// find out at the same time.
func TestOwnerDies(t *testing.T) {
	for name, lag := range map[string]time.Duration{"together": 0, "one by one": 70 * time.Millisecond} {
		t.Run(name, func(t *testing.T) {
			inWorld(t, func(w *world) {
				n := w.join(nil, "a")
				for _, more := range []string{"b", "c", "d"} {
					n = append(n, w.join(nil, more)...)
					wait(checkEvery - checkEvery/2 + lag) // so that their checks come together, or not
				}
				s := n[0].begin(nil)
				s.send(100)
				synctest.Wait()
				var all []*client
				for _, one := range n[1:] {
					all = append(all, one.open(s.ID, "a", 0), one.open(s.ID, "a", 40))
				}
				s.send(23)
				synctest.Wait()
				n[0].kill()
				wait(deadAfter - heartbeat - 10*time.Millisecond)
				for _, c := range all {
					if closed, _, _ := c.ended(); closed {
						t.Fatal("the stream ended before its owner was dead")
					}
				}
				// Who asks the new owner before it has fenced the log finds out by its next look at it.
				wait(heartbeat + 2*checkEvery + tailCheck)
				for i, c := range all {
					c.hasThenLost(uint64(1+40*(i%2)), 123)
				}
				if sum := takeovers(n[1:]); sum != 1 {
					t.Errorf("%d nodes took it, want 1", sum)
				}
				logged := w.logged(s.ID)
				if last := logged[len(logged)-1]; len(logged) != 124 || last.Kind != sse.KindEnd || last.End != sse.EndLost {
					t.Errorf("the log has %d frames, the last is %+v", len(logged), last)
				}
				// Who comes now, to a node that never heard of it, gets the same.
				n = w.join(nil, "e")
				wait(grace)
				late := n[0].open(s.ID, "a", 120)
				synctest.Wait()
				late.hasThenLost(121, 123)
			})
		})
	}
}

const grace = 40 * time.Second // longer than the default of Config.Grace

// TestTakeover: exactly one of the others goes on with a stream, behind the
// last frame in the log, and followers everywhere get the rest, nothing twice.
func TestTakeover(t *testing.T) {
	inWorld(t, func(w *world) {
		n := w.join(takesOver(w), "a", "b", "c")
		s := n[0].begin(func(spec *Spec) { spec.Request = []byte("again") })
		s.send(50)
		synctest.Wait()
		all := []*client{n[1].open(s.ID, "a", 0), n[2].open(s.ID, "a", 10), n[2].open(s.ID, "a", 50)}
		synctest.Wait()
		w.log.set(away("append"))
		s.send(5) // these nobody elsewhere will ever have heard of
		synctest.Wait()
		w.log.set(nil)
		before := s.Record().Epoch
		n[0].kill()
		wait(deadAfter + 2*checkEvery)
		var r resumed
		var owner *node
		select {
		case r = <-n[1].resume:
			owner = n[1]
		case r = <-n[2].resume:
			owner = n[2]
		default:
			t.Fatal("nobody went on")
		}
		if takeovers(n[1:]) != 1 || len(n[1].resume)+len(n[2].resume) != 0 {
			t.Fatal("more than one went on")
		}
		if string(r.rec.Request) != "again" || r.from.Pos.Seq != 50 || string(r.from.ID) != "u50" || r.rec.Owner != owner.ID() {
			t.Fatalf("it is to go on from %+v of %+v", r.from, r.rec)
		}
		next := r.s.Next()
		if next.Seq != 51 || next.Epoch <= before || r.s.Minter() == nil || !r.s.Owned() {
			t.Fatalf("the next frame would be %v, after epoch %d", next, before)
		}
		f := &feed{Stream: r.s, n: owner, count: 50}
		r.s.Adopt(30*time.Second, 10*time.Second, f.cancelled)
		for range 30 {
			f.send(1)
			wait(10 * time.Millisecond)
		}
		all = append(all, n[1].open(s.ID, "a", 30), n[2].open(s.ID, "a", 70))
		f.send(10)
		wait(tailCheck)
		f.End(sse.EndFinished, nil)
		wait(tailCheck)
		for i, after := range []uint64{0, 10, 50, 30, 70} {
			all[i].has(after+1, 90)
			all[i].leftFor(hub.ReasonFinished)
		}
		if err := f.why(); err != nil {
			t.Errorf("the new pump was cancelled: %v", err)
		}
	})
}

// TestTakeoverKeepsLimits: the log of a stream that was taken over is as long as
// before, and the ring of its new owner keeps for it what is due.
func TestTakeoverKeepsLimits(t *testing.T) {
	inWorld(t, func(w *world) {
		const length = 3000
		n := w.join(takesOver(w), "a", "b", "c")
		s := n[0].begin(func(spec *Spec) { spec.Request, spec.Limits.Length = []byte("again"), length })
		s.send(10)
		synctest.Wait()
		w.limits = reconnect.Limits{Length: length, TTL: time.Minute}
		near := n[1].open(s.ID, "a", 0)
		synctest.Wait()
		n[0].kill()
		wait(deadAfter + 2*checkEvery)
		r := <-n[1].resume
		f := &feed{Stream: r.s, n: n[1], count: 10}
		r.s.Adopt(30*time.Second, 10*time.Second, f.cancelled)
		far := n[2].open(s.ID, "b", 0)
		synctest.Wait()
		w.log.set(away("append"))
		for range 2900 {
			f.send(1)
		}
		synctest.Wait()
		near.has(1, 2910)
		w.log.set(nil)
		wait(5 * time.Second)
		far.has(1, 2910)
		for range 200 {
			f.send(20)
			wait(10 * time.Millisecond)
		}
		far.has(1, 6910)
		if got := w.log.now.Stats().Frames; got > length {
			t.Errorf("the log has %d frames, want at most %d", got, length)
		}
	})
}

// TestTakeoverDetaches: the detach clock goes on running for the new
// owner's upstream.
func TestTakeoverDetaches(t *testing.T) {
	inWorld(t, func(w *world) {
		n := w.join(takesOver(w), "a", "b")
		s := n[0].begin(func(spec *Spec) { spec.Request = []byte("again") })
		s.send(5)
		far := n[1].open(s.ID, "a", 0)
		synctest.Wait()
		n[0].kill()
		wait(deadAfter + 2*checkEvery)
		r := <-n[1].resume
		f := &feed{Stream: r.s, n: n[1], count: 5}
		r.s.Adopt(10*time.Second, 10*time.Second, f.cancelled)
		f.send(1)
		synctest.Wait()
		far.has(1, 6)
		wait(30 * time.Second)
		if err := f.why(); err != nil {
			t.Fatalf("cancelled under a follower: %v", err)
		}
		far.leave()
		wait(9 * time.Second)
		if err := f.why(); err != nil {
			t.Fatalf("cancelled too soon: %v", err)
		}
		wait(2 * time.Second)
		if err := f.why(); err != ErrDetached {
			t.Fatalf("detached: cancelled with %v", err)
		}
	})
}

// TestFenced: an owner that was thought dead learns from log or registry that
// another has its stream. It stops the upstream, adds nothing more, and its
// clients are cut, so that they come back and find the new owner.
func TestFenced(t *testing.T) {
	for name, fence := range map[string]func(w *world, s *feed){
		"by the log": func(w *world, s *feed) {
			_, err := w.log.Fence(context.Background(), s.ID, s.Record().Epoch+1, reconnect.Limits{})
			if err != nil {
				w.Fatal(err)
			}
		},
		"by the registry": func(w *world, s *feed) {
			rec := s.Record()
			rec.Owner, rec.Epoch = "b", rec.Epoch+1
			if err := w.reg.Claim(context.Background(), rec, rec.Epoch-1, time.Minute); err != nil {
				w.Fatal(err)
			}
		},
	} {
		t.Run(name, func(t *testing.T) {
			inWorld(t, func(w *world) {
				n := w.join(nil, "a", "b")
				s := n[0].begin(nil)
				if _, won, err := n[0].Elect(context.Background(), "key", s.Stream, nil, false); !won || err != nil {
					t.Fatal("no election")
				}
				s.send(3)
				near := n[0].follow(s.Stream, 0)
				synctest.Wait()
				fence(w, s)
				s.SetUpstreamIDs("") // news for the registry
				s.send(2)
				synctest.Wait()
				if err := s.why(); err != ErrFenced {
					t.Fatalf("the upstream was cancelled with %v", err)
				}
				near.leftFor(ReasonMoved)
				if _, how, _ := near.ended(); how != hub.CloseReset {
					t.Errorf("the client was not cut: %v", how)
				}
				if s.Owned() || n[0].local(s.ID) != nil || n[0].reported("stream was taken over by another node") != 1 {
					t.Error("the stream is still held")
				}
				if name == "by the log" && len(w.logged(s.ID)) != 3 {
					t.Error("the old owner has added something")
				}
				before := near.text()
				s.send(2)
				s.End(sse.EndFinished, nil)
				wait(tailCheck)
				if near.text() != before || takeovers(n) != 0 {
					t.Error("something happened behind the fence")
				}
				n[0].mu.Lock()
				defer n[0].mu.Unlock()
				if len(n[0].keys) > 0 {
					t.Error("its key is still held here")
				}
			})
		})
	}
}

package cluster

import (
	"context"
	"fmt"
	"strings"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"ssegate/hub"
	"ssegate/reconnect"
	"ssegate/sse"
)

// TestLogAway: while the log fails, whoever follows here sees every event at
// once, nobody elsewhere sees what the log does not have, and what is due is
// written soon after it is back, without a hole.
func TestLogAway(t *testing.T) {
	for name, ask := range map[string]func(context.Context, string) error{"refused": away(), "hung": hung} {
		for _, long := range []time.Duration{time.Second, 2 * time.Minute} {
			t.Run(fmt.Sprint(name, " for ", long), func(t *testing.T) {
				inWorld(t, func(w *world) {
					n := w.join(nil, "a", "b")
					s := n[0].begin(nil)
					s.send(3)
					near := n[0].follow(s.Stream, 0)
					far := n[1].open(s.ID, "a", 0)
					synctest.Wait()
					w.log.set(ask)
					const steps = 100
					for i := range steps {
						s.send(3)
						synctest.Wait()
						near.has(1, uint64(6+3*i))
						wait(long / steps)
					}
					far.has(1, 3)
					if st := n[0].Stats(); st.LogErrors == 0 || st.Outbox != 0 && st.Outbox != 1 {
						t.Errorf("stats %+v", st)
					}
					w.log.set(nil)
					wait(5 * time.Second)
					far.has(1, 303)
					if got := len(w.logged(s.ID)); got != 303 {
						t.Errorf("the log has %d frames, want 303", got)
					}
					// And it is not slow from then on.
					s.send(1)
					synctest.Wait()
					far.has(1, 304)
				})
			})
		}
	}
}

// TestHold: the ring keeps for the log what its length allows for, whatever
// the ring's own room is, and what it cannot keep is told as a gap.
func TestHold(t *testing.T) {
	const length = 5000
	inWorld(t, func(w *world) {
		n := w.join(nil, "a", "b")
		short := func(spec *Spec) { spec.Limits.Length = length }
		kept, lost := n[0].begin(short), n[0].begin(short)
		farKept, farLost := n[1].open(kept.ID, "a", 0), n[1].open(lost.ID, "a", 0)
		kept.send(1)
		lost.send(1)
		synctest.Wait()
		w.log.set(away("append"))
		for range 49 {
			kept.send(100)
			lost.send(110)
		}
		kept.send(99) // all but one of the length
		lost.send(99)
		synctest.Wait()
		w.log.set(nil)
		wait(5 * time.Second)
		farKept.has(1, length)
		numbers, rest := farLost.events()
		if len(rest) != 1 || !strings.HasPrefix(rest[0], "event: ssegate.gap\n") {
			t.Fatalf("besides %d events the client was told %q", len(numbers), rest)
		}
		first := numbers[1]
		for i, at := range numbers[1:] {
			if at != first+uint64(i) {
				t.Fatalf("event %d stands where %d should", at, first+uint64(i))
			}
		}
		if last := numbers[len(numbers)-1]; last != lost.count || first > lost.count-1024 {
			t.Errorf("behind the gap stand events %d to %d of %d", first, last, lost.count)
		}
		if want := fmt.Sprintf(`"from":2,"to":%d,`, first-1); !strings.Contains(rest[0], want) {
			t.Errorf("the gap says %q, want %s", rest[0], want)
		}
	})
}

// TestBrokenLog: a log that cannot be written, whatever is tried, is that one
// stream's misfortune; the others do not wait for it.
func TestBrokenLog(t *testing.T) {
	inWorld(t, func(w *world) {
		n := w.join(func(c *Config) { c.Log = &brokenLogs{w.log, map[sse.StreamID]bool{}} }, "a", "b")
		broken := n[0].begin(nil)
		n[0].cfg.Log.(*brokenLogs).ids[broken.ID] = true
		near := n[0].follow(broken.Stream, 0)
		fine := n[0].begin(nil)
		far := n[1].open(fine.ID, "a", 0)
		synctest.Wait()
		for i := range 200 {
			broken.send(1)
			fine.send(1)
			wait(100 * time.Millisecond)
			near.has(1, uint64(i+1))
			far.has(1, uint64(i+1))
		}
		if n[0].reported("frames could not be logged") == 0 {
			t.Error("nobody was told")
		}
		broken.End(sse.EndFinished, nil)
		synctest.Wait()
		near.leftFor(hub.ReasonFinished)
	})
}

type brokenLogs struct {
	reconnect.Log
	ids map[sse.StreamID]bool
}

func (l *brokenLogs) Append(ctx context.Context, batches []reconnect.Batch) []error {
	errs := make([]error, len(batches))
	for i := range batches {
		if errs[i] = reconnect.ErrBroken; !l.ids[batches[i].Stream] {
			errs[i] = nil
			if got := l.Log.Append(ctx, batches[i:i+1]); got != nil {
				errs[i] = got[0]
			}
		}
	}
	return errs
}

// TestMuchIsDue: what many streams could not write while the log was away is
// written at the rate that the log has, in pieces that it can take.
func TestMuchIsDue(t *testing.T) {
	inWorld(t, func(w *world) {
		n := w.join(func(c *Config) { c.Log = &narrowLog{Log: w.log, rate: 20 << 20} }, "a")
		w.log.set(away("append"))
		var all []*feed
		block := []byte("data: " + strings.Repeat("x", 16<<10) + "\n\n")
		for range 500 {
			s := n[0].begin(nil)
			for range 15 {
				s.Append([]sse.Frame{{Pos: s.Next(), Kind: sse.KindEvent, Block: block}})
			}
			all = append(all, s)
		}
		wait(10 * time.Second)
		w.log.set(nil)
		wait(time.Minute) // 120 MB at 20 MB/s, and the wait between two tries
		for i, s := range all {
			if got := len(w.logged(s.ID)); got != 15 {
				t.Fatalf("the log of stream %d has %d frames, want 15", i, got)
			}
		}
	})
}

// narrowLog takes so many bytes a second.
type narrowLog struct {
	reconnect.Log
	rate int
}

func (l *narrowLog) Append(ctx context.Context, batches []reconnect.Batch) []error {
	bytes := 0
	for i := range batches {
		for j := range batches[i].Runs {
			bytes += int(batches[i].Runs[j].Size())
		}
	}
	sleep(ctx, time.Duration(bytes)*time.Second/time.Duration(l.rate))
	if err := ctx.Err(); err != nil {
		errs := make([]error, len(batches))
		for i := range errs {
			errs[i] = err
		}
		return errs
	}
	return l.Log.Append(ctx, batches)
}

// TestLogEmptied: after the log has forgotten everything its owner writes again
// what it has in memory, before anything newer: who is elsewhere, or comes back
// there, misses nothing. Also where nothing new is to be written: then it is
// found by who asks for what is gone, or with the lease.
func TestLogEmptied(t *testing.T) {
	for _, quiet := range []bool{false, true} {
		t.Run(fmt.Sprint("quiet ", quiet), func(t *testing.T) {
			inWorld(t, func(w *world) {
				n := w.join(nil, "a", "b")
				wait(deadAfter)
				s := n[0].begin(nil)
				s.send(10)
				synctest.Wait() // logged: the replica's ring begins behind it
				far := n[1].open(s.ID, "a", 0)
				near := n[0].follow(s.Stream, 0)
				synctest.Wait()
				far.has(1, 10)
				w.log.forget()
				late := n[1].open(s.ID, "a", 4)
				if !quiet {
					s.send(5)
				}
				wait(time.Second)
				late.has(5, s.count)
				far.has(1, s.count)
				near.has(1, s.count)
				fresh := n[1].open(s.ID, "a", 0)
				wait(time.Second)
				fresh.has(1, s.count)
				w.bus.Cut("a")
				w.log.forget()
				w.reg.forget()
				last := n[1].open(s.ID, "a", 7)
				wait(heartbeat + tailCheck)
				last.has(8, s.count)
				if got := len(w.logged(s.ID)); got != int(s.count) {
					t.Errorf("the log has %d frames of %d", got, s.count)
				}
				s.End(sse.EndFinished, nil)
				wait(tailCheck)
				for _, c := range []*client{near, far, late, fresh, last} {
					c.leftFor(hub.ReasonFinished)
				}
			})
		})
	}
}

// TestLogEmptiedBehindFollower: what the log had, and forgot before it got to
// another node, is written again by its owner; nobody is told of a gap then or
// later, on whatever node.
func TestLogEmptiedBehindFollower(t *testing.T) {
	inWorld(t, func(w *world) {
		n := w.join(nil, "a", "b", "c")
		s := n[0].begin(nil)
		s.send(10)
		far := n[1].open(s.ID, "a", 0)
		synctest.Wait()
		w.bus.Cut("a") // the bus goes first,
		w.bus.Cut("b")
		w.log.set(away("read", "tails"))
		s.send(10)
		synctest.Wait()
		if got := len(w.logged(s.ID)); got != 20 {
			t.Fatalf("the log has %d frames, want 20", got)
		}
		far.has(1, 10)
		w.log.set(away()) // and then the log
		w.reg.set(away())
		s.send(5)
		wait(time.Second)
		w.log.forget()
		w.reg.forget()
		w.log.set(nil)
		w.reg.set(nil)
		wait(2 * outboxPause)
		far.has(1, 25)
		w.bus.Heal("a")
		w.bus.Heal("b")
		wait(deadAfter)
		for _, node := range n {
			back := node.open(s.ID, "a", 10)
			wait(tailCheck)
			back.has(11, 25)
		}
		if got := n[0].Stats().Rewritten; got != 1 {
			t.Errorf("%d logs count as written again", got)
		}
	})
}

// TestLogEmptiedInPages: what is written again may be more than one batch.
func TestLogEmptiedInPages(t *testing.T) {
	inWorld(t, func(w *world) {
		n := w.join(nil, "a", "b")
		s := n[0].begin(func(spec *Spec) { spec.Local.RingEvents = 5000 })
		far := n[1].open(s.ID, "a", 0)
		for range 30 {
			s.send(100)
			synctest.Wait()
		}
		w.log.forget()
		s.send(1)
		late := n[1].open(s.ID, "a", 5)
		wait(tailCheck)
		far.has(1, 3001)
		late.has(6, 3001)
	})
}

// TestOwnerCannotWrite: an owner that lives, and whose log stays empty, is
// waited for as long as it takes a dead one to be dead. Then the gap is told,
// and not for ever: once the log is written again, who comes back misses
// nothing.
func TestOwnerCannotWrite(t *testing.T) {
	inWorld(t, func(w *world) {
		var mute *muteLog
		n := w.join(func(c *Config) {
			if c.Self.ID == "a" {
				mute = &muteLog{Log: c.Log}
				c.Log = mute
			}
		}, "a", "b")
		s := n[0].begin(nil)
		s.send(10)
		synctest.Wait()
		n[1].open(s.ID, "a", 0)
		mute.on.Store(true)
		w.log.forget()
		late := n[1].open(s.ID, "a", 4)
		wait(deadAfter - time.Second)
		late.has(5, 4) // nothing
		wait(2 * time.Second)
		late.gap(5, 10, 10)
		mute.on.Store(false)
		wait(2 * outboxPause)
		back := n[1].open(s.ID, "a", 4)
		wait(time.Second)
		back.has(5, 10)
	})
}

// muteLog is a log that one node cannot write to.
type muteLog struct {
	reconnect.Log
	on atomic.Bool
}

func (l *muteLog) Append(ctx context.Context, batches []reconnect.Batch) []error {
	if !l.on.Load() {
		return l.Log.Append(ctx, batches)
	}
	errs := make([]error, len(batches))
	for i := range errs {
		errs[i] = errAway
	}
	return errs
}

// TestSuccessorOfEmptied: a log that is forgotten together with its owner's death
// gets from the successor what its replica has, of the epoch before as well.
func TestSuccessorOfEmptied(t *testing.T) {
	inWorld(t, func(w *world) {
		n := w.join(takesOver(w), "a", "b")
		s := n[0].begin(func(spec *Spec) { spec.Request = []byte("again") })
		far := n[1].open(s.ID, "a", 0)
		synctest.Wait()
		s.send(10)
		synctest.Wait()
		n[0].kill()
		w.log.forget()
		wait(deadAfter + 3*checkEvery)
		r := <-n[1].resume
		next := &feed{Stream: r.s, n: n[1], count: 10}
		next.send(3)
		wait(time.Second)
		far.has(1, 13)
		c := w.join(nil, "c")[0]
		late := c.open(s.ID, "a", 0)
		wait(time.Second)
		late.has(1, 13)
		if got := w.logged(s.ID); len(got) != 13 || got[9].Pos.Epoch == got[10].Pos.Epoch {
			t.Errorf("the log has %d frames", len(got))
		}
	})
}

// gap checks that the client was told that from..to is missing, and got what
// follows up to last.
func (c *client) gap(from, to, last uint64) {
	c.w.Helper()
	var want strings.Builder
	fmt.Fprintf(&want, "event: ssegate.gap\ndata: {\"from\":%d,\"to\":%d,\"reason\":\"trimmed\"}\n\n", from, to)
	for i := to + 1; i <= last; i++ {
		fmt.Fprintf(&want, "data: %d\n\n", i)
	}
	if got := c.text(); got != want.String() {
		c.w.Fatalf("the client got %q, want %q", got, want.String())
	}
}

// TestEndedBeforeLogged: a stream that has ended, and whose log is behind, is
// known all the same: who comes back elsewhere waits for the log.
func TestEndedBeforeLogged(t *testing.T) {
	inWorld(t, func(w *world) {
		n := w.join(nil, "a", "b")
		s := n[0].begin(nil)
		s.send(5)
		synctest.Wait()
		w.log.set(away("append"))
		s.send(5)
		s.End(sse.EndFinished, nil)
		wait(time.Second) // the registry knows that it has ended
		if rec, err := n[1].Find(context.Background(), s.ID, [8]byte{}); err != nil || rec.End != sse.EndFinished {
			t.Fatalf("the registry has %+v, %v", rec, err)
		}
		far := n[1].open(s.ID, "a", 2)
		last := n[1].open(s.ID, "a", 10)
		wait(time.Second)
		w.log.set(nil)
		wait(5 * time.Second)
		far.has(3, 10)
		far.leftFor(hub.ReasonFinished)
		last.has(11, 10)
		last.leftFor(hub.ReasonFinished)
	})
}

// TestLostByAll: what neither the ring nor the log has any more is told as a
// gap, soon; nobody waits for it, here or elsewhere, while the stream runs or
// after its end.
func TestLostByAll(t *testing.T) {
	for _, ended := range []bool{false, true} {
		t.Run(fmt.Sprint("ended ", ended), func(t *testing.T) {
			inWorld(t, func(w *world) {
				n := w.join(nil, "a", "b")
				small := func(spec *Spec) { spec.Local.RingEvents = 20 }
				s := n[0].begin(small)
				far := n[1].open(s.ID, "a", 0)
				for range 100 {
					s.send(1)
					synctest.Wait()
				}
				far.has(1, 100)
				if ended {
					s.End(sse.EndFinished, nil)
					synctest.Wait()
				}
				w.log.forget()
				late := n[0].open(s.ID, "a", 5)
				wait(2 * time.Second)
				numbers, rest := late.events()
				if len(numbers) == 0 || len(rest) != 1 {
					t.Fatalf("the client got %q", late.text())
				}
				late.gap(6, numbers[0]-1, 100)
				if ended {
					late.leftFor(hub.ReasonFinished)
					return
				}
				elsewhere := n[1].open(s.ID, "a", 5) // b has a ring of its own
				wait(2 * time.Second)
				if numbers, rest = elsewhere.events(); len(numbers)+len(rest) == 0 || len(rest) > 1 {
					t.Fatalf("the client elsewhere got %q", elsewhere.text())
				}
				s.send(3)
				wait(tailCheck)
				for _, c := range []*client{late, elsewhere} {
					if numbers, _ := c.events(); numbers[len(numbers)-1] != 103 {
						t.Errorf("behind the gap a client got %v", numbers)
					}
				}
			})
		})
	}
}

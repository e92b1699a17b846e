package cluster

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"ssegate/bus"
)

// slowly makes every call to the log take so long.
func slowly(d time.Duration, calls *tally) func(context.Context, string) error {
	return func(ctx context.Context, op string) error {
		calls.ask(ctx, op)
		sleep(ctx, d)
		return ctx.Err()
	}
}

// TestPublishTogether: what is published while a round trip is under way goes
// with the next one; each caller's messages keep their order, and each gets the
// receipts of its own.
func TestPublishTogether(t *testing.T) {
	inWorld(t, func(w *world) {
		n := w.join(nil, "a")
		r := n[0].subscribe(CursorFrom{}, nil, "user/0")
		wait(50 * time.Millisecond)
		calls := &tally{calls: map[string]int{}}
		w.log.set(slowly(10*time.Millisecond, calls))
		var wg sync.WaitGroup
		began := time.Now()
		const callers, each = 100, 10
		for c := range callers {
			wg.Go(func() {
				var last uint64
				for i := range each {
					var data []string
					for j := range 3 {
						data = append(data, fmt.Sprintf("%d:%d", c, 3*i+j))
					}
					for _, r := range n[0].publish("user/0", data...) {
						if r.Pos.Seq <= last {
							t.Errorf("%d after %d", r.Pos.Seq, last)
						}
						last = r.Pos.Seq
					}
				}
			})
		}
		wg.Wait()
		if took := time.Since(began); took > 2*each*10*time.Millisecond {
			t.Errorf("it took %v", took)
		}
		if trips := calls.take()["publish"]; trips > 2*each {
			t.Errorf("%d round trips for %d calls", trips, callers*each)
		}
		synctest.Wait()
		next := map[string]int{}
		for _, s := range r.said() {
			c, i, _ := strings.Cut(s, ":")
			if i != fmt.Sprint(next[c]) {
				t.Fatalf("%s, want number %d", s, next[c])
			}
			next[c]++
		}
		if len(r.said()) != callers*each*3 {
			t.Errorf("%d arrived", len(r.said()))
		}
	})
}

// TestPublishBounds: what waits has a bound, waiting has one, and what was
// never sent is told from what may have arrived.
func TestPublishBounds(t *testing.T) {
	inWorld(t, func(w *world) {
		n := w.join(nil, "a")
		w.log.set(slowly(time.Second, &tally{calls: map[string]int{}}))
		big := message("user/1", strings.Repeat("x", 1<<20))
		var wg sync.WaitGroup
		var mu sync.Mutex
		outcome := map[string]int{}
		const calls = 100
		for range calls {
			wg.Go(func() {
				ctx, cancel := context.WithTimeout(w.Context(), 2500*time.Millisecond)
				defer cancel()
				err := n[0].Publish(ctx, []Outgoing{big})[0].Err
				mu.Lock()
				defer mu.Unlock()
				switch {
				case err == nil:
					outcome["stored"]++
				case errors.Is(err, ErrNotStored) && errors.Is(err, context.DeadlineExceeded):
					outcome["not stored"]++
				case errors.Is(err, ErrFate) && errors.Is(err, context.DeadlineExceeded):
					outcome["unknown"]++
				default:
					t.Error(err)
				}
			})
		}
		synctest.Wait()
		n[0].pub.mu.Lock()
		if n[0].pub.bytes > publishQueue {
			t.Errorf("%d bytes wait", n[0].pub.bytes)
		}
		n[0].pub.mu.Unlock()
		wg.Wait()
		wait(3 * time.Second)
		w.log.set(nil)
		stored := len(w.log.text("user/1"))
		if outcome["stored"] == 0 || outcome["not stored"] == 0 || outcome["unknown"] == 0 ||
			stored < outcome["stored"] || stored > outcome["stored"]+outcome["unknown"] {
			t.Errorf("%v, and the log has %d", outcome, stored)
		}
	})
}

// TestPublishOnce: a message that is published again within its time is there
// once, and both are told where.
func TestPublishOnce(t *testing.T) {
	inWorld(t, func(w *world) {
		n := w.join(nil, "a", "b")
		r := n[1].subscribe(CursorFrom{}, nil, "user/1")
		wait(50 * time.Millisecond)
		o := message("user/1", "x")
		o.ID, o.Once = []byte("m1"), time.Minute
		first := n[0].Publish(w.Context(), []Outgoing{o, message("user/1", "y"), o})
		again := n[1].Publish(w.Context(), []Outgoing{o})
		wait(time.Second)
		r.says("x", "y")
		if first[0].Dup || !first[2].Dup || !again[0].Dup || first[2].Pos != first[0].Pos || again[0].Pos != first[0].Pos {
			t.Errorf("receipts %+v, %+v", first, again)
		}
		if at, err := w.log.Find(w.Context(), o.Topic.ID, o.ID); err != nil || at != first[0].Pos {
			t.Errorf("found at %v, %v", at, err)
		}
	})
}

// TestPublishUnknownFate: a message whose answer was lost but that is in the
// log reaches all clients soon after the log can be read again.
func TestPublishUnknownFate(t *testing.T) {
	inWorld(t, func(w *world) {
		n := w.join(nil, "a", "b")
		var all []*reader
		for i := range 600 { // more than have a turn at each check
			all = append(all, n[i%2].subscribe(CursorFrom{}, nil, fmt.Sprint("user/", i/2)))
		}
		wait(time.Second)
		w.log.unanswered.Store(true)
		r := n[0].Publish(w.Context(), []Outgoing{message("user/7", "x")})
		if !errors.Is(r[0].Err, ErrFate) {
			t.Fatalf("receipt %+v", r[0])
		}
		w.log.unanswered.Store(false)
		wait(100 * time.Millisecond)
		all[14].says("x")
		all[15].says("x")
	})
}

// stuck is a bus on which sending takes as long as it may.
type stuck struct{ bus.Bus }

func (s stuck) Send(ctx context.Context, to string, msgs []bus.Message) error {
	<-ctx.Done()
	return s.Bus.Send(context.WithoutCancel(ctx), to, msgs)
}

// TestPublishStuckBus: clients here, and who publishes, do not wait for the
// bus.
func TestPublishStuckBus(t *testing.T) {
	inWorld(t, func(w *world) {
		n := w.join(func(c *Config) {
			if c.Self.ID == "a" {
				c.Bus = stuck{c.Bus}
			}
		}, "a", "b", "c")
		near, far := n[0].subscribe(CursorFrom{}, nil, "user/1"), n[1].subscribe(CursorFrom{}, nil, "user/1")
		n[2].subscribe(CursorFrom{}, nil, "user/1")
		wait(50 * time.Millisecond)
		began := time.Now()
		for i := range 100 {
			n[0].publish("user/1", fmt.Sprint(i))
		}
		if took := time.Since(began); took > 0 {
			t.Errorf("publishing took %v", took)
		}
		synctest.Wait()
		near.says(count(0, 99)...)
		wait(time.Second)
		far.says(count(0, 99)...)
	})
}

// TestPublishAtTheEnd: a node that leaves writes what it was given, and then
// takes no more.
func TestPublishAtTheEnd(t *testing.T) {
	inWorld(t, func(w *world) {
		n := w.join(nil, "a", "b")
		r := n[1].subscribe(CursorFrom{}, nil, "user/1")
		wait(50 * time.Millisecond)
		w.log.set(slowly(100*time.Millisecond, &tally{calls: map[string]int{}}))
		var wg sync.WaitGroup
		for i := range 10 {
			wg.Go(func() { n[0].publish("user/1", fmt.Sprint(i)) })
			time.Sleep(10 * time.Millisecond)
		}
		n[0].leave()
		wg.Wait()
		w.log.set(nil)
		wait(5 * time.Second)
		if said := r.said(); len(said) != 10 {
			t.Errorf("got %q", said)
		}
		late := n[0].Publish(w.Context(), []Outgoing{message("user/1", "late")})
		if !errors.Is(late[0].Err, ErrNotStored) || !errors.Is(late[0].Err, ErrLeaving) {
			t.Errorf("after the end: %v", late[0].Err)
		}
		if _, err := n[0].Subscribe(TopicOf("user/1"), From{}, &client{w: w}, SubscribeOptions{}); !errors.Is(err, ErrLeaving) {
			t.Errorf("subscribed after the end: %v", err)
		}
		if _, err := n[0].SubscribeAll([]Topic{TopicOf("user/1"), TopicOf("user/2")}, CursorFrom{}, &client{w: w}, SubscribeOptions{}); !errors.Is(err, ErrLeaving) {
			t.Errorf("subscribed to two after the end: %v", err)
		}
		if slices.Contains(r.said(), "late") {
			t.Error("it was published after all")
		}
	})
}

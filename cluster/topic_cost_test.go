package cluster

import (
	"context"
	"fmt"
	"runtime"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"ssegate/bus"
	"ssegate/reconnect"
	"ssegate/sse"
)

// tally counts what is asked of log and registry, and of how many streams.
type tally struct {
	mu    sync.Mutex
	calls map[string]int
}

func (c *tally) ask(_ context.Context, op string) error {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.calls[op]++
	return nil
}

func (c *tally) take() map[string]int {
	c.mu.Lock()
	defer c.mu.Unlock()
	was := c.calls
	c.calls = map[string]int{}
	return was
}

// tailed is a log that counts whose tails are asked for.
type tailed struct {
	*shakyLog
	mu     sync.Mutex
	topics int
}

func (l *tailed) Tails(ctx context.Context, ids []sse.StreamID) ([]reconnect.Tail, error) {
	l.mu.Lock()
	l.topics += len(ids)
	l.mu.Unlock()
	return l.shakyLog.Tails(ctx, ids)
}

// TestIdleTopics: six thousand topics with a client each cost no goroutine
// each, few round trips, and a look into the log in turns; interest is renewed
// many at a time, and messages reach every one of them all the while.
func TestIdleTopics(t *testing.T) {
	inWorld(t, func(w *world) {
		log := &tailed{shakyLog: w.log}
		n := w.join(func(c *Config) { c.Journal, c.Keep = log, 2*time.Minute }, "a", "b")
		synctest.Wait()
		before := runtime.NumGoroutine()
		const topics = 6000
		var all []*reader
		for i := range topics {
			mute := func(o *SubscribeOptions) { o.Heartbeat = 0 }
			all = append(all, n[1].subscribe(CursorFrom{}, mute, fmt.Sprint("user/", i)))
		}
		wait(10 * time.Second)
		if got := runtime.NumGoroutine(); got > before+4 {
			t.Errorf("%d goroutines, %d before", got, before)
		}
		logged, registered := &tally{calls: map[string]int{}}, &tally{calls: map[string]int{}}
		w.log.set(logged.ask)
		w.reg.set(registered.ask)
		log.mu.Lock()
		log.topics = 0
		log.mu.Unlock()
		const minutes = 2
		wait(minutes * time.Minute)
		log.mu.Lock()
		looked := log.topics
		log.mu.Unlock()
		if most := minutes*topics*2 + topics; looked > most || looked < minutes*topics {
			t.Errorf("%d tails in %d minutes, want at most %d", looked, minutes, most)
		}
		calls := logged.take()
		if calls["tails"] > minutes*30*3 || calls["read"]+calls["publish"] > 0 {
			t.Errorf("the log was asked %v", calls)
		}
		calls = registered.take()
		if calls["touch"] == 0 || calls["touch"] > minutes*6*topics/topicPart || calls["follow"]+calls["unfollow"] > 0 {
			t.Errorf("the registry was asked %v", calls)
		}
		w.log.set(nil)
		w.reg.set(nil)
		wait(3 * time.Minute)
		for i := range 100 {
			n[0].publish(fmt.Sprint("user/", i*59), "x")
		}
		synctest.Wait()
		for i := range 100 {
			all[i*59].says("x")
		}
	})
}

// TestLostParcels: what the bus loses is found within a tail check by the
// numbers of its parcels, however many topics there are.
func TestLostParcels(t *testing.T) {
	inWorld(t, func(w *world) {
		n := w.join(nil, "a", "b")
		const topics = 2000
		var all []*reader
		for i := range topics {
			all = append(all, n[1].subscribe(CursorFrom{}, nil, fmt.Sprint("user/", i)))
		}
		wait(time.Second)
		var lose atomic.Bool
		w.bus.Drop(func(_, _ string, m bus.Message) bool {
			return lose.Load() && (m.Kind == kindTopic || m.Kind == kindParcel)
		})
		for i := range 8 {
			lose.Store(true) // the last one there is
			n[0].publish(fmt.Sprint("user/", i*59), "x")
			wait(10 * time.Millisecond)
			lose.Store(false)
			all[i*59].says()
			wait(tailCheck + 100*time.Millisecond)
			all[i*59].says("x")
		}
		for i := range 8 {
			lose.Store(true) // another one comes behind it
			n[0].publish(fmt.Sprint("user/", i*79+1), "x")
			wait(10 * time.Millisecond)
			lose.Store(false)
			n[0].publish(fmt.Sprint("user/", i*79+2), "x")
			wait(100 * time.Millisecond)
			all[i*79+1].says("x")
		}
		if st := n[1].Stats(); st.ParcelsMissed < 16 {
			t.Errorf("%d parcels were missed", st.ParcelsMissed)
		}
	})
}

// TestReceiptOfWhoLeft: a second after the last one has left, no publisher is
// told that somebody is there; nor is one here of whom nobody gets its message.
func TestReceiptOfWhoLeft(t *testing.T) {
	inWorld(t, func(w *world) {
		n := w.join(nil, "a", "b")
		there := n[1].subscribe(CursorFrom{}, nil, "user/1")
		both := n[1].subscribe(CursorFrom{}, nil, "user/2", "user/1")
		wait(time.Second)
		check := func(node *node, topic string, meta *Meta, here bool, want ...string) {
			t.Helper()
			r := node.Publish(w.Context(), []Outgoing{{Topic: TopicOf(topic), Meta: meta.Encode(), Block: []byte("data: x\n\n"), Limits: topicLimits}})[0]
			if r.Err != nil || r.Here != here || !slices.Equal(r.Nodes, want) {
				t.Errorf("receipt %+v, want here %t, nodes %q", r, here, want)
			}
		}
		check(n[0], "user/1", &Meta{}, false, "b")
		check(n[1], "user/1", &Meta{Priority: PriorityLow, Expires: 1 << 50}, true, "b")
		there.leave()
		check(n[1], "user/1", &Meta{}, true, "b")
		check(n[1], "user/1", &Meta{Primary: true}, false, "b") // it is the other one's second topic
		check(n[1], "user/2", &Meta{Primary: true}, true, "b")
		check(n[1], "user/1", &Meta{Connection: "nobody"}, false, "b")
		both.leave()
		wait(time.Second)
		check(n[0], "user/1", &Meta{}, false)
		check(n[1], "user/1", &Meta{}, false)
		check(n[0], "user/2", &Meta{}, false)
		back := n[1].subscribe(CursorFrom{}, nil, "user/1")
		wait(100 * time.Millisecond)
		check(n[0], "user/1", &Meta{}, false, "b")
		wait(100 * time.Millisecond)
		back.says("x")
	})
}

// ours are the goroutines that are in this project's code: the runtime starts some
// of its own when it likes.
func ours() []string {
	b := make([]byte, 4<<20)
	all := strings.Split(string(b[:runtime.Stack(b, true)]), "\n\n")
	return slices.DeleteFunc(all, func(s string) bool { return !strings.Contains(s, "ssegate/") })
}

// TestTopicsLeave: nothing is left of topics that nobody follows, on the node
// and in the registry; who comes back within the grace finds them.
func TestTopicsLeave(t *testing.T) {
	inWorld(t, func(w *world) {
		n := w.join(nil, "a", "b")
		var all []*reader
		for i := range 1000 {
			all = append(all, n[1].subscribe(CursorFrom{}, nil, fmt.Sprint("user/", i%300)))
		}
		wait(time.Second)
		before := ours()
		for _, r := range all[1:] {
			r.leave()
		}
		wait(topicGrace / 2)
		back := n[1].subscribe(CursorFrom{}, nil, "user/1")
		if st := n[1].Stats(); st.Topics != 300 {
			t.Errorf("%d topics within the grace", st.Topics)
		}
		wait(topicGrace + 2*tailCheck)
		if st := n[1].Stats(); st.Topics != 2 || st.Subscriptions != 2 {
			t.Errorf("%d topics, %d subscriptions", st.Topics, st.Subscriptions)
		}
		if got := ours(); len(got) > len(before) {
			t.Errorf("%d goroutines, %d before:\n%s", len(got), len(before), strings.Join(got, "\n\n"))
		}
		var ids []sse.StreamID
		for i := range 300 {
			ids = append(ids, TopicOf(fmt.Sprint("user/", i)).ID)
		}
		interested := func() (nodes int) {
			who, err := w.reg.now.Followers(w.Context(), ids)
			if err != nil {
				t.Fatal(err)
			}
			for _, w := range who {
				nodes += len(w)
			}
			return nodes
		}
		if got := interested(); got != 2 {
			t.Errorf("interest in %d topics is left", got)
		}
		n[0].publish("user/1", "x")
		synctest.Wait()
		wait(100 * time.Millisecond)
		back.says("x")
		n[1].leave()
		if got := interested(); got != 0 {
			t.Errorf("interest in %d topics is left when the node has gone", got)
		}
		if hub := n[1].hub.Stats(); hub.Followers != 0 || hub.Streams != 0 {
			t.Errorf("the hub has %+v", hub)
		}
	})
}

// TestTopicsAgain: a registry that has forgotten everything is told again what
// is followed.
func TestTopicsAgain(t *testing.T) {
	inWorld(t, func(w *world) {
		n := w.join(nil, "a", "b")
		var all []*reader
		for i := range 500 {
			all = append(all, n[1].subscribe(CursorFrom{}, nil, fmt.Sprint("user/", i)))
		}
		wait(time.Second)
		w.reg.forget()
		n[0].publish("user/7", "lost on the way")
		wait(3 * heartbeat)
		all[7].says("lost on the way")
		for i := range 500 {
			r := n[0].publish(fmt.Sprint("user/", i), "x")
			if len(r[0].Nodes) != 1 || r[0].Nodes[0] != "b" {
				t.Fatalf("user/%d is followed by %v", i, r[0].Nodes)
			}
		}
	})
}

// TestKilledNode: clients of a node that was killed come back to another one
// and miss nothing; what it published was in the log before.
func TestKilledNode(t *testing.T) {
	inWorld(t, func(w *world) {
		n := w.join(nil, "a", "b")
		r := n[0].subscribe(CursorFrom{}, nil, "user/1")
		wait(50 * time.Millisecond)
		n[0].publish("user/1", "1", "2")
		synctest.Wait()
		id := r.lastID()
		n[0].publish("user/1", "3")
		n[0].kill()
		back := n[1].subscribe(CursorFrom{ID: id}, nil, "user/1")
		wait(100 * time.Millisecond)
		back.says("3")
		for i := range 20 {
			rec := n[1].publish("user/1", fmt.Sprint(i+4))
			wait(time.Second)
			if i == 19 && (len(rec[0].Nodes) != 1 || rec[0].Nodes[0] != "b") {
				t.Errorf("nodes %v", rec[0].Nodes)
			}
		}
		back.says(count(3, 23)...)
	})
}

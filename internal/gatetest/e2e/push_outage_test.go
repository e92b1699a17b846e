package e2e

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"slices"
	"sync"
	"testing"
	"time"

	. "ssegate/internal/gatetest"
	"ssegate/internal/gatetest/service"
	"ssegate/push/client"
)

// flow publishes from several publishers, each message with an id of its own
// and again until it is taken, until stop says so.
type flow struct {
	t       *testing.T
	to      client.Target
	l       ledger
	mu      sync.Mutex
	taken   int
	refused int
	more    chan struct{}
	stop    chan struct{}
	wg      sync.WaitGroup
}

func publishing(t *testing.T, to client.Target, nodes ...*Node) *flow {
	f := &flow{t: t, to: to, more: make(chan struct{}), stop: make(chan struct{})}
	for i := range 6 {
		p := publisher(t, nodes[i%len(nodes)])
		f.wg.Go(func() {
			for n := 0; ; n++ {
				select {
				case <-f.stop:
					return
				case <-time.After(10 * time.Millisecond): // the pace of a service
				}
				f.publish(p, fmt.Sprintf("%d of %d", n, i))
			}
		})
	}
	t.Cleanup(f.end)
	return f
}

func (f *flow) publish(p *client.Publisher, data string) {
	a, refused := retried(f.t, p, client.Message{ID: "m-" + data, Target: f.to, Data: data})
	if len(a.Targets) == 0 {
		return // and said so
	}
	f.l.add(fmt.Sprintf("%q", data), a.Targets[0].Position)
	f.mu.Lock()
	f.taken++
	f.refused += refused
	close(f.more)
	f.more = make(chan struct{})
	f.mu.Unlock()
}

// pass waits until n more messages were taken.
func (f *flow) pass(n int) {
	f.t.Helper()
	f.mu.Lock()
	until := f.taken + n
	f.mu.Unlock()
	for bound := time.After(Patience); ; {
		f.mu.Lock()
		taken, more := f.taken, f.more
		f.mu.Unlock()
		if taken >= until {
			return
		}
		select {
		case <-more:
		case <-bound:
			f.t.Fatalf("%d messages are taken, want %d", taken, until)
		}
	}
}

// end ends the publishers and waits for them.
func (f *flow) end() {
	select {
	case <-f.stop:
	default:
		close(f.stop)
	}
	f.wg.Wait()
}

// What a service that fails does to push: Redis, which keeps its data, is
// killed in the middle, and RabbitMQ is.
func TestPushOutage(t *testing.T) {
	w := &world{redis: service.Redis(t), rabbit: service.Rabbit(t), backend: NewBackend(t)}
	w.redis.KeepData = true
	a, b := w.pair(t, pushes+"wait = \"1s\"\n")

	t.Run("redis", func(t *testing.T) {
		here, hopper := ride(t, "/sse/user/r", 1, nil, a), ride(t, "/sse/user/r?since=1", 2, often, a, b)
		there := ride(t, "/sse/user/r", 3, nil, b)
		for _, r := range []*rider{here, there, hopper} {
			r.begun()
		}
		f := publishing(t, client.Target{UserID: "r"}, a, b)
		f.pass(100)
		w.redis.Kill()
		anonymous := refusedWithout(t, a, b)
		Eventually(t, "publishers are refused", func() bool { return refusing(t, a) })
		w.redis.Start()
		f.pass(200)
		f.end()
		// The same once more, as by somebody who missed the answers: nothing is
		// published twice.
		p := publisher(t, b)
		for _, data := range []string{"0 of 0", "5 of 1", "20 of 2"} {
			ans, err := p.Send(context.Background(), client.Message{ID: "m-" + data, Target: f.to, Data: data})
			if err != nil || !ans.Targets[0].Duplicate {
				t.Errorf("%s again: %+v, %v", data, ans, err)
			}
		}
		f.publish(p, "last")
		should := f.l.inOrder()
		// The numbering begins anew, but nothing was lost: nobody is told so.
		for _, r := range []*rider{here, there, hopper, ride(t, "/sse/user/r?since=1", 4, nil, b)} {
			r.exactlyBut(should)
			if gaps := r.toldGaps(); len(gaps) > 0 {
				t.Errorf("in %d connections told of gaps %q", r.count(), gaps)
			}
		}
		// Of what was refused without an id nothing that is known not to be
		// stored may appear.
		late := EventSource(t, a.URL+"/sse/user/anonymous?since=1", "")
		if _, err := p.Send(context.Background(), client.Message{Target: client.Target{UserID: "anonymous"}, Data: "end"}); err != nil {
			t.Fatal(err)
		}
		for ev := late.Take(1)[0]; ev.Data != `"end"`; ev = late.Take(1)[0] {
			if slices.Contains(anonymous, ev.Data) {
				t.Errorf("%s was rejected, and is there", ev.Data)
			}
		}
		t.Logf("%d messages, refused %d times", len(should), f.refused)
		if f.refused == 0 {
			t.Error("nobody was ever refused")
		}
	})

	t.Run("redis stands still", func(t *testing.T) {
		acquainted(t, a, b)
		here, there, hopper := ride(t, "/sse/user/p", 1, nil, a), ride(t, "/sse/user/p", 2, nil, b), ride(t, "/sse/user/p?since=1", 3, often, a, b)
		for _, r := range []*rider{here, there, hopper} {
			r.begun()
		}
		f := publishing(t, client.Target{UserID: "p"}, a, b)
		f.pass(100)
		w.redis.Pause()
		Eventually(t, "publishers are refused", func() bool { return refusing(t, a) })
		w.redis.Resume()
		f.pass(100)
		f.end()
		should := f.l.inOrder()
		for _, r := range []*rider{here, there, hopper} {
			r.exactly(should)
		}
	})

	t.Run("redis forgets", func(t *testing.T) {
		w.redis.KeepData = false
		acquainted(t, a, b)
		here, there := ride(t, "/sse/user/f", 1, nil, a), ride(t, "/sse/user/f", 2, nil, b)
		for _, r := range []*rider{here, there} {
			r.begun()
		}
		f := publishing(t, client.Target{UserID: "f"}, a, b)
		f.pass(100)
		w.redis.Kill()
		w.redis.Start()
		f.pass(200)
		f.end()
		// What was published since is there, once and in order; and whoever was
		// there before is told that something may be missing.
		should := f.l.inOrder()
		last := should[len(should)-100:]
		for _, r := range []*rider{here, there} {
			Eventually(t, "the last comes", func() bool {
				r.mu.Lock()
				defer r.mu.Unlock()
				return len(r.events) > 0 && r.events[len(r.events)-1].Data == should[len(should)-1]
			})
			got := Data(r.await(100))
			sameData(t, r.path, got[len(got)-100:], last)
			if len(r.toldGaps()) == 0 {
				t.Errorf("%s: nobody told of a gap", r.path)
			}
		}
	})

	t.Run("rabbitmq", func(t *testing.T) {
		acquainted(t, a, b)
		here, there := ride(t, "/sse/user/q", 1, nil, a), ride(t, "/sse/user/q", 2, nil, b)
		hopper := ride(t, "/sse/user/q?since=1", 3, often, a, b)
		for _, r := range []*rider{here, there, hopper} {
			r.begun()
		}
		f := publishing(t, client.Target{UserID: "q"}, a, b)
		f.pass(100)
		w.rabbit.Pause() // it says nothing, and then it is gone
		f.pass(200)
		there.await(200)
		w.rabbit.Kill()
		f.pass(200)
		there.await(500)
		w.rabbit.Start()
		acquainted(t, a, b)
		f.pass(100)
		f.end()
		should := f.l.inOrder()
		for _, r := range []*rider{here, there, hopper} {
			r.exactly(should)
		}
		if f.refused > 0 {
			t.Errorf("publishers were refused %d times, and Redis was there", f.refused)
		}
	})
}

// refusing reports whether a node refuses messages, as it should while its log
// is away.
func refusing(t *testing.T, n *Node) bool {
	t.Helper()
	_, err := publisher(t, n).Send(context.Background(), client.Message{Target: client.Target{UserID: "anonymous"}, Data: "probe"})
	var said *client.Error
	return errors.As(err, &said) && said.Status == http.StatusServiceUnavailable && said.RetryAfter > 0
}

// refusedWithout sends messages without ids while the log is away, and returns
// the data of those of which it was said that they are not stored.
func refusedWithout(t *testing.T, nodes ...*Node) (out []string) {
	t.Helper()
	for i := range 10 {
		data := fmt.Sprint("without ", i)
		a, err := publisher(t, nodes[i%len(nodes)]).Send(context.Background(), client.Message{Target: client.Target{UserID: "anonymous"}, Data: data})
		var said *client.Error
		switch {
		case !errors.As(err, &said) || said.Status != 503 || said.RetryAfter <= 0:
			t.Errorf("%s: %v", data, err)
		case len(a.Targets) == 1 && a.Targets[0].Status == "rejected":
			out = append(out, fmt.Sprintf("%q", data))
		}
	}
	t.Logf("%d of 10 are known not to be stored", len(out))
	return out
}

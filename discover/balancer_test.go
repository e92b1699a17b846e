package discover_test

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"ssegate/discover"
)

var errRefused = errors.New("connection refused")

// bench is a balancer on a clock that stands still.
type bench struct {
	*testing.T
	*discover.Balancer
	now time.Time
}

func newBench(t *testing.T, c discover.BalancerConfig, ids ...string) *bench {
	b := &bench{T: t, now: time.Unix(1_763_800_000, 0)}
	c.Now = func() time.Time { return b.now }
	b.Balancer = discover.NewBalancer(c)
	b.Update(endpoints(ids...))
	return b
}

func endpoints(ids ...string) []discover.Endpoint {
	var list []discover.Endpoint
	for _, id := range ids {
		list = append(list, discover.Endpoint{ID: id, URL: "http://" + id})
	}
	return list
}

// pick wants an endpoint.
func (b *bench) pick(tried ...string) *discover.Pick {
	b.Helper()
	p, err := b.Pick(tried...)
	if err != nil {
		b.Fatal(err)
	}
	return p
}

// gives wants these endpoints, one after the other, each to end with err.
func (b *bench) gives(err error, ids ...string) {
	b.Helper()
	for i, id := range ids {
		p := b.pick()
		p.Done(err)
		if p.ID != id {
			b.Fatalf("pick %d: %s, want %s of %v", i, p.ID, id, ids)
		}
	}
}

func TestRoundRobin(t *testing.T) {
	b := newBench(t, discover.BalancerConfig{}, "a", "b", "c")
	b.gives(nil, "a", "b", "c", "a", "b", "c", "a")
	p := b.pick("b")
	if p.ID != "c" || p.URL != "http://c" {
		t.Errorf("%+v, want c", p.Endpoint)
	}
	if _, err := b.Pick("a", "c", "b"); !errors.Is(err, discover.ErrNoEndpoint) {
		t.Errorf("Pick with all tried: %v", err)
	}
	b.Update(nil)
	if _, err := b.Pick(); !errors.Is(err, discover.ErrNoEndpoint) {
		t.Errorf("Pick of none: %v", err)
	}
	p.Done(nil) // of one that is gone
}

func TestLeastConnections(t *testing.T) {
	b := newBench(t, discover.BalancerConfig{Strategy: discover.LeastConnections}, "a", "b", "c")
	held := map[string][]*discover.Pick{}
	for range 6 {
		p := b.pick()
		held[p.ID] = append(held[p.ID], p)
	}
	for _, id := range []string{"a", "b", "c"} {
		if len(held[id]) != 2 {
			t.Fatalf("%s holds %d, want 2 each", id, len(held[id]))
		}
	}
	for _, p := range held["b"] {
		p.Done(nil)
		p.Done(nil) // counts once
	}
	b.gives(nil, "b", "b")
	held["a"][0].Done(errors.New("cut"))
	b.gives(nil, "b") // still less than a's one
	for i, want := range []int{1, 0, 2} {
		if got := b.Snapshot()[i].Active; got != want {
			t.Errorf("%d in flight to %s, want %d", got, b.Snapshot()[i].ID, want)
		}
	}
}

// TestSetAside: MaxFails failures in a row set an endpoint aside for FailFor,
// then one request at a time tries it.
func TestSetAside(t *testing.T) {
	const failFor = 10 * time.Second
	b := newBench(t, discover.BalancerConfig{MaxFails: 3, FailFor: failFor}, "bad", "good")
	fail := func() {
		p := b.pick("good")
		p.Done(errRefused)
	}
	fail()
	fail()
	p := b.pick("good")
	p.Done(nil) // not in a row
	fail()
	fail()
	p = b.pick("good")
	p.Done(fmt.Errorf("get: %w", context.Canceled)) // says nothing
	b.gives(nil, "good", "bad")
	fail()
	fail()
	fail()
	b.gives(nil, "good", "good", "good")
	b.now = b.now.Add(failFor - 1)
	b.gives(nil, "good", "good")

	// Due: one trial at a time.
	b.now = b.now.Add(1)
	trial := b.pick()
	if trial.ID != "bad" {
		t.Fatalf("%s is not tried when it is due", "bad")
	}
	b.gives(nil, "good", "good")
	trial.Done(errRefused)
	b.gives(nil, "good", "good") // aside again, for as long
	b.now = b.now.Add(failFor)
	trial = b.pick()
	trial.Done(context.Canceled)
	trial = b.pick("good") // the trial told nothing: the next one may
	b.gives(nil, "good", "good")
	trial.Answered()
	b.gives(nil, "bad", "good", "bad", "good")
	trial.Done(errors.New("cut after an hour")) // nothing against the endpoint
	s := b.Snapshot()
	if bad := s[0]; bad.Active != 0 || bad.Fails != 0 || !bad.Aside.IsZero() || bad.Asides != 2 || bad.Failed != 8 {
		t.Errorf("%+v", bad)
	}
	if good := s[1]; good.Failed != 0 || good.Asides != 0 || good.Picked == 0 {
		t.Errorf("%+v", good)
	}
}

// TestAllAside: rather than none, the one that is due soonest.
func TestAllAside(t *testing.T) {
	const failFor = 10 * time.Second
	b := newBench(t, discover.BalancerConfig{MaxFails: 1, FailFor: failFor}, "a", "b", "c")
	for _, id := range []string{"b", "a", "c"} { // which is not the turn
		others := slices.DeleteFunc([]string{"a", "b", "c"}, func(s string) bool { return s == id })
		p := b.pick(others...)
		p.Done(errRefused)
		b.now = b.now.Add(time.Second)
	}
	b.gives(errRefused, "b") // and is due last now
	b.now = b.now.Add(time.Millisecond)
	b.gives(errRefused, "a")
	b.now = b.now.Add(time.Millisecond)
	b.gives(errRefused, "c")
	if p := b.pick("a", "b"); p.ID != "c" {
		t.Errorf("%s, want c", p.ID)
	}
	first, second := b.pick(), b.pick() // who is being tried comes last
	if first.ID != "b" || second.ID != "a" {
		t.Errorf("%s and %s, want b and a", first.ID, second.ID)
	}
	one := newBench(t, discover.BalancerConfig{MaxFails: 1}, "only")
	one.gives(errRefused, "only", "only", "only")
	p, q := one.pick(), one.pick() // a second one does not wait for the trial
	p.Done(nil)
	q.Done(errRefused)
}

// TestNeverAside: without MaxFails nothing is set aside.
func TestNeverAside(t *testing.T) {
	b := newBench(t, discover.BalancerConfig{}, "a", "b")
	b.gives(errRefused, "a", "b", "a", "b", "a", "b", "a", "b")
}

// TestLateFailures: failures of requests that were on their way when the
// endpoint was set aside do not keep it aside for longer.
func TestLateFailures(t *testing.T) {
	b := newBench(t, discover.BalancerConfig{MaxFails: 1, FailFor: 10 * time.Second}, "a", "b")
	late := b.pick("b")
	p := b.pick("b")
	p.Done(errRefused)
	b.now = b.now.Add(9 * time.Second)
	late.Done(errRefused)
	b.now = b.now.Add(time.Second)
	b.gives(nil, "b")
	b.gives(nil, "a")
}

// TestUpdateKeeps: what is known of an endpoint outlives a new list, unless it
// went and came back, or moved.
func TestUpdateKeeps(t *testing.T) {
	b := newBench(t, discover.BalancerConfig{MaxFails: 1}, "a", "b", "c")
	held := b.pick() // a
	p := b.pick()
	p.Done(errRefused) // b is aside
	b.Update(endpoints("d", "b", "a", "a"))
	var all []string
	for _, s := range b.Snapshot() {
		all = append(all, fmt.Sprintf("%s active=%d aside=%t", s.ID, s.Active, !s.Aside.IsZero()))
	}
	if got, want := strings.Join(all, ", "), "d active=0 aside=false, b active=0 aside=true, a active=1 aside=false"; got != want {
		t.Errorf("got  %s\nwant %s", got, want)
	}
	held.Done(nil)
	b.Update([]discover.Endpoint{{ID: "b", URL: "http://elsewhere"}})
	b.gives(nil, "b", "b")
	if s := b.Snapshot(); s[0].Fails != 0 || s[0].URL != "http://elsewhere" {
		t.Errorf("%+v", s[0])
	}
}

// TestConcurrent: picks, ends and updates from many goroutines leave nothing
// counted.
func TestConcurrent(t *testing.T) {
	for _, s := range []discover.Strategy{discover.RoundRobin, discover.LeastConnections} {
		b := discover.NewBalancer(discover.BalancerConfig{Strategy: s, MaxFails: 2, FailFor: time.Microsecond})
		b.Update(endpoints("a", "b", "c"))
		var wg sync.WaitGroup
		for g := range 8 {
			wg.Go(func() {
				for i := range 500 {
					p, err := b.Pick()
					if err != nil {
						t.Error(err)
						return
					}
					switch (g + i) % 5 {
					case 0, 1:
						p.Done(errRefused)
					case 2:
						p.Answered()
						b.Update(endpoints("c", "a", "b"))
						p.Done(nil)
					default:
						p.Done(nil)
					}
				}
			})
		}
		wg.Wait()
		var picked uint64
		for _, s := range b.Snapshot() {
			if s.Active != 0 {
				t.Errorf("%s: %d in flight", s.ID, s.Active)
			}
			picked += s.Picked
		}
		if picked != 8*500 {
			t.Errorf("%d picks counted, want %d", picked, 8*500)
		}
	}
}

func TestPickAllocatesThePickOnly(t *testing.T) {
	b := discover.NewBalancer(discover.BalancerConfig{MaxFails: 3})
	b.Update(endpoints("a", "b", "c"))
	if n := testing.AllocsPerRun(100, func() {
		p, err := b.Pick("a")
		if err != nil {
			t.Fatal(err)
		}
		p.Answered()
		p.Done(nil)
	}); n > 1 {
		t.Errorf("%v allocations a pick, want 1", n)
	}
}

func BenchmarkPick(b *testing.B) {
	for _, s := range []discover.Strategy{discover.RoundRobin, discover.LeastConnections} {
		b.Run(fmt.Sprint(s), func(b *testing.B) {
			bal := discover.NewBalancer(discover.BalancerConfig{Strategy: s, MaxFails: 3})
			bal.Update(endpoints(strings.Fields("a b c d e f g h i j")...))
			for b.Loop() {
				p, err := bal.Pick()
				if err != nil {
					b.Fatal(err)
				}
				p.Done(nil)
			}
		})
	}
}

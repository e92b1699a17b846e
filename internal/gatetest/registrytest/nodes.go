package registrytest

import (
	"errors"
	"reflect"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"ssegate/registry"
	"ssegate/sse"
)

func isSentinel(err error) bool {
	return errors.Is(err, registry.ErrUnknown) || errors.Is(err, registry.ErrFenced)
}

func leaseLapses(t *testing.T, w World) {
	if !beat(t, w.A, "a", long) {
		t.Fatal("the first beat had a lease to renew")
	}
	if beat(t, w.B, "a", soon) {
		t.Fatal("the lease lapsed before its time")
	}
	w.Pass(soon)
	want(t, "nodes after the lease", ids(t, w.B))
	if !beat(t, w.A, "a", long) {
		t.Fatal("a lapsed lease counted as renewed")
	}
	beat(t, w.A, "a", soon)
	beat(t, w.A, "a", long) // in time or not
	w.Pass(soon)
	want(t, "nodes", ids(t, w.B), "a")
}

func listSorted(t *testing.T, w World) {
	want(t, "nodes of nobody", ids(t, w.A))
	for _, id := range []string{"c", "a", "d", "b"} {
		beat(t, w.A, id, long)
	}
	want(t, "nodes", ids(t, w.B), "a", "b", "c", "d")
}

func nodeRoundTrip(t *testing.T, w World) {
	n := registry.Node{
		ID: "host-7f", Advertise: "https://a.example", Internal: "10.0.0.1:8089",
		Started: time.Date(2026, 11, 22, 9, 0, 0, 0, time.UTC), Connections: 10_000, Streams: 7, Draining: true,
	}
	_, err := w.A.Beat(t.Context(), n, long)
	must(t, "Beat", err)
	first := only(t, w.B)
	if first.Seen.IsZero() {
		t.Error("Seen was not set")
	}
	w.Pass(soon)
	n.Connections = 3
	_, err = w.A.Beat(t.Context(), n, long)
	must(t, "Beat", err)
	got := only(t, w.B)
	if !got.Seen.After(first.Seen) {
		t.Errorf("seen at %v, after %v before", got.Seen, first.Seen)
	}
	n.Seen, got.Started = got.Seen, got.Started.UTC()
	if !reflect.DeepEqual(got, n) {
		t.Errorf("got  %+v\nwant %+v", got, n)
	}
}

func only(t *testing.T, r registry.Nodes) registry.Node {
	t.Helper()
	list, err := r.List(t.Context())
	if err != nil || len(list) != 1 {
		t.Fatalf("List: %v, %v; want one node", list, err)
	}
	return list[0]
}

func leave(t *testing.T, w World) {
	id := sse.NewStreamID()
	for _, n := range []string{"a", "b"} {
		beat(t, w.A, n, long)
		must(t, "PutConns", w.A.PutConns(t.Context(), n, []*registry.Connection{{ID: n + "1", Node: n}}))
		must(t, "Follow", w.A.Follow(t.Context(), id, n, long))
	}
	lead(t, w.A, "a", long, true)

	must(t, "Leave", w.A.Leave(t.Context(), "a"))
	want(t, "nodes", ids(t, w.B), "b")
	want(t, "followers", followers(t, w.B, id), "b")
	want(t, "connections", connIDs(t, w.B), "b1")
	lead(t, w.B, "b", long, true)
	want(t, "dead", sweep(t, w.B)) // who leaves has not died
	must(t, "Leave again", w.A.Leave(t.Context(), "a"))
	if !beat(t, w.A, "a", long) {
		t.Error("who left still had a lease")
	}
	want(t, "connections after coming back", connIDs(t, w.B), "b1")
}

func sweep(t *testing.T, r registry.Nodes) []string {
	t.Helper()
	dead, err := r.Sweep(t.Context())
	must(t, "Sweep", err)
	return dead
}

func sweepAfterDeath(t *testing.T, w World) {
	beat(t, w.A, "live", long)
	for _, id := range []string{"dead2", "dead1"} {
		beat(t, w.A, id, soon)
		if err := w.A.PutConns(t.Context(), id, []*registry.Connection{{ID: id, Node: id}}); err != nil && !isSentinel(err) {
			t.Fatal(err)
		}
	}
	w.Pass(soon)
	want(t, "nodes before the sweep", ids(t, w.B), "live")
	want(t, "dead", sweep(t, w.B), "dead1", "dead2")
	want(t, "dead, told twice", sweep(t, w.A))
	want(t, "nodes", ids(t, w.B), "live")
	want(t, "connections", connIDs(t, w.B))
}

func sweepSparesWhoCameBack(t *testing.T, w World) {
	beat(t, w.A, "a", soon)
	w.Pass(soon)
	beat(t, w.A, "a", long)
	must(t, "PutConns", w.A.PutConns(t.Context(), "a", []*registry.Connection{{ID: "1", Node: "a"}}))
	want(t, "dead", sweep(t, w.B))
	want(t, "nodes", ids(t, w.B), "a")
	want(t, "connections", connIDs(t, w.B), "1")
}

func lead(t *testing.T, r registry.Nodes, node string, ttl time.Duration, want bool) {
	t.Helper()
	got, err := r.Lead(t.Context(), node, ttl)
	must(t, "Lead", err)
	if got != want {
		t.Fatalf("Lead(%s): %t, want %t", node, got, want)
	}
}

func leadOneAtATime(t *testing.T, w World) {
	lead(t, w.A, "a", long, true)
	lead(t, w.B, "b", long, false)
	lead(t, w.A, "a", soon, true) // renewed
	w.Pass(soon)
	lead(t, w.B, "b", long, true) // handed over
	lead(t, w.A, "a", long, false)
	lead(t, w.B, "b", long, true)
}

func leadRace(t *testing.T, w World) {
	var won atomic.Int32
	race(func(i int) {
		if ok, err := pick(w, i).Lead(t.Context(), name(i), long); err != nil {
			t.Error(err)
		} else if ok {
			won.Add(1)
		}
	})
	if won.Load() != 1 {
		t.Errorf("%d cleaners, want one", won.Load())
	}
}

// racers is how many goroutines want the same thing at once.
const racers = 8

// race calls f with 0 to racers-1, all at once.
func race(f func(i int)) {
	var wg sync.WaitGroup
	start := make(chan struct{})
	for i := range racers {
		wg.Go(func() {
			<-start
			f(i)
		})
	}
	close(start)
	wg.Wait()
}

func pick(w World, i int) registry.Registry {
	if i%2 == 0 {
		return w.A
	}
	return w.B
}

func name(i int) string { return string(rune('a' + i)) }

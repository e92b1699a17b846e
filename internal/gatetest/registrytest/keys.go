package registrytest

import (
	"bytes"
	"errors"
	"fmt"
	"slices"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"ssegate/registry"
	"ssegate/sse"
)

func vote(t *testing.T, r registry.Keys, key string, bid registry.Bid, ttl time.Duration) (registry.Bid, bool) {
	t.Helper()
	now, won, err := r.Elect(t.Context(), key, bid, ttl)
	must(t, "Elect", err)
	if won != now.Same(bid) {
		t.Fatalf("Elect: won is %t, but there stands %+v", won, now)
	}
	return now, won
}

func wins(t *testing.T, r registry.Keys, key string, bid registry.Bid, ttl time.Duration) {
	t.Helper()
	if now, won := vote(t, r, key, bid, ttl); !won {
		t.Fatalf("Elect(%s): %s stands there", bid.Owner, now.Owner)
	}
}

func loses(t *testing.T, r registry.Keys, key string, bid registry.Bid, to registry.Bid) {
	t.Helper()
	now, won := vote(t, r, key, bid, long)
	if won || !now.Same(to) || !bytes.Equal(now.Sum, to.Sum) {
		t.Fatalf("Elect(%s): %t, %+v; want to lose to %+v", bid.Owner, won, now, to)
	}
}

func bid(owner string) registry.Bid {
	return registry.Bid{Stream: sse.NewStreamID(), Owner: owner, Sum: []byte(owner)}
}

func elect(t *testing.T, w World) {
	beat(t, w.A, "a", long)
	beat(t, w.A, "b", long)
	a, b := bid("a"), bid("b")
	wins(t, w.A, "k", a, long)
	wins(t, w.A, "k", a, long) // the same bid again
	loses(t, w.B, "k", b, a)
	loses(t, w.A, "k", bid("a"), a) // another stream of the same owner
	wins(t, w.B, "k2", b, long)     // another key
	wins(t, w.B, "{k}: any\x00text", b, long)
}

func electRace(t *testing.T, w World) {
	for i := range racers {
		beat(t, w.A, name(i), long)
	}
	for round := range 5 {
		key := fmt.Sprint("k", round)
		everyoneButOneLoses(t, w, key)
	}
}

// everyoneButOneLoses lets all racers want the key at once.
func everyoneButOneLoses(t *testing.T, w World, key string) {
	t.Helper()
	var won atomic.Int32
	var stands [racers]registry.Bid
	race(func(i int) {
		now, ok, err := pick(w, i).Elect(t.Context(), key, bid(name(i)), long)
		if err != nil {
			t.Error(err)
		} else if ok {
			won.Add(1)
		}
		stands[i] = now
	})
	if won.Load() != 1 {
		t.Fatalf("%d winners, want one", won.Load())
	}
	for _, now := range stands {
		if !now.Same(stands[0]) {
			t.Fatalf("two winners were told of: %+v and %+v", now, stands[0])
		}
	}
}

func electDeadOwner(t *testing.T, w World) {
	beat(t, w.A, "a", soon)
	beat(t, w.A, "b", long)
	a, b := bid("a"), bid("b")
	wins(t, w.A, "k", a, long)
	w.Pass(soon)
	wins(t, w.B, "k", b, long)
	beat(t, w.A, "a", long)
	loses(t, w.A, "k", a, b)
	if err := w.A.Extend(t.Context(), "k", a.Stream, long); !errors.Is(err, registry.ErrUnknown) {
		t.Fatalf("Extend by who lost the key: %v", err)
	}
	must(t, "Leave", w.B.Leave(t.Context(), "b"))
	wins(t, w.A, "k", a, long)
}

func electDeadOwnerRace(t *testing.T, w World) {
	for i := range racers {
		beat(t, w.A, name(i), long)
	}
	for round := range 5 {
		key := fmt.Sprint("k", round)
		wins(t, w.A, key, bid("dead"), long) // who never had a lease
		everyoneButOneLoses(t, w, key)
	}
}

func keyEnds(t *testing.T, w World) {
	beat(t, w.A, "a", long)
	wins(t, w.A, "k", bid("a"), soon)
	w.Pass(soon)
	wins(t, w.B, "k", bid("b"), long)
}

func extendOnlyByHolder(t *testing.T, w World) {
	beat(t, w.A, "a", long)
	beat(t, w.A, "b", long)
	unknown := func(key string, id sse.StreamID) {
		t.Helper()
		if err := w.B.Extend(t.Context(), key, id, long); !errors.Is(err, registry.ErrUnknown) {
			t.Fatalf("Extend: %v, want ErrUnknown", err)
		}
	}
	a, b := bid("a"), bid("b")
	unknown("k", a.Stream)
	wins(t, w.A, "k", a, soon)
	unknown("k", b.Stream)
	w.Pass(soon)
	unknown("k", a.Stream)
	wins(t, w.B, "k", b, soon) // nobody had extended it
	// As in touchPutsOff: who comes too late wins again and extends again.
	for w.B.Extend(t.Context(), "k", b.Stream, long) != nil {
		wins(t, w.B, "k", b, soon)
	}
	must(t, "Extend to an earlier end", w.B.Extend(t.Context(), "k", b.Stream, soon))
	w.Pass(soon)
	loses(t, w.A, "k", a, b)
}

func releaseOnlyByHolder(t *testing.T, w World) {
	beat(t, w.A, "a", long)
	beat(t, w.A, "b", long)
	a, b := bid("a"), bid("b")
	wins(t, w.A, "k", a, long)
	must(t, "Release by another", w.B.Release(t.Context(), "k", b.Stream))
	loses(t, w.B, "k", b, a)
	must(t, "Release", w.A.Release(t.Context(), "k", a.Stream))
	must(t, "Release again", w.A.Release(t.Context(), "k", a.Stream))
	wins(t, w.B, "k", b, long)
}

func byPrint(t *testing.T, r registry.Keys, print string) []sse.StreamID {
	t.Helper()
	ids, err := r.ByPrint(t.Context(), print)
	must(t, "ByPrint", err)
	return ids
}

func prints(t *testing.T, w World) {
	want(t, "streams of no print", byPrint(t, w.A, "p"))
	var added []sse.StreamID // newest first
	for range registry.MaxPrints + 4 {
		id := sse.NewStreamID()
		added = slices.Insert(added, 0, id)
		must(t, "AddPrint", w.A.AddPrint(t.Context(), "p", id, long))
	}
	other := sse.NewStreamID()
	must(t, "AddPrint", w.A.AddPrint(t.Context(), "q", other, long))
	want(t, "the newest", byPrint(t, w.B, "p"), added[:registry.MaxPrints]...)
	want(t, "another print", byPrint(t, w.B, "q"), other)

	again := added[3]
	must(t, "AddPrint again", w.B.AddPrint(t.Context(), "p", again, long))
	added = slices.Insert(slices.Delete(added, 3, 4), 0, again)
	want(t, "the newest", byPrint(t, w.A, "p"), added[:registry.MaxPrints]...)
}

func printsEnd(t *testing.T, w World) {
	long1, short, long2 := sse.NewStreamID(), sse.NewStreamID(), sse.NewStreamID()
	must(t, "AddPrint", w.A.AddPrint(t.Context(), "p", long1, long))
	must(t, "AddPrint", w.A.AddPrint(t.Context(), "p", short, soon))
	w.Pass(soon)
	want(t, "streams", byPrint(t, w.B, "p"), long1)
	must(t, "AddPrint", w.A.AddPrint(t.Context(), "p", long2, long))
	want(t, "streams", byPrint(t, w.B, "p"), long2, long1)
	must(t, "AddPrint", w.A.AddPrint(t.Context(), "only", short, soon))
	must(t, "AddPrint", w.A.AddPrint(t.Context(), "both", short, soon))
	must(t, "AddPrint", w.A.AddPrint(t.Context(), "both", long1, long))
	w.Pass(soon)
	want(t, "streams", byPrint(t, w.B, "only"))
	want(t, "streams", byPrint(t, w.B, "both"), long1)
}

func connIDs(t *testing.T, r registry.Connections) []string {
	t.Helper()
	all, err := r.Conns(t.Context())
	must(t, "Conns", err)
	var ids []string
	for _, c := range all {
		ids = append(ids, c.ID)
	}
	slices.Sort(ids)
	return ids
}

func connections(t *testing.T, w World) {
	beat(t, w.A, "a", long)
	beat(t, w.A, "b", long)
	const n = 1000
	conns := make([]*registry.Connection, n)
	ids := make([]string, n)
	for i := range conns {
		ids[i] = fmt.Sprintf("c%04d", i)
		conns[i] = &registry.Connection{
			ID: ids[i], Node: "a", Stream: sse.NewStreamID(), Topics: []string{"user/u1", "channel/é"},
			User: strings.Repeat("u", i%50), Remote: "[::1]:5000", Since: time.Unix(int64(i), 0).UTC(),
		}
	}
	must(t, "PutConns", w.A.PutConns(t.Context(), "a", conns))
	must(t, "PutConns", w.A.PutConns(t.Context(), "b", []*registry.Connection{{ID: "b1", Node: "b"}}))
	must(t, "PutConns of nothing", w.A.PutConns(t.Context(), "a", nil))
	all, err := w.B.Conns(t.Context())
	must(t, "Conns", err)
	slices.SortFunc(all, func(a, b registry.Connection) int { return strings.Compare(a.ID, b.ID) })
	if len(all) != n+1 || all[0].ID != "b1" {
		t.Fatalf("%d connections, first %+v; want %d", len(all), all[0], n+1)
	}
	for i, c := range all[1:] {
		o := conns[i]
		if c.ID != o.ID || c.Node != o.Node || c.Stream != o.Stream || !slices.Equal(c.Topics, o.Topics) ||
			c.User != o.User || c.Remote != o.Remote || !c.Since.Equal(o.Since) {
			t.Fatalf("got  %+v\nwant %+v", c, o)
		}
	}
	changed := *conns[0]
	changed.User = "new"
	must(t, "PutConns over", w.A.PutConns(t.Context(), "a", []*registry.Connection{&changed}))
	must(t, "DropConns", w.A.DropConns(t.Context(), "a", ids[1:]))
	must(t, "DropConns again", w.A.DropConns(t.Context(), "a", ids[1:]))
	must(t, "DropConns of nothing", w.A.DropConns(t.Context(), "a", nil))
	must(t, "DropConns of another node's", w.A.DropConns(t.Context(), "b", ids[:1]))
	want(t, "connections", connIDs(t, w.B), "b1", ids[0])
	all, err = w.B.Conns(t.Context())
	must(t, "Conns", err)
	if !slices.ContainsFunc(all, func(c registry.Connection) bool { return c.User == "new" }) {
		t.Error("a connection was not replaced")
	}
}

func connectionsGoWithTheLease(t *testing.T, w World) {
	conn := []*registry.Connection{{ID: "1", Node: "a"}}
	if err := w.A.PutConns(t.Context(), "a", conn); !errors.Is(err, registry.ErrUnknown) {
		t.Fatalf("PutConns without a lease: %v, want ErrUnknown", err)
	}
	beat(t, w.A, "a", long)
	must(t, "PutConns", w.A.PutConns(t.Context(), "a", conn))
	beat(t, w.A, "a", long)
	want(t, "connections", connIDs(t, w.B), "1") // kept by a beat in time
	beat(t, w.A, "a", soon)
	w.Pass(soon)
	want(t, "connections", connIDs(t, w.B))
	if err := w.A.PutConns(t.Context(), "a", conn); !errors.Is(err, registry.ErrUnknown) {
		t.Fatalf("PutConns after the lease: %v, want ErrUnknown", err)
	}
	beat(t, w.A, "a", long)
	want(t, "connections", connIDs(t, w.B)) // to be registered again
}

package registrytest

import (
	"errors"
	"math"
	"reflect"
	"slices"
	"sync/atomic"
	"testing"
	"time"

	"ssegate/registry"
	"ssegate/sse"
)

func get(t *testing.T, r registry.Streams, id sse.StreamID) registry.Record {
	t.Helper()
	rec, err := r.Get(t.Context(), id)
	must(t, "Get", err)
	return rec
}

func unknown(t *testing.T, r registry.Streams, id sse.StreamID) {
	t.Helper()
	if rec, err := r.Get(t.Context(), id); !errors.Is(err, registry.ErrUnknown) {
		t.Fatalf("Get: %v, %v; want ErrUnknown", rec, err)
	}
}

func putAndGet(t *testing.T, w World) {
	full := registry.Record{
		Stream: sse.NewStreamID(), Owner: "a", Epoch: 1_763_800_000_000, State: registry.StateEnded, End: sse.EndLost,
		Route: "/deep", Principal: []byte{0, 1, 255}, Started: time.Unix(1, 5).UTC(), Ended: time.Unix(2, 0).UTC(),
		Tail: sse.Pos{Epoch: 9, Seq: math.MaxUint64}, UpstreamIDs: true, UpstreamID: []byte("é\n"),
		UpstreamRetry: true, Followers: 3, Head: []byte("HTTP"), Request: []byte{},
	}
	for f, v := range reflect.ValueOf(full).Fields() {
		if v.IsZero() {
			t.Errorf("%s is new: give it a value here", f.Name)
		}
	}
	unknown(t, w.A, full.Stream)
	must(t, "Put", put(t, w.A, full, long))
	got := get(t, w.B, full.Stream)
	if len(got.Request) == 0 {
		got.Request = full.Request // nil and empty are the same
	}
	if !reflect.DeepEqual(got, full) {
		t.Errorf("got  %+v\nwant %+v", got, full)
	}
	unknown(t, w.A, sse.NewStreamID())
}

func putFenced(t *testing.T, w World) {
	id := sse.NewStreamID()
	// Two epochs that are one as float64, and one that is less as text.
	const newer, older, oldest = 1<<60 + 1, 1 << 60, 9
	must(t, "Put", put(t, w.A, rec(id, "a", newer), long))
	for _, e := range []uint64{older, oldest, 0} {
		if err := put(t, w.B, rec(id, "b", e), long); !errors.Is(err, registry.ErrFenced) {
			t.Fatalf("Put of epoch %d over %d: %v, want ErrFenced", e, uint64(newer), err)
		}
	}
	if got := get(t, w.B, id); got.Owner != "a" || got.Epoch != newer {
		t.Fatalf("a fenced Put changed the record: %+v", got)
	}
	ended := rec(id, "a", newer)
	ended.State = registry.StateEnded
	must(t, "Put in the same epoch", put(t, w.A, ended, long))
	must(t, "Put in a newer epoch", put(t, w.B, rec(id, "b", newer+1), long))
	if got := get(t, w.A, id); got.Owner != "b" {
		t.Fatalf("owner %s, want b", got.Owner)
	}
}

func putMany(t *testing.T, w World) {
	const n = 100
	recs := make([]registry.Record, n)
	for i := range recs {
		recs[i] = rec(sse.NewStreamID(), "a", 5)
	}
	if errs := w.A.Put(t.Context(), recs, long); errs != nil {
		t.Fatalf("Put: %v, want nil", errs)
	}
	must(t, "Put", put(t, w.B, rec(recs[7].Stream, "b", 6), long))
	errs := w.A.Put(t.Context(), recs, long)
	if len(errs) != n {
		t.Fatalf("%d errors for %d records", len(errs), n)
	}
	for i, err := range errs {
		if fenced := errors.Is(err, registry.ErrFenced); fenced != (i == 7) || !fenced && err != nil {
			t.Errorf("record %d: %v", i, err)
		}
	}
	if errs := w.A.Put(t.Context(), nil, long); errs != nil {
		t.Errorf("Put of nothing: %v", errs)
	}
	for i, r := range recs {
		if got := get(t, w.B, r.Stream); got.Stream != r.Stream || got.Owner == "b" != (i == 7) {
			t.Errorf("record %d: %+v", i, got)
		}
	}
}

func recordEnds(t *testing.T, w World) {
	id := sse.NewStreamID()
	must(t, "Put", put(t, w.A, rec(id, "a", 2), long))
	must(t, "Put", put(t, w.A, rec(id, "a", 2), soon)) // for soon from now, not for what was left
	w.Pass(soon)
	unknown(t, w.B, id)
	must(t, "Put over what has ended", put(t, w.B, rec(id, "b", 1), long))
}

func touchPutsOff(t *testing.T, w World) {
	kept, lasting, gone := sse.NewStreamID(), sse.NewStreamID(), sse.NewStreamID()
	must(t, "Put", put(t, w.A, rec(lasting, "a", 1), long))
	must(t, "Touch", w.A.Touch(t.Context(), []sse.StreamID{lasting}, soon)) // brings no end nearer
	// What is touched too late was not there to be touched: again, then.
	for {
		must(t, "Put", put(t, w.A, rec(kept, "a", 1), soon))
		must(t, "Touch", w.A.Touch(t.Context(), []sse.StreamID{sse.NewStreamID(), kept}, long))
		if _, err := w.A.Get(t.Context(), kept); err == nil {
			break
		}
	}
	must(t, "Put", put(t, w.A, rec(gone, "a", 1), soon))
	must(t, "Touch of nothing", w.A.Touch(t.Context(), nil, long))
	w.Pass(soon)
	get(t, w.B, kept)
	get(t, w.B, lasting)
	unknown(t, w.B, gone)
}

func claim(t *testing.T, w World) {
	id := sse.NewStreamID()
	fenced := func(what string, err error) {
		t.Helper()
		if !errors.Is(err, registry.ErrFenced) {
			t.Fatalf("%s: %v, want ErrFenced", what, err)
		}
	}
	fenced("Claim of what is not there", w.A.Claim(t.Context(), rec(id, "b", 20), 10, long))
	unknown(t, w.A, id)
	must(t, "Put", put(t, w.A, rec(id, "a", 10), long))
	fenced("Claim of another epoch", w.B.Claim(t.Context(), rec(id, "b", 20), 9, long))
	fenced("Claim with no newer epoch", w.B.Claim(t.Context(), rec(id, "b", 10), 10, long))
	fenced("Claim with an older epoch", w.B.Claim(t.Context(), rec(id, "b", 9), 10, long))
	must(t, "Claim", w.B.Claim(t.Context(), rec(id, "b", 20), 10, long))
	must(t, "Claim, repeated", w.B.Claim(t.Context(), rec(id, "b", 20), 10, long))
	fenced("Claim by another in that epoch", w.A.Claim(t.Context(), rec(id, "c", 20), 10, long))
	fenced("Put by the old owner", put(t, w.A, rec(id, "a", 10), long))
	if got := get(t, w.A, id); got.Owner != "b" || got.Epoch != 20 {
		t.Fatalf("%+v, want owner b in epoch 20", got)
	}
	must(t, "Claim", w.B.Claim(t.Context(), rec(id, "b", 30), 20, soon))
	w.Pass(soon)
	unknown(t, w.A, id)
	fenced("Claim of what has ended", w.B.Claim(t.Context(), rec(id, "b", 40), 30, long))
}

func claimRace(t *testing.T, w World) {
	id := sse.NewStreamID()
	must(t, "Put", put(t, w.A, rec(id, "old", 1), long))
	var won atomic.Int32
	winner := make(chan string, racers)
	race(func(i int) {
		// Half of them bear the same epoch: it is the owner that counts then.
		switch err := pick(w, i).Claim(t.Context(), rec(id, name(i), uint64(2+i/2)), 1, long); {
		case err == nil:
			won.Add(1)
			winner <- name(i)
		case !errors.Is(err, registry.ErrFenced):
			t.Error(err)
		}
	})
	if won.Load() != 1 {
		t.Fatalf("%d claims went through, want one", won.Load())
	}
	if got := get(t, w.A, id); got.Owner != <-winner {
		t.Errorf("the record says %s", got.Owner)
	}
}

func followers(t *testing.T, r registry.Interest, id sse.StreamID) []string {
	t.Helper()
	all, err := r.Followers(t.Context(), []sse.StreamID{id})
	must(t, "Followers", err)
	if len(all) != 1 {
		t.Fatalf("followers of %d streams, want of one", len(all))
	}
	slices.Sort(all[0])
	return all[0]
}

func interest(t *testing.T, w World) {
	one, two, none := sse.NewStreamID(), sse.NewStreamID(), sse.NewStreamID()
	for _, n := range []string{"a", "b", "c"} {
		beat(t, w.A, n, long)
	}
	must(t, "Follow", w.A.Follow(t.Context(), one, "a", long))
	must(t, "Follow", w.B.Follow(t.Context(), one, "b", long))
	must(t, "Follow again", w.B.Follow(t.Context(), one, "b", long))
	must(t, "Follow", w.B.Follow(t.Context(), two, "c", long))
	all, err := w.A.Followers(t.Context(), []sse.StreamID{one, none, two})
	must(t, "Followers", err)
	if len(all) != 3 {
		t.Fatalf("followers of %d streams, want of 3", len(all))
	}
	slices.Sort(all[0])
	want(t, "followers of one", all[0], "a", "b")
	want(t, "followers of none", all[1])
	want(t, "followers of two", all[2], "c")

	must(t, "Unfollow", w.A.Unfollow(t.Context(), one, "a"))
	must(t, "Unfollow of nothing", w.A.Unfollow(t.Context(), none, "a"))
	want(t, "followers of one", followers(t, w.B, one), "b")
	must(t, "Unfollow", w.A.Unfollow(t.Context(), one, "b"))
	want(t, "followers of one", followers(t, w.B, one))
	all, err = w.A.Followers(t.Context(), nil)
	must(t, "Followers", err)
	if len(all) != 0 {
		t.Errorf("followers of nothing: %v", all)
	}
}

func interestEnds(t *testing.T, w World) {
	id := sse.NewStreamID()
	beat(t, w.A, "a", long)
	beat(t, w.A, "b", long)
	must(t, "Follow", w.A.Follow(t.Context(), id, "a", soon))
	must(t, "Follow", w.A.Follow(t.Context(), id, "b", long))
	w.Pass(soon)
	want(t, "followers", followers(t, w.B, id), "b")
}

func interestOfTheDead(t *testing.T, w World) {
	id := sse.NewStreamID()
	beat(t, w.A, "a", soon)
	beat(t, w.A, "b", long)
	for _, n := range []string{"a", "b", "stranger"} {
		must(t, "Follow", w.A.Follow(t.Context(), id, n, long))
	}
	w.Pass(soon)
	want(t, "followers", followers(t, w.B, id), "b")
	want(t, "dead", sweep(t, w.B), "a")
	want(t, "followers", followers(t, w.B, id), "b")
}

func touchPutsOffInterest(t *testing.T, w World) {
	id := sse.NewStreamID()
	beat(t, w.A, "a", long)
	beat(t, w.A, "b", long)
	must(t, "Put", put(t, w.A, rec(id, "a", 1), long))
	for { // as in touchPutsOff
		must(t, "Follow", w.A.Follow(t.Context(), id, "a", soon))
		must(t, "Touch", w.A.Touch(t.Context(), []sse.StreamID{id}, long))
		if len(followers(t, w.A, id)) == 1 {
			break
		}
	}
	must(t, "Touch", w.A.Touch(t.Context(), []sse.StreamID{id}, soon)) // brings no end nearer
	must(t, "Follow", w.A.Follow(t.Context(), id, "b", soon))
	w.Pass(soon)
	want(t, "followers", followers(t, w.B, id), "a")
	must(t, "Touch", w.A.Touch(t.Context(), []sse.StreamID{id}, long)) // too late for b
	want(t, "followers", followers(t, w.B, id), "a")
}

package registrytest

import (
	"bytes"
	"errors"
	"fmt"
	"slices"
	"sync"
	"testing"
	"time"

	"ssegate/registry"
)

func wantNote(t *testing.T, r registry.Notes, name, value string) {
	t.Helper()
	got, err := r.GetNote(t.Context(), name)
	must(t, "GetNote", err)
	if string(got) != value {
		t.Fatalf("note %q is %q, want %q", name, got, value)
	}
}

func wantNoNote(t *testing.T, r registry.Notes, name string) {
	t.Helper()
	if got, err := r.GetNote(t.Context(), name); !errors.Is(err, registry.ErrUnknown) {
		t.Fatalf("note %q: %q, %v; want ErrUnknown", name, got, err)
	}
	if got, err := r.TakeNote(t.Context(), name); !errors.Is(err, registry.ErrUnknown) {
		t.Fatalf("note %q: took %q, %v; want ErrUnknown", name, got, err)
	}
}

func notes(t *testing.T, w World) {
	wantNoNote(t, w.A, "n")
	every := string(bytes.Repeat([]byte("\x00\r\n$é"), 500))
	for name, value := range map[string]string{"n": "1", "": "none", "{a}:b\x00 é": every, "empty": ""} {
		must(t, "PutNote", w.A.PutNote(t.Context(), name, []byte(value), long))
		wantNote(t, w.B, name, value)
	}
	must(t, "PutNote over", w.B.PutNote(t.Context(), "n", []byte("2"), long))
	wantNote(t, w.A, "n", "2")
	got, err := w.A.TakeNote(t.Context(), "n")
	if err != nil || string(got) != "2" {
		t.Fatalf("TakeNote: %q, %v", got, err)
	}
	wantNoNote(t, w.B, "n")
	wantNote(t, w.B, "", "none") // another note
	got, err = w.A.TakeNote(t.Context(), "empty")
	if err != nil || len(got) != 0 {
		t.Fatalf("TakeNote of an empty one: %q, %v", got, err)
	}
}

func notesEnd(t *testing.T, w World) {
	must(t, "PutNote", w.A.PutNote(t.Context(), "n", []byte("1"), soon))
	must(t, "PutNote", w.A.PutNote(t.Context(), "m", []byte("1"), long))
	must(t, "PutNote", w.A.PutNote(t.Context(), "m", []byte("2"), soon)) // its ttl counts, not the first
	must(t, "PutNote", w.A.PutNote(t.Context(), "o", []byte("1"), soon))
	must(t, "PutNote", w.A.PutNote(t.Context(), "o", []byte("2"), long))
	w.Pass(soon)
	wantNoNote(t, w.B, "n")
	wantNoNote(t, w.B, "m")
	wantNote(t, w.B, "o", "2")
}

func takeNoteRace(t *testing.T, w World) {
	for round := range 10 {
		name := fmt.Sprint("n", round)
		must(t, "PutNote", w.A.PutNote(t.Context(), name, []byte(name), long))
		var got [racers]string
		race(func(i int) {
			value, err := pick(w, i).TakeNote(t.Context(), name)
			if err != nil && !errors.Is(err, registry.ErrUnknown) {
				t.Error(err)
			}
			got[i] = string(value)
		})
		slices.Sort(got[:])
		if got[racers-1] != name || got[racers-2] != "" {
			t.Fatalf("took %q, want one to have it", got)
		}
	}
}

func gather(t *testing.T, r registry.Gathering, name, value string, ttl time.Duration) {
	t.Helper()
	must(t, "Gather", r.Gather(t.Context(), name, []byte(value), ttl))
}

// wantGathered says what is kept under a name, newest first.
func wantGathered(t *testing.T, r registry.Gathering, name string, values ...string) {
	t.Helper()
	got, err := r.Gathered(t.Context(), name)
	must(t, "Gathered", err)
	var texts []string
	for _, v := range got {
		texts = append(texts, string(v))
	}
	want(t, "gathered under "+name, texts, values...)
}

func gathered(t *testing.T, w World) {
	wantGathered(t, w.A, "n")
	must(t, "PutNote", w.A.PutNote(t.Context(), "n", []byte("a note"), long))
	wantGathered(t, w.A, "n")
	gather(t, w.A, "n", "1", long)
	gather(t, w.B, "n", "2\x00\r\né", long)
	gather(t, w.B, "", "none", long)
	wantGathered(t, w.A, "n", "2\x00\r\né", "1")
	gather(t, w.A, "n", "1", long) // is there once
	wantGathered(t, w.B, "n", "1", "2\x00\r\né")
	wantGathered(t, w.B, "", "none")
	wantNote(t, w.B, "n", "a note")
	var newest []string
	for i := range registry.MaxGathered + 5 {
		gather(t, pick(w, i), "many", fmt.Sprint(i), long)
		newest = append([]string{fmt.Sprint(i)}, newest...)
	}
	wantGathered(t, w.A, "many", newest[:registry.MaxGathered]...)
}

func gatheredEnd(t *testing.T, w World) {
	gather(t, w.A, "n", "1", soon)
	gather(t, w.A, "m", "1", soon)
	gather(t, w.B, "m", "2", long) // all of them are kept as long
	gather(t, w.B, "m", "3", soon)
	w.Pass(soon)
	wantGathered(t, w.B, "n")
	wantGathered(t, w.A, "m", "3", "2", "1")
	gather(t, w.B, "n", "2", long)
	wantGathered(t, w.A, "n", "2")
}

// gatherRace: nothing that is added at once is lost.
func gatherRace(t *testing.T, w World) {
	race(func(i int) {
		for j := range registry.MaxGathered / racers {
			if err := pick(w, i).Gather(t.Context(), "n", fmt.Append(nil, i, " ", j), long); err != nil {
				t.Error(err)
			}
		}
	})
	got, err := w.A.Gathered(t.Context(), "n")
	must(t, "Gathered", err)
	if n := registry.MaxGathered / racers * racers; len(got) != n {
		t.Fatalf("%d values, want %d", len(got), n)
	}
}

// take takes what is due for a long time, as text.
func take(t *testing.T, r registry.Due, now time.Time, most int) (items []string) {
	t.Helper()
	return lease(t, r, now, now.Add(long), most)
}

// lease takes what is due until back, as text.
func lease(t *testing.T, r registry.Due, now, back time.Time, most int) (items []string) {
	t.Helper()
	got, err := r.TakeDue(t.Context(), now, back, most)
	must(t, "TakeDue", err)
	for _, item := range got {
		items = append(items, string(item))
	}
	return items
}

func putDue(t *testing.T, r registry.Due, at time.Time, items ...string) {
	t.Helper()
	var list [][]byte
	for _, s := range items {
		list = append(list, []byte(s))
	}
	must(t, "PutDue", r.PutDue(t.Context(), at, list))
}

func due(t *testing.T, w World) {
	now := time.Now().Truncate(time.Millisecond)
	at := func(ms int) time.Time { return now.Add(time.Duration(ms) * time.Millisecond) }
	want(t, "of nothing", take(t, w.A, now, 10))
	putDue(t, w.A, now)
	putDue(t, w.A, at(30), "third", "\x00é\r\n")
	putDue(t, w.B, at(10), "first")
	putDue(t, w.B, at(20), "second")
	want(t, "before its time", take(t, w.A, at(9), 10))
	want(t, "at its time", take(t, w.A, at(10), 10), "first")
	want(t, "again", take(t, w.B, at(10), 10))
	want(t, "none", take(t, w.B, at(20), 0))
	want(t, "one", take(t, w.B, at(1000), 1), "second")
	both := take(t, w.B, at(1000), 10)
	slices.Sort(both)
	want(t, "the rest", both, "\x00é\r\n", "third")

	// An item that is put again waits until the new time, and is there once.
	putDue(t, w.A, at(10), "a", "b")
	putDue(t, w.B, at(500), "a")
	putDue(t, w.B, at(5), "b")
	putDue(t, w.B, at(5), "b")
	want(t, "moved nearer", take(t, w.A, at(5), 10), "b")
	want(t, "moved away", take(t, w.A, at(499), 10))
	want(t, "there", take(t, w.A, at(500), 10), "a")
	putDue(t, w.A, at(-1000), "late")
	putDue(t, w.A, at(501), "a") // after it was taken
	want(t, "all", take(t, w.B, at(501), 10), "late", "a")
}

// dueComesBack: what was taken comes back when its time is over, for one other
// taker, unless it was dropped or is put off.
func dueComesBack(t *testing.T, w World) {
	now := time.Now().Truncate(time.Millisecond)
	at := func(ms int) time.Time { return now.Add(time.Duration(ms) * time.Millisecond) }
	drop := func(r registry.Due, items ...string) {
		t.Helper()
		var list [][]byte
		for _, s := range items {
			list = append(list, []byte(s))
		}
		must(t, "DropDue", r.DropDue(t.Context(), list))
	}
	putDue(t, w.A, now, "a", "b", "c", "d\x00é")
	sorted := func(items []string) []string { slices.Sort(items); return items } // of one time they are in no order
	want(t, "all", sorted(lease(t, w.A, now, at(50), 10)), "a", "b", "c", "d\x00é")
	drop(w.A)
	drop(w.A, "b", "nothing")
	putDue(t, w.A, at(80), "c") // its taker needs longer
	want(t, "while they are taken", lease(t, w.B, at(49), at(200), 10))
	want(t, "of who is gone", sorted(lease(t, w.B, at(50), at(100), 10)), "a", "d\x00é")
	want(t, "again", lease(t, w.A, at(79), at(200), 10))
	want(t, "what was put off", lease(t, w.A, at(80), at(200), 10), "c")
	drop(w.A, "a") // by whoever knows that it is done
	want(t, "of the second one", lease(t, w.A, at(100), at(300), 10), "d\x00é")
	drop(w.B, "c", "d\x00é")
	want(t, "when all is done", lease(t, w.B, at(1000), at(2000), 10))
	putDue(t, w.B, at(5), "a") // as if for the first time
	want(t, "put again", lease(t, w.A, at(5), at(10), 10), "a")
}

func dueMany(t *testing.T, w World) {
	now := time.Now()
	var items []string
	for i := range 1234 {
		items = append(items, fmt.Sprintf("%04d", i))
	}
	putDue(t, w.A, now, items...)
	var got []string
	for {
		some := take(t, w.B, now, 1000)
		if len(some) == 0 {
			break
		}
		if len(some) > 1000 {
			t.Fatalf("%d items, asked for 1000", len(some))
		}
		got = append(got, some...)
	}
	slices.Sort(got)
	want(t, "items", got, items...)
	var list [][]byte
	for _, s := range items[1:] {
		list = append(list, []byte(s))
	}
	must(t, "DropDue", w.A.DropDue(t.Context(), list))
	want(t, "what is left", take(t, w.A, now.Add(2*long), 1000), items[0])
}

// takeDueRace: while some are put, many take; each item goes to one.
func takeDueRace(t *testing.T, w World) {
	const items = 300
	now := time.Now()
	var mu sync.Mutex
	got := map[string]int{}
	var wg sync.WaitGroup
	wg.Go(func() {
		for i := range items / 3 {
			putDue(t, w.A, now, fmt.Sprint(3*i), fmt.Sprint(3*i+1), fmt.Sprint(3*i+2))
		}
	})
	for i := range racers {
		wg.Go(func() {
			for {
				some, err := pick(w, i).TakeDue(t.Context(), now, now.Add(long), 1+i)
				if err != nil {
					t.Error(err)
					return
				}
				mu.Lock()
				for _, item := range some {
					got[string(item)]++
				}
				n := len(got)
				mu.Unlock()
				if n == items || t.Failed() {
					return
				}
			}
		})
	}
	wg.Wait()
	for item, n := range got {
		if n != 1 {
			t.Fatalf("item %s was taken %d times", item, n)
		}
	}
}

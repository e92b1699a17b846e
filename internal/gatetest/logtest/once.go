package logtest

import (
	"fmt"
	"slices"
	"sync"
	"testing"
	"time"

	"ssegate/reconnect"
	"ssegate/sse"
)

// message is a post that is to be taken once.
func message(id string, once time.Duration) reconnect.Post {
	return reconnect.Post{ID: []byte(id), Once: once, Block: []byte("data: " + id + "\n\n")}
}

// wantDups says which posts were taken earlier.
func wantDups(t *testing.T, d reconnect.Posted, want ...bool) {
	t.Helper()
	if d.Dup == nil {
		d.Dup = make([]bool, len(d.Pos))
	}
	if !slices.Equal(d.Dup, want) {
		t.Fatalf("taken earlier: %v, want %v", d.Dup, want)
	}
}

func testOnce(t *testing.T, s *suite) {
	id := sse.NewStreamID()
	a, b, c := message("a", time.Hour), message("b", time.Hour), message("c", time.Hour)
	d1 := s.publish(t, id, reconnect.Limits{}, []reconnect.Post{a, b})
	wantDups(t, d1, false, false)
	d2 := s.publish(t, id, reconnect.Limits{}, []reconnect.Post{b, c, a, c})
	wantDups(t, d2, true, false, true, true)
	if want := []sse.Pos{d1.Pos[1], {Epoch: d1.Pos[1].Epoch, Seq: d1.Pos[1].Seq + 1}, d1.Pos[0], d2.Pos[1]}; !slices.Equal(d2.Pos, want) {
		t.Errorf("they stand at %v, want %v", d2.Pos, want)
	}
	d3 := s.publish(t, id, reconnect.Limits{}, []reconnect.Post{a, b, c})
	wantDups(t, d3, true, true, true)
	if want := []sse.Pos{d1.Pos[0], d1.Pos[1], d2.Pos[1]}; !slices.Equal(d3.Pos, want) {
		t.Errorf("they stand at %v, want %v", d3.Pos, want)
	}
	s.wantRead(t, id, reconnect.Origin(d1.Pos[0].Epoch), 100, append(framesOf(d1, []reconnect.Post{a, b}), framesOf(d2, []reconnect.Post{b, c, a, c})...))

	// Another topic has its own; who says nothing of Once means it again.
	wantDups(t, s.publish(t, sse.NewStreamID(), reconnect.Limits{}, []reconnect.Post{a}), false)
	again := a
	again.Once = 0
	d4 := s.publish(t, id, reconnect.Limits{}, []reconnect.Post{again, a, again, message("i", time.Hour), message("s", time.Hour)})
	wantDups(t, d4, false, true, false, false, false)
	if d4.Pos[2].Seq != d4.Pos[0].Seq+1 || d4.Pos[1] != d1.Pos[0] || d4.Pos[4].Seq != d4.Pos[0].Seq+3 {
		t.Errorf("they stand at %v", d4.Pos)
	}
}

// testOnceEnds: an id is remembered as long as was asked for, and then taken
// again.
func testOnceEnds(t *testing.T, s *suite) {
	const once = 200 * time.Millisecond
	id := sse.NewStreamID()
	d := s.publish(t, id, reconnect.Limits{}, []reconnect.Post{message("a", once)})
	for taken := d; ; {
		d := s.publish(t, id, reconnect.Limits{}, []reconnect.Post{message("a", once), message("filler", once/4)})
		passed := time.Duration(d.Time-taken.Time) * time.Millisecond
		if dup := d.Dup != nil && d.Dup[0]; dup != (passed < once) {
			t.Fatalf("after %v of %v: taken earlier: %t", passed, once, dup)
		} else if !dup {
			if d.Pos[0].Seq <= taken.Pos[0].Seq {
				t.Fatalf("%v after %v", d.Pos, taken.Pos)
			}
			taken = d
			if passed = time.Duration(d.Time-int64(d.Pos[0].Epoch)) * time.Millisecond; passed > 4*once {
				break
			}
		}
		if s.Elapse != nil {
			s.Elapse(time.Millisecond)
		}
	}
}

// testOnceOutlivesLog: to be remembered, a message need not be kept.
func testOnceOutlivesLog(t *testing.T, s *suite) {
	const ttl = 100 * time.Millisecond
	id := sse.NewStreamID()
	limits := reconnect.Limits{TTL: ttl}
	d := s.publish(t, id, limits, []reconnect.Post{message("a", time.Hour)})
	s.outlive(t, ttl)
	again := s.publish(t, id, limits, []reconnect.Post{message("a", time.Hour)})
	wantDups(t, again, true)
	if again.Pos[0] != d.Pos[0] {
		t.Errorf("it stands at %v, was at %v", again.Pos, d.Pos)
	}
	s.wantTail(t, id, reconnect.Tail{Pos: d.Pos[0]})
}

// testOnceMixed: a short Once neither shortens nor lengthens another's: what
// counts is that of the post which was taken.
func testOnceMixed(t *testing.T, s *suite) {
	id := sse.NewStreamID()
	d := s.publish(t, id, reconnect.Limits{}, []reconnect.Post{message("a", time.Hour), message("b", time.Millisecond)})
	for i := range 20 {
		s.later(t, d.Time+int64(i))
		s.publish(t, id, reconnect.Limits{}, []reconnect.Post{message(fmt.Sprint(i), time.Millisecond)})
	}
	again := s.publish(t, id, reconnect.Limits{}, []reconnect.Post{message("a", time.Hour), message("b", time.Hour), message("a", time.Millisecond), message("b", time.Millisecond)})
	wantDups(t, again, true, false, true, true)
}

// testOnceRace: of many who publish the same messages at once, one is the first
// with each, and all are told the same.
func testOnceRace(t *testing.T, s *suite) {
	const racers, messages = 8, 60
	id := sse.NewStreamID()
	var all [racers]reconnect.Posted
	var wg sync.WaitGroup
	for r := range racers {
		wg.Go(func() {
			for at := range messages / 3 {
				var list []reconnect.Post
				for i := range 3 {
					list = append(list, message(fmt.Sprint(at*3+i), time.Hour))
				}
				d := s.Publish(t.Context(), []reconnect.Posts{{Stream: id, Posts: list}})[0]
				if d.Err != nil {
					t.Error(d.Err)
					return
				}
				if d.Dup == nil {
					d.Dup = make([]bool, 3)
				}
				all[r].Pos = append(all[r].Pos, d.Pos...)
				all[r].Dup = append(all[r].Dup, d.Dup...)
			}
		})
	}
	wg.Wait()
	if t.Failed() {
		return
	}
	for i := range messages {
		first := 0
		for r := range racers {
			if !all[r].Dup[i] {
				first++
			}
			if all[r].Pos[i] != all[0].Pos[i] {
				t.Fatalf("message %d stands at %v and at %v", i, all[r].Pos[i], all[0].Pos[i])
			}
		}
		if first != 1 {
			t.Fatalf("message %d was taken %d times", i, first)
		}
	}
	got, gaps := s.readFrom(t, id, reconnect.Origin(all[0].Pos[0].Epoch))
	if len(got) != messages || len(gaps) != 0 {
		t.Fatalf("%d frames, gaps %v", len(got), gaps)
	}
}

// testPublishersRace: everybody's posts have numbers of their own, none is left
// out, each publisher's are in its order, and all readers, while it goes on,
// see the same.
func testPublishersRace(t *testing.T, s *suite) {
	const publishers, rounds = 4, 40
	id := sse.NewStreamID()
	origin := s.open(t, id, sse.Pos{})
	want := make([]map[uint64]string, publishers) // Seq to id
	total := 0
	for p := range publishers {
		want[p] = map[uint64]string{}
		for r := range rounds {
			total += 1 + (p+r)%5
		}
	}
	var wg sync.WaitGroup
	for p := range publishers {
		wg.Go(func() {
			var last sse.Pos
			for r := range rounds {
				list := posts(1 + (p+r)%5)
				d := s.Publish(t.Context(), []reconnect.Posts{{Stream: id, Posts: list}})[0]
				if d.Err != nil {
					t.Error(d.Err)
					return
				}
				for i, pos := range d.Pos {
					if pos.Epoch != origin.Epoch || pos.Seq <= last.Seq || i > 0 && pos.Seq != last.Seq+1 {
						t.Errorf("%v after %v", pos, last)
					}
					last = pos
					want[p][pos.Seq] = string(list[i].ID)
				}
			}
		})
	}
	seen := make([][]sse.Frame, 2)
	for r := range seen {
		wg.Go(func() {
			after := origin
			for len(seen[r]) < total && !t.Failed() {
				got, err := s.Read(t.Context(), id, after, 50)
				if err != nil {
					t.Error(err)
					return
				}
				for _, f := range got {
					if f.Pos.Seq != after.Seq+1 {
						t.Errorf("%v after %v", f.Pos, after)
						return
					}
					after = f.Pos
				}
				seen[r] = append(seen[r], got...)
			}
		})
	}
	wg.Wait()
	if t.Failed() {
		return
	}
	wantFrames(t, seen[1], seen[0])
	for _, f := range seen[0] {
		owners := 0
		for p := range want {
			if id, ok := want[p][f.Pos.Seq]; ok && id == string(f.ID) {
				owners++
			}
		}
		if owners != 1 {
			t.Fatalf("%v with the id %q was published by %d", f.Pos, f.ID, owners)
		}
	}
}

// testOpenRace: all who find at once that the log forgot come to one numbering.
func testOpenRace(t *testing.T, s *suite) {
	id := sse.NewStreamID()
	after := s.open(t, id, sse.Pos{})
	for round := range 5 {
		after.Seq += 1_000_000
		var tails [8]sse.Pos
		var wg sync.WaitGroup
		for i := range tails {
			wg.Go(func() {
				got, err := s.Open(t.Context(), []reconnect.OpenTopic{{Stream: id, After: after}})
				if err != nil {
					t.Error(err)
					return
				}
				tails[i] = got[0]
			})
		}
		wg.Wait()
		for _, tail := range tails {
			if tail != tails[0] || tail.Seq < after.Seq {
				t.Fatalf("round %d: behind %v opened at %v", round, after, tails)
			}
		}
		after = tails[0]
	}
}

package logtest

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"testing"
	"time"

	"ssegate/reconnect"
	"ssegate/sse"
)

// posts are n posts, each unlike any other.
func posts(n int) []reconnect.Post {
	list := make([]reconnect.Post, n)
	for i := range list {
		id := sse.NewStreamID().String()
		list[i] = reconnect.Post{ID: []byte(id), Block: []byte("data: " + id + "\n\n")}
	}
	return list
}

// publish publishes to one topic, with all that must be so for every answer.
func (s *suite) publish(t *testing.T, id sse.StreamID, limits reconnect.Limits, posts []reconnect.Post) reconnect.Posted {
	t.Helper()
	done := s.Publish(t.Context(), []reconnect.Posts{{Stream: id, Limits: limits, Posts: posts}})
	if len(done) != 1 {
		t.Fatalf("%d answers for one topic", len(done))
	}
	d := done[0]
	if d.Err != nil {
		t.Fatal("publish:", d.Err)
	}
	if len(d.Pos) != len(posts) || d.Dup != nil && len(d.Dup) != len(posts) || d.Time <= 0 {
		t.Fatalf("publish of %d: %+v", len(posts), d)
	}
	return d
}

// framesOf are the frames that posts became.
func framesOf(d reconnect.Posted, posts []reconnect.Post) (frames []sse.Frame) {
	for i, p := range posts {
		if d.Dup == nil || !d.Dup[i] {
			frames = append(frames, sse.Frame{Kind: sse.KindEvent, Pos: d.Pos[i], ID: p.ID, Meta: p.Meta, Block: p.Block, Time: d.Time})
		}
	}
	return frames
}

func (s *suite) open(t *testing.T, id sse.StreamID, after sse.Pos) sse.Pos {
	t.Helper()
	tails, err := s.Open(t.Context(), []reconnect.OpenTopic{{Stream: id, After: after, TTL: time.Hour}})
	if err != nil || len(tails) != 1 {
		t.Fatalf("open: %v, %v", tails, err)
	}
	return tails[0]
}

// later returns when the log's clock is past that time.
func (s *suite) later(t *testing.T, ms int64) {
	t.Helper()
	id := sse.NewStreamID()
	for s.publish(t, id, reconnect.Limits{TTL: time.Hour}, posts(1)).Time <= ms {
		if s.Elapse != nil {
			s.Elapse(time.Millisecond)
		}
	}
}

// readFrom reads on from a position to the end, counting gaps.
func (s *suite) readFrom(t *testing.T, id sse.StreamID, after sse.Pos) (frames []sse.Frame, gaps []reconnect.Gap) {
	t.Helper()
	for {
		got, err := s.Read(t.Context(), id, after, 100)
		if gap, ok := errors.AsType[*reconnect.Gap](err); ok {
			gaps = append(gaps, *gap)
			after.Seq = gap.To
		} else if err != nil {
			t.Fatalf("read after %v: %v", after, err)
		} else if len(got) == 0 {
			return frames, gaps
		}
		if len(got) > 0 {
			frames = append(frames, got...)
			after = got[len(got)-1].Pos
		}
	}
}

// testPublish: the first number is a thousand times the epoch and one, and
// they go on from there.
func testPublish(t *testing.T, s *suite) {
	id := sse.NewStreamID()
	s.wantUnknown(t, id)
	first := posts(3)
	d := s.publish(t, id, reconnect.Limits{}, first)
	epoch := d.Pos[0].Epoch
	for i, pos := range d.Pos {
		if want := (sse.Pos{Epoch: epoch, Seq: epoch*1000 + uint64(i) + 1}); pos != want {
			t.Fatalf("post %d is at %v, want %v", i, pos, want)
		}
	}
	if d.Dup != nil || len(d.Followers) != 0 || uint64(d.Time) != epoch {
		t.Errorf("%+v", d)
	}
	origin := reconnect.Origin(epoch)
	s.wantRead(t, id, origin, 10, framesOf(d, first))
	s.wantTail(t, id, reconnect.Tail{Pos: d.Pos[2], Kind: sse.KindEvent})

	second := posts(1)
	d2 := s.publish(t, id, reconnect.Limits{}, second)
	if d2.Pos[0].Epoch != epoch || d2.Pos[0].Seq != d.Pos[2].Seq+1 || d2.Time < d.Time {
		t.Errorf("then %+v", d2)
	}
	s.wantRead(t, id, d.Pos[0], 10, append(framesOf(d, first)[1:], framesOf(d2, second)...))
	if pos, err := s.Find(t.Context(), id, first[1].ID); err != nil || pos != d.Pos[1] {
		t.Errorf("find: %v, %v", pos, err)
	}
	if d := s.publish(t, id, reconnect.Limits{}, posts(1)); d.Pos[0].Seq != d2.Pos[0].Seq+1 {
		t.Errorf("then %+v", d)
	}
	if done := s.Publish(t.Context(), nil); len(done) != 0 {
		t.Errorf("publish of nothing: %v", done)
	}
	other := sse.NewStreamID()
	if done := s.Publish(t.Context(), []reconnect.Posts{{Stream: other}}); len(done) != 1 || done[0].Err != nil || len(done[0].Pos) != 0 {
		t.Errorf("publish of no posts: %v", done)
	}
	s.wantUnknown(t, other)
}

// testPublishWhole: what comes out is what went in, to the last byte.
func testPublishWhole(t *testing.T, s *suite) {
	every := make([]byte, 256)
	for i := range every {
		every[i] = byte(i)
	}
	id := sse.NewStreamID()
	list := []reconnect.Post{
		{Block: []byte("data: 1\n\n")},
		{ID: []byte("a"), Block: []byte("data: 2\n\n")},
		{ID: []byte("a"), Block: []byte("data: the same id\n\n")},
		{ID: every, Meta: every, Block: every},
		{Meta: []byte{}, Block: []byte("\r\n")},
		{ID: []byte("b"), Once: time.Hour, Meta: []byte("m"), Block: bytes.Repeat([]byte("x"), 300)},
		{ID: bytes.Repeat([]byte("long"), 2000), Once: time.Hour, Block: []byte("data: é\n\n")},
		{Once: time.Hour, Block: []byte("data: nothing to remember\n\n")},
		{Once: time.Hour, Block: []byte("data: nothing to remember\n\n")},
	}
	d1 := s.publish(t, id, reconnect.Limits{}, list[:1])
	d2 := s.publish(t, id, reconnect.Limits{}, list[1:5])
	d3 := s.publish(t, id, reconnect.Limits{}, list[5:])
	want := slices.Concat(framesOf(d1, list[:1]), framesOf(d2, list[1:5]), framesOf(d3, list[5:]))
	if len(want) != len(list) {
		t.Fatal(d1, d2, d3)
	}
	s.wantRead(t, id, reconnect.Origin(d1.Pos[0].Epoch), 100, want)
}

// testPublishMany: one Publish, hundreds of topics.
func testPublishMany(t *testing.T, s *suite) {
	batch := make([]reconnect.Posts, 300)
	for round := range 3 {
		for i := range batch {
			if round == 0 {
				batch[i].Stream = sse.NewStreamID()
			}
			batch[i].Posts = posts(1 + i%4)
		}
		done := s.Publish(t.Context(), batch)
		if len(done) != len(batch) {
			t.Fatalf("%d answers", len(done))
		}
		for i, d := range done {
			if d.Err != nil || len(d.Pos) != 1+i%4 {
				t.Fatalf("topic %d: %+v", i, d)
			}
			n := uint64(len(d.Pos))
			if want := d.Pos[0].Epoch*1000 + uint64(round)*n + n; d.Pos[n-1].Seq != want {
				t.Fatalf("topic %d round %d: %v, want the last to be %d", i, round, d.Pos, want)
			}
			if i%50 == 0 {
				s.wantRead(t, batch[i].Stream, sse.Pos{Epoch: d.Pos[0].Epoch, Seq: d.Pos[0].Seq - 1}, 100, framesOf(d, batch[i].Posts))
			}
		}
	}
}

// testPublishBig: more than goes into one piece of whatever a driver has, also
// when some of it is there already.
func testPublishBig(t *testing.T, s *suite) {
	id := sse.NewStreamID()
	list := posts(900)
	for i := range list {
		list[i].Once = time.Hour
		if i%100 == 7 {
			list[i].Block = bytes.Repeat([]byte{byte(i), '\n'}, 40_000)
		}
	}
	some := []reconnect.Post{list[0], list[300], list[301], list[899]}
	d0 := s.publish(t, id, reconnect.Limits{}, some)
	d := s.publish(t, id, reconnect.Limits{}, list)
	want := append(framesOf(d0, some), framesOf(d, list)...)
	if len(want) != len(list) {
		t.Fatalf("%d frames for %d posts", len(want), len(list))
	}
	for i, p := range []int{0, 300, 301, 899} {
		if !d.Dup[p] || d.Pos[p] != d0.Pos[i] {
			t.Errorf("post %d is at %v, was at %v", p, d.Pos[p], d0.Pos[i])
		}
	}
	got, gaps := s.readFrom(t, id, reconnect.Origin(want[0].Pos.Epoch))
	if len(gaps) != 0 {
		t.Fatal(gaps)
	}
	wantFrames(t, got, want)
	for i, f := range want {
		if f.Pos.Seq != want[0].Pos.Seq+uint64(i) {
			t.Fatalf("frame %d is %v", i, f.Pos)
		}
	}
	plain := posts(700)
	d = s.publish(t, id, reconnect.Limits{}, plain)
	got, _ = s.readFrom(t, id, want[len(want)-1].Pos)
	wantFrames(t, got, framesOf(d, plain))
}

// testOpenTopics: a numbering can begin before there is anything in the log.
func testOpenTopics(t *testing.T, s *suite) {
	id := sse.NewStreamID()
	tail := s.open(t, id, sse.Pos{})
	if tail.Epoch == 0 || tail != reconnect.Origin(tail.Epoch) {
		t.Fatalf("opened at %v", tail)
	}
	s.later(t, int64(tail.Epoch))
	if again := s.open(t, id, tail); again != tail {
		t.Fatalf("opened at %v, then at %v", tail, again)
	}
	s.wantTail(t, id, reconnect.Tail{Pos: tail})
	s.wantRead(t, id, tail, 10, nil)
	list := posts(2)
	d := s.publish(t, id, reconnect.Limits{}, list)
	if d.Pos[0] != (sse.Pos{Epoch: tail.Epoch, Seq: tail.Seq + 1}) {
		t.Fatalf("opened at %v, published at %v", tail, d.Pos)
	}
	s.wantRead(t, id, tail, 10, framesOf(d, list))
	if now := s.open(t, id, d.Pos[1]); now != d.Pos[1] {
		t.Errorf("opened at %v, published at %v", now, d.Pos)
	}

	topics := make([]reconnect.OpenTopic, 200)
	for i := range topics {
		topics[i].Stream = sse.NewStreamID()
	}
	topics[7].Stream = id
	tails, err := s.Open(t.Context(), topics)
	if err != nil || len(tails) != len(topics) || tails[7] != d.Pos[1] || tails[8] != reconnect.Origin(tails[8].Epoch) {
		t.Errorf("%v, %v", tails, err)
	}
	if tails, err := s.Open(t.Context(), nil); err != nil || len(tails) != 0 {
		t.Errorf("open of nothing: %v, %v", tails, err)
	}
}

// hole is the tail of a numbering that begins with a hole and has no frames.
func hole(epoch uint64) sse.Pos {
	return sse.Pos{Epoch: epoch, Seq: reconnect.Origin(epoch).Seq + 1}
}

// testOpenAhead: who knows more than the log sees that it forgot. The
// numbering begins anew above, and what is missing shows as a gap.
func testOpenAhead(t *testing.T, s *suite) {
	id := sse.NewStreamID()
	list := posts(3)
	d := s.publish(t, id, reconnect.Limits{}, list)
	ahead := d.Pos[2]
	ahead.Seq += 123_456_789 // two minutes of epochs
	tail := s.open(t, id, ahead)
	if tail.Seq < ahead.Seq || tail.Epoch <= ahead.Epoch || tail != hole(tail.Epoch) {
		t.Fatalf("behind %v, opened at %v", ahead, tail)
	}
	for _, after := range []sse.Pos{ahead, d.Pos[2], {Seq: ahead.Seq + 7}, {}} {
		if again := s.open(t, id, after); again != tail {
			t.Fatalf("opened at %v, then, behind %v, at %v", tail, after, again)
		}
	}
	s.wantTail(t, id, reconnect.Tail{Pos: tail})
	s.wantGap(t, id, ahead, ahead.Seq+1, tail.Seq, nil)
	s.wantGap(t, id, d.Pos[2], d.Pos[2].Seq+1, tail.Seq, nil)
	s.wantRead(t, id, tail, 10, nil)
	more := posts(2)
	d2 := s.publish(t, id, reconnect.Limits{}, more)
	if d2.Pos[0] != (sse.Pos{Epoch: tail.Epoch, Seq: tail.Seq + 1}) {
		t.Fatalf("opened at %v, published at %v", tail, d2.Pos)
	}
	s.wantGap(t, id, ahead, ahead.Seq+1, tail.Seq, framesOf(d2, more))
	s.wantRead(t, id, tail, 10, framesOf(d2, more))
	got, gaps := s.readFrom(t, id, d.Pos[0])
	wantFrames(t, got, append(framesOf(d, list)[1:], framesOf(d2, more)...))
	if want := (reconnect.Gap{From: d.Pos[2].Seq + 1, To: tail.Seq}); len(gaps) != 1 || gaps[0] != want {
		t.Errorf("gaps %v, want %v", gaps, want)
	}
	// Before the new one there is the old one, with its frames.
	for n, want := range map[int]sse.Pos{0: d2.Pos[1], 1: d2.Pos[0], 2: tail, 3: d.Pos[1], 5: {Epoch: d.Pos[0].Epoch, Seq: d.Pos[0].Seq - 1}, 99: {Epoch: d.Pos[0].Epoch, Seq: d.Pos[0].Seq - 1}} {
		if pos, err := s.Back(t.Context(), id, n); err != nil || pos != want {
			t.Errorf("%d back: %v, %v; want %v", n, pos, err, want)
		}
	}
	// Nothing comes behind it, and the hole stays one.
	ahead = sse.Pos{Epoch: tail.Epoch, Seq: d2.Pos[1].Seq + 1}
	lost := s.open(t, id, ahead)
	again := s.open(t, id, sse.Pos{Seq: lost.Seq + 1})
	if lost != hole(lost.Epoch) || again != hole(again.Epoch) || again.Seq <= lost.Seq {
		t.Errorf("opened at %v, then at %v", lost, again)
	}
	s.wantGap(t, id, d2.Pos[1], d2.Pos[1].Seq+1, again.Seq, nil)
	s.wantGap(t, id, lost, lost.Seq+1, again.Seq, nil)
}

// testPublishAhead: the same with what is published.
func testPublishAhead(t *testing.T, s *suite) {
	id := sse.NewStreamID()
	list := posts(3)
	d := s.publish(t, id, reconnect.Limits{}, list)
	more := posts(2)
	for _, after := range []sse.Pos{{}, d.Pos[1], d.Pos[2]} { // what the log knows of changes nothing
		tail := s.tail(t, id).Pos
		d2 := s.Publish(t.Context(), []reconnect.Posts{{Stream: id, After: after, Posts: more}})[0]
		if d2.Err != nil || d2.Pos[0] != (sse.Pos{Epoch: tail.Epoch, Seq: tail.Seq + 1}) {
			t.Fatalf("behind %v, published at %+v", after, d2)
		}
	}
	tail := s.tail(t, id).Pos
	d2 := s.Publish(t.Context(), []reconnect.Posts{{Stream: id, After: sse.Pos{Seq: tail.Seq + 1}, Posts: more}})[0]
	if d2.Err != nil || d2.Pos[0].Seq != hole(d2.Pos[0].Epoch).Seq+1 || d2.Pos[0].Epoch <= tail.Epoch {
		t.Fatalf("behind one more than %v, published at %+v", tail, d2)
	}
	s.wantGap(t, id, tail, tail.Seq+1, d2.Pos[0].Seq-1, framesOf(d2, more))
	s.wantGap(t, id, sse.Pos{Seq: tail.Seq + 1}, tail.Seq+2, d2.Pos[0].Seq-1, framesOf(d2, more))
}

// testForgot: frames that went, however they did, leave a gap behind, never a
// number that was there before.
func testForgot(t *testing.T, s *suite) {
	id := sse.NewStreamID()
	list := posts(5)
	d := s.publish(t, id, reconnect.Limits{}, list)
	s.Empty(t, s.Journal, id)
	more := posts(1)
	d2 := s.publish(t, id, reconnect.Limits{}, more)
	if d2.Pos[0].Seq <= d.Pos[4].Seq {
		t.Fatalf("%v after %v", d2.Pos, d.Pos)
	}
	got, gaps := s.readFrom(t, id, d.Pos[1])
	wantFrames(t, got, framesOf(d2, more))
	if len(gaps) != 1 || gaps[0].From != d.Pos[2].Seq || gaps[0].To != d2.Pos[0].Seq-1 {
		t.Errorf("gaps: %v", gaps)
	}
}

// testNumberingOutlives: when all frames are past their time, it is still known
// that nothing came since, or that something did.
func testNumberingOutlives(t *testing.T, s *suite) {
	const ttl = 100 * time.Millisecond
	id := sse.NewStreamID()
	d := s.publish(t, id, reconnect.Limits{TTL: ttl}, posts(3))
	last := d.Pos[2]
	s.outlive(t, ttl)
	s.wantTail(t, id, reconnect.Tail{Pos: last})
	s.wantRead(t, id, last, 10, nil)
	s.wantGap(t, id, d.Pos[0], d.Pos[1].Seq, last.Seq, nil)
	if tail := s.open(t, id, last); tail != last {
		t.Errorf("opened at %v, want %v", tail, last)
	}
	if pos, err := s.Back(t.Context(), id, 10); err != nil || pos != last {
		t.Errorf("back: %v, %v", pos, err)
	}
	if _, err := s.Find(t.Context(), id, []byte("x")); !errors.Is(err, reconnect.ErrUnknown) {
		t.Errorf("find: %v", err)
	}
	list := posts(1)
	d = s.publish(t, id, reconnect.Limits{TTL: ttl}, list)
	if want := (sse.Pos{Epoch: last.Epoch, Seq: last.Seq + 1}); d.Pos[0] != want {
		t.Errorf("published at %v, want %v", d.Pos, want)
	}
}

func testTopicLength(t *testing.T, s *suite) {
	const length = 100
	id := sse.NewStreamID()
	var want []sse.Frame
	for i := range 60 {
		list := posts(1 + i%20)
		d := s.publish(t, id, reconnect.Limits{Length: length}, list)
		want = append(want, framesOf(d, list)...)
	}
	got, gaps := s.readFrom(t, id, reconnect.Origin(want[0].Pos.Epoch))
	if len(got) < length || len(got) > length+s.Slack || len(gaps) != 1 {
		t.Fatalf("%d frames and gaps %v, want %d and one gap", len(got), gaps, length)
	}
	wantFrames(t, got, want[len(want)-len(got):])
	if pos, err := s.Back(t.Context(), id, length/2); err != nil || pos.Seq != want[len(want)-1].Pos.Seq-length/2 {
		t.Errorf("back: %v, %v", pos, err)
	}
	if pos, err := s.Back(t.Context(), id, 1_000_000); err != nil || pos.Seq != got[0].Pos.Seq-1 {
		t.Errorf("back: %v, %v; want before %v", pos, err, got[0].Pos)
	}
}

func testTopicTouch(t *testing.T, s *suite) {
	const ttl = 100 * time.Millisecond
	id := sse.NewStreamID()
	list := posts(1)
	d := s.publish(t, id, reconnect.Limits{TTL: ttl}, list)
	if err := s.Touch(t.Context(), []sse.StreamID{id}, time.Hour); err != nil {
		t.Fatal(err)
	}
	s.outlive(t, ttl)
	s.wantRead(t, id, reconnect.Origin(d.Pos[0].Epoch), 10, framesOf(d, list))
}

func testFollowers(t *testing.T, s *suite) {
	a, b, none := sse.NewStreamID(), sse.NewStreamID(), sse.NewStreamID()
	s.Follow(t, a, "node-1")
	s.Follow(t, b, "node-1")
	s.Follow(t, b, "node-2")
	for _, once := range []time.Duration{0, time.Hour} {
		batch := []reconnect.Posts{{Stream: none, Posts: posts(1)}, {Stream: b, Posts: posts(3)}, {Stream: a, Posts: posts(1)}}
		for i := range batch {
			for j := range batch[i].Posts {
				batch[i].Posts[j].Once = once
			}
		}
		for i, d := range s.Publish(t.Context(), batch) {
			slices.Sort(d.Followers)
			if got, want := strings.Join(d.Followers, " "), []string{"", "node-1 node-2", "node-1"}[i]; got != want || d.Err != nil {
				t.Errorf("topic %d: %q, %v; want %q", i, got, d.Err, want)
			}
		}
	}
}

// testJournalDoneContext: a context that is done is an error that says so, and
// no sentinel.
func testJournalDoneContext(t *testing.T, s *suite) {
	id := sse.NewStreamID()
	d := s.publish(t, id, reconnect.Limits{}, posts(2))
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	_, open := s.Open(ctx, []reconnect.OpenTopic{{Stream: id}})
	_, since := s.Since(ctx, id, time.Unix(1, 0))
	_, back := s.Back(ctx, id, 1)
	_, passed := s.Passed(ctx, id)
	posted := s.Publish(ctx, []reconnect.Posts{{Stream: id, Posts: posts(1)}, {Stream: sse.NewStreamID(), Posts: posts(1)}})
	if len(posted) != 2 {
		t.Fatal(posted)
	}
	for what, err := range map[string]error{
		"open": open, "since": since, "back": back, "passed": passed, "pass": s.Pass(ctx, id, d.Pos[0], time.Hour),
		"publish": posted[0].Err, "publish 2": posted[1].Err,
	} {
		if !errors.Is(err, context.Canceled) {
			t.Errorf("%s: %v", what, err)
		}
	}
	s.wantTail(t, id, reconnect.Tail{Pos: d.Pos[1], Kind: sse.KindEvent})
	if pos, err := s.Passed(t.Context(), id); err != nil || pos != (sse.Pos{}) {
		t.Error(fmt.Sprint(pos), err)
	}
}

package logtest

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"math"
	"testing"

	"ssegate/reconnect"
	"ssegate/sse"
)

func testAppendRead(t *testing.T, s *suite) {
	id, other := sse.NewStreamID(), sse.NewStreamID()
	frames := run(7, 1, 10)
	s.mustAppend(t, id, frames[:4])
	s.mustAppend(t, other, run(9, 1, 2))
	s.mustAppend(t, id, frames[4:5], frames[5:])
	s.wantRead(t, id, sse.Pos{}, 100, frames)
	s.wantRead(t, id, frames[3].Pos, 100, frames[4:])
	s.wantRead(t, id, frames[9].Pos, 100, nil)
	s.wantRead(t, id, sse.Pos{Epoch: 7, Seq: 11}, 100, nil)
	s.wantRead(t, id, sse.Pos{Epoch: 7, Seq: math.MaxUint64}, 100, nil)
	s.wantRead(t, other, sse.Pos{}, 100, run(9, 1, 2))
	if errs := s.Append(t.Context(), nil); errs != nil {
		t.Errorf("append of nothing: %v", errs)
	}
	if err := s.append1(t, sse.NewStreamID(), reconnect.Limits{}, nil); err != nil {
		t.Errorf("append of no frames: %v", err)
	}
}

// testWholeFrame: what comes out is what went in, to the last field and byte.
func testWholeFrame(t *testing.T, s *suite) {
	every := make([]byte, 256)
	for i := range every {
		every[i] = byte(i)
	}
	id := sse.NewStreamID()
	frames := []sse.Frame{
		{Kind: sse.KindEvent, Block: []byte("data: 1\n\n")},
		{Kind: sse.KindBare, ID: []byte("a"), Block: []byte("id: a\r\n\r\n")},
		{Kind: sse.KindEvent, ID: []byte{}, Block: []byte("id\rdata: x\r\r")},
		{Kind: sse.KindEvent, ID: every, Block: every},
		{Kind: sse.KindEvent, ID: []byte(":"), Block: []byte{0}},
		{Kind: sse.KindEvent, Block: []byte{0xff, 0xfe, '$', '-', '1', '\r', '\n'}},
		{Kind: sse.KindEvent, ID: bytes.Repeat([]byte("long"), 2000), Block: []byte("data: é 😀\n\n")},
		{Kind: sse.KindEvent, Time: 1_790_000_000_123, Meta: every, ID: []byte("m"), Block: []byte("data: t\n\n")},
		{Kind: sse.KindEvent, Time: 1_790_000_000_123, Meta: []byte{}, Block: []byte("data: t\n\n")},
		{Kind: sse.KindEvent, Meta: []byte("x"), Block: []byte("data: t\n\n")},
		{Kind: sse.KindEvent, Time: 7, Block: []byte("data: t\n\n")},
		{Kind: sse.KindEnd, End: sse.EndFinished},
		{Kind: sse.KindEnd, End: sse.EndDetached, ID: []byte("9")},
		{Kind: sse.KindEnd, End: sse.EndLeft},
	}
	for i := range frames {
		frames[i].Pos = sse.Pos{Epoch: 1, Seq: uint64(i) + 1}
	}
	s.mustAppend(t, id, frames[:6], frames[6:12], frames[12:13], frames[13:])
	s.wantRead(t, id, sse.Pos{}, 100, frames)
	s.wantTail(t, id, reconnect.Tail{Pos: frames[13].Pos, Kind: sse.KindEnd, End: sse.EndLeft})
}

func testPages(t *testing.T, s *suite) {
	id := sse.NewStreamID()
	frames := run(1, 1, 1000)
	s.mustAppend(t, id, frames[:1], frames[1:64], frames[64:65], frames[65:])
	for _, page := range []int{1000, 999, 512, 64, 63} {
		wantFrames(t, s.all(t, id, page), frames)
	}
	s.wantRead(t, id, sse.Pos{}, 1, frames[:1])
	s.wantRead(t, id, sse.Pos{}, 0, frames[:1])
	s.wantRead(t, id, sse.Pos{}, -5, frames[:1])
	s.wantRead(t, id, frames[498].Pos, 3, frames[499:502])
}

func testUnknown(t *testing.T, s *suite) {
	id := sse.NewStreamID()
	s.mustAppend(t, sse.NewStreamID(), run(1, 1, 1)) // not this one
	s.wantUnknown(t, id)
	if got, err := s.Find(t.Context(), id, []byte("x")); !errors.Is(err, reconnect.ErrUnknown) {
		t.Errorf("find: %v, %v", got, err)
	}
	if got, err := s.Fence(t.Context(), id, 5, reconnect.Limits{}); !errors.Is(err, reconnect.ErrUnknown) {
		t.Errorf("fence: %v, %v", got, err)
	}
	if err := s.Touch(t.Context(), []sse.StreamID{id}, 1); err != nil {
		t.Errorf("touch: %v", err)
	}
	if err := s.Touch(t.Context(), nil, 1); err != nil {
		t.Errorf("touch of nothing: %v", err)
	}
	if tails, err := s.Tails(t.Context(), nil); err != nil || len(tails) != 0 {
		t.Errorf("tails of nothing: %v, %v", tails, err)
	}
	s.wantUnknown(t, id) // asking made nothing
}

// testRetry: a batch whose fate is not known is sent again.
func testRetry(t *testing.T, s *suite) {
	id := sse.NewStreamID()
	frames := run(3, 1, 12)
	for _, part := range [][]sse.Frame{
		frames[:4],  // new
		frames[:4],  // all there
		frames[1:2], // there, and not the last
		frames[2:7], // half of it there
		frames[6:8], // the last there
		frames[7:8], // there, alone
		frames[:12], // all from the start, much of it there
		frames[3:9], // all there, behind the tail
	} {
		s.mustAppend(t, id, part)
	}
	s.wantRead(t, id, sse.Pos{}, 100, frames)
	s.wantTail(t, id, reconnect.Tail{Pos: frames[11].Pos, Kind: sse.KindEvent})
}

// testFollows: what follows on a log that is not there is not taken, small or
// big, and makes none; beside others, which are not concerned.
func testFollows(t *testing.T, s *suite) {
	big := func(frames []sse.Frame) []sse.Frame {
		for i := range frames {
			frames[i].Block = bytes.Repeat([]byte("data: x\n"), 1<<17)
		}
		return frames
	}
	here, bigHere, gone, bigGone := sse.NewStreamID(), sse.NewStreamID(), sse.NewStreamID(), sse.NewStreamID()
	fenced, empty := sse.NewStreamID(), sse.NewStreamID()
	all := map[sse.StreamID][]sse.Frame{here: run(3, 1, 6), bigHere: big(run(3, 1, 6))}
	s.mustAppend(t, here, all[here][:4])
	s.mustAppend(t, bigHere, all[bigHere][:2])
	s.mustAppend(t, fenced, run(3, 1, 2))
	s.mustFence(t, fenced, 4)
	batches := []reconnect.Batch{
		{Stream: gone, Runs: Runs(run(3, 5, 2))},
		{Stream: here, Runs: Runs(all[here][3:])}, // the first of them again
		{Stream: bigGone, Runs: Runs(big(run(3, 3, 4)))},
		{Stream: bigHere, Runs: Runs(all[bigHere][2:])},
		{Stream: fenced, Runs: Runs(run(3, 3, 1))},
		{Stream: empty},
	}
	for i := range batches {
		batches[i].Follows = true
	}
	want := []error{reconnect.ErrUnknown, nil, reconnect.ErrUnknown, nil, reconnect.ErrFenced, nil}
	for range 2 { // it is the same when sent again
		errs := s.Append(t.Context(), batches)
		if len(errs) != len(want) {
			t.Fatalf("errors %v", errs)
		}
		for i, err := range errs {
			if !errors.Is(err, want[i]) || err == nil != (want[i] == nil) {
				t.Errorf("batch %d: %v, want %v", i, err, want[i])
			}
		}
		for id, frames := range all {
			wantFrames(t, s.all(t, id, 100), frames)
		}
		s.wantUnknown(t, gone)
		s.wantUnknown(t, bigGone)
	}
	s.mustAppend(t, gone, run(3, 1, 4))
	if errs := s.Append(t.Context(), batches[:1]); errs != nil {
		t.Errorf("behind what was written again: %v", errs)
	}
	s.wantRead(t, gone, sse.Pos{}, 100, run(3, 1, 6))
}

func testBadBatch(t *testing.T, s *suite) {
	good := sse.NewStreamID()
	f := func(what string, runs ...[]sse.Frame) {
		t.Helper()
		id := sse.NewStreamID()
		bad := reconnect.Batch{Stream: id}
		for _, frames := range runs {
			bad.Runs = append(bad.Runs, whole(frames))
		}
		errs := s.Append(t.Context(), []reconnect.Batch{bad, {Stream: good, Runs: Runs(run(1, 1, 3))}})
		if len(errs) != 2 || !errors.Is(errs[0], reconnect.ErrBatch) || errs[1] != nil {
			t.Errorf("%s: got %v, want ErrBatch for the first batch only", what, errs)
		}
		s.wantUnknown(t, id)
	}
	f("a number left out", run(1, 1, 2), run(1, 4, 1))
	f("a number twice", run(1, 1, 2), run(1, 2, 1))
	f("two epochs", run(1, 1, 2), run(2, 3, 1))
	f("the second run first", run(1, 3, 2), run(1, 1, 2))
	f("an empty run first", nil, run(1, 1, 2))
	f("an empty run behind", run(1, 1, 2), nil)
	s.wantRead(t, good, sse.Pos{}, 10, run(1, 1, 3))
}

// testManyStreams: one Append, hundreds of streams, an error for just those
// that have one.
func testManyStreams(t *testing.T, s *suite) {
	const streams = 400
	batches := make([]reconnect.Batch, streams)
	ids := make([]sse.StreamID, streams)
	for i := range batches {
		ids[i] = sse.NewStreamID()
		batches[i] = reconnect.Batch{Stream: ids[i], Runs: Runs(run(uint64(i)+1, 1, 1+i%5))}
	}
	if errs := s.Append(t.Context(), batches); errs != nil {
		t.Fatal(errs)
	}
	for i := 0; i < streams; i += 7 {
		s.mustFence(t, ids[i], 10_000)
	}
	for i := range batches {
		batches[i].Runs = Runs(run(uint64(i)+1, 1, 3+i%5)) // what is there, and two more
	}
	errs := s.Append(t.Context(), batches)
	if len(errs) != streams {
		t.Fatalf("%d errors for %d batches", len(errs), streams)
	}
	tails, err := s.Tails(t.Context(), ids)
	if err != nil || len(tails) != streams {
		t.Fatalf("%d tails, %v", len(tails), err)
	}
	for i, id := range ids {
		var want error
		n := 3 + i%5
		tail := reconnect.Tail{Pos: sse.Pos{Epoch: uint64(i) + 1, Seq: uint64(n)}, Kind: sse.KindEvent}
		if i%7 == 0 {
			want, n = reconnect.ErrFenced, n-2
			tail = reconnect.Tail{Pos: sse.Pos{Epoch: 10_000, Seq: uint64(n)}, Kind: sse.KindFence}
		}
		if !errors.Is(errs[i], want) {
			t.Errorf("stream %d: %v, want %v", i, errs[i], want)
		}
		if tails[i] != tail {
			t.Errorf("stream %d: tail %v, want %v", i, tails[i], tail)
		}
		s.wantRead(t, id, sse.Pos{}, 10, run(uint64(i)+1, 1, n))
	}
}

func testBigBlocks(t *testing.T, s *suite) {
	id := sse.NewStreamID()
	frames := run(1, 1, 12)
	for i := range frames {
		if i%2 == 0 {
			frames[i].Block = bytes.Repeat([]byte{byte(i), 0, '\r', '\n', 0xff, '*', '3', ':'}, 1<<17)
		}
	}
	s.mustAppend(t, id, frames[:1], frames[1:])
	wantFrames(t, s.all(t, id, 1000), frames)
	s.wantRead(t, id, frames[9].Pos, 1, frames[10:11])
	s.wantTail(t, id, reconnect.Tail{Pos: frames[11].Pos, Kind: sse.KindEvent})
}

// testBigNumbers: positions are whole 64-bit numbers.
func testBigNumbers(t *testing.T, s *suite) {
	for _, epoch := range []uint64{1<<53 + 1, 1<<63 - 2, math.MaxUint64 - 3} {
		for _, seq := range []uint64{1<<53 + 1, 1<<63 - 2, math.MaxUint64 - 8} {
			id := sse.NewStreamID()
			frames := run(epoch, seq, 3)
			s.mustAppend(t, id, frames[:2], frames[1:])
			if err := s.append1(t, id, reconnect.Limits{}, run(epoch-1, seq+3, 1)); !errors.Is(err, reconnect.ErrFenced) {
				t.Errorf("%v: epoch before: %v", frames[0].Pos, err)
			}
			s.wantRead(t, id, frames[0].Pos, 9, frames[1:])
			if got := s.mustFence(t, id, epoch+1); !sameFrame(got, frames[2]) {
				t.Errorf("fence: got %v", got)
			}
			next := run(epoch+1, seq+3, 2)
			s.mustAppend(t, id, next)
			s.wantRead(t, id, frames[0].Pos, 9, append(frames[1:], next...))
			s.wantGap(t, id, sse.Pos{Seq: 1}, 2, seq-1, append(frames, next...))
		}
	}
}

// testDoneContext: a context that is done is an error that says so, and no
// sentinel.
func testDoneContext(t *testing.T, s *suite) {
	id := sse.NewStreamID()
	s.mustAppend(t, id, run(1, 1, 2))
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	f := func(what string, err error) {
		t.Helper()
		if !errors.Is(err, context.Canceled) {
			t.Errorf("%s: %v", what, err)
		}
	}
	errs := s.Append(ctx, []reconnect.Batch{{Stream: id, Runs: Runs(run(1, 3, 1))}, {Stream: id}})
	if len(errs) != 2 {
		t.Fatalf("append: %v", errs)
	}
	f("append", errs[0])
	_, err := s.Read(ctx, id, sse.Pos{}, 10)
	f("read", err)
	_, err = s.Tails(ctx, []sse.StreamID{id})
	f("tails", err)
	_, err = s.Find(ctx, id, []byte("x"))
	f("find", err)
	_, err = s.Fence(ctx, id, 9, reconnect.Limits{})
	f("fence", err)
	f("touch", s.Touch(ctx, []sse.StreamID{id}, 1))
}

func testTails(t *testing.T, s *suite) {
	a, b, none := sse.NewStreamID(), sse.NewStreamID(), sse.NewStreamID()
	s.mustAppend(t, a, run(4, 1, 3))
	s.mustAppend(t, b, run(5, 1, 2), []sse.Frame{{Pos: sse.Pos{Epoch: 5, Seq: 3}, Kind: sse.KindEnd, End: sse.EndStopped}})
	got, err := s.Tails(t.Context(), []sse.StreamID{a, none, b, a})
	if err != nil {
		t.Fatal(err)
	}
	tailA := reconnect.Tail{Pos: sse.Pos{Epoch: 4, Seq: 3}, Kind: sse.KindEvent}
	tailB := reconnect.Tail{Pos: sse.Pos{Epoch: 5, Seq: 3}, Kind: sse.KindEnd, End: sse.EndStopped}
	if want := []reconnect.Tail{tailA, {}, tailB, tailA}; fmt.Sprint(got) != fmt.Sprint(want) {
		t.Errorf("got %v, want %v", got, want)
	}
}

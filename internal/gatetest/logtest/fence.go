package logtest

import (
	"errors"
	"slices"
	"testing"

	"ssegate/reconnect"
	"ssegate/sse"
)

// testFence: a new owner takes over, and numbering goes on.
func testFence(t *testing.T, s *suite) {
	id := sse.NewStreamID()
	old := run(10, 1, 5)
	old[4].ID = []byte("up5")
	s.mustAppend(t, id, old)
	if got := s.mustFence(t, id, 20); !sameFrame(got, old[4]) {
		t.Fatalf("fence: got %s", list([]sse.Frame{got}))
	}
	s.wantTail(t, id, reconnect.Tail{Pos: sse.Pos{Epoch: 20, Seq: 5}, Kind: sse.KindFence})
	s.wantRead(t, id, sse.Pos{}, 10, old) // the fence is not for readers
	s.wantRead(t, id, old[4].Pos, 10, nil)
	s.wantRead(t, id, sse.Pos{Epoch: 20, Seq: 5}, 10, nil)

	if err := s.append1(t, id, reconnect.Limits{}, run(10, 6, 3)); !errors.Is(err, reconnect.ErrFenced) {
		t.Fatalf("old owner: %v", err)
	}
	if err := s.append1(t, id, reconnect.Limits{}, run(10, 6, 1)); !errors.Is(err, reconnect.ErrFenced) {
		t.Fatalf("old owner, one frame: %v", err)
	}
	if err := s.append1(t, id, reconnect.Limits{}, old[3:]); !errors.Is(err, reconnect.ErrFenced) {
		t.Fatalf("old owner again with what is there: %v", err)
	}
	s.wantRead(t, id, sse.Pos{}, 10, old)

	next := run(20, 6, 4)
	s.mustAppend(t, id, next[:2], next[1:])
	whole := slices.Concat(old, next)
	s.wantRead(t, id, sse.Pos{}, 100, whole)
	s.wantRead(t, id, sse.Pos{}, 7, whole[:7])
	for i, f := range whole {
		s.wantRead(t, id, f.Pos, 100, whole[i+1:])
		s.wantRead(t, id, f.Pos, 1, whole[i+1:min(i+2, len(whole))])
	}
	if err := s.append1(t, id, reconnect.Limits{}, run(10, 6, 30)); !errors.Is(err, reconnect.ErrFenced) {
		t.Fatalf("old owner much later: %v", err)
	}
	wantFrames(t, s.all(t, id, 3), whole)
}

// testFork: a position of an owner that was succeeded before it knew is told
// from one that the log goes on behind.
func testFork(t *testing.T, s *suite) {
	id := sse.NewStreamID()
	fork := func(epoch, seq, wantEpoch, wantSeq uint64) {
		t.Helper()
		got, err := reconnect.Fork(t.Context(), s.Journal, id, sse.Pos{Epoch: epoch, Seq: seq})
		if err != nil || got.Pos != (sse.Pos{Epoch: wantEpoch, Seq: wantSeq}) {
			t.Errorf("who has %d-%d goes on with %v, %v; want %d-%d", epoch, seq, got.Pos, err, wantEpoch, wantSeq)
		}
	}
	fork(10, 5, 0, 0) // nothing is known
	s.mustAppend(t, id, run(10, 1, 40))
	fork(10, 40, 0, 0)
	fork(10, 45, 0, 0) // not written yet
	s.mustFence(t, id, 20)
	fork(10, 40, 0, 0)
	fork(10, 45, 0, 0) // will never be written, but nothing else is either
	s.mustAppend(t, id, run(20, 41, 3))
	fork(10, 40, 0, 0)
	for seq := uint64(41); seq < 50; seq++ {
		fork(10, seq, 20, 41)
		fork(20, seq, 0, 0)
	}
	s.mustAppend(t, id, run(20, 44, 57))
	s.mustFence(t, id, 30)
	s.mustFence(t, id, 40)
	s.mustAppend(t, id, run(40, 101, 100))
	for _, seq := range []uint64{41, 77, 100, 101, 102, 150, 200, 201, 1000} {
		fork(10, seq, 20, 41)
	}
	fork(20, 100, 0, 0)
	for _, seq := range []uint64{101, 150, 200, 201, 1000} {
		fork(20, seq, 40, 101)
		fork(30, seq, 40, 101)
	}
	fork(40, 1000, 0, 0)
	for seq := range uint64(41) {
		fork(10, seq, 0, 0)
	}
}

// testFenceAgain: one epoch fences once, and owners that die before their
// first frame leave fences only.
func testFenceAgain(t *testing.T, s *suite) {
	id := sse.NewStreamID()
	frames := run(10, 1, 3)
	s.mustAppend(t, id, frames)
	refused := func(epoch uint64) {
		t.Helper()
		if got, err := s.Fence(t.Context(), id, epoch, reconnect.Limits{}); !errors.Is(err, reconnect.ErrFenced) {
			t.Errorf("fence of epoch %d: %v, %v", epoch, got, err)
		}
	}
	refused(9)
	refused(10) // the owner's own
	for _, epoch := range []uint64{20, 30, 40} {
		if got := s.mustFence(t, id, epoch); !sameFrame(got, frames[2]) {
			t.Errorf("fence of epoch %d: %v", epoch, got)
		}
		refused(epoch)
		refused(epoch - 1)
	}
	if err := s.append1(t, id, reconnect.Limits{}, run(30, 4, 1)); !errors.Is(err, reconnect.ErrFenced) {
		t.Errorf("owner that fenced but is fenced itself: %v", err)
	}
	s.mustAppend(t, id, run(40, 4, 2))
	s.wantRead(t, id, sse.Pos{}, 10, append(frames, run(40, 4, 2)...))
	s.wantRead(t, id, sse.Pos{Epoch: 30, Seq: 3}, 10, run(40, 4, 2))
}

// testFenceOnEnd: the new owner learns that there is nothing to take over.
func testFenceOnEnd(t *testing.T, s *suite) {
	id := sse.NewStreamID()
	frames := run(1, 1, 3)
	frames[2] = sse.Frame{Pos: frames[2].Pos, Kind: sse.KindEnd, End: sse.EndFinished, ID: []byte("x")}
	s.mustAppend(t, id, frames)
	if got := s.mustFence(t, id, 2); !sameFrame(got, frames[2]) {
		t.Errorf("fence: %v", got)
	}
	s.wantRead(t, id, sse.Pos{}, 10, frames)
}

// testOldOwner: a batch of an older epoch adds nothing, not even what no one
// else has written.
func testOldOwner(t *testing.T, s *suite) {
	id := sse.NewStreamID()
	s.mustAppend(t, id, run(5, 1, 3), run(6, 4, 3))
	for _, frames := range [][]sse.Frame{run(5, 4, 2), run(5, 7, 2), run(5, 100, 1), run(1, 1, 1)} {
		if err := s.append1(t, id, reconnect.Limits{}, frames); !errors.Is(err, reconnect.ErrFenced) {
			t.Errorf("from %v: %v", frames[0].Pos, err)
		}
	}
	s.wantRead(t, id, sse.Pos{}, 10, append(run(5, 1, 3), run(6, 4, 3)...))
}

// testAheadOfFence: the old owner had delivered two frames that never reached
// the log. The new owner numbers on from the log, so a client that has those
// two gets what follows their numbers, and nothing twice.
func testAheadOfFence(t *testing.T, s *suite) {
	const n = 7
	id := sse.NewStreamID()
	s.mustAppend(t, id, run(1, 1, n))
	s.mustFence(t, id, 2)
	ahead := sse.Pos{Epoch: 1, Seq: n + 2}
	s.wantRead(t, id, ahead, 10, nil)
	next := run(2, n+1, 3)
	s.mustAppend(t, id, next[:1])
	s.wantRead(t, id, ahead, 10, nil)
	s.mustAppend(t, id, next[1:])
	s.wantRead(t, id, ahead, 10, next[2:])
	s.wantRead(t, id, sse.Pos{Epoch: 1, Seq: n + 1}, 10, next[1:])
	s.wantRead(t, id, sse.Pos{Epoch: 1, Seq: n}, 10, next)
	s.wantRead(t, id, sse.Pos{Epoch: 1, Seq: n + 3}, 10, nil)
}

// testEpochWithoutFence: two epochs wrote the same numbers; the newer counts.
func testEpochWithoutFence(t *testing.T, s *suite) {
	id := sse.NewStreamID()
	old, next := run(1, 1, 10), run(2, 8, 5)
	s.mustAppend(t, id, old, next[:2]) // e1 1..10, e2 8 9
	whole := slices.Concat(old[:7], next[:2])
	s.wantRead(t, id, sse.Pos{}, 100, whole)
	s.wantRead(t, id, sse.Pos{}, 3, whole[:3])
	s.wantRead(t, id, sse.Pos{Epoch: 1, Seq: 8}, 100, next[1:2])
	s.wantRead(t, id, sse.Pos{Epoch: 1, Seq: 10}, 100, nil)
	s.wantTail(t, id, reconnect.Tail{Pos: next[1].Pos, Kind: sse.KindEvent})

	s.mustAppend(t, id, next[2:]) // e2 8..12
	whole = slices.Concat(old[:7], next)
	for i := range whole {
		s.wantRead(t, id, sse.Pos{Epoch: 1, Seq: uint64(i)}, 100, whole[i:])
	}

	third := run(3, 3, 2) // one that knows nothing of the rest
	s.mustAppend(t, id, third)
	s.wantRead(t, id, sse.Pos{}, 100, slices.Concat(old[:2], third))
	s.wantRead(t, id, sse.Pos{Epoch: 2, Seq: 3}, 100, third[1:])
	s.wantRead(t, id, next[4].Pos, 100, nil)
	if got := s.mustFence(t, id, 4); !sameFrame(got, third[1]) {
		t.Errorf("fence: %v", got)
	}

	// The newest begins with 1: all that was is replaced.
	s.mustAppend(t, id, run(5, 1, 1))
	s.wantRead(t, id, sse.Pos{}, 100, run(5, 1, 1))
}

// testEpochOfReader: only the number of a reader's place counts, whatever the
// epoch beside it.
func testEpochOfReader(t *testing.T, s *suite) {
	id := sse.NewStreamID()
	whole := slices.Concat(run(10, 1, 5), run(20, 6, 5), run(30, 11, 5))
	s.mustAppend(t, id, whole[:5])
	s.mustFence(t, id, 20)
	s.mustAppend(t, id, whole[5:10], whole[10:])
	for _, epoch := range []uint64{0, 1, 10, 15, 20, 25, 30, 99} {
		for i := range whole {
			s.wantRead(t, id, sse.Pos{Epoch: epoch, Seq: uint64(i)}, 100, whole[i:])
		}
		s.wantRead(t, id, sse.Pos{Epoch: epoch, Seq: 15}, 100, nil)
	}
	one := sse.NewStreamID()
	s.mustAppend(t, one, run(10, 1, 5))
	for _, epoch := range []uint64{0, 9, 10, 11} {
		for i := range 5 {
			s.wantRead(t, one, sse.Pos{Epoch: epoch, Seq: uint64(i)}, 100, run(10, 1, 5)[i:])
		}
	}
}

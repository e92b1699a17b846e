package logtest

import (
	"errors"
	"fmt"
	"slices"
	"testing"
	"time"

	"ssegate/reconnect"
	"ssegate/sse"
)

func testFind(t *testing.T, s *suite) {
	id := sse.NewStreamID()
	frames := run(1, 1, 400)
	for i := range frames {
		if i >= 10 {
			frames[i].ID = fmt.Appendf(nil, "up%d", i/3) // an id in effect for three frames
		}
	}
	frames[399] = sse.Frame{Pos: frames[399].Pos, Kind: sse.KindEnd, End: sse.EndClean, ID: []byte("at the end")}
	s.mustAppend(t, id, frames)
	f := func(want uint64, upstream string) {
		t.Helper()
		got, err := s.Find(t.Context(), id, []byte(upstream))
		if want == 0 {
			if !errors.Is(err, reconnect.ErrUnknown) {
				t.Errorf("%q: got %v, %v", upstream, got, err)
			}
		} else if err != nil || got != (sse.Pos{Epoch: 1, Seq: want}) {
			t.Errorf("%q: got %v, %v; want the first, %d", upstream, got, err, want)
		}
	}
	f(13, "up4")
	f(11, "up3")
	f(301, "up100")
	f(397, "up132")
	f(0, "up133")
	f(400, "at the end")
	f(0, "up")
	f(0, "up40000")
	f(0, "")
	s.mustFence(t, id, 2)
	next := run(2, 401, 1)
	next[0].ID = []byte("after the fence")
	s.mustAppend(t, id, next)
	f(13, "up4")
	got, err := s.Find(t.Context(), id, next[0].ID)
	if err != nil || got != next[0].Pos {
		t.Errorf("got %v, %v", got, err)
	}
	// A new epoch begins at 300 again: what it replaced is not found.
	s.mustAppend(t, id, run(3, 300, 1))
	f(298, "up99")
	f(0, "up100")
	f(0, "after the fence")
}

// testHole: frames that never came are told, wherever they are missing.
func testHole(t *testing.T, s *suite) {
	id := sse.NewStreamID()
	late, later, last := run(1, 500, 3), run(1, 510, 2), run(2, 600, 2)
	s.mustAppend(t, id, late) // the log was lost and goes on
	s.wantGap(t, id, sse.Pos{}, 1, 499, late)
	s.wantGap(t, id, sse.Pos{Epoch: 1, Seq: 120}, 121, 499, late)
	s.wantRead(t, id, sse.Pos{Epoch: 1, Seq: 499}, 10, late)

	s.mustAppend(t, id, later)
	s.wantRead(t, id, late[0].Pos, 10, late[1:]) // up to the hole
	s.wantGap(t, id, late[2].Pos, 503, 509, later)
	s.wantGap(t, id, sse.Pos{Epoch: 1, Seq: 505}, 506, 509, later)
	s.wantGap(t, id, sse.Pos{}, 1, 499, late)
	s.wantRead(t, id, later[0].Pos, 10, later[1:])

	s.mustFence(t, id, 2)
	s.mustAppend(t, id, last)
	s.wantGap(t, id, later[1].Pos, 512, 599, last)
	s.wantRead(t, id, later[0].Pos, 10, later[1:])
}

// testLength: at least so many are kept, and not many more; what is gone is a
// gap.
func testLength(t *testing.T, s *suite) {
	const length = 100
	id := sse.NewStreamID()
	frames := run(1, 1, 3000)
	for i := 0; i < len(frames); i += 30 {
		if err := s.append1(t, id, reconnect.Limits{Length: length}, frames[i:i+30]); err != nil {
			t.Fatal(err)
		}
	}
	s.wantLength(t, id, frames, length)
	s.wantRead(t, id, sse.Pos{Epoch: 1, Seq: 3000 - length}, 1000, frames[3000-length:])

	// A limit that is lowered holds from the next Append on.
	more := run(1, 3001, 30)
	if err := s.append1(t, id, reconnect.Limits{Length: 10}, more); err != nil {
		t.Fatal(err)
	}
	s.wantLength(t, id, append(frames, more...), 10)

	// A batch longer than the limit.
	for i := range 3 {
		more = run(1, uint64(4000+700*i), 700)
		if err := s.append1(t, id, reconnect.Limits{Length: 300}, more); err != nil {
			t.Fatal(err)
		}
	}
	s.wantLength(t, id, more, 300)
}

// testLengthOverEpochs: fences do not take frames' places, and what an older
// epoch wrote is trimmed like the rest, but only when its time has come.
func testLengthOverEpochs(t *testing.T, s *suite) {
	limits := reconnect.Limits{Length: 50}
	id := sse.NewStreamID()
	var all []sse.Frame
	for epoch := range uint64(60) {
		part := fat(run(epoch+1, epoch*7+1, 7))
		for _, frames := range [][]sse.Frame{part[:1], part[1:4], part[4:]} {
			if err := s.append1(t, id, limits, frames); err != nil {
				t.Fatal(err)
			}
		}
		if _, err := s.Fence(t.Context(), id, epoch+2, limits); err != nil {
			t.Fatal(err)
		}
		all = append(all, part...)
		last := all[max(0, len(all)-limits.Length):]
		s.wantRead(t, id, sse.Pos{Seq: last[0].Pos.Seq - 1}, 1000, last)
	}
	s.wantLength(t, id, all, limits.Length)
}

// testLengthOldOwner: an owner that is fenced trims nothing either, though it
// believes that the stream is much longer.
func testLengthOldOwner(t *testing.T, s *suite) {
	limits := reconnect.Limits{Length: 50}
	id := sse.NewStreamID()
	frames := slices.Concat(fat(run(1, 1, 30)), fat(run(2, 31, 20)))
	for _, part := range [][]sse.Frame{frames[:30], frames[30:40], frames[40:]} {
		if err := s.append1(t, id, limits, part); err != nil {
			t.Fatal(err)
		}
	}
	if err := s.append1(t, id, limits, run(1, 31, 2000)); !errors.Is(err, reconnect.ErrFenced) {
		t.Fatal(err)
	}
	s.wantRead(t, id, sse.Pos{}, 1000, frames)
}

// fat makes frames so big that a driver that drops several at once drops few.
func fat(frames []sse.Frame) []sse.Frame {
	for i := range frames {
		frames[i].Block = append(frames[i].Block, make([]byte, 2000)...)
	}
	return frames
}

// wantLength wants the last frames of all, at least length of them.
func (s *suite) wantLength(t *testing.T, id sse.StreamID, all []sse.Frame, length int) {
	t.Helper()
	got, err := s.Read(t.Context(), id, sse.Pos{}, 10_000)
	gap, ok := errors.AsType[*reconnect.Gap](err)
	if !ok {
		t.Fatalf("got %d frames, %v; want a gap", len(got), err)
	}
	if len(got) < length || len(got) > length+s.Slack {
		t.Fatalf("%d frames kept, want %d to %d", len(got), length, length+s.Slack)
	}
	want := all[len(all)-len(got):]
	if *gap != (reconnect.Gap{From: 1, To: want[0].Pos.Seq - 1}) {
		t.Fatalf("gap %v, first frame %v", gap, want[0].Pos)
	}
	wantFrames(t, got, want)
}

// testEmptied: the frames are gone, the log is not.
func testEmptied(t *testing.T, s *suite) {
	id := sse.NewStreamID()
	s.mustAppend(t, id, run(3, 1, 20))
	s.Empty(t, s.Journal, id)
	s.wantGap(t, id, sse.Pos{}, 1, 20, nil)
	s.wantGap(t, id, sse.Pos{Epoch: 3, Seq: 19}, 20, 20, nil)
	s.wantRead(t, id, sse.Pos{Epoch: 3, Seq: 20}, 10, nil)
	if tail := s.tail(t, id); tail.Pos != (sse.Pos{Epoch: 3, Seq: 20}) {
		t.Errorf("tail %v", tail)
	}
	if got, err := s.Find(t.Context(), id, []byte("x")); !errors.Is(err, reconnect.ErrUnknown) {
		t.Errorf("find: %v, %v", got, err)
	}

	// The fence still stands, and so does idempotence.
	if err := s.append1(t, id, reconnect.Limits{}, run(2, 21, 1)); !errors.Is(err, reconnect.ErrFenced) {
		t.Errorf("old owner: %v", err)
	}
	s.mustAppend(t, id, run(3, 18, 3)) // there already, as far as the log knows
	s.wantGap(t, id, sse.Pos{}, 1, 20, nil)
	s.mustAppend(t, id, run(3, 21, 2))
	s.wantGap(t, id, sse.Pos{}, 1, 20, run(3, 21, 2))

	s.Empty(t, s.Journal, id)
	if got := s.mustFence(t, id, 4); got.Pos.Seq != 22 || got.ID != nil || got.Block != nil {
		t.Errorf("fence: got %v", got)
	}
	s.mustAppend(t, id, run(4, 23, 1))
	s.wantGap(t, id, sse.Pos{Epoch: 3, Seq: 20}, 21, 22, run(4, 23, 1))
}

const ttl = 200 * time.Millisecond

func testTTL(t *testing.T, s *suite) {
	short, renewed, none, forever, fenced := sse.NewStreamID(), sse.NewStreamID(), sse.NewStreamID(), sse.NewStreamID(), sse.NewStreamID()
	f := func(id sse.StreamID, frames []sse.Frame, ttl time.Duration) {
		t.Helper()
		if err := s.append1(t, id, reconnect.Limits{TTL: ttl}, frames); err != nil {
			t.Fatal(err)
		}
	}
	f(none, run(1, 1, 2), 0)
	f(forever, run(1, 1, 1), ttl)
	f(forever, run(1, 2, 1), 0)
	f(renewed, run(1, 1, 1), ttl)
	f(renewed, run(1, 2, 1), time.Hour)
	f(short, run(1, 1, 1), time.Hour)
	f(short, run(1, 2, 1), ttl)
	f(fenced, run(1, 1, 2), time.Hour)
	if _, err := s.Fence(t.Context(), fenced, 2, reconnect.Limits{TTL: ttl}); err != nil {
		t.Fatal(err)
	}
	s.outlive(t, ttl)
	s.wantUnknown(t, short)
	s.wantUnknown(t, fenced)
	for _, id := range []sse.StreamID{none, forever, renewed} {
		s.wantRead(t, id, sse.Pos{}, 10, run(1, 1, 2))
	}

	// A log that is gone begins anew; nothing of the old one is left.
	f(short, run(1, 1, 3), ttl/1000)
	f(fenced, run(1, 7, 1), time.Hour)
	s.wantGap(t, fenced, sse.Pos{}, 1, 6, run(1, 7, 1))
	s.outlive(t, ttl)
	s.wantUnknown(t, short)
}

func testTouch(t *testing.T, s *suite) {
	touched, left, long, none := sse.NewStreamID(), sse.NewStreamID(), sse.NewStreamID(), sse.NewStreamID()
	for _, id := range []sse.StreamID{touched, left} {
		if err := s.append1(t, id, reconnect.Limits{TTL: ttl}, run(1, 1, 2)); err != nil {
			t.Fatal(err)
		}
	}
	if err := s.append1(t, long, reconnect.Limits{TTL: time.Hour}, run(1, 1, 2)); err != nil {
		t.Fatal(err)
	}
	s.mustAppend(t, none, run(1, 1, 2))
	if err := s.Touch(t.Context(), []sse.StreamID{touched, sse.NewStreamID()}, time.Hour); err != nil {
		t.Fatal(err)
	}
	if err := s.Touch(t.Context(), []sse.StreamID{touched, long, none}, ttl/2); err != nil {
		t.Fatal(err)
	}
	s.outlive(t, ttl)
	s.wantUnknown(t, left)
	for _, id := range []sse.StreamID{touched, long, none} { // an end is never brought nearer
		s.wantRead(t, id, sse.Pos{}, 10, run(1, 1, 2))
	}
}

// Package logtest is the conformance suite of [reconnect.Journal], and so of
// [reconnect.Log]: what every driver must promise, tried on a real one.
package logtest

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"slices"
	"testing"
	"time"

	"ssegate/reconnect"
	"ssegate/sse"
)

// Driver is a driver under test.
type Driver struct {
	// New returns a log with nothing in it, to be used by one test. What it
	// needs to be closed goes into t.Cleanup.
	New func(t *testing.T) reconnect.Journal
	// Elapse makes d go by on the driver's clock. Nil where that is the clock
	// on the wall.
	Elapse func(d time.Duration)
	// Empty makes the driver forget the frames of a stream, but not the log.
	Empty func(t *testing.T, log reconnect.Log, stream sse.StreamID)
	// Follow has a node follow a stream, as far as the log opened last knows.
	Follow func(t *testing.T, stream sse.StreamID, node string)
	// Slack is how many frames above Limits.Length may be kept.
	Slack int
}

// Run runs the suite on a driver.
func Run(t *testing.T, d Driver) {
	tests := []struct {
		name string
		f    func(t *testing.T, s *suite)
	}{
		{"AppendRead", testAppendRead},
		{"WholeFrame", testWholeFrame},
		{"Pages", testPages},
		{"Unknown", testUnknown},
		{"Retry", testRetry},
		{"Follows", testFollows},
		{"BadBatch", testBadBatch},
		{"ManyStreams", testManyStreams},
		{"BigBlocks", testBigBlocks},
		{"BigNumbers", testBigNumbers},
		{"DoneContext", testDoneContext},
		{"Tails", testTails},
		{"Find", testFind},
		{"Hole", testHole},
		{"Length", testLength},
		{"LengthOverEpochs", testLengthOverEpochs},
		{"LengthOldOwner", testLengthOldOwner},
		{"Emptied", testEmptied},
		{"TTL", testTTL},
		{"Touch", testTouch},
		{"Fence", testFence},
		{"FenceAgain", testFenceAgain},
		{"FenceOnEnd", testFenceOnEnd},
		{"Fork", testFork},
		{"OldOwner", testOldOwner},
		{"AheadOfFence", testAheadOfFence},
		{"EpochWithoutFence", testEpochWithoutFence},
		{"EpochOfReader", testEpochOfReader},
		{"OwnersRace", testOwnersRace},
		{"FencesRace", testFencesRace},
		{"RetriesRace", testRetriesRace},
		{"ReadersRace", testReadersRace},
		{"Model", testModel},
		{"Publish", testPublish},
		{"PublishWhole", testPublishWhole},
		{"PublishMany", testPublishMany},
		{"PublishBig", testPublishBig},
		{"OpenTopics", testOpenTopics},
		{"OpenAhead", testOpenAhead},
		{"PublishAhead", testPublishAhead},
		{"Forgot", testForgot},
		{"NumberingOutlives", testNumberingOutlives},
		{"TopicLength", testTopicLength},
		{"TopicTouch", testTopicTouch},
		{"Once", testOnce},
		{"OnceEnds", testOnceEnds},
		{"OnceOutlivesLog", testOnceOutlivesLog},
		{"OnceMixed", testOnceMixed},
		{"OnceRace", testOnceRace},
		{"Since", testSince},
		{"SinceGone", testSinceGone},
		{"Back", testBack},
		{"Pass", testPass},
		{"Followers", testFollowers},
		{"PublishersRace", testPublishersRace},
		{"OpenRace", testOpenRace},
		{"JournalDoneContext", testJournalDoneContext},
	}
	for _, test := range tests {
		t.Run(test.name, func(t *testing.T) {
			test.f(t, &suite{Driver: d, Journal: d.New(t)})
		})
	}
}

// suite is one test's log with what makes tests short.
type suite struct {
	Driver
	reconnect.Journal
}

// run is n events of one epoch from seq on.
func run(epoch, seq uint64, n int) []sse.Frame {
	frames := make([]sse.Frame, n)
	for i := range frames {
		p := sse.Pos{Epoch: epoch, Seq: seq + uint64(i)}
		frames[i] = sse.Frame{Pos: p, Kind: sse.KindEvent, Block: fmt.Appendf(nil, "data: %v\n\n", p)}
	}
	return frames
}

// Runs is frames, which must follow one another, in runs of some length each.
func Runs(frames []sse.Frame) (runs []sse.Run) {
	for n := 3; len(frames) > 0; n *= 2 {
		n = min(n, len(frames))
		runs = append(runs, whole(frames[:n]))
		frames = frames[n:]
	}
	return runs
}

// whole is frames in one run.
func whole(frames []sse.Frame) sse.Run {
	r, err := sse.NewRun(frames)
	if err != nil {
		panic(err) // the test is wrong
	}
	return r
}

// append1 appends one stream's frames.
func (s *suite) append1(t *testing.T, id sse.StreamID, limits reconnect.Limits, frames []sse.Frame) error {
	t.Helper()
	errs := s.Append(t.Context(), []reconnect.Batch{{Stream: id, Limits: limits, Runs: Runs(frames)}})
	switch len(errs) {
	case 0:
		return nil
	case 1:
		return errs[0]
	}
	t.Fatalf("%d errors for one batch: %v", len(errs), errs)
	return nil
}

func (s *suite) mustAppend(t *testing.T, id sse.StreamID, frames ...[]sse.Frame) {
	t.Helper()
	for _, f := range frames {
		if err := s.append1(t, id, reconnect.Limits{}, f); err != nil {
			t.Fatal("append:", err)
		}
	}
}

func (s *suite) mustFence(t *testing.T, id sse.StreamID, epoch uint64) sse.Frame {
	t.Helper()
	f, err := s.Fence(t.Context(), id, epoch, reconnect.Limits{})
	if err != nil {
		t.Fatal("fence:", err)
	}
	return f
}

// wantRead reads once and wants just these frames, without a gap.
func (s *suite) wantRead(t *testing.T, id sse.StreamID, after sse.Pos, max int, want []sse.Frame) {
	t.Helper()
	got, err := s.Read(t.Context(), id, after, max)
	if err != nil {
		t.Fatalf("read after %v: %v", after, err)
	}
	wantFrames(t, got, want)
}

// wantGap reads once and wants the gap from..to, and these frames behind it.
func (s *suite) wantGap(t *testing.T, id sse.StreamID, after sse.Pos, from, to uint64, want []sse.Frame) {
	t.Helper()
	got, err := s.Read(t.Context(), id, after, 1000)
	gap, ok := errors.AsType[*reconnect.Gap](err)
	if !ok || !errors.Is(err, reconnect.ErrGap) || *gap != (reconnect.Gap{From: from, To: to}) {
		t.Fatalf("read after %v: got error %v, want the gap %d to %d", after, err, from, to)
	}
	wantFrames(t, got, want)
}

func (s *suite) wantUnknown(t *testing.T, id sse.StreamID) {
	t.Helper()
	if got, err := s.Read(t.Context(), id, sse.Pos{}, 10); !errors.Is(err, reconnect.ErrUnknown) || len(got) != 0 {
		t.Fatalf("read: got %d frames, %v; want ErrUnknown", len(got), err)
	}
	s.wantTail(t, id, reconnect.Tail{})
}

func (s *suite) wantTail(t *testing.T, id sse.StreamID, want reconnect.Tail) {
	t.Helper()
	if got := s.tail(t, id); got != want {
		t.Fatalf("tail is %+v, want %+v", got, want)
	}
}

func (s *suite) tail(t *testing.T, id sse.StreamID) reconnect.Tail {
	t.Helper()
	tails, err := s.Tails(t.Context(), []sse.StreamID{id})
	if err != nil || len(tails) != 1 {
		t.Fatalf("tails: %v, %v", tails, err)
	}
	return tails[0]
}

func wantFrames(t *testing.T, got, want []sse.Frame) {
	t.Helper()
	if !slices.EqualFunc(got, want, sameFrame) {
		t.Fatalf("got frames %s\nwant %s", list(got), list(want))
	}
}

// sameFrame compares all that a frame is; an ID that is empty is not the same
// as none.
func sameFrame(a, b sse.Frame) bool {
	return a.Pos == b.Pos && a.Kind == b.Kind && a.End == b.End &&
		(a.ID == nil) == (b.ID == nil) && bytes.Equal(a.ID, b.ID) && bytes.Equal(a.Block, b.Block) &&
		a.Time == b.Time && (a.Meta == nil) == (b.Meta == nil) && bytes.Equal(a.Meta, b.Meta)
}

// list names frames, the first and last few.
func list(frames []sse.Frame) string {
	var b bytes.Buffer
	fmt.Fprintf(&b, "(%d):", len(frames))
	for i, f := range frames {
		if i < 8 || i >= len(frames)-4 {
			fmt.Fprintf(&b, " %v/%d/%d", f.Pos, f.Kind, f.End)
			if f.ID != nil {
				fmt.Fprintf(&b, "/%q", f.ID)
			}
			if len(f.Block) < 40 {
				fmt.Fprintf(&b, "/%q", f.Block)
			}
		}
	}
	return b.String()
}

// all reads a log to its end in pages; gaps are not expected.
func (s *suite) all(t *testing.T, id sse.StreamID, page int) []sse.Frame {
	t.Helper()
	var all []sse.Frame
	var after sse.Pos
	for {
		got, err := s.Read(t.Context(), id, after, page)
		if err != nil {
			t.Fatalf("read after %v: %v", after, err)
		}
		if len(got) > page {
			t.Fatalf("read after %v: %d frames, asked for %d", after, len(got), page)
		}
		if len(got) == 0 {
			return all
		}
		all = append(all, got...)
		after = all[len(all)-1].Pos
	}
}

// outlive returns when everything that had no more than ttl to live has gone.
// The last to go is a log of its own.
func (s *suite) outlive(t *testing.T, ttl time.Duration) {
	t.Helper()
	last := sse.NewStreamID()
	if err := s.append1(t, last, reconnect.Limits{TTL: ttl}, run(1, 1, 1)); err != nil {
		t.Fatal("append:", err)
	}
	if s.Elapse != nil {
		s.Elapse(ttl)
	}
	ctx, cancel := context.WithTimeout(t.Context(), ttl+20*time.Second)
	defer cancel()
	for {
		tails, err := s.Tails(ctx, []sse.StreamID{last})
		if err != nil {
			t.Fatalf("a log of TTL %v does not go away: %v", ttl, err)
		}
		if tails[0] == (reconnect.Tail{}) {
			return
		}
		select {
		case <-ctx.Done():
		case <-time.After(ttl / 20):
		}
	}
}

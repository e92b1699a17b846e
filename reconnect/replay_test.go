package reconnect_test

import (
	"context"
	"errors"
	"sync/atomic"
	"testing"

	"ssegate/internal/gatetest/logtest"
	"ssegate/reconnect"
	"ssegate/sse"
)

func event(epoch, seq uint64, block string) sse.Frame {
	return sse.Frame{Pos: sse.Pos{Epoch: epoch, Seq: seq}, Kind: sse.KindEvent, Block: []byte(block)}
}

// TestReplayer reads a log in steps, as a follower does, and wants the whole
// of what a client would get.
func TestReplayer(t *testing.T) {
	f := func(after uint64, eol sse.EOL, length int, batches [][]sse.Frame, want string, wantGaps uint64) {
		t.Helper()
		log := reconnect.NewMemory(reconnect.MemoryConfig{})
		id := sse.NewStreamID()
		for _, frames := range batches {
			if errs := log.Append(t.Context(), []reconnect.Batch{{Stream: id, Limits: reconnect.Limits{Length: length}, Runs: logtest.Runs(frames)}}); errs != nil {
				t.Fatal(errs)
			}
		}
		var gaps atomic.Uint64
		r := reconnect.NewReplayer(log, id, &gaps)
		r.SetEOL(eol)
		var got []byte
		at := sse.Pos{Epoch: 1, Seq: after}
		for {
			frames, err := r.Read(t.Context(), at, 2)
			if err != nil {
				t.Fatal(err)
			}
			if len(frames) == 0 {
				break
			}
			for _, f := range frames {
				if f.Pos.Seq <= at.Seq {
					t.Fatalf("%v comes after %v", f.Pos, at)
				}
				got = append(got, f.Block...)
				at = f.Pos
			}
		}
		if string(got) != want || gaps.Load() != wantGaps {
			t.Errorf("got %q and %d gaps, want %q and %d", got, gaps.Load(), want, wantGaps)
		}
	}
	abc := []sse.Frame{event(1, 1, "data: a\n\n"), event(1, 2, "data: b\n\n"), event(1, 3, "data: c\n\n")}
	late := []sse.Frame{event(2, 7, "data: g\r\n\r\n"), event(2, 8, "data: h\r\n\r\n")}

	f(0, sse.LF, 0, [][]sse.Frame{abc}, "data: a\n\ndata: b\n\ndata: c\n\n", 0)
	f(3, sse.LF, 0, [][]sse.Frame{abc}, "", 0)
	f(0, sse.LF, 1, [][]sse.Frame{abc},
		"event: ssegate.gap\ndata: {\"from\":1,\"to\":2,\"reason\":\"trimmed\"}\n\ndata: c\n\n", 1)
	f(1, sse.LF, 0, [][]sse.Frame{abc, late}, // the line end is that of what follows
		"data: b\n\ndata: c\n\nevent: ssegate.gap\r\ndata: {\"from\":4,\"to\":6,\"reason\":\"trimmed\"}\r\n\r\ndata: g\r\n\r\ndata: h\r\n\r\n", 1)
	f(0, sse.CR, 1, [][]sse.Frame{abc, {event(1, 6, "data: x\r\r")}}, // and a gap after a gap
		"event: ssegate.gap\rdata: {\"from\":1,\"to\":5,\"reason\":\"trimmed\"}\r\rdata: x\r\r", 1)
	f(0, sse.CRLF, 1, [][]sse.Frame{{event(1, 1, "data: x\r\n\r\n")}, {{Pos: sse.Pos{Epoch: 1, Seq: 2}, Kind: sse.KindEnd, End: sse.EndClean}}},
		"event: ssegate.gap\r\ndata: {\"from\":1,\"to\":1,\"reason\":\"trimmed\"}\r\n\r\n", 1)
}

// emptied is a log with nothing left in it.
type emptied struct{ reconnect.Log }

func (emptied) Read(context.Context, sse.StreamID, sse.Pos, int) ([]sse.Frame, error) {
	return nil, &reconnect.Gap{From: 3, To: 9}
}

func TestReplayerNothingFollows(t *testing.T) {
	r := reconnect.NewReplayer(emptied{}, sse.NewStreamID(), nil)
	got, err := r.Read(t.Context(), sse.Pos{Epoch: 4, Seq: 2}, 10)
	want := "event: ssegate.gap\ndata: {\"from\":3,\"to\":9,\"reason\":\"trimmed\"}\n\n"
	if err != nil || len(got) != 1 || got[0].Kind != sse.KindNote || got[0].Pos != (sse.Pos{Epoch: 4, Seq: 9}) || string(got[0].Block) != want || got[0].ID != nil {
		t.Errorf("%v, %v", got, err)
	}
	r.SetEOL(sse.CR)
	if got, _ := r.Read(t.Context(), sse.Pos{}, 10); string(got[0].Block) != "event: ssegate.gap\rdata: {\"from\":3,\"to\":9,\"reason\":\"trimmed\"}\r\r" {
		t.Errorf("%q", got[0].Block)
	}
}

func TestReplayerErrors(t *testing.T) {
	var gaps atomic.Uint64
	r := reconnect.NewReplayer(reconnect.NewMemory(reconnect.MemoryConfig{}), sse.NewStreamID(), &gaps)
	if got, err := r.Read(t.Context(), sse.Pos{}, 10); !errors.Is(err, reconnect.ErrUnknown) || got != nil || gaps.Load() != 0 {
		t.Errorf("%v, %v", got, err)
	}
}

func TestAppendGap(t *testing.T) {
	got := string(reconnect.AppendGap([]byte("x\n\n"), 7, 0, reconnect.GapUnknown, sse.LF))
	if want := "x\n\nevent: ssegate.gap\ndata: {\"from\":7,\"to\":null,\"reason\":\"unknown\"}\n\n"; got != want {
		t.Errorf("got %q, want %q", got, want)
	}
}

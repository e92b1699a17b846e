package sse_test

import (
	"errors"
	"testing"

	"ssegate/sse"
)

func TestNewRun(t *testing.T) {
	frame := func(epoch, seq uint64, kind sse.Kind) sse.Frame {
		return sse.Frame{Pos: sse.Pos{Epoch: epoch, Seq: seq}, Kind: kind, Block: []byte("data: x\n\n")}
	}
	for what, frames := range map[string][]sse.Frame{
		"a number left out": {frame(1, 1, sse.KindEvent), frame(1, 3, sse.KindEvent)},
		"a number twice":    {frame(1, 1, sse.KindEvent), frame(1, 1, sse.KindEvent)},
		"two epochs":        {frame(1, 1, sse.KindEvent), frame(2, 2, sse.KindEvent)},
		"number 0":          {frame(1, 0, sse.KindEvent)},
		"epoch 0":           {frame(0, 1, sse.KindEvent)},
		"a fence":           {frame(1, 1, sse.KindEvent), frame(1, 2, sse.KindFence)},
		"a note":            {frame(1, 1, sse.KindNote)},
		"no kind":           {frame(1, 1, 0)},
	} {
		if _, err := sse.NewRun(frames); !errors.Is(err, sse.ErrRun) {
			t.Errorf("%s: %v", what, err)
		}
	}
	none, err := sse.NewRun(nil)
	if err != nil || none.Len() != 0 || none.Size() != 0 || none.First() != (sse.Pos{}) {
		t.Errorf("no frames: %d, %v", none.Len(), err)
	}
	frames := []sse.Frame{frame(5, 7, sse.KindEvent), frame(5, 8, sse.KindBare), frame(5, 9, sse.KindEvent), frame(5, 10, sse.KindEnd)}
	r, err := sse.NewRun(frames)
	if err != nil || r.Len() != 4 || r.First() != frames[0].Pos || r.Last() != frames[3].Pos {
		t.Fatalf("%d frames from %v, %v", r.Len(), r.First(), err)
	}
	head, tail := r.Part(0, 1), r.Part(1, 4)
	if tail.First() != frames[1].Pos || tail.At(2).Kind != sse.KindEnd || head.Size()+tail.Size() != r.Size() {
		t.Errorf("part from %v of %d bytes", tail.First(), tail.Size())
	}
	other, _ := sse.NewRun(frames)
	if next := other.Part(1, 4); head.Join(&next) || head.Len() != 1 {
		t.Error("joined with what lies elsewhere")
	}
	if head.Join(&r) {
		t.Error("joined with what does not follow")
	}
	if !head.Join(&tail) || head != r {
		t.Error("not joined with what follows")
	}
	if empty := r.Part(2, 2); empty != (sse.Run{}) {
		t.Error("an empty part is no empty run")
	}
	if got := tail.Append(frames[:1:1]); len(got) != 4 || got[3].Pos != frames[3].Pos {
		t.Errorf("appended: %d", len(got))
	}
}

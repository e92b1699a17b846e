package bus

import (
	"bytes"
	"errors"
	"fmt"
	"math"
	"reflect"
	"runtime"
	"slices"
	"testing"

	"ssegate/sse"
)

func someMessages() []Message {
	a, b := sse.StreamID{1}, sse.StreamID{2, 15: 9}
	return []Message{
		{From: "node-a", Kind: 1, Stream: a, Call: 7, Body: []byte("hello")},
		{From: "node-a", Kind: 2, Stream: a, Body: []byte{0}},
		{From: "node-a", Kind: 255, Body: nil},
		{From: "node-a", Kind: 3, Stream: a, Call: math.MaxUint64},
		{From: "", Kind: 0, Stream: b},
		{From: "node-b", Stream: b, Body: bytes.Repeat([]byte("x"), 300)},
	}
}

func TestMessagesComeBackAsTheyWere(t *testing.T) {
	f := func(msgs []Message) {
		t.Helper()
		b := AppendMessages(nil, msgs)
		if len(b) > EncodedLen(msgs) {
			t.Fatalf("%d bytes, EncodedLen says at most %d", len(b), EncodedLen(msgs))
		}
		got, err := DecodeMessages(b)
		if err != nil {
			t.Fatal(err)
		}
		if !reflect.DeepEqual(got, msgs) {
			t.Fatalf("got %+v\nwant %+v", got, msgs)
		}
	}
	f(nil)
	f(someMessages())
	f([]Message{{}})
	f([]Message{{From: "a", Stream: sse.StreamID{1}}, {From: "a"}, {From: "a", Stream: sse.StreamID{1}}})
	f([]Message{{Body: make([]byte, MaxBody)}})
}

func TestAParcelMayBeAddedTo(t *testing.T) {
	msgs := someMessages()
	for cut := range len(msgs) + 1 {
		b := AppendMessages(nil, msgs[:cut])
		b = AppendMessages(b, msgs[cut:])
		got, err := DecodeMessages(b)
		if err != nil {
			t.Fatal(err)
		}
		if !reflect.DeepEqual(got, msgs) {
			t.Fatalf("cut at %d: got %+v\nwant %+v", cut, got, msgs)
		}
	}
}

// Most messages of a parcel come from one node and concern one stream: what
// they have in common must be sent once.
func TestMessagesAreSmall(t *testing.T) {
	msgs := make([]Message, 100)
	for i := range msgs {
		msgs[i] = Message{From: "a-node-with-a-name", Kind: 1, Stream: sse.StreamID{1, 2, 3}, Body: []byte("body")}
	}
	const head, each = 1 + 1 + 18 + 16, 3 + 4
	if got := len(AppendMessages(nil, msgs)); got != head+100*each {
		t.Fatalf("%d bytes, want %d", got, head+100*each)
	}
}

func TestGarbageIsAnError(t *testing.T) {
	whole := AppendMessages(nil, someMessages())
	f := func(what string, b []byte) {
		t.Helper()
		if msgs, err := DecodeMessages(b); !errors.Is(err, ErrGarbled) || msgs != nil {
			t.Fatalf("%s: %v, %v", what, msgs, err)
		}
	}
	f("nothing", nil)
	f("another version", append([]byte{parcelVersion + 1}, whole[1:]...))
	f("unknown flags", []byte{parcelVersion, 0x80, 0, 0})
	f("a body longer than all", []byte{parcelVersion, 0, 0, 0xff, 0xff, 0xff, 0xff, 0x7f, 'x'})
	f("a number without end", append([]byte{parcelVersion, 0, 0}, bytes.Repeat([]byte{0xff}, 20)...))

	ends := []int{1} // a parcel may end behind each message, and nowhere else
	for i := range someMessages() {
		ends = append(ends, len(AppendMessages(nil, someMessages()[:i+1])))
	}
	for n := range len(whole) {
		if !slices.Contains(ends, n) {
			f(fmt.Sprintf("cut at %d", n), whole[:n])
		}
	}
}

func someFrames() []sse.Frame {
	event := func(epoch, seq uint64, id, block string) sse.Frame {
		f := sse.Frame{Pos: sse.Pos{Epoch: epoch, Seq: seq}, Kind: sse.KindEvent, Block: []byte(block)}
		if id != "" {
			f.ID = []byte(id)
		}
		return f
	}
	return []sse.Frame{
		event(1795000000000, 1, "", "data: a\n\n"),
		event(1795000000000, 2, "", "data: b\n\n"),
		event(1795000000000, 3, "up-1", "data: c\n\n"),
		event(1795000000000, 4, "up-1", "data: d\n\n"),
		{Kind: sse.KindNote, Block: []byte(": note\n")},
		{Pos: sse.Pos{Epoch: 1795000000000, Seq: 5}, Kind: sse.KindBare, ID: []byte{}, Block: []byte("event: x\n\n")},
		{Pos: sse.Pos{Epoch: 1795000000001, Seq: 5}, Kind: sse.KindFence},
		{Pos: sse.Pos{Epoch: math.MaxUint64, Seq: math.MaxUint64}, Kind: sse.KindEnd, End: sse.EndFinished, ID: []byte("z")},
		event(0, 0, "z", "\n"),
		topic(1795000000000, "m1", nil),
		topic(1795000000000, "m2", []byte("for some")),
		topic(1794999999999, "m3", []byte{}),
		topic(math.MinInt64, "", nil),
		topic(math.MaxInt64, "", []byte("x")),
		event(1795000000000, 9, "", "data: no topic's\n\n"),
	}
}

func topic(time int64, id string, meta []byte) sse.Frame {
	return sse.Frame{
		Pos: sse.Pos{Epoch: 1795000000000, Seq: 1795000000000_001}, Kind: sse.KindEvent,
		ID: []byte(id), Time: time, Meta: meta, Block: []byte("data: t\n\n"),
	}
}

func TestFramesComeBackAsTheyWere(t *testing.T) {
	f := func(frames []sse.Frame) {
		t.Helper()
		got, err := DecodeFrames(AppendFrames(nil, frames))
		if err != nil {
			t.Fatal(err)
		}
		if !reflect.DeepEqual(got, frames) {
			t.Fatalf("got %+v\nwant %+v", got, frames)
		}
	}
	f(nil)
	f(someFrames())
	f(someFrames()[:1])
	if got := AppendFrames([]byte("head"), nil); string(got) != "head\x00" {
		t.Fatalf("dst is not kept: %q", got)
	}
}

// A run of events, with or without an id of the upstream's, costs next to
// nothing besides its blocks.
func TestFramesAreSmall(t *testing.T) {
	frames := run(64, 200)
	head := len(AppendFrames(nil, frames[:1])) - len(frames[0].Block)
	if got, want := len(AppendFrames(nil, frames)), head+63*3+64*200; got != want {
		t.Fatalf("%d bytes, want %d", got, want)
	}
	for i := range frames {
		frames[i].Time = 1795000000000
	}
	if got, want := len(AppendFrames(nil, frames)), head+6+63*3+64*200; got != want {
		t.Fatalf("%d bytes with a time, want %d", got, want)
	}
}

func TestDecodedFramesAreNotCopies(t *testing.T) {
	b := AppendFrames(nil, run(3, 40))
	frames, err := DecodeFrames(b)
	if err != nil {
		t.Fatal(err)
	}
	b[len(b)-1] = '!'
	if got := frames[2].Block; got[len(got)-1] != '!' {
		t.Fatal("the block is a copy")
	}
	if cap(frames[0].Block) != len(frames[0].Block) {
		t.Fatal("appending to one frame's block would write into the next frame")
	}
	if got := testing.AllocsPerRun(100, func() { frames, _ = DecodeFrames(b) }); got > 1 {
		t.Fatalf("%v allocations", got)
	}
}

func TestGarbledFrames(t *testing.T) {
	whole := AppendFrames(nil, someFrames())
	f := func(what string, b []byte) {
		t.Helper()
		if frames, err := DecodeFrames(b); !errors.Is(err, ErrGarbled) || frames != nil {
			t.Fatalf("%s: %v, %v", what, frames, err)
		}
	}
	for n := range len(whole) {
		f(fmt.Sprintf("cut at %d", n), whole[:n])
	}
	f("more behind", append(slices.Clone(whole), 0))
	f("more than can be there", []byte{0xff, 0xff, 0xff, 0xff, 0x7f, 0, 0})
	f("a meta that is not there", []byte{1, 0x80, 5, 0})
	f("a time without end", append([]byte{1, 0x40}, bytes.Repeat([]byte{0xff}, 20)...))
}

// allocated returns the bytes that f allocates.
func allocated(f func()) uint64 {
	var before, after runtime.MemStats
	runtime.ReadMemStats(&before)
	f()
	runtime.ReadMemStats(&after)
	return after.TotalAlloc - before.TotalAlloc
}

// A message or a frame in memory takes some 80 to 110 bytes, on the wire at
// least two or three, and a growing slice is copied a few times.
const justified = 384

func FuzzDecodeMessages(f *testing.F) {
	f.Add([]byte{})
	f.Add([]byte{parcelVersion})
	f.Add(AppendMessages(nil, someMessages()))
	f.Fuzz(func(t *testing.T, b []byte) {
		var msgs []Message
		var err error
		if got := allocated(func() { msgs, err = DecodeMessages(b) }); got > uint64(justified*len(b)+1<<16) {
			t.Fatalf("%d bytes of input made %d bytes", len(b), got)
		}
		if err != nil {
			if !errors.Is(err, ErrGarbled) || msgs != nil {
				t.Fatal(msgs, err)
			}
			return
		}
		again, err := DecodeMessages(AppendMessages(nil, msgs))
		if err != nil || !reflect.DeepEqual(again, msgs) {
			t.Fatalf("%+v\nbecame %+v, %v", msgs, again, err)
		}
	})
}

func FuzzDecodeFrames(f *testing.F) {
	f.Add([]byte{})
	f.Add([]byte{0})
	f.Add(AppendFrames(nil, someFrames()))
	f.Add(AppendFrames(nil, run(5, 3)))
	f.Fuzz(func(t *testing.T, b []byte) {
		var frames []sse.Frame
		var err error
		if got := allocated(func() { frames, err = DecodeFrames(b) }); got > uint64(justified*len(b)+1<<16) {
			t.Fatalf("%d bytes of input made %d bytes", len(b), got)
		}
		if err != nil {
			if !errors.Is(err, ErrGarbled) || frames != nil {
				t.Fatal(frames, err)
			}
			return
		}
		again, err := DecodeFrames(AppendFrames(nil, frames))
		if err != nil || !reflect.DeepEqual(again, frames) {
			t.Fatalf("%+v\nbecame %+v, %v", frames, again, err)
		}
	})
}

// run is n events of one stream, with blocks of size bytes.
func run(n, size int) []sse.Frame {
	frames := make([]sse.Frame, n)
	for i := range frames {
		frames[i] = sse.Frame{
			Pos:   sse.Pos{Epoch: 1795000000000, Seq: uint64(1000 + i)},
			Kind:  sse.KindEvent,
			ID:    []byte("the-upstreams-id"),
			Block: bytes.Repeat([]byte("x"), size),
		}
	}
	return frames
}

func BenchmarkAppendFrames(b *testing.B) {
	frames := run(64, 200)
	dst := AppendFrames(nil, frames)
	b.SetBytes(int64(len(dst)))
	b.ReportAllocs()
	for b.Loop() {
		dst = AppendFrames(dst[:0], frames)
	}
}

func BenchmarkDecodeFrames(b *testing.B) {
	body := AppendFrames(nil, run(64, 200))
	b.SetBytes(int64(len(body)))
	b.ReportAllocs()
	for b.Loop() {
		if _, err := DecodeFrames(body); err != nil {
			b.Fatal(err)
		}
	}
}

func BenchmarkParcel(b *testing.B) {
	msgs := make([]Message, 64)
	for i := range msgs {
		msgs[i] = Message{From: "node-a", Kind: 1, Stream: sse.NewStreamID(), Body: bytes.Repeat([]byte("x"), 200)}
	}
	parcel := AppendMessages(nil, msgs)
	b.SetBytes(int64(len(parcel)))
	b.ReportAllocs()
	for b.Loop() {
		parcel = AppendMessages(parcel[:0], msgs)
		if _, err := DecodeMessages(parcel); err != nil {
			b.Fatal(err)
		}
	}
}

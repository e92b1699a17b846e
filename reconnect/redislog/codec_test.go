package redislog

import (
	"bytes"
	"errors"
	"fmt"
	"math"
	"slices"
	"testing"

	"ssegate/reconnect"
	"ssegate/sse"
)

func frame(seq uint64, kind sse.Kind, end sse.End, id, block string) sse.Frame {
	f := sse.Frame{Pos: sse.Pos{Epoch: 1_790_000_000_123, Seq: seq}, Kind: kind, End: end}
	if id != "" {
		f.ID = []byte(id)
	}
	if block != "" {
		f.Block = []byte(block)
	}
	return f
}

// TestEntryBytes holds the form fast: during a deploy nodes of two versions
// share a log.
func TestEntryBytes(t *testing.T) {
	f := func(wantID, wantField, wantValue string, frames ...sse.Frame) {
		t.Helper()
		id, field, value := encode(frames)
		if string(id) != wantID || string(field) != wantField || string(value) != wantValue {
			t.Errorf("got %q %q %q\nwant %q %q %q", id, field, value, wantID, wantField, wantValue)
		}
		e, err := parseEntry([]any{wantID, []any{wantField, wantValue}})
		if err != nil {
			t.Fatal(err)
		}
		got, rest, err := e.appendFrames(nil, make([]byte, e.size()), 0, math.MaxUint64)
		if err != nil || !slices.EqualFunc(got, frames, same) {
			t.Errorf("%q %q %q reads back as %v, %v", wantID, wantField, wantValue, got, err)
		}
		if len(frames) > 1 && len(rest) != 0 {
			t.Errorf("%d bytes of the buffer are left", len(rest))
		}
	}
	f("1790000000123-7", "1e0", "data: x\n\n", frame(7, sse.KindEvent, 0, "", "data: x\n\n"))
	f("1790000000123-7", "1e0:evt:9", "data: x\n\n", frame(7, sse.KindEvent, 0, "evt:9", "data: x\n\n"))
	f("1790000000123-8", "1b0:*9", "id: *9\n\n", frame(8, sse.KindBare, 0, "*9", "id: *9\n\n"))
	f("1790000000123-9", "1z1", "", frame(9, sse.KindEnd, sse.EndFinished, "", ""))
	f("1790000000123-9", "1z6:a", "", frame(9, sse.KindEnd, sse.EndDetached, "a", ""))
	f("1790000000123-10", "1z3*6",
		"\x01\x02ab"+"\x05\x01I\x02cd"+"\x09\x02ef"+"\x06\x02JJ\x00"+"\x3b\x00",
		frame(6, sse.KindEvent, 0, "", "ab"),
		frame(7, sse.KindEvent, 0, "I", "cd"),
		frame(8, sse.KindEvent, 0, "I", "ef"),
		frame(9, sse.KindBare, 0, "JJ", ""),
		frame(10, sse.KindEnd, sse.EndCut, "JJ", ""))
	long := string(bytes.Repeat([]byte("x"), 300))
	f("1790000000123-2", "1e0*1", "\x01\xac\x02"+long+"\x05\xac\x02"+long+"\x01y",
		frame(1, sse.KindEvent, 0, "", long), frame(2, sse.KindEvent, 0, long, "y"))

	meta := func(f sse.Frame, time int64, meta []byte) sse.Frame {
		f.Time, f.Meta = time, meta
		return f
	}
	f("1790000000123-9", "1e0+1@1790000000456", "\x01\x02ab", meta(frame(9, sse.KindEvent, 0, "", "ab"), 1_790_000_000_456, nil))
	f("1790000000123-9", "1e0+1", "\x85\x01I\x01m\x02ab", meta(frame(9, sse.KindEvent, 0, "I", "ab"), 0, []byte("m")))
	f("1790000000123-9", "1z3+3@7", "\x01\x02ab"+"\x85\x01I\x00\x02cd"+"\xbb\x02mm\x00",
		meta(frame(7, sse.KindEvent, 0, "", "ab"), 7, nil),
		meta(frame(8, sse.KindEvent, 0, "I", "cd"), 7, []byte{}),
		meta(frame(9, sse.KindEnd, sse.EndCut, "I", ""), 7, []byte("mm")))

	empty := frame(1, sse.KindEvent, 0, "", "z")
	empty.ID = []byte{} // an id that was reset is not the same as none
	f("1790000000123-1", "1e0:", "z", empty)
	after := frame(2, sse.KindEvent, 0, "", "z")
	third := frame(3, sse.KindEvent, 0, "", "z")
	third.ID = []byte{}
	f("1790000000123-3", "1e0*1", "\x05\x00\x01z"+"\x01\x01z"+"\x05\x00\x01z", empty, after, third)
}

func same(a, b sse.Frame) bool {
	return a.Pos == b.Pos && a.Kind == b.Kind && a.End == b.End &&
		(a.ID == nil) == (b.ID == nil) && bytes.Equal(a.ID, b.ID) && bytes.Equal(a.Block, b.Block) &&
		a.Time == b.Time && (a.Meta == nil) == (b.Meta == nil) && bytes.Equal(a.Meta, b.Meta)
}

func TestEntryGarbage(t *testing.T) {
	f := func(reply any) {
		t.Helper()
		e, err := parseEntry(reply)
		if err == nil {
			_, _, err = e.appendFrames(nil, make([]byte, e.size()), 0, math.MaxUint64)
		}
		if !errors.Is(err, reconnect.ErrBroken) {
			t.Errorf("%q: %v", reply, err)
		}
	}
	f(nil)
	f("OK")
	f([]any{})
	f([]any{"1-1"})
	f([]any{"1-1", nil})
	f([]any{"1-1", []any{}})
	f([]any{"1-1", []any{"1e0"}})
	f([]any{"1-1", []any{"1e0", "", "1e0", ""}})
	f([]any{"1-1", []any{"1e0", int64(3)}})
	f([]any{int64(1), []any{"1e0", ""}})
	for _, id := range []string{"", "1", "-", "1-", "-1", "1-0", "1-1-1", "a-1", "1-99999999999999999999", "+1-1"} {
		f([]any{id, []any{"1e0", "x"}})
	}
	for _, field := range []string{"", "1", "1e", "data", "2e0", "1?0", "1x0", "1E0", "1e/", "1e:", "1e00", "1e0x", "1e0*", "1e0*0", "1e0*8", "1e0*-1", "1e0*5x",
		"1e0+", "1e0+0", "1e0+8", "1e0+-1", "1e0+1@", "1e0+1@0", "1e0+1@x", "1e0+1@1@1", "1e0+@1"} {
		f([]any{"1-7", []any{field, "\x01\x00"}})
	}
	whole := "\x01\x02ab" + "\x05\x01I\x02cd" + "\x3b\x00"
	for n := range len(whole) {
		f([]any{"1-3", []any{"1z3*1", whole[:n]}})
	}
	f([]any{"1-3", []any{"1z3*1", whole + "x"}})
	f([]any{"1-3", []any{"1z3*1", "\x00" + whole[1:]}})
	f([]any{"1-3", []any{"1z3*1", "\x05" + whole[1:]}})
	metas := "\x01\x02ab" + "\x85\x01I\x03mmm\x02cd" + "\xbb\x00\x00"
	for n := range len(metas) {
		f([]any{"1-3", []any{"1z3+3@7", metas[:n]}})
	}
	f([]any{"1-3", []any{"1z3+3@7", metas + "x"}})
	f([]any{"1-3", []any{"1z3+2@7", metas}})
	f([]any{"1-4", []any{"1z3*1", whole}})
	f([]any{"1-2", []any{"1z3*1", whole}})
	f([]any{fmt.Sprint("1-", uint64(math.MaxUint64)), []any{"1e0*1", whole}})
	f([]any{"1-2", []any{"1e0*1", "\x01\xff\xff\xff\xff\xff\xff\xff\xff\xff\x01x\x01\x00"}})
	f([]any{"1-2", []any{"1e0*1", "\x01\xff\xff\xff\xff\xff\xff\xff\xff\xff\xff\xff\x01x"}})
}

func TestFit(t *testing.T) {
	f := func(want int, sizes ...int) {
		t.Helper()
		var frames []sse.Frame
		for _, n := range sizes {
			frames = append(frames, sse.Frame{ID: make([]byte, n/2), Block: make([]byte, n-n/2)})
		}
		if got := fit(frames); got != want {
			t.Errorf("%d of %v fit, want %d", got, sizes, want)
		}
	}
	f(1, 5)
	f(1, entryBytes*10)
	f(1, entryBytes*10, 1)
	f(1, 1, entryBytes)
	f(2, 1, entryBytes-1)
	f(3, 1, entryBytes-1, 0)
	f(entryFrames, make([]int, entryFrames)...)
	f(entryFrames, make([]int, entryFrames+1)...)

	frames := []sse.Frame{{Time: 1}, {Time: 1}, {Time: 2}}
	if n := fit(frames); n != 2 {
		t.Errorf("%d frames of two times fit, want 2", n)
	}
}

// fits reports whether frames are of the kinds and ends that there are.
func fits(frames []sse.Frame) bool {
	return !slices.ContainsFunc(frames, func(f sse.Frame) bool { return f.Kind > sse.KindEnd || f.End > endBits })
}

// TestPackPost: what is published is an entry like others.
func TestPackPost(t *testing.T) {
	var value []byte
	posts := []reconnect.Post{{Block: []byte("a")}, {ID: []byte("I"), Block: []byte("b")}, {ID: []byte("I"), Meta: []byte{}, Block: []byte("c")}, {Meta: []byte("m")}}
	for i := range posts {
		value = packPost(value, &posts[i])
	}
	e, err := parseEntry([]any{"5-5003", []any{"1e0+4@9", string(value)}})
	if err != nil {
		t.Fatal(err)
	}
	got, _, err := e.appendFrames(nil, make([]byte, e.size()), 0, math.MaxUint64)
	var want []sse.Frame
	for i, p := range posts {
		want = append(want, sse.Frame{Pos: sse.Pos{Epoch: 5, Seq: 5000 + uint64(i)}, Kind: sse.KindEvent, ID: p.ID, Meta: p.Meta, Block: p.Block, Time: 9})
	}
	if err != nil || !slices.EqualFunc(got, want, same) {
		t.Errorf("got  %v, %v\nwant %v", got, err, want)
	}
}

func FuzzEntry(f *testing.F) {
	f.Add("1-3", "1z3*1", "\x01\x02ab"+"\x05\x01I\x02cd"+"\x3b\x00", uint64(0), uint64(9))
	f.Add("1790000000123-7", "1e0:evt", "data: x\n\n", uint64(7), uint64(7))
	f.Add("1-18446744073709551615", "1e0*18446744073709551614", "\x01\x00\x01\x00", uint64(1), uint64(math.MaxUint64))
	f.Add("1-3", "1z3+3@1790000000456", "\x01\x02ab"+"\x85\x01I\x03mmm\x02cd"+"\xbb\x00\x00", uint64(0), uint64(9))
	f.Add("1-3", "1e0+1", "\x81\x00\x00", uint64(3), uint64(9))
	f.Fuzz(func(t *testing.T, id, field, value string, from, to uint64) {
		e, err := parseEntry([]any{id, []any{field, value}})
		if err != nil {
			if !errors.Is(err, reconnect.ErrBroken) {
				t.Error(err)
			}
			return
		}
		all, _, err := e.appendFrames(nil, make([]byte, e.size()), 0, math.MaxUint64)
		if err != nil {
			if !errors.Is(err, reconnect.ErrBroken) {
				t.Error(err)
			}
			return
		}
		some, _, err := e.appendFrames(nil, make([]byte, e.size()), from, to)
		if err != nil {
			t.Fatal("whole, but not in part:", err)
		}
		want := slices.DeleteFunc(slices.Clone(all), func(f sse.Frame) bool { return f.Pos.Seq < from || f.Pos.Seq > to })
		if !slices.EqualFunc(some, want, same) {
			t.Errorf("%d to %d of %v are %v", from, to, all, some)
		}
		// What was read is written and read again.
		if len(all) > 0 && fits(all) {
			id, field, value := encode(all)
			again, err := parseEntry([]any{string(id), []any{string(field), string(value)}})
			if err != nil {
				t.Fatal(err)
			}
			got, _, err := again.appendFrames(nil, make([]byte, again.size()), 0, math.MaxUint64)
			if err != nil || !slices.EqualFunc(got, all, same) {
				t.Errorf("%v reads back as %v, %v", all, got, err)
			}
		}
	})
}

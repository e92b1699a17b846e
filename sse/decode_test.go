package sse

import (
	"bytes"
	"errors"
	"slices"
	"strings"
	"testing"
	"time"
)

// TestDecoder tells what the blocks of a stream mean: first the standard's own
// examples, then what it says elsewhere. Each stream is decoded whole, byte by
// byte, and cut in two at every place.
func TestDecoder(t *testing.T) {
	f := func(name, stream string, want ...string) {
		t.Helper()
		t.Run(name, func(t *testing.T) {
			t.Helper()
			whole, _ := decode(t, stream, noLimit, nil)
			var got []string
			for _, s := range whole {
				got = append(got, s.String())
			}
			if !slices.Equal(got, want) {
				t.Fatalf("%q means\n\t%s\nwant\n\t%s", stream, strings.Join(got, "\n\t"), strings.Join(want, "\n\t"))
			}
			if slow, _ := slowDecode(stream, noLimit); !slices.Equal(slow, whole) {
				t.Fatalf("%q: got\n%+v\nwant\n%+v", stream, whole, slow)
			}
			for first := range len(stream) + 1 {
				cut := first
				pieces := func() int { n := cut; cut = len(stream); return n }
				if got, _ := decode(t, stream, noLimit, pieces); !slices.Equal(got, whole) {
					t.Fatalf("cut after %q:\n%+v\nwant\n%+v", stream[:first], got, whole)
				}
			}
			one := func() int { return 1 }
			if got, _ := decode(t, stream, noLimit, one); !slices.Equal(got, whole) {
				t.Fatalf("byte by byte:\n%+v\nwant\n%+v", got, whole)
			}
		})
	}

	f("three lines", "data: YHOO\ndata: +2\ndata: 10\n\n", `data="YHOO\n+2\n10"`)
	f("names", "event: add\ndata: 73857293\n\nevent: remove\ndata: 2153\n\n",
		`event="add" data="73857293"`, `event="remove" data="2153"`)
	f("ids", ": test stream\n\ndata: first event\nid: 1\n\ndata:second event\nid\n\ndata:  third event\n",
		`comment`, `id="1" data="first event"`, `id="" data="second event"`, `data=" third event" partial`)
	f("empty data", "data\n\ndata\ndata\n\ndata:", `data=""`, `data="\n"`, `data="" partial`)
	f("one space", "data:test\n\ndata: test\n\n", `data="test"`, `data="test"`)

	f("nothing", "")
	f("blank lines", "\n\r\n\r\r\n\n")
	f("blank lines between", "\n\ndata:1\n\n\n\r\n\rdata:2\r\r\r\rdata:3\r\n\r\n\r\n\r\n", `data="1"`, `data="2"`, `data="3"`)
	f("crlf", "id:1\r\ndata:a\r\ndata:b\r\n\r\ndata:c\r\n\r\n", `id="1" data="a\nb"`, `data="c"`)
	f("cr", "id:1\rdata:a\rdata:b\r\rdata:c\r\r", `id="1" data="a\nb"`, `data="c"`)
	f("line ends mixed", "data:a\rdata:b\ndata:c\r\n\ndata:d\n\rdata:e\r\n\rdata:f\r\r\n", `data="a\nb\nc"`, `data="d"`, `data="e"`, `data="f"`)
	f("byte order mark", "\uFEFFdata:1\n\n\uFEFFdata:2\n\n", `data="1"`, ``)
	f("two byte order marks", "\uFEFF\uFEFFdata:1\n\ndata:2\n\n", ``, `data="2"`)
	f("half a byte order mark", "\xEF\xBBdata:1\n\ndata:2\n\n", ``, `data="2"`)
	f("half a byte order mark, no more", "\xEF\xBB", `partial`)
	f("a byte order mark, no more", "\uFEFF")
	f("no colon", "data\nevent\nid\nretry\n\n", `id="" data=""`)
	f("a name that begins like one", "database:1\nevents:2\nids:3\nretry2:4\ndat:5\nDATA:6\ndata :7\n data:8\n\n", ``)
	f("unknown fields", "foo: bar\nzzz\n\ndata:1\nx:y\n\n", ``, `data="1"`)
	f("values with colons and spaces", "data: a: b \nid:  7\nevent: x:y\n\n", `id=" 7" event="x:y" data="a: b "`)
	f("the last one counts", "id:1\nid:2\nevent:a\nevent:b\nretry:1\nretry:2\ndata\n\n", `id="2" event="b" data="" retry=2`)
	f("the last one resets", "event:a\nevent\nid:1\nid\ndata\n\n", `id="" data=""`)
	f("id with NUL", "id:1\nid:a\x00b\ndata:x\n\nid:\x00\n\nid\x00:2\n\n", `id="1" data="x"`, ``)
	f("id with NUL at the end", "data:x\n\nid:\x00", `data="x"`)
	f("id with NUL and a comment", ":c\nid:\x00\n\n", `comment`)
	f("NUL elsewhere", "data:\x00\nevent:\x00\n\n", `event="\x00" data="\x00"`)
	f("retry", "retry:0\n\nretry: 1500\n\nretry:1s\n\nretry:\n\nretry\n\nretry:-1\n\nretry:+1\n\nretry:1 \n\nretry:٣\n\nretry:007\n\n",
		`retry=0`, `retry=1500`, ``, ``, ``, ``, ``, ``, ``, `retry=7`)
	f("retry that is too large", "retry:7\nretry:99999999999999999999\n\nretry:9223372036854775808\n\nretry:0000000000000000000000008\n\n",
		`retry=7`, ``, `retry=8`)
	f("comments", ":\n\n: a\n:b\n\n:data:1\ndata:2\n:c\n\n", `comment`, `comment`, `data="2"`)
	f("comment lines before an event", ":\n:\n:\ndata:1\n\n:\n", `data="1"`, `comment partial`)
	f("bare blocks", "id:1\n\nevent:x\n\nretry:1\n\n", `id="1"`, `event="x"`, `retry=1`)
	f("not UTF-8", "data:\xff\xfe\xc3\n\n", `data="\xff\xfe\xc3"`)
	f("a line that the end cut", "id:1\nretry:2\nevent:a\ndata:x\nid:99\nretry:3\ndata:y\nretry:45", `id="99" event="a" data="x\ny" retry=3 partial`)
	f("an id that the end cut", "data:x\nid:12", `data="x" partial`)
	f("a name that the end cut", "event:ping", `event="ping" partial`)
	f("a comment that the end cut", "data:1\n\n: pi", `data="1"`, `comment partial`)
	f("an end after CR", "data:x\r", `data="x" partial`)
	f("an end after CRLF", "data:x\r\n", `data="x" partial`)
	f("[DONE] without a blank line", "data: [DONE]", `data="[DONE]" partial`)
}

// TestDecoderRaw proves that a block's bytes come out as they went in.
func TestDecoderRaw(t *testing.T) {
	f := func(stream, raw string, eol EOL, mixed bool) {
		t.Helper()
		for _, piece := range []int{len(stream), 1, 3} {
			got, _ := decode(t, stream, noLimit, func() int { return piece })
			if len(got) != 1 || got[0].raw != raw || got[0].eol != eol || got[0].mixed != mixed {
				t.Errorf("%q in pieces of %d: got %+v, want raw %q, line end %q, mixed %v", stream, piece, got, raw, eol, mixed)
			}
		}
	}
	f("data:x\n\n", "data:x\n", LF, false)
	f("data: x\r\n\r\n", "data: x\r\n", CRLF, false)
	f("data: x\r\r", "data: x\r", CR, false)
	f(": c\nfoo\ndata:  x\nid:1\n\n", ": c\nfoo\ndata:  x\nid:1\n", LF, false)
	f("a\r\nb\n\n", "a\r\nb\n", CRLF, true)
	f("a\rb\r\n\n", "a\rb\r\n", CR, true)
	f("a\n\r\n", "a\n", LF, false) // the blank line's own end does not count
	f("id:\x00\ndata:x\r\nid: \x00\r\r\n", "data:x\r\n", CRLF, false)
	f("data:x\r\nda", "data:x\r\nda", CRLF, false)
	f("da", "da", LF, false)
}

// TestDecoderDispatchesAtCR proves that an event does not wait for an LF that may
// never come.
func TestDecoderDispatchesAtCR(t *testing.T) {
	for _, stream := range []string{"data:x\r\r", "data:x\r\n\r", "data:x\n\r"} {
		for _, piece := range []int{len(stream), 1} {
			d := NewDecoder(100)
			var ev Event
			var got bool
			for p := range slices.Chunk([]byte(stream), piece) {
				d.Feed(p)
				for {
					ok, err := d.Next(&ev)
					if err != nil {
						t.Fatal(err)
					}
					if !ok {
						break
					}
					got = string(ev.Data) == "x"
				}
			}
			if !got {
				t.Errorf("%q in pieces of %d: no event yet", stream, piece)
			}
			// The LF of that CRLF is no blank line of the next block.
			d.Feed([]byte("\ndata:y\n\n"))
			if ok, err := d.Next(&ev); !ok || err != nil || string(ev.Raw) != "data:y\n" {
				t.Errorf("%q: then %v, %v, %q", stream, ok, err, ev.Raw)
			}
		}
	}
}

func TestDecoderDoesNotCopy(t *testing.T) {
	p := []byte("event: n\nid: 7\ndata: hello\n\n")
	d := NewDecoder(100)
	d.Feed(p)
	var ev Event
	if ok, err := d.Next(&ev); !ok || err != nil {
		t.Fatal(ok, err)
	}
	for _, s := range []struct{ got, want []byte }{
		{ev.Raw, p}, {ev.Name, p[7:]}, {ev.ID, p[13:]}, {ev.Data, p[21:]},
	} {
		if &s.got[0] != &s.want[0] {
			t.Errorf("%q is a copy", s.got)
		}
		if cap(s.got) != len(s.got) {
			t.Errorf("append to %q would write to what was fed", s.got)
		}
	}
	if d.buf != nil || d.join != nil {
		t.Error("a buffer that nothing needed")
	}
}

func TestDecoderLimit(t *testing.T) {
	f := func(stream string, limit int, want ...string) {
		t.Helper()
		for _, piece := range []int{len(stream), 1, 2, 3, 5} {
			events, tooLarge := decode(t, stream, limit, func() int { return piece })
			var got []string
			for _, s := range events {
				got = append(got, s.String())
			}
			if tooLarge {
				got = append(got, "too large")
			}
			if !slices.Equal(got, want) {
				t.Errorf("%q with limit %d in pieces of %d: got %q, want %q", stream, limit, piece, got, want)
			}
		}
	}
	f("data:x\n\n", 7, `data="x"`)
	f("data:x\n\n", 6, `too large`)
	f("data:x\r\n\r\n", 8, `data="x"`)
	f("data:x\r\n\r\n", 7, `too large`)
	f("data:x\r\r", 7, `data="x"`)
	f("\uFEFFdata:x\n\n", 7, `data="x"`)
	f("\uFEFF\n\ndata:x\n\n\n\n\n\n\n\n\n\n\n\n", 7, `data="x"`)
	f("data:a\n\ndata:b\n\ndata:cc\n\ndata:d\n\n", 7, `data="a"`, `data="b"`, `too large`)
	f("data:a\ndata:b\n\n", 14, `data="a\nb"`)
	f("data:a\ndata:b\n\n", 13, `too large`)
	f("data:a\ndata:b", 13, `data="a\nb" partial`)
	f("data:a\ndata:bb", 13, `too large`)
	f("id:\x00\ndata:x\n\n", 11, `too large`) // lines that are left out count too
	f("\xEF\xBB", 2, `partial`)
	f("\xEF\xBB", 1, `too large`)
	f("\xEF\xBBx\n\n", 1, `too large`)
	f("a", 0, `too large`)
}

// TestDecoderLimitAtOnce proves that an upstream that never ends its line costs the
// limit and no more, and is found out there and not at its end.
func TestDecoderLimitAtOnce(t *testing.T) {
	const limit, piece = 1 << 20, 32 << 10
	fed := bytes.Repeat([]byte{'x'}, piece)
	for _, stream := range []string{"data: ", "data: a\ndata:b\n", ":"} {
		d := NewDecoder(limit)
		var ev Event
		d.Feed([]byte(stream))
		if ok, err := d.Next(&ev); ok || err != nil {
			t.Fatal(ok, err)
		}
		for n := len(stream); ; {
			d.Feed(fed)
			ok, err := d.Next(&ev)
			if n += piece; n <= limit {
				if ok || err != nil || d.Buffered() != n || cap(d.buf) > limit {
					t.Fatalf("after %d bytes: %v, %v, %d bytes buffered in %d", n, ok, err, d.Buffered(), cap(d.buf))
				}
				continue
			}
			if ok || !errors.Is(err, ErrTooLarge) || !strings.Contains(err.Error(), "1048576 bytes") {
				t.Fatalf("after %d bytes: %v, %v", n, ok, err)
			}
			break
		}
		if d.buf != nil || d.join != nil || d.in.text != nil || d.Buffered() != 0 {
			t.Error("the decoder has ended and still keeps memory")
		}
		// It stays ended.
		d.Feed([]byte("data:x\n\n"))
		if ok, err := d.Next(&ev); ok || !errors.Is(err, ErrTooLarge) {
			t.Errorf("Next after the end: %v, %v", ok, err)
		}
		if ok, err := d.Finish(&ev); ok || !errors.Is(err, ErrTooLarge) {
			t.Errorf("Finish after the end: %v, %v", ok, err)
		}
	}
}

// TestDecoderLetsGo proves that a large event leaves no large buffer behind.
func TestDecoderLetsGo(t *testing.T) {
	large := append(bytes.Repeat([]byte("data: "+strings.Repeat("x", 1000)+"\n"), 1000), '\n')
	feed := func(t *testing.T, d *Decoder, p []byte) (n int) {
		t.Helper()
		var ev Event
		d.Feed(p)
		for {
			ok, err := d.Next(&ev)
			if err != nil {
				t.Fatal(err)
			}
			if !ok {
				return n
			}
			n++
		}
	}
	f := func(name, after string, feeds int, want int) {
		t.Helper()
		t.Run(name, func(t *testing.T) {
			d := NewDecoder(2 << 20)
			if n := feed(t, d, large[:len(large)/2]); n != 0 || cap(d.buf) < len(large)/2 {
				t.Fatalf("%d events, buffer of %d", n, cap(d.buf))
			}
			if n := feed(t, d, append(large[len(large)/2:len(large):len(large)], after...)); n == 0 {
				t.Fatal("the large event did not end")
			}
			for range feeds {
				feed(t, d, []byte(after))
			}
			if kept := cap(d.buf) + cap(d.join); kept > want {
				t.Errorf("keeps %d bytes, of which %d are used", kept, d.Buffered())
			}
		})
	}
	f("nothing buffered", "", 0, 0)
	f("whole events after it", "data: x\n\n", 1, 0)
	f("small cut events after it", "x\n\ndata:", 2, keepBytes)
	f("bare comment lines after it", ":\n", 2, keepBytes)

	t.Run("a small buffer stays", func(t *testing.T) {
		d := NewDecoder(2 << 20)
		feed(t, d, []byte("data: x"))
		feed(t, d, []byte("\n\n"))
		if c := cap(d.buf); c == 0 || c > keepBytes {
			t.Errorf("buffer of %d bytes", c)
		}
	})
}

func TestDecoderBuffered(t *testing.T) {
	d := NewDecoder(100)
	var ev Event
	for _, step := range []struct {
		feed string
		want int
	}{
		{"\xEF", 1}, {"\xBB", 2}, {"\xBF", 0}, {"da", 2}, {"ta:\r", 6}, {"\n", 7}, {"data:x\n", 14}, {"\n", 0}, {"\n\n", 0}, {"data\n\nid", 2},
	} {
		d.Feed([]byte(step.feed))
		for {
			ok, err := d.Next(&ev)
			if err != nil {
				t.Fatal(err)
			}
			if !ok {
				break
			}
			if got := d.Buffered(); got != 0 {
				t.Errorf("after %q: %d of an event that was given", step.feed, got)
			}
		}
		if got := d.Buffered(); got != step.want {
			t.Errorf("after %q: %d, want %d", step.feed, got, step.want)
		}
	}
}

func TestDecoderLosesNothingUnread(t *testing.T) {
	for name, f := range map[string]func(*Decoder){
		"Feed":   func(d *Decoder) { d.Feed([]byte("data:3\n\n")) },
		"Finish": func(d *Decoder) { d.Finish(new(Event)) },
	} {
		t.Run(name, func(t *testing.T) {
			d := NewDecoder(100)
			d.Feed([]byte("data:1\n\ndata:2\n\n"))
			if ok, err := d.Next(new(Event)); !ok || err != nil {
				t.Fatal(ok, err)
			}
			defer func() {
				if recover() == nil {
					t.Error("what was unread is lost without a word")
				}
			}()
			f(d)
		})
	}
}

func TestDecoderDoesNotAllocate(t *testing.T) {
	small := bytes.Repeat(dataBlock(64, "\n"), 20)
	mixed := bytes.Repeat([]byte("id: 1\nevent: e\ndata: first\ndata: second\nretry: 10\n\n: c\n\ndata: x\r\n\r\n"), 20)
	large := append(bytes.Repeat([]byte("data: "+strings.Repeat("x", 993)+"\n"), 20), '\n')
	for _, tt := range []struct {
		name   string
		stream []byte
		events int // in stream
		piece  int
	}{
		{"one event a feed", small, 20, 64},
		{"20 events a feed", small, 20, 20 * 64},
		{"small pieces", mixed, 60, 5},
		{"cut anywhere", mixed, 60, 97},
		{"large events cut", large, 1, 7001},
	} {
		t.Run(tt.name, func(t *testing.T) {
			d := NewDecoder(1 << 20)
			var ev Event
			ring, pos := append(tt.stream, tt.stream...), 0
			fed, got := 0, 0
			run := func() {
				for range 500 {
					d.Feed(ring[pos : pos+tt.piece])
					fed += tt.piece
					pos = (pos + tt.piece) % len(tt.stream)
					for {
						ok, err := d.Next(&ev)
						if err != nil {
							t.Fatal(err)
						}
						if !ok {
							break
						}
						got++
					}
				}
			}
			if allocs := testing.AllocsPerRun(5, run); allocs != 0 {
				t.Errorf("%v allocations in 500 feeds", allocs)
			}
			if least := fed / len(tt.stream) * tt.events; got < least || got > least+tt.events {
				t.Errorf("%d events, want %d or a few more", got, least)
			}
		})
	}
}

// TestLongText proves that time grows with the length of what is read, not with
// its square, where one kind of line end is missing.
func TestLongText(t *testing.T) {
	took := func(eol EOL) time.Duration {
		text := bytes.Repeat([]byte("a"+eol.String()), 1<<19)
		start := time.Now()
		d := NewDecoder(noLimit)
		d.Feed(append(text, eol.Bytes()...))
		var ev Event
		if ok, err := d.Next(&ev); !ok || err != nil || len(ev.Raw) != len(text) {
			t.Fatal(ok, err, len(ev.Raw))
		}
		other := (eol + 1) % 3
		if got := AppendBlock(nil, &ev, nil, other); len(got) != 1<<19*len("a"+other.String())+len(other.String()) {
			t.Fatal(len(got))
		}
		if _, err := AppendMessage(nil, &Message{Data: text}, LF); err != nil {
			t.Fatal(err)
		}
		return time.Since(start)
	}
	// They cost about the same; the square would be a hundred times as much,
	// and half a minute.
	most := max(10*took(CRLF), 3*time.Second)
	for _, eol := range []EOL{LF, CR} {
		if took := took(eol); took > most {
			t.Errorf("with %q alone it took %v, more than %v", eol, took, most)
		}
	}
}

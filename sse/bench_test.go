package sse

import (
	"bytes"
	"fmt"
	"testing"
)

// dataBlock is one event of n bytes, the blank line included.
func dataBlock(n int, end string) []byte {
	b := append([]byte("data: "), bytes.Repeat([]byte{'x'}, n-len("data: ")-2*len(end))...)
	return append(b, end+end...)
}

// drain counts the events of what was fed.
func drain(b *testing.B, d *Decoder, ev *Event) (n int) {
	for {
		ok, err := d.Next(ev)
		if err != nil {
			b.Fatal(err)
		}
		if !ok {
			return n
		}
		n++
	}
}

func BenchmarkDecoder(b *testing.B) {
	token := []byte("event: delta\nid: 4711\ndata: {\"choices\":[{\"delta\":{\"content\":\"tok\"}}]}\n\n")
	for _, bb := range []struct {
		name   string
		stream []byte // whole events
		events int
	}{
		{"64B", dataBlock(64, "\n"), 1},
		{"64B/crlf", dataBlock(64, "\r\n"), 1},
		{"64B/cr", dataBlock(64, "\r"), 1},
		{"64B/20aFeed", bytes.Repeat(dataBlock(64, "\n"), 20), 20},
		{"64B/20aFeed/crlf", bytes.Repeat(dataBlock(64, "\r\n"), 20), 20},
		{"64B/1000aFeed/cr", bytes.Repeat(dataBlock(64, "\r"), 1000), 1000},
		{"1KiB", dataBlock(1024, "\n"), 1},
		{"1KiB/20aFeed", bytes.Repeat(dataBlock(1024, "\n"), 20), 20},
		{"64KiB", dataBlock(64<<10, "\n"), 1},
		{"3fields", token, 1},
		{"10dataLines", append(bytes.Repeat([]byte("data: one line\n"), 10), '\n'), 1},
	} {
		b.Run(bb.name, func(b *testing.B) {
			d, n := NewDecoder(1<<20), 0
			var ev Event
			b.SetBytes(int64(len(bb.stream)))
			b.ReportAllocs()
			for b.Loop() {
				d.Feed(bb.stream)
				n += drain(b, d, &ev)
			}
			report(b, n, b.N*bb.events)
		})
	}
}

// BenchmarkDecoderCut feeds pieces that end anywhere in an event.
func BenchmarkDecoderCut(b *testing.B) {
	for _, bb := range []struct{ event, piece int }{
		{64, 7}, {64, 50}, {64, 1000}, {1024, 700}, {1024, 4000}, {64 << 10, 16000},
	} {
		b.Run(fmt.Sprintf("%dB/%daFeed", bb.event, bb.piece), func(b *testing.B) {
			// So many events that they are a whole number of pieces.
			n := 1
			for n*bb.event%bb.piece != 0 {
				n++
			}
			stream := bytes.Repeat(dataBlock(bb.event, "\n"), n)
			d, got, pos, fed := NewDecoder(1<<20), 0, 0, 0
			var ev Event
			b.SetBytes(int64(bb.piece))
			b.ReportAllocs()
			for b.Loop() {
				d.Feed(stream[pos : pos+bb.piece])
				got += drain(b, d, &ev)
				fed += bb.piece
				if pos += bb.piece; pos == len(stream) {
					pos = 0
				}
			}
			report(b, got, fed/bb.event)
		})
	}
}

func report(b *testing.B, got, want int) {
	b.Helper()
	if got != want {
		b.Fatalf("%d events, want %d", got, want)
	}
	if got > 0 {
		b.ReportMetric(float64(b.Elapsed().Nanoseconds())/float64(got), "ns/event")
	}
}

func BenchmarkAppendBlock(b *testing.B) {
	id := []byte("Zm9vYmFyYmF6cXV4MTIzNA-18c1f00d123-4711")
	for _, bb := range []struct {
		name string
		in   string
		id   []byte
		eol  EOL
	}{
		{"verbatim", string(dataBlock(64, "\n")), nil, LF},
		{"id", string(dataBlock(64, "\n")), id, LF},
		{"id/crlfToLF", string(dataBlock(64, "\r\n")), id, LF},
		{"id/1KiB", string(dataBlock(1024, "\n")), id, LF},
		{"id/ownID", "id: 7\nevent: x\ndata: hello\n\n", id, LF},
	} {
		b.Run(bb.name, func(b *testing.B) {
			d := NewDecoder(1 << 20)
			d.Feed([]byte(bb.in))
			var ev Event
			if ok, err := d.Next(&ev); !ok || err != nil {
				b.Fatal(ok, err)
			}
			var dst []byte
			b.SetBytes(int64(len(bb.in)))
			b.ReportAllocs()
			for b.Loop() {
				dst = AppendBlock(dst[:0], &ev, bb.id, bb.eol)
			}
		})
	}
}

func BenchmarkAppendMessage(b *testing.B) {
	m := &Message{ID: []byte("Zm9vYmFyYmF6cXV4MTIzNA-1-2"), Name: "order", Data: dataBlock(256, "")}
	var dst []byte
	b.ReportAllocs()
	for b.Loop() {
		var err error
		if dst, err = AppendMessage(dst[:0], m, LF); err != nil {
			b.Fatal(err)
		}
	}
}

package client

import (
	"bytes"
	"crypto/sha256"
	"encoding/base64"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"testing"
)

// event is one for Take.
type event struct{ name, data string }

func begin(id string, total int, size int64) event {
	return event{StreamEvent, fmt.Sprintf(`{"stream":%q,"state":"begin","kind":"pieces","content_type":"text/x","total":%d,"bytes":%d}`, id, total, size)}
}

func part(id string, index int, offset int64, data string) event {
	return event{PieceEvent, fmt.Sprintf(`{"stream":%q,"index":%d,"offset":%d,"data":%q}`, id, index, offset, base64.StdEncoding.EncodeToString([]byte(data)))}
}

func end(id string, total int, all string) event {
	sum := sha256.Sum256([]byte(all))
	return event{StreamEvent, fmt.Sprintf(`{"stream":%q,"state":"end","kind":"pieces","total":%d,"bytes":%d,"sha256":%q}`, id, total, len(all), hex.EncodeToString(sum[:]))}
}

func TestReassembler(t *testing.T) {
	for name, c := range map[string]struct {
		events []event
		want   string
		err    error
	}{
		"whole":               {[]event{begin("a", 2, 6), part("a", 0, 0, "foo"), part("a", 1, 3, "bar"), end("a", 2, "foobar")}, "foobar", nil},
		"length not known":    {[]event{begin("a", 0, 0), part("a", 0, 0, "foo"), end("a", 1, "foo")}, "foo", nil},
		"a piece twice":       {[]event{begin("a", 2, 6), part("a", 0, 0, "foo"), part("a", 0, 0, "foo"), part("a", 1, 3, "bar"), end("a", 2, "foobar")}, "foobar", nil},
		"among others":        {[]event{{"info", "x"}, begin("a", 1, 3), begin("b", 1, 3), part("b", 0, 0, "bar"), part("a", 0, 0, "foo"), {"", ""}, end("a", 1, "foo")}, "foo", nil},
		"beginning not seen":  {[]event{part("a", 1, 3, "bar"), end("a", 2, "foobar")}, "", nil},
		"a piece is missing":  {[]event{begin("a", 3, 9), part("a", 0, 0, "foo"), part("a", 2, 6, "baz")}, "", ErrMissing},
		"the last is missing": {[]event{begin("a", 2, 6), part("a", 0, 0, "foo"), end("a", 2, "foobar")}, "", ErrMissing},
		"out of order":        {[]event{begin("a", 2, 6), part("a", 1, 3, "bar")}, "", ErrMissing},
		"wrong offset":        {[]event{begin("a", 2, 6), part("a", 0, 0, "foo"), part("a", 1, 4, "bar")}, "", ErrMissing},
		"one too many":        {[]event{begin("a", 1, 3), part("a", 0, 0, "foo"), part("a", 1, 3, "bar")}, "", ErrMissing},
		"other bytes":         {[]event{begin("a", 1, 3), part("a", 0, 0, "fox"), end("a", 1, "foo")}, "", ErrDigest},
		"cut":                 {[]event{begin("a", 1, 3), {StreamEvent, `{"stream":"a","state":"cut","kind":"pieces"}`}}, "", ErrCut},
		"too large":           {[]event{begin("a", 0, 0), part("a", 0, 0, "0123456789"), part("a", 1, 10, "0")}, "", ErrTooLarge},
		"announced too large": {[]event{begin("a", 1, 11)}, "", ErrTooLarge},
		"too many":            {[]event{begin("a", 0, 0), begin("b", 0, 0), begin("c", 0, 0)}, "", ErrTooLarge},
		"no JSON":             {[]event{{PieceEvent, "{"}}, "", ErrBadEvent},
		"no base64":           {[]event{begin("a", 1, 3), {PieceEvent, `{"stream":"a","index":0,"offset":0,"data":"??"}`}}, "", ErrBadEvent},
		"a stream of events":  {[]event{{StreamEvent, `{"stream":"a","state":"begin","kind":"events"}`}, {"", "x"}, {StreamEvent, `{"stream":"a","state":"end","kind":"events","events":1}`}}, "", nil},
	} {
		for _, inMemory := range []bool{true, false} {
			r := Reassembler{Most: 10, Open: 2}
			var sink, others sink
			if !inMemory {
				r.Create = func(f File) (io.WriteCloser, error) {
					if f.Stream == "a" {
						return &sink, nil
					}
					return &others, nil
				}
			}
			var got *File
			var err error
			for _, e := range c.events {
				var f *File
				if f, err = r.Take(e.name, []byte(e.data)); f != nil {
					got = f
				}
			}
			if !errors.Is(err, c.err) {
				t.Errorf("%s: %v, want %v", name, err, c.err)
			}
			var said *StreamError
			if err != nil && (!errors.As(err, &said) || r.files["a"] != nil && name != "too many") {
				t.Errorf("%s: %v, and it is not given up", name, err)
			}
			switch {
			case got == nil && c.want != "":
				t.Errorf("%s: no file", name)
			case got == nil:
			case inMemory && string(got.Data) != c.want, !inMemory && (sink.String() != c.want || !sink.closed), got.Size != int64(len(c.want)):
				t.Errorf("%s: %q %q", name, got.Data, sink.String())
			}
		}
	}
}

type sink struct {
	bytes.Buffer
	closed bool
}

func (s *sink) Close() error { s.closed = true; return nil }

func TestDrop(t *testing.T) {
	var r Reassembler
	e := begin("a", 0, 0)
	if _, err := r.Take(e.name, []byte(e.data)); err != nil {
		t.Fatal(err)
	}
	if ids := r.Drop(); len(ids) != 1 || ids[0] != "a" || len(r.files) > 0 {
		t.Errorf("%v", ids)
	}
}

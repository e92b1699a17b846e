package sse

import (
	"errors"
	"strings"
	"testing"
)

// one is the only block of a stream.
func one(t *testing.T, stream string) *Event {
	t.Helper()
	if all, _ := slowDecode(stream, noLimit); len(all) != 1 {
		t.Fatalf("%q has %d blocks", stream, len(all))
	}
	d := NewDecoder(noLimit)
	d.Feed([]byte(stream))
	var ev Event
	ok, err := d.Next(&ev)
	if !ok && err == nil {
		ok, err = d.Finish(&ev)
	}
	if !ok || err != nil {
		t.Fatalf("%q: %v, %v", stream, ok, err)
	}
	return &ev
}

func TestAppendBlock(t *testing.T) {
	f := func(stream, id string, eol EOL, want string) {
		t.Helper()
		var b []byte
		if id != "" {
			b = []byte(id)
		}
		if got := string(AppendBlock([]byte("before"), one(t, stream), b, eol)); got != "before"+want {
			t.Errorf("%q with id %q and line end %q:\n got %q\nwant %q", stream, id, eol, got, "before"+want)
		}
	}
	// Byte for byte, whatever it looks like.
	for _, s := range []string{
		"data:x\n\n", "data: x\n\n", "data:  x\n\n", "data\n\n", "foo\n: c\ndata:x\nid:7\nid: 8\nretry:1\n\n", ": c\n\n",
		"data: \xff\x00\n\n",
	} {
		f(s, "", LF, s)
		f(strings.ReplaceAll(s, "\n", "\r\n"), "", CRLF, strings.ReplaceAll(s, "\n", "\r\n"))
		f(strings.ReplaceAll(s, "\n", "\r"), "", CR, strings.ReplaceAll(s, "\n", "\r"))
	}
	// With an id.
	f("data:x\n\n", "e-1", LF, "id: e-1\ndata:x\n\n")
	f("data:x\r\n\r\n", "e-1", CRLF, "id: e-1\r\ndata:x\r\n\r\n")
	f("data:x\r\r", "e-1", CR, "id: e-1\rdata:x\r\r")
	f("id:7\ndata:x\nid\nident:3\nid: 8\n\n", "e-1", LF, "id: e-1\ndata:x\nident:3\n\n")
	f("id:7\n\n", "e-1", LF, "id: e-1\n\n")
	f("id:\x00\ndata:x\n\n", "e-1", LF, "id: e-1\ndata:x\n\n")
	// In another line end.
	f("event:a\r\ndata:x\r\n\r\n", "e-1", LF, "id: e-1\nevent:a\ndata:x\n\n")
	f("event:a\rdata:x\r\r", "", CRLF, "event:a\r\ndata:x\r\n\r\n")
	f("event:a\ndata:x\r\ndata:y\r\r", "", LF, "event:a\ndata:x\ndata:y\n\n")
	f("id:7\r\ndata:x\r\n\r\n", "e-1", LF, "id: e-1\ndata:x\n\n")
	// What the end cut.
	f("data:x", "", LF, "data:x")
	f("data:x\n", "", LF, "data:x\n")
	f("data:x\r\ndata:y\r\n", "", LF, "data:x\ndata:y\n")
	f("data:x\nda", "e-1", CRLF, "id: e-1\r\ndata:x\r\nda")
	f("data:x\nid:12", "", LF, "data:x\nid:12")
	f("data:x\nid:12", "e-1", LF, "id: e-1\ndata:x\n")
	f("id:12\nevent:x", "e-1", LF, "id:12\nevent:x")
	f(": c", "e-1", LF, ": c")
	// A byte order mark must not get to the head of a response.
	f("\n\uFEFFdata:x\n\n", "", LF, "\n")
	f("\n\uFEFFdata:x\r\n\uFEFF\r\ndata:y\r\n\uFEFFz\r\n\r\n", "", LF, "data:y\n\uFEFFz\n\n")
	f("\n\uFEFFdata:x\n\n", "e-1", LF, "id: e-1\n\uFEFFdata:x\n\n")
}

func TestAppendBlockEmptyID(t *testing.T) {
	if got := string(AppendBlock(nil, one(t, "id:7\ndata:x\n\n"), []byte{}, LF)); got != "id: \ndata:x\n\n" {
		t.Errorf("got %q: an empty id is an id", got)
	}
}

func TestAppendCommentLines(t *testing.T) {
	f := func(stream string, eol EOL, want string) {
		t.Helper()
		if got := string(AppendCommentLines([]byte("before"), one(t, stream), eol)); got != "before"+want {
			t.Errorf("%q with line end %q: got %q, want %q", stream, eol, got, "before"+want)
		}
	}
	f(": ping - 2026-11-22\r\n\r\n", CRLF, ": ping - 2026-11-22\r\n")
	f(": ping - 2026-11-22\r\n\r\n", LF, ": ping - 2026-11-22\n")
	f(":\n: a\r:b\r\n\n", CR, ":\r: a\r:b\r")
	f(": pi", LF, ": pi\n")
	f(": a\n: pi", CRLF, ": a\r\n: pi\r\n")
	f(": a\ndata:x\n: b\n\n", LF, ": a\n: b\n")
	f("data:x\n\n", LF, "")
}

func TestAppendRetry(t *testing.T) {
	if got := string(AppendRetry([]byte("before"), []byte("id: 1\ndata: x\n\n"), 1730, LF)); got != "beforeretry: 1730\nid: 1\ndata: x\n\n" {
		t.Errorf("got %q", got)
	}
	if got := string(AppendRetry(nil, nil, 0, CRLF)); got != "retry: 0\r\n" {
		t.Errorf("got %q", got)
	}
	// The upstream knows better.
	block := AppendBlock(nil, one(t, "retry:5\ndata:x\n\n"), nil, LF)
	if ev := one(t, string(AppendRetry(nil, block, 2000, LF))); ev.Retry != 5 {
		t.Errorf("retry %d, want the upstream's own", ev.Retry)
	}
}

func TestAppendMessage(t *testing.T) {
	f := func(m Message, eol EOL, want string) {
		t.Helper()
		got, err := AppendMessage([]byte("before"), &m, eol)
		if err != nil || string(got) != "before"+want {
			t.Errorf("%+v: got %q, %v, want %q", m, got, err, "before"+want)
		}
	}
	f(Message{}, LF, "data: \n\n")
	f(Message{Data: []byte("x")}, CRLF, "data: x\r\n\r\n")
	f(Message{Data: []byte("x")}, CR, "data: x\r\r")
	f(Message{ID: []byte("7"), Name: "n", Data: []byte("x"), Retry: 5}, LF, "id: 7\nevent: n\nretry: 5\ndata: x\n\n")
	f(Message{ID: []byte{}, Retry: -1}, LF, "id: \ndata: \n\n")
	f(Message{Data: []byte("a\nb\rc\r\nd")}, LF, "data: a\ndata: b\ndata: c\ndata: d\n\n")
	f(Message{Data: []byte("\n")}, LF, "data: \ndata: \n\n")
	f(Message{Data: []byte("a\r")}, LF, "data: a\ndata: \n\n")
	f(Message{Data: []byte(" a\r\n\r\n")}, LF, "data:  a\ndata: \ndata: \n\n")
	f(Message{Data: []byte("\n\nid: 1\n\n")}, LF, "data: \ndata: \ndata: id: 1\ndata: \ndata: \n\n")

	bad := func(m Message, field string) {
		t.Helper()
		got, err := AppendMessage([]byte("before"), &m, LF)
		if !errors.Is(err, ErrBadField) || !strings.HasPrefix(err.Error(), field+": ") || string(got) != "before" {
			t.Errorf("%+v: got %q, %v, want an error that names %s", m, got, err, field)
		}
	}
	for _, s := range []string{"\r", "\n", "\x00", "a\nid: 1"} {
		bad(Message{ID: []byte(s)}, "id")
		bad(Message{Name: s}, "event")
	}
}

func TestValid(t *testing.T) {
	for s, want := range map[string]bool{
		"": true, "a b": true, "ü\xff": true, "a\tb": true, "\r": false, "\n": false, "a\nb": false, "\x00": false, "a\x00": false,
	} {
		if ValidID([]byte(s)) != want || ValidName([]byte(s)) != want {
			t.Errorf("%q: want %v", s, want)
		}
	}
}

func TestEOL(t *testing.T) {
	for eol, want := range map[EOL]string{LF: "\n", CRLF: "\r\n", CR: "\r"} {
		if eol.String() != want || string(eol.Bytes()) != want {
			t.Errorf("%d: %q, %q", eol, eol.String(), eol.Bytes())
		}
	}
}

func TestEncoderDoesNotAllocate(t *testing.T) {
	dst := make([]byte, 0, 1<<10)
	id := []byte("e-1")
	m := &Message{ID: id, Name: "n", Data: []byte("a\nb"), Retry: 1}
	plain, own, crlf, comment := one(t, "data:x\n\n"), one(t, "id:1\ndata:x\n\n"), one(t, "data:x\r\n\r\n"), one(t, ":c\n\n")
	for name, f := range map[string]func(){
		"verbatim":      func() { AppendBlock(dst, plain, nil, LF) },
		"id":            func() { AppendBlock(dst, plain, id, LF) },
		"own id":        func() { AppendBlock(dst, own, id, LF) },
		"other end":     func() { AppendBlock(dst, crlf, id, LF) },
		"comment lines": func() { AppendCommentLines(dst, comment, CRLF) },
		"retry":         func() { AppendRetry(dst, plain.Raw, 1500, LF) },
		"message": func() {
			if _, err := AppendMessage(dst, m, CRLF); err != nil {
				t.Fatal(err)
			}
		},
	} {
		if got := testing.AllocsPerRun(100, f); got != 0 {
			t.Errorf("%s: %v allocations", name, got)
		}
	}
	if got := testing.AllocsPerRun(100, func() { AppendBlock(nil, plain, id, LF) }); got != 1 {
		t.Errorf("a block of its own: %v allocations, want 1", got)
	}
}

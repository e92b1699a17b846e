package e2e

import (
	"bytes"
	"compress/gzip"
	"io"
	"net"
	"regexp"
	"strings"
	"testing"
	"time"

	"github.com/andybalholm/brotli"
	"github.com/klauspost/compress/zstd"

	. "ssegate/internal/gatetest"
)

// ends asks for /hold and returns both ends, after the backend's head.
func ends(t *testing.T, b *Backend, r Request, head ...string) (*Stream, *Run) {
	t.Helper()
	c := make(chan *Stream, 1)
	go func() { c <- Do(t, r) }()
	run := b.Next()
	run.Head(head...)
	return <-c, run
}

var edgeID = regexp.MustCompile(`(?m)^id: sg1\.[A-Za-z0-9._-]{1,60}\r?\n`)

// withoutIDs is text without the id and retry lines that are the gate's.
func withoutIDs(text string) string {
	text = edgeID.ReplaceAllString(text, "")
	return regexp.MustCompile(`(?m)^retry: [0-9]+\r?\n`).ReplaceAllString(text, "")
}

// TestVerbatim: what a backend writes arrives byte for byte, but for ids
// within the blocks and comment blocks, which become lines.
func TestVerbatim(t *testing.T) {
	b := NewBackend(t)
	n := Start(t, bin, "one", config(b.URL, ""))
	for name, c := range map[string]struct{ in, out string }{
		"plain":            {"data: a\n\ndata: b\n\n", ""},
		"no space":         {"data:a\n\ndata:b\n\n", ""},
		"crlf":             {"data: a\r\n\r\ndata: b\r\n\r\n", ""},
		"fields":           {"event: x\ndata: a\ndata: b\nother: c\n\n", ""},
		"empty data":       {"data\n\ndata:\n\n", ""},
		"comment block":    {"data: a\n\n: ping\n\ndata: b\n\n", "data: a\n\n: ping\ndata: b\n\n"},
		"crlf comment":     {"data: a\r\n\r\n: ping\r\n\r\ndata: b\r\n\r\n", "data: a\r\n\r\n: ping\r\ndata: b\r\n\r\n"},
		"comment in block": {": x\ndata: a\n\n", ""},
		"mixed line ends":  {"data: a\n\ndata: b\r\n\r\n", "data: a\n\ndata: b\n\n"},
		"bom":              {"\xef\xbb\xbfdata: a\n\n", "data: a\n\n"},
		"unfinished":       {"data: a\n\ndata: b", ""}, // handed on as it is, see TestUnfinished
		"own retry":        {"retry: 7000\n\ndata: a\n\n", ""},
		"utf-8":            {"data: 流式输出\n\n", ""},
		"large":            {"data: " + strings.Repeat("x", 1<<20) + "\n\n", ""},
	} {
		t.Run(name, func(t *testing.T) {
			s, run := ends(t, b, Request{Method: "POST", URL: n.URL + "/hold"})
			for i := 0; i < len(c.in); i += 1 + len(c.in)/7 { // cut anywhere
				run.Send(c.in[i:min(len(c.in), i+1+len(c.in)/7)])
			}
			run.End()
			out := c.out
			if out == "" {
				out = c.in
			}
			raw := s.Body()
			got := withoutIDs(raw)
			if name == "own retry" {
				got = edgeID.ReplaceAllString(raw, "")
			}
			if got != out {
				t.Errorf("got  %.200q\nwant %.200q", got, out)
			}
			if !edgeID.MatchString(raw) {
				t.Errorf("no id in %.200q", raw)
			}
		})
	}
}

// TestOwnIDs: a backend's ids arrive unchanged, and nothing of ours beside
// them.
func TestOwnIDs(t *testing.T) {
	b := NewBackend(t)
	n := Start(t, bin, "one", config(b.URL, ""))
	in := "id: 1\ndata: a\n\n: ping\n\nid: 2\nevent: x\ndata: b\n\ndata: c\n\n"
	s, run := ends(t, b, Request{Method: "POST", URL: n.URL + "/hold"})
	run.Send(in)
	run.End()
	if got := s.Body(); got != in {
		t.Errorf("got %q, want %q", got, in)
	}
}

func TestIDModes(t *testing.T) {
	b := NewBackend(t)
	in := "id: 1\ndata: a\n\ndata: b\n\n"
	for mode, want := range map[string]string{
		"off": in, "upstream": in, "edge": "id: E\ndata: a\n\nid: E\ndata: b\n\n",
	} {
		n := Start(t, bin, mode, config(b.URL, `ids = "`+mode+`"`))
		s, run := ends(t, b, Request{Method: "POST", URL: n.URL + "/hold"})
		run.Send(in)
		run.End()
		if got := edgeID.ReplaceAllString(s.Body(), "id: E\n"); got != want {
			t.Errorf("%s: got %q, want %q", mode, got, want)
		}
	}
}

func TestHeartbeats(t *testing.T) {
	b := NewBackend(t)
	for style, want := range map[string]string{
		`heartbeat_style = "line"`:                               ":",
		`heartbeat_style = "comment"`:                            ":",
		"heartbeat_style = \"event\"\nheartbeat_data = \"beat\"": "data: beat",
	} {
		n := Start(t, bin, "one", config(b.URL, "heartbeat = \"50ms\"\n"+style))
		s, run := ends(t, b, Request{URL: n.URL + "/hold", Header: map[string]string{"Accept": "text/event-stream"}})
		run.Send("data: 1\n\n")
		s.Take(1)
		if line, err := s.Line(); err != nil || line != want {
			t.Errorf("%s: after silence came %q, %v", style, line, err)
		}
		run.Send("data: half")
		run.Send(" and half\n\n")
		for { // heartbeats stand between events, never within one
			ev := s.Take(1)[0]
			if ev.Data == "half and half" {
				break
			}
			if ev.Data != "beat" && ev.Data != "" {
				t.Fatalf("%s: got %q", style, ev.Data)
			}
		}
		run.End()
	}
}

func TestHead(t *testing.T) {
	b := NewBackend(t)
	n := Start(t, bin, "one", config(b.URL, ""))
	cross := map[string]string{"Origin": "https://app.example", "Accept": "text/event-stream"}
	s, run := ends(t, b, Request{URL: n.URL + "/hold", Header: cross},
		"Access-Control-Allow-Origin", "https://app.example", "Set-Cookie", "a=b", "X-Custom", "yes", "Cache-Control", "no-store")
	run.Send("data: 1\n\n")
	ev := s.Take(1)[0]
	if ev.Retry == "" {
		t.Error("EventSource got no retry hint")
	}
	for name, want := range map[string]string{
		"X-Accel-Buffering": "no", "Cache-Control": "no-store, no-transform", "Set-Cookie": "a=b", "X-Custom": "yes",
		"Access-Control-Expose-Headers": "Ssegate-Stream", "Content-Type": "text/event-stream",
	} {
		if got := s.Resp.Header.Get(name); got != want {
			t.Errorf("%s: %q, want %q", name, got, want)
		}
	}
	again := map[string]string{"Origin": "https://app.example", "Last-Event-ID": s.LastID}
	s.Close()
	back := Do(t, Request{URL: n.URL + "/hold", Header: again})
	if h := back.Resp.Header; h.Get("Set-Cookie") != "" || h.Get("Access-Control-Allow-Origin") != "https://app.example" || h.Get("X-Custom") != "yes" {
		t.Errorf("a resumed response has the head %v", h)
	}
	again["Origin"] = "https://evil.example"
	if h := Do(t, Request{URL: n.URL + "/hold", Header: again}).Resp.Header; h.Get("Access-Control-Allow-Origin") != "" {
		t.Errorf("another origin is allowed: %v", h)
	}
}

func TestCompressedUpstream(t *testing.T) {
	b := NewBackend(t)
	n := Start(t, bin, "one", config(b.URL, ""))
	type flusher interface {
		io.WriteCloser
		Flush() error
	}
	for coding, writer := range map[string]func(io.Writer) flusher{
		"gzip": func(w io.Writer) flusher { return gzip.NewWriter(w) },
		"br":   func(w io.Writer) flusher { return brotli.NewWriter(w) },
		"zstd": func(w io.Writer) flusher { z, _ := zstd.NewWriter(w); return z },
	} {
		t.Run(coding, func(t *testing.T) {
			s, run := ends(t, b, Request{URL: n.URL + "/hold", Header: map[string]string{"Accept-Encoding": coding}}, "Content-Encoding", coding)
			if s.Resp.Header.Get("Content-Encoding") != "" {
				t.Fatal("the answer says that it is encoded")
			}
			var buf bytes.Buffer
			w := writer(&buf)
			for _, d := range []string{"one", "two"} {
				io.WriteString(w, "data: "+d+"\n\n")
				w.Flush()
				run.Send(buf.String())
				buf.Reset()
				want(t, s.Take(1), []string{d}) // before the next is sent
			}
			w.Close()
			run.Send(buf.String())
			run.End()
			if _, clean := s.Rest(); !clean {
				t.Error("the end was not clean")
			}
		})
	}
	s, run := ends(t, b, Request{URL: n.URL + "/hold"}, "Content-Encoding", "rot13")
	run.Send("qngn: bar\n\n")
	run.End()
	if got := s.Body(); got != "qngn: bar\n\n" || s.Resp.Header.Get("Content-Encoding") != "rot13" {
		t.Errorf("an unknown coding was not passed through: %q", got)
	}
}

// TestHTTP10: an old client gets a body that ends with the connection, and a
// cut that it can tell from an end.
func TestHTTP10(t *testing.T) {
	b := NewBackend(t)
	n := Start(t, bin, "one", config(b.URL, ""))
	for _, cut := range []bool{false, true} {
		c, err := net.Dial("tcp", strings.TrimPrefix(n.URL, "http://"))
		if err != nil {
			t.Fatal(err)
		}
		io.WriteString(c, "GET /hold HTTP/1.0\r\nHost: x\r\n\r\n")
		run := b.Next()
		run.Head()
		run.Send("data: 1\n\n")
		if cut {
			run.Cut()
		} else {
			run.End()
		}
		c.SetDeadline(time.Now().Add(Patience))
		raw, err := io.ReadAll(c)
		c.Close()
		head, body, _ := strings.Cut(string(raw), "\r\n\r\n")
		if strings.Contains(head, "chunked") || withoutIDs(body) != "data: 1\n\n" {
			t.Errorf("cut %v: got %q", cut, raw)
		}
		if (err != nil) != cut {
			t.Errorf("cut %v: the connection ended with %v", cut, err)
		}
	}
}

// TestUpstreamIsKeptInTheDark: nothing of ours goes upstream but what says who
// asks.
func TestUpstreamIsKeptInTheDark(t *testing.T) {
	b := NewBackend(t)
	n := Start(t, bin, "one", config(b.URL, ""))
	s, run := ends(t, b, Request{URL: n.URL + "/hold?x=1", Header: map[string]string{"X-Custom": "v", "Connection": "X-Hop", "X-Hop": "gone"}})
	run.End()
	s.Rest()
	var odd []string
	for name := range run.Request.Header {
		switch name {
		case "X-Custom", "User-Agent", "X-Forwarded-For", "X-Forwarded-Proto", "X-Forwarded-Host", "X-Request-Id":
		default:
			odd = append(odd, name)
		}
	}
	if len(odd) > 0 {
		t.Errorf("the upstream also got %v", odd)
	}
	if run.Request.Host != strings.TrimPrefix(n.URL, "http://") {
		t.Errorf("Host is %q", run.Request.Host)
	}
}

// TestUnfinished: what a body ends with in the middle of an event is no event:
// nobody comes back for it, and a feed is asked again.
func TestUnfinished(t *testing.T) {
	b := NewBackend(t)
	n := Start(t, bin, "one", config(b.URL, ""))
	s, run := ends(t, b, Request{URL: n.URL + "/hold", Header: map[string]string{"Accept": "text/event-stream"}})
	run.Send("data: a\n\ndata: half")
	want(t, s.Take(1), []string{"a"})
	run.End()
	s.Rest()
	again, _ := ends(t, b, Request{URL: n.URL + "/hold", Header: map[string]string{"Accept": "text/event-stream", "Last-Event-ID": s.LastID}})
	again.Close()
}

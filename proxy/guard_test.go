package proxy

import (
	"bufio"
	"bytes"
	"fmt"
	"io"
	"math/rand/v2"
	"net"
	"net/http"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"
)

// What two implementations could take for two different requests is refused,
// the connection is closed, and nothing of it goes upstream.
func TestSmuggling(t *testing.T) {
	addr, seen := echo(t)
	w := newWorld(t, []string{addr})
	const next = "GET /smuggled HTTP/1.1\r\nHost: h\r\n\r\n"
	f := func(request string, status int, reason string) {
		t.Helper()
		c := w.dial()
		c.send(request)
		resp, body := c.response("GET")
		if resp.StatusCode != status || !strings.Contains(body, `"reason":"`+reason+`"`) || !resp.Close || resp.Header.Get("Content-Type") != "application/json" {
			t.Errorf("%q: %d %s", request, resp.StatusCode, body)
		}
		c.CloseWrite()
		if rest, err := c.rest(); rest != "" || err != nil {
			t.Errorf("%q: behind the answer: %q, %v", request, rest, err)
		}
		select {
		case got := <-seen:
			t.Errorf("%q arrived as %q", request, got)
		default:
		}
	}
	post := func(head string) string { return "POST / HTTP/1.1\r\nHost: h\r\n" + head }

	// Framing.
	f(post("Content-Length: 5\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n")+next, 400, "bad_framing")
	f(post("Transfer-Encoding: chunked\r\nContent-Length: 5\r\n\r\n0\r\n\r\n")+next, 400, "bad_framing")
	f(post("Transfer-Encoding: chunked\r\nContent-Length: 0\r\n\r\n0\r\n\r\n")+next, 400, "bad_framing")
	f(post("Content-Length: 5\r\nContent-Length: 5\r\n\r\nabcde")+next, 400, "bad_head")
	f(post("Content-Length: 5\r\nContent-Length: 6\r\n\r\nabcde")+next, 400, "bad_head")
	f(post("Content-Length: 5, 5\r\n\r\nabcde")+next, 400, "bad_head")
	f(post("Content-Length: +5\r\n\r\nabcde")+next, 400, "bad_head")
	f(post("Content-Length: -1\r\n\r\nabcde")+next, 400, "bad_head")
	f(post("Content-Length: 0x5\r\n\r\nabcde")+next, 400, "bad_head")
	f(post("Content-Length: 5 5\r\n\r\nabcde")+next, 400, "bad_head")
	f(post("Content-Length:\r\n\r\nabcde")+next, 400, "bad_head")
	f(post("Content-Length: 99999999999999999999\r\n\r\n")+next, 400, "bad_head")
	f(post("Transfer-Encoding: identity\r\n\r\n")+next, 400, "bad_framing")
	f(post("Transfer-Encoding: identity\r\nContent-Length: 5\r\n\r\nabcde")+next, 400, "bad_framing")
	f(post("Transfer-Encoding: gzip, chunked\r\n\r\n0\r\n\r\n")+next, 400, "bad_head")
	f(post("Transfer-Encoding: xchunked\r\n\r\n0\r\n\r\n")+next, 400, "bad_head")
	f(post("Transfer-Encoding: \x0bchunked\r\n\r\n0\r\n\r\n")+next, 400, "bad_head")
	f(post("Transfer-Encoding: chunked\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n")+next, 400, "bad_head")
	f(post("Transfer-Encoding: chunked\r\nTransfer-encoding: identity\r\n\r\n0\r\n\r\n")+next, 400, "bad_head")
	f(post("Transfer-Encoding:\r\n\r\n0\r\n\r\n")+next, 400, "bad_head")
	f("POST / HTTP/1.0\r\nHost: h\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n"+next, 400, "bad_framing")
	// Lines.
	f(post("X-A: 1\r\n folded\r\n\r\n")+next, 400, "bad_head")
	f(post("X-A: 1\r\n\tfolded\r\n\r\n")+next, 400, "bad_head")
	f("GET / HTTP/1.1\r\n Host: h\r\n\r\n"+next, 400, "bad_head")
	f(post("Content-Length : 5\r\n\r\nabcde")+next, 400, "bad_head")
	f(post("Transfer-Encoding\t: chunked\r\n\r\n0\r\n\r\n")+next, 400, "bad_head")
	f(post("X A: 1\r\n\r\n")+next, 400, "bad_head")
	f(post(": 1\r\n\r\n")+next, 400, "bad_head")
	f(post("no colon\r\n\r\n")+next, 400, "bad_head")
	f(post("X-A: a\x00b\r\n\r\n")+next, 400, "bad_head")
	f(post("X-\x00A: b\r\n\r\n")+next, 400, "bad_head")
	f(post("X-A: a\rb\r\n\r\n")+next, 400, "bad_head")
	f(post("X-A: a\r\r\nX-B: b\r\n\r\n")+next, 400, "bad_head")
	f(post("X-A: a\nContent-Length: 5\r\n\r\nabcde")+next, 400, "bad_head")
	f(post("X-A: a\n\r\n\r\n")+next, 400, "bad_head")
	f(post("X-A: a\r\n\n")+next, 400, "bad_head")
	f(post("X-\xc3\xa4: a\r\n\r\n")+next, 400, "bad_head")
	f(post("X-A(b): a\r\n\r\n")+next, 400, "bad_head")
	// Host.
	f("GET / HTTP/1.1\r\n\r\n"+next, 400, "bad_head")
	f("GET / HTTP/1.1\r\nX-A: b\r\n\r\n"+next, 400, "bad_head")
	f("GET / HTTP/1.1\r\nHost:\r\n\r\n"+next, 400, "bad_head")
	f("GET / HTTP/1.1\r\nHost: a\r\nHost: b\r\n\r\n"+next, 400, "bad_head")
	f("GET / HTTP/1.1\r\nHost: a\r\nhost: a\r\n\r\n"+next, 400, "bad_head")
	f("GET / HTTP/1.1\r\nHost: a/b\r\n\r\n"+next, 400, "bad_head")
	f("GET / HTTP/1.1\r\nHost: a@b\r\n\r\n"+next, 400, "bad_host")
	f("GET / HTTP/1.1\r\nHost: a, b\r\n\r\n"+next, 400, "bad_head")
	f("GET / HTTP/1.1\r\nHost: a b\r\n\r\n"+next, 400, "bad_head")
	f("GET http://other/ HTTP/1.1\r\nHost: h\r\n\r\n"+next, 400, "bad_target")
	f("GET http://u@h/ HTTP/1.1\r\nHost: h\r\n\r\n"+next, 400, "bad_target")
	f("GET http://h:80/ HTTP/1.1\r\nHost: h\r\n\r\n"+next, 400, "bad_target")
	f("GET ftp://h/ HTTP/1.1\r\nHost: h\r\n\r\n"+next, 400, "bad_target")
	f("GET http:///x HTTP/1.0\r\n\r\n"+next, 400, "bad_target")
	// Request line.
	f("GET * HTTP/1.1\r\nHost: h\r\n\r\n"+next, 400, "bad_target")
	f("GET x HTTP/1.1\r\nHost: h\r\n\r\n"+next, 400, "bad_head")
	f("CONNECT h:443 HTTP/1.1\r\nHost: h:443\r\n\r\n"+next, 501, "connect_unsupported")
	f("GET / HTTP/1.2\r\nHost: h\r\n\r\n"+next, 505, "bad_version")
	f("PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n", 505, "bad_version")
	f("GET / HTTP/11\r\nHost: h\r\n\r\n"+next, 400, "bad_head")
	f("GET / HTTP/1.1 \r\nHost: h\r\n\r\n"+next, 400, "bad_head")
	f("GET / HTTP/1.1\r\r\nHost: h\r\n\r\n"+next, 400, "bad_head")
	f("GET  / HTTP/1.1\r\nHost: h\r\n\r\n"+next, 400, "bad_head")
	f("GET /a b HTTP/1.1\r\nHost: h\r\n\r\n"+next, 400, "bad_head")
	f("GET /a\x00b HTTP/1.1\r\nHost: h\r\n\r\n"+next, 400, "bad_head")
	f("GET /a\rb HTTP/1.1\r\nHost: h\r\n\r\n"+next, 400, "bad_head")
	f("GET /\x7f HTTP/1.1\r\nHost: h\r\n\r\n"+next, 400, "bad_head")
	f("G(T / HTTP/1.1\r\nHost: h\r\n\r\n"+next, 400, "bad_head")
	f("G\x00T / HTTP/1.1\r\nHost: h\r\n\r\n"+next, 400, "bad_head")
	f(" GET / HTTP/1.1\r\nHost: h\r\n\r\n"+next, 400, "bad_head")
	f("GET /\r\nHost: h\r\n\r\n"+next, 400, "bad_head")
	f("\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03\r\n\r\n", 400, "bad_head")
	// Too much of it.
	f("GET /"+strings.Repeat("a", 70<<10)+" HTTP/1.1\r\nHost: h\r\n\r\n", 431, "head_too_large")
	f(post(strings.Repeat("X-A: b\r\n", 10000)), 431, "head_too_large")
	f(post(strings.Repeat("a:\r\n", 1000)+"\r\n"), 431, "head_too_large")

	// And what is odd, but means one thing only, passes.
	for _, ok := range []string{
		"\r\nGET / HTTP/1.1\r\nHost: h\r\n\r\n",
		"GET / HTTP/1.1\r\nHost:h\r\nX-A:\tb \t\r\n\r\n",
		"GET / HTTP/1.1\r\nHost: [::1]:8080\r\n\r\n",
		"GET / HTTP/1.1\r\nHost: h_1.example.com.\r\nX-A: \xff\r\n\r\n",
		"GET http://h HTTP/1.1\r\nHost: H\r\n\r\n",
		"GET https://h?a HTTP/1.1\r\nHost: H\r\n\r\n",
		"M-SEARCH / HTTP/1.1\r\nHost: h\r\n\r\n",
		"GET / HTTP/1.1\r\nHost: h\r\nCookie: " + strings.Repeat("c", 30<<10) + "\r\n\r\n",
		"GET / HTTP/1.1\r\nHost: h\r\nContent-Length: 0005\r\n\r\nabcde",
		"POST / HTTP/1.1\r\nHost: h\r\nTransfer-Encoding: CHUNKED\r\n\r\n0\r\n\r\n",
	} {
		c := w.dial()
		c.send(ok)
		if resp, body := c.response("GET"); resp.StatusCode != 200 {
			t.Errorf("%q: %d %s", ok, resp.StatusCode, body)
		} else {
			<-seen
		}
	}
}

// A chunked body must leave no doubt about where it ends.
func TestChunkSmuggling(t *testing.T) {
	var whole atomic.Int64
	paths := make(chan string, 1000)
	addr := handler(t, func(w http.ResponseWriter, r *http.Request) {
		paths <- r.URL.Path
		if _, err := io.Copy(io.Discard, r.Body); err == nil {
			whole.Add(1)
		}
	})
	w := newWorld(t, []string{addr})
	const next = "GET /smuggled HTTP/1.1\r\nHost: h\r\n\r\n"
	for _, body := range []string{
		"5\nabcde\r\n0\r\n\r\n",
		"5\r\nabcde\n0\r\n\r\n",
		"5\r\nabcdef\r\n0\r\n\r\n",
		"5\r\nabcde0\r\n\r\n",
		"5\r\nabcde\r0\r\n\r\n",
		"\r\n5\r\nabcde\r\n0\r\n\r\n",
		" 5\r\nabcde\r\n0\r\n\r\n",
		"0x5\r\nabcde\r\n0\r\n\r\n",
		"+5\r\nabcde\r\n0\r\n\r\n",
		"-5\r\nabcde\r\n0\r\n\r\n",
		"5g\r\nabcde\r\n0\r\n\r\n",
		"5 5\r\nabcde\r\n0\r\n\r\n",
		"5;a\nb\r\nabcde\r\n0\r\n\r\n",
		"5;a\rb\r\nabcde\r\n0\r\n\r\n",
		"5;a\x00b\r\nabcde\r\n0\r\n\r\n",
		"5;" + strings.Repeat("a", 2000) + "\r\nabcde\r\n0\r\n\r\n",
		"10000000000000005\r\nabcde\r\n0\r\n\r\n",
		"ffffffffffffffff\r\nabcde\r\n0\r\n\r\n",
		"8000000000000000\r\nabcde\r\n0\r\n\r\n",
		strings.Repeat("0", 2000) + "5\r\nabcde\r\n0\r\n\r\n",
		"\r\n",
		"g\r\n",
		"0\r\n\n",
		"0\n\r\n",
		"0\r\nX-A\r\n\r\n",
		"0\r\nX A: b\r\n\r\n",
		"0\r\n X-A: b\r\n\r\n",
		"0\r\nX-A: b\n\r\n",
		"0\r\nX-A: b\x00\r\n\r\n",
		"0\r\nX-A: b\rc\r\n\r\n",
		"0\r\n" + strings.Repeat("X-A: b\r\n", 20000) + "\r\n",
	} {
		c := w.dial()
		go io.WriteString(c.TCPConn, "POST /it HTTP/1.1\r\nHost: h\r\nTransfer-Encoding: chunked\r\n\r\n"+body+next)
		resp, text := c.response("POST")
		if resp.StatusCode != 400 || !strings.Contains(text, `"bad_body"`) || !resp.Close {
			t.Errorf("%.60q: %d %s", body, resp.StatusCode, text)
		}
		c.CloseWrite()
		if rest, err := c.rest(); rest != "" || err != nil {
			t.Errorf("%.60q: behind the answer: %q, %v", body, rest, err)
		}
	}
	if n := whole.Load(); n != 0 {
		t.Errorf("%d bodies were whole to the upstream", n)
	}
	for len(paths) > 0 {
		if path := <-paths; path != "/it" {
			t.Errorf("%s arrived", path)
		}
	}
	// Odd, but clear.
	for _, body := range []string{"5\r\nabcde\r\n0\r\n\r\n", "005;a=b;c=\"d\"\r\nabcde\r\n000\r\nX-A: b\r\n\r\n", "5  \r\nabcde\r\n0\r\n\r\n", "5 ; a\r\nabcde\r\n0;x\r\n\r\n"} {
		c := w.dial()
		c.send("POST /odd HTTP/1.1\r\nHost: h\r\nTransfer-Encoding: chunked\r\n\r\n" + body + next)
		for _, path := range []string{"/odd", "/smuggled"} {
			if resp, text := c.response("POST"); resp.StatusCode != 200 {
				t.Errorf("%q: %d %s", body, resp.StatusCode, text)
			}
			got := wait(t, "the backend", paths)
			for got == "/it" { // a broken one from above, late
				got = wait(t, "the backend", paths)
			}
			if got != path {
				t.Errorf("%q: %s arrived", body, got)
			}
		}
	}
}

// 10 000 random and broken requests: nothing crashes, nothing hangs, memory
// stays within bounds, and a good request is served as before.
func TestBrokenRequests(t *testing.T) {
	addr := handler(t, func(w http.ResponseWriter, r *http.Request) {
		io.Copy(io.Discard, r.Body)
		io.WriteString(w, "fine")
	})
	w := newWorld(t, []string{addr}, func(cfg *Config, _ *Route) {
		cfg.HeadTimeout, cfg.BodyTimeout, cfg.IdleTimeout = time.Second, time.Second, time.Second
	})
	seeds := []string{
		"GET / HTTP/1.1\r\nHost: h\r\nAccept: text/event-stream\r\nConnection: keep-alive\r\n\r\n",
		"POST /a?b HTTP/1.1\r\nHost: h\r\nContent-Length: 12\r\n\r\nabcdefghijkl",
		"POST /c HTTP/1.1\r\nHost: h\r\nTransfer-Encoding: chunked\r\nTrailer: X-T\r\n\r\n5\r\nabcde\r\n3;x=y\r\nfgh\r\n0\r\nX-T: 1\r\n\r\n",
		"PUT /d HTTP/1.1\r\nHost: h\r\nExpect: 100-continue\r\nContent-Length: 3\r\n\r\nabc",
		"GET /ws HTTP/1.1\r\nHost: h\r\nConnection: Upgrade\r\nUpgrade: websocket\r\nSec-WebSocket-Key: x\r\n\r\n\x81\x85abcd",
		"HEAD http://h/e HTTP/1.0\r\nHost: h\r\nX-Forwarded-For: 1, 2\r\n\r\n",
		"OPTIONS * HTTP/1.1\r\nHost: h\r\nTE: trailers\r\n\r\n",
	}
	const total, at = 10_000, 8
	var group sync.WaitGroup
	var answered, hung atomic.Int64
	grew := peak(func() {
		for worker := range at {
			group.Go(func() {
				r := rand.New(rand.NewPCG(42, uint64(worker)))
				for range total / at {
					if hostile(w.addr, breakUp(r, seeds), r, &answered) {
						hung.Add(1)
					}
				}
			})
		}
		group.Wait()
	})
	if n := hung.Load(); n > 0 {
		t.Errorf("%d requests hung", n)
	}
	if n := answered.Load(); n < total/4 {
		t.Errorf("only %d of %d were answered at all", n, total)
	}
	if grew > 64<<20 {
		t.Errorf("the heap grew by %d MiB", grew>>20)
	}
	if n := w.refused("panic"); n != 0 {
		t.Errorf("%d panics", n)
	}
	if resp, body := w.get("/"); resp.StatusCode != 200 || body != "fine" {
		t.Errorf("afterwards: %d %q", resp.StatusCode, body)
	}
}

// breakUp makes a request that is broken in a way of its own, most of the time.
func breakUp(r *rand.Rand, seeds []string) []byte {
	b := []byte(seeds[r.IntN(len(seeds))])
	if r.IntN(20) == 0 {
		b = make([]byte, r.IntN(400))
		for i := range b {
			b[i] = byte(r.Uint32())
		}
		return b
	}
	junk := []string{"\r", "\n", "\r\n", "\x00", " ", "\t", ":", "\r\n ", "0", "-1", "chunked", ", ", "Content-Length: 5\r\n",
		"Transfer-Encoding: chunked\r\n", "Host: x\r\n", "\xff\xfe", "%", strings.Repeat("A", 5000), "HTTP/1.1", "\r\n\r\n"}
	for range r.IntN(5) {
		i := r.IntN(len(b) + 1)
		switch r.IntN(4) {
		case 0:
			b = append(b[:i:i], append([]byte(junk[r.IntN(len(junk))]), b[i:]...)...)
		case 1:
			if i < len(b) {
				b[i] = byte(r.Uint32())
			}
		case 2:
			b = append(b[:i:i], b[min(len(b), i+r.IntN(20)):]...)
		case 3:
			b = append(b, b[:i]...)
		}
		if len(b) == 0 {
			break
		}
	}
	return b
}

// hostile sends bytes in pieces, and reads until the gate closes.
func hostile(addr string, b []byte, r *rand.Rand, answered *atomic.Int64) (hung bool) {
	c, err := net.Dial("tcp", addr)
	if err != nil {
		return false
	}
	defer c.Close()
	c.SetDeadline(time.Now().Add(patience))
	for len(b) > 0 {
		n := 1 + r.IntN(len(b))
		if _, err := c.Write(b[:n]); err != nil {
			break
		}
		b = b[n:]
	}
	switch r.IntN(8) {
	case 0: // gone
		return false
	case 1: // reset
		c.(*net.TCPConn).SetLinger(0)
		return false
	}
	c.(*net.TCPConn).CloseWrite()
	var got bytes.Buffer
	_, err = io.Copy(&got, c)
	if e, ok := err.(net.Error); ok && e.Timeout() {
		return true
	}
	if bytes.HasPrefix(got.Bytes(), []byte("HTTP/1.1 ")) {
		answered.Add(1)
	}
	return false
}

// Answers that are no answers are 502 with a reason, or a cut where the head
// was fine, in bounded memory.
func TestHostileUpstream(t *testing.T) {
	huge := func(c net.Conn, what string) {
		for range 10_000 { // 100 MB, or until the gate has enough
			if _, err := io.WriteString(c, what); err != nil {
				return
			}
		}
	}
	line := "X-A: " + strings.Repeat("a", 10_000) + "\r\n"
	for name, test := range map[string]struct {
		do     func(net.Conn, *bufio.Reader)
		status int
		reason string
	}{
		"nothing":        {func(net.Conn, *bufio.Reader) {}, 502, "upstream_closed"},
		"garbage":        {say("\x00\xff\x16\x03 garbage\r\n\r\n"), 502, "upstream_bad_answer"},
		"another tongue": {say("SSH-2.0-OpenSSH_9.2\r\n"), 502, "upstream_bad_answer"},
		"half a head":    {say("HTTP/1.1 200 OK\r\nContent-Le"), 502, "upstream_bad_answer"},
		"two lengths":    {say("HTTP/1.1 200 OK\r\nContent-Length: 3\r\nContent-Length: 4\r\n\r\nabcd"), 502, "upstream_bad_answer"},
		"odd length":     {say("HTTP/1.1 200 OK\r\nContent-Length: -3\r\n\r\nabcd"), 502, "upstream_bad_answer"},
		"odd coding":     {say("HTTP/1.1 200 OK\r\nTransfer-Encoding: gzip, chunked\r\n\r\n0\r\n\r\n"), 502, "upstream_bad_answer"},
		"status 099":     {say("HTTP/1.1 99 x\r\n\r\n"), 502, "upstream_bad_answer"},
		"status abc":     {say("HTTP/1.1 abc x\r\n\r\n"), 502, "upstream_bad_answer"},
		"NUL":            {say("HTTP/1.1 200 OK\r\nX-A: a\x00b\r\nContent-Length: 0\r\n\r\n"), 502, "upstream_bad_answer"},
		"bare CR":        {say("HTTP/1.1 200 OK\r\nX-A: a\rX-B: b\r\nContent-Length: 0\r\n\r\n"), 502, "upstream_bad_answer"},
		"no colon":       {say("HTTP/1.1 200 OK\r\nX-A\r\nContent-Length: 0\r\n\r\n"), 502, "upstream_bad_answer"},
		"odd name":       {say("HTTP/1.1 200 OK\r\nX A: b\r\nContent-Length: 0\r\n\r\n"), 502, "upstream_bad_answer"},
		"unasked switch": {say("HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: x\r\n\r\n"), 502, "upstream_bad_answer"},
		"endless head":   {func(c net.Conn, _ *bufio.Reader) { io.WriteString(c, "HTTP/1.1 200 OK\r\n"); huge(c, line) }, 502, "upstream_bad_answer"},
		"endless line": {func(c net.Conn, _ *bufio.Reader) {
			io.WriteString(c, "HTTP/1.1 200 OK\r\nX: ")
			huge(c, strings.Repeat("a", 10_000))
		}, 502, "upstream_bad_answer"},
		"endless status": {func(c net.Conn, _ *bufio.Reader) { huge(c, strings.Repeat("a", 10_000)) }, 502, "upstream_bad_answer"},
		"dripping head": {func(c net.Conn, r *bufio.Reader) {
			io.WriteString(c, "HTTP/1.1 200 OK\r\n")
			io.Copy(io.Discard, r)
		}, 504, "upstream_timeout"},
		"silence": {func(c net.Conn, r *bufio.Reader) { io.Copy(io.Discard, r) }, 504, "upstream_timeout"},
	} {
		t.Run(name, func(t *testing.T) {
			var asked atomic.Int64
			addr := rawBackend(t, func(c net.Conn, r *bufio.Reader) {
				readRequest(r)
				asked.Add(1)
				test.do(c, r)
			})
			w := newWorld(t, []string{addr}, func(_ *Config, r *Route) { r.Upstream.HeaderTimeout = 300 * time.Millisecond })
			grew := peak(func() {
				resp, body := w.get("/")
				if resp.StatusCode != test.status || !strings.Contains(body, `"reason":"`+test.reason+`"`) {
					t.Errorf("%d %s, want %d %s", resp.StatusCode, body, test.status, test.reason)
				}
				if id := resp.Header.Get("X-Request-Id"); id == "" || !strings.Contains(body, `"request_id":"`+id+`"`) {
					t.Errorf("request id %q, %s", id, body)
				}
			})
			if grew > 8<<20 {
				t.Errorf("the heap grew by %d KiB", grew>>10)
			}
			if n := asked.Load(); n != 1 {
				t.Errorf("asked %d times", n)
			}
			if n := w.refused(test.reason); n != 1 {
				t.Errorf("counted %d", n)
			}
		})
	}
}

func say(what string) func(net.Conn, *bufio.Reader) {
	return func(c net.Conn, _ *bufio.Reader) { io.WriteString(c, what) }
}

// Random answers: no crash, no hang, and the client is never told that a
// broken one was whole.
func TestBrokenAnswers(t *testing.T) {
	seeds := []string{
		"HTTP/1.1 200 OK\r\nContent-Length: 5\r\nSet-Cookie: a\r\n\r\nabcde",
		"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\nTrailer: X-T\r\n\r\n5\r\nabcde\r\n3\r\nfgh\r\n0\r\nX-T: 1\r\n\r\n",
		"HTTP/1.1 103 Early Hints\r\nLink: a\r\n\r\nHTTP/1.1 200 OK\r\nConnection: close\r\n\r\nabc",
		"HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: x\r\n\r\nabc",
		"HTTP/1.0 302 Found\r\nLocation: /\r\n\r\n",
	}
	var mu sync.Mutex
	r := rand.New(rand.NewPCG(7, 7))
	addr := rawBackend(t, func(c net.Conn, br *bufio.Reader) {
		if _, err := readRequest(br); err != nil {
			return
		}
		mu.Lock()
		b := breakUp(r, seeds)
		mu.Unlock()
		c.Write(b)
	})
	w := newWorld(t, []string{addr}, func(_ *Config, r *Route) { r.Upstream.HeaderTimeout = time.Second })
	statuses := map[string]int{}
	grew := peak(func() {
		for i := range 2_000 {
			c, err := net.Dial("tcp", w.addr)
			if err != nil {
				t.Fatal(err)
			}
			c.SetDeadline(time.Now().Add(patience))
			up := ""
			if i%5 == 0 {
				up = "Connection: Upgrade\r\nUpgrade: x\r\n"
			}
			fmt.Fprintf(c, "GET / HTTP/1.1\r\nHost: h\r\n%s\r\n", up)
			c.(*net.TCPConn).CloseWrite()
			got, err := io.ReadAll(c)
			if e, ok := err.(net.Error); ok && e.Timeout() {
				t.Fatalf("hung after %q", got)
			}
			status, _, _ := strings.Cut(strings.TrimPrefix(string(got), "HTTP/1.1 "), " ")
			statuses[status]++
			c.Close()
		}
	})
	if statuses["502"] < 100 || statuses["200"] < 100 {
		t.Errorf("%v", statuses)
	}
	if grew > 32<<20 {
		t.Errorf("the heap grew by %d MiB", grew>>20)
	}
	if n := w.refused("panic"); n != 0 {
		t.Errorf("%d panics", n)
	}
}

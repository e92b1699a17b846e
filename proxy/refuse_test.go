package proxy

import (
	"encoding/json"
	"errors"
	"io"
	"net"
	"regexp"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/valyala/fasthttp"
)

// serve starts a server with our settings around any handler of exchanges.
func serve(t *testing.T, f func(*Proxy, *exchange)) *world {
	t.Helper()
	w := newWorld(t, nil)
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	server := w.p.Server()
	server.Handler = func(ctx *fasthttp.RequestCtx) {
		x := w.p.newExchange(ctx)
		defer x.end()
		if bad := x.guard(); bad != nil {
			t.Error(bad)
		}
		f(w.p, x)
	}
	done := make(chan error, 1)
	go func() { done <- server.Serve(ln) }()
	t.Cleanup(func() {
		if err := server.Shutdown(); err != nil {
			t.Error(err)
		}
		<-done
	})
	w.addr = ln.Addr().String()
	w.url = "http://" + w.addr
	return w
}

func TestRefuse(t *testing.T) {
	w := serve(t, func(p *Proxy, x *exchange) { p.refuse(x, "full", 2*time.Second) })
	line := regexp.MustCompile(`^retry: (\d+)\n$`)
	seen := map[int]bool{}
	for range 20 {
		c := w.dial()
		c.send("GET / HTTP/1.1\r\nHost: h\r\nAccept: text/event-stream\r\nOrigin: https://page.example\r\n\r\n")
		head := c.head()
		for _, want := range []string{"HTTP/1.1 200 OK\r\n", "Content-Type: text/event-stream\r\n", "Transfer-Encoding: chunked\r\n", "Connection: close\r\n",
			"Access-Control-Allow-Origin: https://page.example\r\n", "Cache-Control: no-cache, no-transform\r\n", "X-Accel-Buffering: no\r\n"} {
			if !strings.Contains(head, want) {
				t.Fatalf("no %q in %q", want, head)
			}
		}
		rest, err := c.rest()
		if err != nil {
			t.Fatal(err)
		}
		size, rest, _ := strings.Cut(rest, "\r\n")
		text, rest, _ := strings.Cut(rest, "\r\n")
		n, _ := strconv.ParseInt(size, 16, 0)
		m := line.FindStringSubmatch(text)
		if int(n) != len(text) || m == nil || rest != "" {
			t.Fatalf("chunk %s %q, then %q: a cut is wanted, not an end", size, text, rest)
		}
		ms, _ := strconv.Atoi(m[1])
		if seen[ms] = true; ms < 1000 || ms > 3000 {
			t.Errorf("retry after %d ms", ms)
		}
	}
	if len(seen) < 10 {
		t.Errorf("no jitter: %v", seen)
	}
	if n := w.refused("full"); n != 20 {
		t.Errorf("counted %d", n)
	}
	for _, request := range []string{
		"GET / HTTP/1.1\r\nHost: h\r\n\r\n",
		"GET / HTTP/1.1\r\nHost: h\r\nAccept: application/json, */*\r\n\r\n",
		"POST / HTTP/1.1\r\nHost: h\r\nAccept: text/event-stream\r\nContent-Length: 3\r\n\r\nabc",
	} {
		c := w.dial()
		c.send(request)
		resp, body := c.response("GET")
		after, err := strconv.Atoi(resp.Header.Get("Retry-After"))
		if resp.StatusCode != 503 || err != nil || after < 1 || after > 3 || !strings.Contains(body, `"reason":"full"`) {
			t.Errorf("%q: %d %v %s", request, resp.StatusCode, resp.Header, body)
		}
	}
	c := w.dial()
	c.send("GET / HTTP/1.0\r\nAccept: text/event-stream\r\n\r\n")
	if got, err := c.rest(); err != nil || !regexp.MustCompile(`\r\n\r\nretry: \d+\n$`).MatchString(got) {
		t.Errorf("HTTP/1.0: %q, %v", got, err)
	}
}

func TestFail(t *testing.T) {
	w := serve(t, func(p *Proxy, x *exchange) { p.fail(x, 502, "a_reason", "say \"what\" <b>") })
	c := w.dial()
	for range 2 {
		c.send("GET / HTTP/1.1\r\nHost: h\r\nX-Request-Id: mine\r\n\r\n")
		resp, body := c.response("GET")
		var got struct {
			Error struct{ Reason, Detail, RequestID string }
		}
		if err := json.Unmarshal([]byte(strings.ReplaceAll(body, "request_id", "RequestID")), &got); err != nil {
			t.Fatal(err)
		}
		if e := got.Error; e.Reason != "a_reason" || e.Detail != `say "what" <b>` || e.RequestID != "mine" || resp.Header.Get("X-Request-Id") != "mine" {
			t.Errorf("%s", body)
		}
	}
	c.send("HEAD / HTTP/1.1\r\nHost: h\r\n\r\nGET / HTTP/1.0\r\n\r\n")
	if resp, body := c.response("HEAD"); resp.StatusCode != 502 || body != "" || resp.ContentLength <= 0 {
		t.Errorf("%d %q %d", resp.StatusCode, body, resp.ContentLength)
	}
	if resp, _ := c.response("GET"); resp.StatusCode != 502 || !resp.Close {
		t.Errorf("%d %v", resp.StatusCode, resp.Close)
	}
}

// What a handler leaves in fasthttp's own response goes out all the same, also
// between answers that do not, and a panic is a cut.
func TestOtherAnswers(t *testing.T) {
	w := serve(t, func(p *Proxy, x *exchange) {
		switch x.path {
		case "/ours":
			x.reply(200, nil, []byte("ours"))
		case "/theirs":
			x.ctx.SetStatusCode(201)
			x.ctx.Response.Header.Set("X-Long", strings.Repeat("v", 5000))
			x.ctx.Response.Header.Add("Set-Cookie", "a=b")
			x.ctx.SetBodyString("theirs")
		case "/nothing":
			x.ctx.SetStatusCode(204)
		case "/both":
			x.readBody(10)
			x.reply(200, nil, x.body)
		}
	})
	c := w.dial()
	c.send("GET /ours HTTP/1.1\r\nHost: h\r\n\r\nGET /theirs HTTP/1.1\r\nHost: h\r\n\r\nHEAD /theirs HTTP/1.1\r\nHost: h\r\n\r\nGET /nothing HTTP/1.1\r\nHost: h\r\n\r\n" +
		"POST /both HTTP/1.1\r\nHost: h\r\nContent-Length: 3\r\n\r\nabcGET /theirs HTTP/1.1\r\nHost: h\r\n\r\nPOST /both HTTP/1.1\r\nHost: h\r\nContent-Length: 20\r\n\r\n01234567890123456789")
	for _, want := range []string{"GET 200 ours", "GET 201 theirs", "HEAD 201 ", "GET 204 ", "POST 200 abc", "GET 201 theirs", "POST 200 01234567890"} {
		method, _, _ := strings.Cut(want, " ")
		resp, body := c.response(method)
		if got := method + " " + strconv.Itoa(resp.StatusCode) + " " + body; got != want {
			t.Errorf("got %q, want %q", got, want)
		}
		if resp.StatusCode == 201 && (len(resp.Header.Get("X-Long")) != 5000 || resp.Header.Get("Set-Cookie") != "a=b") {
			t.Errorf("header %v", resp.Header)
		}
	}
	if rest, err := c.rest(); rest != "" || err != nil {
		t.Errorf("behind a body that was not read: %q, %v", rest, err)
	}
}

// A panic ends its own request only, and is counted.
func TestPanic(t *testing.T) {
	w := newWorld(t, []string{canned(t, "HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok")})
	w.p.SetTable(NewTable([]*Route{w.route, {Path: "/no-upstream"}}))
	c := w.dial()
	c.send("GET /no-upstream HTTP/1.1\r\nHost: h\r\n\r\n")
	if got, err := c.rest(); got != "" || err != nil && !errors.Is(err, io.EOF) {
		t.Errorf("%q, %v", got, err)
	}
	if n := w.refused("panic"); n != 1 {
		t.Errorf("counted %d", n)
	}
}

package proxy

import (
	"bufio"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/netip"
	"slices"
	"strings"
	"testing"
)

// echo is a backend that answers with the head it got, word for word, and
// tells of each request on seen.
func echo(t *testing.T) (addr string, seen chan string) {
	seen = make(chan string, 100)
	return rawBackend(t, func(c net.Conn, r *bufio.Reader) {
		for {
			got, err := readRequest(r)
			if err != nil {
				return
			}
			seen <- got
			fmt.Fprintf(c, "HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n%s", len(got), got)
		}
	}), seen
}

func TestTargetStaysAsItIs(t *testing.T) {
	addr, seen := echo(t)
	w := newWorld(t, []string{addr})
	c := w.dial()
	for _, target := range []string{
		"/", "/a", "/a/../b", "/a/./b/", "//x", "///", "//x//y?z", "/a%2Fb", "/a%2fb%2F..%2f", "/%zz", "/%", "/%a", "/a%00b",
		"/?", "/a?", "/a?b", "/a??b", "/?a=b&c=%26#d", "/a;b=c", "/a:b", "/http://other/", "/?u=http://other/x", "/a?u=//other",
		"/a+b", "/a%20b", "/\xc3\xa4", "/\xff", "/a\"<>\\^`{|}", "/a#b", "/..", "/../..", "/.", "/a//", "//x%2Fy", "/a@b",
		"//user:pw@other:80/x", "/:80", "/[::1]/",
	} {
		c.send("GET " + target + " HTTP/1.1\r\nHost: h\r\n\r\n")
		if resp, body := c.response("GET"); resp.StatusCode != 200 {
			t.Fatalf("%q: %d %s", target, resp.StatusCode, body)
		}
		got := wait(t, "the backend", seen)
		if line, _, _ := strings.Cut(got, "\r\n"); line != "GET "+target+" HTTP/1.1" {
			t.Errorf("%q arrived as %q", target, line)
		}
	}
	c.send("OPTIONS * HTTP/1.1\r\nHost: h\r\n\r\n")
	c.response("OPTIONS")
	if got := wait(t, "the backend", seen); !strings.HasPrefix(got, "OPTIONS * HTTP/1.1\r\n") {
		t.Errorf("OPTIONS * arrived as %q", got)
	}
	c.send("GET HTTP://H/a?b HTTP/1.1\r\nHost: h\r\n\r\n")
	c.response("GET")
	if got := wait(t, "the backend", seen); !strings.HasPrefix(got, "GET /a?b HTTP/1.1\r\n") {
		t.Errorf("an absolute target arrived as %q", got)
	}
}

func TestRequestHead(t *testing.T) {
	addr, seen := echo(t)
	trusted := func(cfg *Config, _ *Route) {
		cfg.TrustedProxies = []netip.Prefix{netip.MustParsePrefix("127.0.0.0/8"), netip.MustParsePrefix("10.0.0.0/8")}
	}
	plain, proxied := newWorld(t, []string{addr}), newWorld(t, []string{addr}, trusted)
	literal := newWorld(t, []string{addr}, func(_ *Config, r *Route) { r.HostHeader = "backend.internal" })
	upstream := newWorld(t, []string{addr}, func(_ *Config, r *Route) { r.Upstream.Host = "upstream" })

	// f sends a head and compares what arrives, sorted, but for the request id.
	f := func(w *world, method, head string, want ...string) {
		t.Helper()
		c := w.dial()
		c.send(method + " / HTTP/1.1\r\n" + head + "\r\n")
		c.response(method)
		got := wait(t, "the backend", seen)
		got, _, _ = strings.Cut(got, "\r\n\r\n")
		lines := slices.DeleteFunc(strings.Split(got, "\r\n")[1:], func(line string) bool { return strings.HasPrefix(line, "X-Request-Id: ") })
		// Lines of the same name must keep their order.
		slices.SortStableFunc(lines, func(a, b string) int {
			a, _, _ = strings.Cut(a, ":")
			b, _, _ = strings.Cut(b, ":")
			return strings.Compare(a, b)
		})
		slices.SortStableFunc(want, func(a, b string) int {
			a, _, _ = strings.Cut(a, ":")
			b, _, _ = strings.Cut(b, ":")
			return strings.Compare(a, b)
		})
		if !slices.Equal(lines, want) {
			t.Errorf("%s %q:\n got %q\nwant %q", method, head, lines, want)
		}
	}
	forwarded := []string{"X-Forwarded-For: 127.0.0.1", "X-Forwarded-Host: a.example:81", "X-Forwarded-Proto: http"}
	with := func(lines ...string) []string { return append(slices.Clone(forwarded), lines...) }

	f(plain, "GET", "Host: a.example:81\r\n", with("Host: a.example:81")...)
	f(literal, "GET", "Host: a.example:81\r\n", with("Host: backend.internal")...)
	f(upstream, "GET", "Host: a.example:81\r\n", with("Host: "+addr)...)
	// No User-Agent and no Accept-Encoding of our own; empty values, order
	// and odd spelling survive.
	f(plain, "GET", "Host: a.example:81\r\nUser-Agent: me\r\nX-Empty:\r\nx-a: 1\r\nX-A: 2\r\nX-a:  3 \r\nCookie: a=b; c=d\r\n",
		with("Host: a.example:81", "User-Agent: me", "X-Empty: ", "X-A: 1", "X-A: 2", "X-A: 3", "Cookie: a=b; c=d")...)
	// Hop-by-hop, and what Connection names.
	f(plain, "GET", "Host: a.example:81\r\nConnection: keep-alive, X-Mine, host\r\nX-Mine: 1\r\nKeep-Alive: timeout=5\r\nProxy-Connection: x\r\n"+
		"Proxy-Authorization: x\r\nTE: gzip\r\nUpgrade: h2c\r\nX-Yours: 2\r\n",
		with("Host: a.example:81", "X-Yours: 2")...)
	f(plain, "GET", "Host: a.example:81\r\nConnection: TE\r\nTE: gzip, trailers\r\n", with("Host: a.example:81", "Te: trailers", "Connection: TE")...)
	// What a stranger says of the way here does not count.
	f(plain, "GET", "Host: a.example:81\r\nX-Forwarded-For: 1.1.1.1\r\nX-Forwarded-Proto: https\r\nX-Forwarded-Prefix: /x\r\nForwarded: for=1.1.1.1\r\nX-Real-IP: 1.1.1.1\r\nX-Forwarded-Host: evil\r\n",
		with("Host: a.example:81")...)
	// What a trusted proxy says is added to.
	f(proxied, "GET", "Host: a.example:81\r\nX-Forwarded-For: 1.1.1.1\r\nX-Forwarded-For: 10.1.1.1\r\nX-Forwarded-Proto: https\r\nX-Forwarded-Host: outer\r\nForwarded: for=1.1.1.1\r\nX-Real-IP: 1.1.1.1\r\n",
		"Host: a.example:81", "X-Forwarded-For: 1.1.1.1, 10.1.1.1, 127.0.0.1", "X-Forwarded-Proto: https", "X-Forwarded-Host: outer",
		"Forwarded: for=1.1.1.1, for=127.0.0.1;proto=http", "X-Real-Ip: 1.1.1.1")
	// Bodies keep their framing.
	f(plain, "POST", "Host: a.example:81\r\nContent-Length: 0\r\n", with("Host: a.example:81", "Content-Length: 0")...)
	f(plain, "POST", "Host: a.example:81\r\nContent-Length: 3\r\n\r\nabc", with("Host: a.example:81", "Content-Length: 3")...)
	f(plain, "GET", "Host: a.example:81\r\nContent-Length: 3\r\n\r\nabc", with("Host: a.example:81", "Content-Length: 3")...)
	f(plain, "DELETE", "Host: a.example:81\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n", with("Host: a.example:81", "Transfer-Encoding: chunked")...)
	f(plain, "POST", "Host: a.example:81\r\nIdempotency-Key: k\r\nContent-Length: 0\r\n", with("Host: a.example:81", "idempotency-key: k", "Content-Length: 0")...)
}

func TestRequestID(t *testing.T) {
	addr, seen := echo(t)
	w := newWorld(t, []string{addr})
	c := w.dial()
	ids := map[string]bool{}
	for _, sent := range []string{"", "mine-1.2_3:4/5", "two words", "x\ty", strings.Repeat("a", 200), "", "\xff"} {
		c.send("GET / HTTP/1.1\r\nHost: h\r\nX-Request-ID: " + sent + "\r\n\r\n")
		resp, _ := c.response("GET")
		got := wait(t, "the backend", seen)
		id := resp.Header.Get("X-Request-Id")
		if n := strings.Count(got, "X-Request-Id: "); n != 1 || !strings.Contains(got, "X-Request-Id: "+id+"\r\n") {
			t.Errorf("%q: %q came back, %q went upstream", sent, id, got)
		}
		if sent == "mine-1.2_3:4/5" {
			if id != sent {
				t.Errorf("%q came back as %q", sent, id)
			}
		} else if len(id) != 26 || ids[id] {
			t.Errorf("%q came back as %q", sent, id)
		}
		ids[id] = true
	}
}

func TestResponseHead(t *testing.T) {
	big := strings.Repeat("v", 60<<10)
	w := newWorld(t, []string{canned(t, "HTTP/1.1 299 Quite Fine\r\nServer: s\r\nDate: d\r\nContent-Length: 2\r\nContent-Type: \r\n"+
		"Set-Cookie: a=1; Path=/\r\nSet-Cookie: a=2\r\nSet-Cookie: b=3\r\nx-odd-Name: x\r\nX-Empty:\r\nVary: a\r\nVary: b\r\nContent-Encoding: gzip\r\n"+
		"Connection: keep-alive, X-Hop\r\nX-Hop: 1\r\nKeep-Alive: timeout=5\r\nProxy-Authenticate: x\r\nX-Big: "+big+"\r\nX-Request-Id: theirs\r\n\r\nok")})
	c := w.dial()
	for range 3 { // the connection is kept
		c.send("GET / HTTP/1.1\r\nHost: h\r\n\r\n")
		head := c.head()
		c.expect("ok")
		status, rest, _ := strings.Cut(head, "\r\n")
		if status != "HTTP/1.1 299 Quite Fine" {
			t.Error("status line:", status)
		}
		lines := strings.Split(strings.TrimSuffix(rest, "\r\n\r\n"), "\r\n")
		slices.SortStableFunc(lines, func(a, b string) int {
			a, _, _ = strings.Cut(a, ":")
			b, _, _ = strings.Cut(b, ":")
			return strings.Compare(a, b)
		})
		want := []string{
			"Content-Encoding: gzip", "Content-Length: 2", "Content-Type: ", "Date: d", "Server: s",
			"Set-Cookie: a=1; Path=/", "Set-Cookie: a=2", "Set-Cookie: b=3", "Vary: a", "Vary: b",
			"X-Big: " + big, "X-Empty: ", "X-Odd-Name: x", "X-Request-Id: theirs",
		}
		if !slices.Equal(lines, want) {
			t.Errorf("got %q\nwant %q", lines, want)
		}
	}
}

func TestBodilessAnswers(t *testing.T) {
	f := func(method, answer, want string) {
		t.Helper()
		w := newWorld(t, []string{canned(t, answer)})
		c := w.dial()
		for range 2 {
			c.send(method + " / HTTP/1.1\r\nHost: h\r\nX-Request-Id: r\r\n\r\n")
			head := c.head()
			lines := strings.Split(strings.TrimSuffix(head, "\r\n\r\n"), "\r\n")
			slices.Sort(lines[1:])
			if got := strings.Join(lines, "|"); got != want {
				t.Errorf("%s %q: got %q, want %q", method, answer, got, want)
			}
		}
	}
	f("HEAD", "HTTP/1.1 200 OK\r\nDate: d\r\nContent-Length: 12345\r\n\r\n", "HTTP/1.1 200 OK|Content-Length: 12345|Date: d|X-Request-Id: r")
	f("HEAD", "HTTP/1.1 200 OK\r\nDate: d\r\nTransfer-Encoding: chunked\r\n\r\n", "HTTP/1.1 200 OK|Date: d|X-Request-Id: r")
	f("HEAD", "HTTP/1.1 404 Not Found\r\nDate: d\r\nContent-Length: 9\r\n\r\n", "HTTP/1.1 404 Not Found|Content-Length: 9|Date: d|X-Request-Id: r")
	f("GET", "HTTP/1.1 204 No Content\r\nDate: d\r\n\r\n", "HTTP/1.1 204 No Content|Date: d|X-Request-Id: r")
	f("GET", "HTTP/1.1 304 Not Modified\r\nDate: d\r\nContent-Length: 77\r\nEtag: e\r\n\r\n", "HTTP/1.1 304 Not Modified|Content-Length: 77|Date: d|Etag: e|X-Request-Id: r")
	f("GET", "HTTP/1.1 302 Found\r\nDate: d\r\nContent-Length: 0\r\nLocation: //other/%2F?\r\n\r\n", "HTTP/1.1 302 Found|Content-Length: 0|Date: d|Location: //other/%2F?|X-Request-Id: r")
	f("OPTIONS", "HTTP/1.1 200 OK\r\nDate: d\r\nContent-Length: 0\r\nAllow: GET\r\n\r\n", "HTTP/1.1 200 OK|Allow: GET|Content-Length: 0|Date: d|X-Request-Id: r")
	f("BREW", "HTTP/1.1 418 I'm a teapot\r\nDate: d\r\nContent-Length: 0\r\n\r\n", "HTTP/1.1 418 I'm a teapot|Content-Length: 0|Date: d|X-Request-Id: r")
}

func TestTrailers(t *testing.T) {
	addr := handler(t, func(w http.ResponseWriter, r *http.Request) {
		body, _ := io.ReadAll(r.Body)
		w.Header().Set("Trailer", "X-Sum")
		fmt.Fprintf(w, "%s, %v", body, r.Trailer)
		w.Header().Set("X-Sum", "7")
		w.Header().Set(http.TrailerPrefix+"X-Late", "8")
	})
	w := newWorld(t, []string{addr})
	c := w.dial()
	for range 2 {
		c.send("POST / HTTP/1.1\r\nHost: h\r\nTrailer: X-Check\r\nTransfer-Encoding: chunked\r\n\r\n" +
			"3\r\nabc\r\n0\r\nX-Check: 5\r\nContent-Length: 9\r\nX-Unsaid: 6\r\nX-Forwarded-For: 1.1.1.1\r\n\r\n")
		resp, body := c.response("POST")
		if body != "abc, map[X-Check:[5] X-Unsaid:[6]]" {
			t.Errorf("request trailers: %s", body)
		}
		if got := fmt.Sprint(resp.Trailer); got != "map[X-Late:[8] X-Sum:[7]]" {
			t.Errorf("response trailers: %s", got)
		}
	}
}

func TestPipelined(t *testing.T) {
	addr := handler(t, func(w http.ResponseWriter, r *http.Request) {
		body, _ := io.ReadAll(r.Body)
		switch r.URL.Path {
		case "/none":
			w.WriteHeader(204)
		case "/chunked":
			http.NewResponseController(w).Flush()
		}
		fmt.Fprintf(w, "%s %s", r.URL.Path, body)
	})
	w := newWorld(t, []string{addr})
	c := w.dial()
	c.send("GET /a HTTP/1.1\r\nHost: h\r\n\r\n" +
		"POST /b HTTP/1.1\r\nHost: h\r\nContent-Length: 3\r\n\r\nabc" +
		"HEAD /c HTTP/1.1\r\nHost: h\r\n\r\n" +
		"POST /chunked HTTP/1.1\r\nHost: h\r\nTransfer-Encoding: chunked\r\n\r\n3\r\ndef\r\n2;x=y\r\ngh\r\n0\r\n\r\n" +
		"GET /none HTTP/1.1\r\nHost: h\r\n\r\n" +
		"GET /last HTTP/1.1\r\nHost: h\r\nConnection: close\r\n\r\n" +
		"GET /never HTTP/1.1\r\nHost: h\r\n\r\n")
	for _, want := range []string{"GET 200 /a ", "POST 200 /b abc", "HEAD 200 ", "POST 200 /chunked defgh", "GET 204 ", "GET 200 /last "} {
		method, _, _ := strings.Cut(want, " ")
		resp, body := c.response(method)
		if got := fmt.Sprintf("%s %d %s", method, resp.StatusCode, body); got != want {
			t.Errorf("got %q, want %q", got, want)
		}
	}
	if rest, err := c.rest(); rest != "" || err != nil {
		t.Errorf("behind the last answer: %q, %v", rest, err)
	}
}

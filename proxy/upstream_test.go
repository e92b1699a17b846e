package proxy

import (
	"bufio"
	"crypto/tls"
	"crypto/x509"
	"fmt"
	"io"
	"log"
	"net"
	"net/http"
	"net/http/httptest"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"ssegate/discover"
)

// closedPort is an address that refuses connections.
func closedPort(t *testing.T) string {
	t.Helper()
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer ln.Close()
	return ln.Addr().String()
}

func TestUnreachable(t *testing.T) {
	newWorld(t, nil).fails(503, "no_endpoint")
	newWorld(t, []string{closedPort(t)}).fails(502, "upstream_unreachable")
	// HTTP where TLS was expected.
	plain := newWorld(t, []string{canned(t, "HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n")})
	plain.bal.Update([]discover.Endpoint{{ID: "tls", URL: "https://" + rawBackend(t, func(c net.Conn, _ *bufio.Reader) {
		io.WriteString(c, "HTTP/1.1 400 Bad Request\r\n\r\n")
	})}})
	plain.fails(502, "upstream_tls")
}

// An upstream behind TLS: requests, streams of bytes, upgrades, and stale
// connections; a certificate that nobody vouches for is refused.
func TestTLSUpstream(t *testing.T) {
	s := httptest.NewUnstartedServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if r.Header.Get("Upgrade") != "" {
			conn, rw, err := http.NewResponseController(w).Hijack()
			if err != nil {
				return
			}
			defer conn.Close()
			io.WriteString(conn, "HTTP/1.1 101 Switching Protocols\r\nUpgrade: x\r\nConnection: Upgrade\r\n\r\n")
			io.Copy(conn, rw)
			return
		}
		body, _ := io.ReadAll(r.Body)
		fmt.Fprintf(w, "%s %s %d", r.Proto, r.Host, len(body))
	}))
	s.EnableHTTP2 = true
	s.Config.ErrorLog = log.New(io.Discard, "", 0)
	s.StartTLS()
	t.Cleanup(s.Close)
	roots := x509.NewCertPool()
	roots.AddCert(s.Certificate())
	trusting := func(_ *Config, r *Route) {
		r.Upstream.Transport = NewTransport(TransportOptions{TLS: &tls.Config{RootCAs: roots, ServerName: "example.com"}})
	}
	secure := []discover.Endpoint{{ID: "tls", URL: s.URL}}

	w := newWorld(t, nil)
	w.bal.Update(secure)
	w.fails(502, "upstream_tls")

	w = newWorld(t, nil, trusting)
	w.bal.Update(secure)
	c := w.dial()
	for i := range 20 {
		c.send("POST / HTTP/1.1\r\nHost: h\r\nContent-Length: 3\r\n\r\nabc")
		if resp, body := c.response("POST"); body != "HTTP/1.1 h 3" {
			t.Errorf("request %d: %d %s", i, resp.StatusCode, body)
		}
		if i%5 == 0 {
			s.CloseClientConnections()
			time.Sleep(time.Millisecond)
		}
	}
	c.send("GET / HTTP/1.1\r\nHost: h\r\nConnection: Upgrade\r\nUpgrade: x\r\n\r\n")
	if head := c.head(); !strings.HasPrefix(head, "HTTP/1.1 101 ") {
		t.Fatalf("head %q", head)
	}
	c.send("echo")
	c.expect("echo")
	c.CloseWrite()
	if rest, err := c.rest(); rest != "" || err != nil {
		t.Errorf("%q, %v", rest, err)
	}
}

// fails sees a GET fail with this status and reason, and no address told.
func (w *world) fails(status int, reason string) {
	w.t.Helper()
	resp, body := w.get("/")
	if resp.StatusCode != status || !strings.Contains(body, `"reason":"`+reason+`"`) {
		w.t.Errorf("%d %s, want %d %s", resp.StatusCode, body, status, reason)
	}
	if strings.Contains(body, "127.0.0.1") {
		w.t.Errorf("the answer tells an address: %s", body)
	}
}

// A request that nobody can have seen goes to another endpoint, body and all.
func TestNextEndpoint(t *testing.T) {
	var runs atomic.Int64
	alive := handler(t, func(w http.ResponseWriter, r *http.Request) {
		runs.Add(1)
		body, _ := io.ReadAll(r.Body)
		fmt.Fprintf(w, "got %d", len(body))
	})
	w := newWorld(t, []string{closedPort(t), closedPort(t), alive})
	for i := range 6 {
		resp, err := http.Post(w.url+"/", "text/plain", strings.NewReader(strings.Repeat("x", 100_000)))
		if err != nil {
			t.Fatal(err)
		}
		body, _ := io.ReadAll(resp.Body)
		resp.Body.Close()
		if string(body) != "got 100000" {
			t.Errorf("request %d: %d %s", i, resp.StatusCode, body)
		}
	}
	http.DefaultClient.CloseIdleConnections()
	if n := runs.Load(); n != 6 {
		t.Errorf("6 requests ran %d times", n)
	}
	settled(t, w.bal)
}

// A request that somebody may have seen is never sent again: not to another
// endpoint, and not because a kept connection died under it; but for a safe one
// whose connection died at once.
func TestNeverTwice(t *testing.T) {
	for _, request := range []string{
		"GET / HTTP/1.1\r\nHost: h\r\n\r\n",
		"HEAD / HTTP/1.1\r\nHost: h\r\n\r\n",
		"OPTIONS / HTTP/1.1\r\nHost: h\r\n\r\n",
		"DELETE / HTTP/1.1\r\nHost: h\r\n\r\n",
		"POST / HTTP/1.1\r\nHost: h\r\nIdempotency-Key: k\r\nContent-Length: 3\r\n\r\nabc",
		"POST / HTTP/1.1\r\nHost: h\r\nIdempotency-Key: k\r\nContent-Length: 0\r\n\r\n",
		"GET / HTTP/1.1\r\nHost: h\r\nX-Idempotency-Key: k\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
	} {
		method, _, _ := strings.Cut(request, " ")
		for _, reset := range []bool{false, true} {
			var runs atomic.Int64
			// Answers the first request, and dies having read the second one.
			dies := rawBackend(t, func(c net.Conn, r *bufio.Reader) {
				for range 2 {
					if _, err := readRequest(r); err != nil {
						return
					}
					if runs.Add(1)%2 == 1 {
						io.WriteString(c, "HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n")
					}
				}
				if safe(method) {
					time.Sleep(staleFor + 20*time.Millisecond) // it has worked for a while
				}
				if reset {
					c.(*net.TCPConn).SetLinger(0)
				}
			})
			w := newWorld(t, []string{dies, dies})
			w.bal.Update([]discover.Endpoint{{ID: "a", URL: "http://" + dies}, {ID: "b", URL: "http://" + dies}})
			c := w.dial()
			c.send(request)
			if resp, _ := c.response(method); resp.StatusCode != 200 {
				t.Fatalf("%q: %d", request, resp.StatusCode)
			}
			c.send(request)
			if resp, body := c.response(method); resp.StatusCode != 502 || method != "HEAD" && !strings.Contains(body, `"upstream_closed"`) {
				t.Errorf("%q: %d %s", request, resp.StatusCode, body)
			}
			if n := runs.Load(); n != 2 {
				t.Errorf("%q, reset %v: two requests ran %d times", request, reset, n)
			}
		}
	}
}

// A safe request whose kept connection ends at once is sent once more, on a new
// connection, and never a third time.
func TestClosedAsReused(t *testing.T) {
	for _, request := range []string{
		"GET / HTTP/1.1\r\nHost: h\r\n\r\n",
		"HEAD / HTTP/1.1\r\nHost: h\r\n\r\n",
		"OPTIONS / HTTP/1.1\r\nHost: h\r\n\r\n",
		"GET / HTTP/1.1\r\nHost: h\r\nContent-Length: 3\r\n\r\nabc",
		"GET / HTTP/1.1\r\nHost: h\r\nTransfer-Encoding: chunked\r\n\r\n3\r\nabc\r\n0\r\n\r\n",
	} {
		method, _, _ := strings.Cut(request, " ")
		for _, reset := range []bool{false, true} {
			for _, fails := range []bool{false, true} {
				var conns, runs atomic.Int64
				var bad atomic.Value
				var both sync.WaitGroup // two are answered at once, so that two connections are kept
				both.Add(2)
				addr := rawBackend(t, func(c net.Conn, r *bufio.Reader) {
					n := conns.Add(1)
					for k := 1; ; k++ {
						got, err := readRequest(r)
						if err != nil {
							return
						}
						runs.Add(1)
						if method != "HEAD" && strings.Contains(request, "\r\nabc") != strings.Contains(got, "\r\nabc") {
							bad.Store(got)
						}
						switch {
						case n <= 2 && k == 1:
							both.Done()
							both.Wait()
						case k > 1 || fails:
							if reset {
								c.(*net.TCPConn).SetLinger(0)
							}
							return
						}
						io.WriteString(c, "HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n")
					}
				})
				w := newWorld(t, []string{addr})
				a, b := w.dial(), w.dial()
				a.send(request)
				b.send(request)
				for _, c := range []*peer{a, b} {
					if resp, body := c.response(method); resp.StatusCode != 200 {
						t.Fatalf("%q: %d %s", request, resp.StatusCode, body)
					}
				}
				want := 200
				if fails {
					want = 502
				}
				a.send(request)
				if resp, body := a.response(method); resp.StatusCode != want {
					t.Errorf("%q, reset %v: %d %s, want %d", request, reset, resp.StatusCode, body, want)
				}
				if conns, runs := conns.Load(), runs.Load(); conns != 3 || runs != 4 {
					t.Errorf("%q, reset %v, fails %v: %d requests on %d connections", request, reset, fails, runs, conns)
				}
				if got := bad.Load(); got != nil {
					t.Errorf("%q arrived as %q", request, got)
				}
				for _, s := range settled(t, w.bal) {
					if fails != (s.Failed > 0) {
						t.Errorf("it is held against the endpoint: %+v", s)
					}
				}
			}
		}
	}
}

// Kept connections that the backend has closed meanwhile do no harm.
func TestStaleConnections(t *testing.T) {
	var mu sync.Mutex
	var open []net.Conn
	runs := make(chan string, 10)
	addr := rawBackend(t, func(c net.Conn, r *bufio.Reader) {
		mu.Lock()
		open = append(open, c)
		mu.Unlock()
		for {
			got, err := readRequest(r)
			if err != nil {
				return
			}
			runs <- got
			io.WriteString(c, "HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok")
		}
	})
	w := newWorld(t, []string{addr})
	c := w.dial()
	for i := range 400 {
		request := "POST / HTTP/1.1\r\nHost: h\r\nContent-Length: 3\r\n\r\nabc"
		switch i / 2 % 4 {
		case 0:
			request = "GET / HTTP/1.1\r\nHost: h\r\n\r\n"
		case 1:
			request = "POST / HTTP/1.1\r\nHost: h\r\nTransfer-Encoding: chunked\r\n\r\n3\r\nabc\r\n0\r\n\r\n"
		case 2:
			request = "POST / HTTP/1.1\r\nHost: h\r\nContent-Length: 10000\r\n\r\n" + strings.Repeat("x", 10000)
		}
		c.send(request)
		resp, body := c.response("POST")
		if resp.StatusCode != 200 {
			t.Fatalf("request %d: %s", i, body)
		}
		if got := <-runs; len(got) < len(request) {
			t.Fatalf("request %d arrived as %.500q", i, got)
		}
		if len(runs) > 0 {
			t.Fatalf("request %d ran twice", i)
		}
		mu.Lock()
		for _, c := range open {
			c.Close()
		}
		open = open[:0]
		mu.Unlock()
		if i%2 == 0 {
			time.Sleep(time.Millisecond) // so that the gate may have seen it
		}
	}
}

func TestFailuresAreTold(t *testing.T) {
	dies := rawBackend(t, func(c net.Conn, r *bufio.Reader) { readRequest(r) })
	alive := canned(t, "HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok")
	w := newWorld(t, []string{dies, alive})
	bal := discover.NewBalancer(discover.BalancerConfig{MaxFails: 2, FailFor: time.Hour})
	bal.Update([]discover.Endpoint{{ID: "dies", URL: "http://" + dies}, {ID: "alive", URL: "http://" + alive}})
	w.route.Upstream.Balancer = bal
	failed := 0
	for range 20 {
		if resp, _ := w.get("/"); resp.StatusCode != 200 {
			failed++
		}
	}
	if failed != 2 {
		t.Errorf("%d requests failed before the endpoint was set aside", failed)
	}
	settled(t, bal)
}

// A client's mistakes and departures are not held against an endpoint.
func TestClientsFaults(t *testing.T) {
	reached := make(chan bool, 10)
	addr := handler(t, func(w http.ResponseWriter, r *http.Request) {
		reached <- true
		io.Copy(io.Discard, r.Body)
		<-r.Context().Done()
	})
	w := newWorld(t, []string{addr})
	for _, request := range []string{
		"GET / HTTP/1.1\r\nHost: h\r\n\r\n",
		"POST / HTTP/1.1\r\nHost: h\r\nContent-Length: 10\r\n\r\nabc",
		"POST / HTTP/1.1\r\nHost: h\r\nTransfer-Encoding: chunked\r\n\r\nzz",
	} {
		c := w.dial()
		c.send(request)
		wait(t, "the backend", reached)
		c.Close()
	}
	for _, s := range settled(t, w.bal) {
		if s.Failed != 0 {
			t.Errorf("%+v", s)
		}
	}
}

// settled waits until no request is in flight.
func settled(t *testing.T, bal *discover.Balancer) []discover.Status {
	t.Helper()
	for end := time.Now().Add(patience); ; time.Sleep(time.Millisecond) {
		list := bal.Snapshot()
		if !slices.ContainsFunc(list, func(s discover.Status) bool { return s.Active != 0 }) {
			return list
		}
		if time.Now().After(end) {
			t.Fatalf("still active: %+v", list)
		}
	}
}

// Close ends what waits for an upstream.
func TestClose(t *testing.T) {
	reached := make(chan bool, 1)
	addr := handler(t, func(w http.ResponseWriter, r *http.Request) {
		reached <- true
		<-r.Context().Done()
	})
	w := newWorld(t, []string{addr})
	c := w.dial()
	c.send("GET / HTTP/1.1\r\nHost: h\r\n\r\n")
	wait(t, "the backend", reached)
	w.p.Drain()
	if err := w.p.Close(t.Context()); err != nil {
		t.Fatal(err)
	}
	resp, body := c.response("GET")
	if resp.StatusCode != 503 || !strings.Contains(body, `"shutting_down"`) {
		t.Errorf("%d %s", resp.StatusCode, body)
	}
}

func TestDrainClosesConnections(t *testing.T) {
	w := newWorld(t, []string{canned(t, "HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok")})
	c := w.dial()
	c.send("GET / HTTP/1.1\r\nHost: h\r\n\r\n")
	if resp, _ := c.response("GET"); resp.Close {
		t.Error("closed before the drain")
	}
	w.p.Drain()
	c.send("GET / HTTP/1.1\r\nHost: h\r\n\r\n")
	if resp, body := c.response("GET"); !resp.Close || body != "ok" {
		t.Errorf("close %v, %q", resp.Close, body)
	}
	if rest, err := c.rest(); rest != "" || err != nil {
		t.Errorf("%q, %v", rest, err)
	}
}

// A table is swapped at once, and a request in flight keeps its route.
func TestSetTable(t *testing.T) {
	reached, go_ := make(chan bool), make(chan bool)
	slow := handler(t, func(w http.ResponseWriter, r *http.Request) {
		reached <- true
		<-go_
		io.WriteString(w, "old")
	})
	w := newWorld(t, []string{slow})
	c := w.dial()
	c.send("GET / HTTP/1.1\r\nHost: h\r\n\r\n")
	wait(t, "the backend", reached)
	w.p.SetTable(NewTable(nil))
	if resp, body := w.get("/"); resp.StatusCode != 404 || !strings.Contains(body, `"no_route"`) {
		t.Errorf("%d %s", resp.StatusCode, body)
	}
	close(go_)
	if _, body := c.response("GET"); body != "old" {
		t.Errorf("%q", body)
	}
}

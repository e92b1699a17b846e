package proxy

import (
	"bufio"
	"context"
	"fmt"
	"io"
	"log"
	"net"
	"net/http"
	"net/http/httptest"
	"os"
	"runtime"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/VictoriaMetrics/metrics"

	"ssegate/discover"
	"ssegate/hub"
)

// patience bounds every wait of these tests.
const patience = 20 * time.Second

// TestMain fails when a test left a goroutine behind.
func TestMain(m *testing.M) {
	log.SetOutput(io.Discard) // net/http tells there of upstreams that say too much
	before := len(goroutines())
	code := m.Run()
	for end := time.Now().Add(5 * time.Second); code == 0; time.Sleep(10 * time.Millisecond) {
		left := goroutines()
		if len(left) <= before {
			break
		}
		if time.Now().After(end) {
			fmt.Fprintf(os.Stderr, "goroutines were left behind:\n%s\n", strings.Join(left, "\n\n"))
			code = 1
		}
	}
	os.Exit(code)
}

// goroutines are the stacks of all goroutines but fasthttp's clock, and those
// that look every few seconds whether their server is still there.
func goroutines() (stacks []string) {
	buf := make([]byte, 4<<20)
	for stack := range strings.SplitSeq(string(buf[:runtime.Stack(buf, true)]), "\n\n") {
		if !strings.Contains(stack, "workerPool).Start") && !strings.Contains(stack, "updateServerDate") {
			stacks = append(stacks, stack)
		}
	}
	return stacks
}

// world is a gate before one or more backends, all on loopback.
type world struct {
	t     testing.TB
	p     *Proxy
	addr  string // of the gate
	url   string
	set   *metrics.Set
	bal   *discover.Balancer
	route *Route
}

type option func(*Config, *Route)

// newWorld starts a gate without the event stream half. backends are
// addresses, asked in turn.
func newWorld(t testing.TB, backends []string, options ...option) *world {
	t.Helper()
	h := newHub(t)
	set := metrics.NewSet()
	cfg := Config{Metrics: set, Node: "n1", Watch: h.Watch}
	bal := discover.NewBalancer(discover.BalancerConfig{})
	var list []discover.Endpoint
	for _, b := range backends {
		list = append(list, discover.Endpoint{ID: b, URL: "http://" + b})
	}
	bal.Update(list)
	route := &Route{Name: "all", Path: "/", Upstream: &Upstream{
		Name: "up", Balancer: bal, Transport: NewTransport(TransportOptions{}), HeaderTimeout: patience,
	}}
	for _, o := range options {
		o(&cfg, route)
	}
	p, err := New(cfg)
	if err != nil {
		t.Fatal(err)
	}
	p.SetTable(NewTable([]*Route{route}))
	if strings.HasPrefix(t.Name(), "TestDirect/") {
		p.direct.mode = directAlways
	}
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	server := p.Server()
	done := make(chan error, 1)
	go func() { done <- server.Serve(ln) }()
	t.Cleanup(func() {
		ctx, cancel := context.WithTimeout(context.Background(), patience)
		defer cancel()
		if err := p.Close(ctx); err != nil {
			t.Error("close:", err)
		}
		if err := server.ShutdownWithContext(ctx); err != nil {
			t.Error("shutdown:", err)
		}
		if err := <-done; err != nil {
			t.Error("serve:", err)
		}
		route.Upstream.Transport.CloseIdleConnections()
	})
	return &world{t: t, p: p, addr: ln.Addr().String(), url: "http://" + ln.Addr().String(), set: set, bal: bal, route: route}
}

func newHub(t testing.TB) *hub.Hub {
	t.Helper()
	h, err := hub.New(hub.Config{})
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan error, 1)
	go func() { done <- h.Run(ctx) }()
	t.Cleanup(func() {
		cancel()
		if err := <-done; err != nil {
			t.Error("hub:", err)
		}
	})
	return h
}

// handler starts a net/http backend.
func handler(t *testing.T, f http.HandlerFunc) string {
	t.Helper()
	s := httptest.NewServer(f)
	t.Cleanup(func() {
		s.CloseClientConnections()
		s.Close()
	})
	return s.Listener.Addr().String()
}

// rawBackend calls f with each connection, in a goroutine of its own, and
// closes the connection when f returns.
func rawBackend(t testing.TB, f func(net.Conn, *bufio.Reader)) string {
	t.Helper()
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	var all sync.WaitGroup
	var mu sync.Mutex
	open := map[net.Conn]bool{}
	all.Go(func() {
		for {
			c, err := ln.Accept()
			if err != nil {
				return
			}
			mu.Lock()
			open[c] = true
			mu.Unlock()
			all.Go(func() {
				f(c, bufio.NewReader(c))
				c.Close()
				mu.Lock()
				delete(open, c)
				mu.Unlock()
			})
		}
	})
	t.Cleanup(func() {
		ln.Close()
		mu.Lock()
		for c := range open {
			c.Close()
		}
		mu.Unlock()
		all.Wait()
	})
	return ln.Addr().String()
}

// canned is a backend that reads each request's head (and Content-Length
// body) and sends the same bytes every time.
func canned(t *testing.T, answer string) string {
	return rawBackend(t, func(c net.Conn, r *bufio.Reader) {
		for {
			if _, err := readRequest(r); err != nil {
				return
			}
			if _, err := io.WriteString(c, answer); err != nil {
				return
			}
		}
	})
}

// readRequest reads a head, line ends as they are, and the body that
// Content-Length or chunks promise.
func readRequest(r *bufio.Reader) (string, error) {
	var all strings.Builder
	length, chunked := 0, false
	for {
		line, err := r.ReadString('\n')
		all.WriteString(line)
		if err != nil {
			return all.String(), err
		}
		fmt.Sscanf(line, "Content-Length: %d", &length)
		chunked = chunked || line == "Transfer-Encoding: chunked\r\n"
		if line == "\r\n" {
			break
		}
	}
	if chunked {
		for {
			line, err := r.ReadString('\n')
			all.WriteString(line)
			if err != nil || line == "\r\n" && strings.Contains(all.String(), "\r\n0\r\n") {
				return all.String(), err
			}
		}
	}
	body := make([]byte, length)
	n, err := io.ReadFull(r, body)
	all.Write(body[:n])
	return all.String(), err
}

// dial opens a connection to the gate.
func (w *world) dial() *peer {
	w.t.Helper()
	c, err := net.Dial("tcp", w.addr)
	if err != nil {
		w.t.Fatal(err)
	}
	w.t.Cleanup(func() { c.Close() })
	c.SetDeadline(time.Now().Add(patience))
	return &peer{TCPConn: c.(*net.TCPConn), t: w.t, r: bufio.NewReader(c)}
}

// peer is a raw client of the gate.
type peer struct {
	*net.TCPConn
	t testing.TB
	r *bufio.Reader
}

func (c *peer) send(text string) *peer {
	c.t.Helper()
	if _, err := io.WriteString(c.TCPConn, text); err != nil {
		c.t.Fatalf("sending: %v", err)
	}
	return c
}

// expect reads exactly these bytes.
func (c *peer) expect(text string) {
	c.t.Helper()
	got := make([]byte, len(text))
	n, err := io.ReadFull(c.r, got)
	if err != nil || string(got) != text {
		c.t.Fatalf("got %q (%v), want %q", got[:n], err, text)
	}
}

// head reads up to the end of a head.
func (c *peer) head() string {
	c.t.Helper()
	var all strings.Builder
	for {
		line, err := c.r.ReadString('\n')
		all.WriteString(line)
		if err != nil {
			c.t.Fatalf("reading a head: %v after %q", err, all.String())
		}
		if line == "\r\n" {
			return all.String()
		}
	}
}

// response reads a whole answer.
func (c *peer) response(method string) (*http.Response, string) {
	c.t.Helper()
	resp, err := http.ReadResponse(c.r, &http.Request{Method: method})
	if err != nil {
		c.t.Fatalf("reading an answer: %v", err)
	}
	body, err := io.ReadAll(resp.Body)
	if err != nil {
		c.t.Fatalf("reading a body: %v after %q", err, body)
	}
	return resp, string(body)
}

// rest reads until the gate closes the connection.
func (c *peer) rest() (string, error) {
	b, err := io.ReadAll(c.r)
	return string(b), err
}

// do sends a request with net/http, on a connection of its own.
func (w *world) do(req *http.Request) (*http.Response, error) {
	tr := &http.Transport{DisableKeepAlives: true, DisableCompression: true}
	return tr.RoundTrip(req)
}

func (w *world) get(path string) (*http.Response, string) {
	w.t.Helper()
	req, err := http.NewRequest("GET", w.url+path, nil)
	if err != nil {
		w.t.Fatal(err)
	}
	resp, err := w.do(req)
	if err != nil {
		w.t.Fatal(err)
	}
	defer resp.Body.Close()
	body, err := io.ReadAll(resp.Body)
	if err != nil {
		w.t.Fatal(err)
	}
	return resp, string(body)
}

// count is a counter of the gate's.
func (w *world) refused(reason string) uint64 {
	return w.set.GetOrCreateCounter(`ssegate_refused_total{reason="` + reason + `"}`).Get()
}

// wait returns when what is closed, or fails.
func wait[T any](t *testing.T, what string, ch <-chan T) T {
	t.Helper()
	select {
	case v := <-ch:
		return v
	case <-time.After(patience):
		t.Fatal("waited in vain for ", what)
		panic("unreachable")
	}
}

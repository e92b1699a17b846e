package e2e

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	. "ssegate/internal/gatetest"
	"ssegate/internal/gatetest/service"
)

// hose is an upstream that writes events as fast as they are taken:
//
//	/hose?n=1000&size=200   events `data: 1 xxx…` to 1000, then [DONE]
//	   &every=1ms           not quite as fast
type hose struct {
	URL     string
	written atomic.Int64 // events of the last run
	runs    atomic.Int64
}

func newHose(t *testing.T) *hose {
	h := &hose{}
	srv := httptest.NewUnstartedServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		h.runs.Add(1)
		h.written.Store(0)
		q := r.URL.Query()
		n, _ := strconv.Atoi(q.Get("n"))
		size, _ := strconv.Atoi(q.Get("size"))
		every, _ := time.ParseDuration(q.Get("every"))
		w.Header().Set("Content-Type", "text/event-stream")
		out, pad := http.NewResponseController(w), padding(size)
		out.Flush()
		for i := 1; i <= n; i++ {
			if _, err := fmt.Fprintf(w, "data: %d %s\n\n", i, pad); err != nil {
				return
			}
			if every > 0 || size > 2<<10 {
				out.Flush()
				time.Sleep(every)
			}
			h.written.Add(1)
		}
		io.WriteString(w, "data: [DONE]\n\n")
	}))
	srv.Config.ConnState = func(c net.Conn, s http.ConnState) {
		if s == http.StateNew {
			c.(*net.TCPConn).SetWriteBuffer(64 << 10) // what is written is soon taken
		}
	}
	srv.Start()
	t.Cleanup(func() { srv.CloseClientConnections(); srv.Close() })
	h.URL = srv.URL
	return h
}

func padding(size int) string { return strings.Repeat("x", size) }

// settled waits until the upstream can write no more, and returns how far it
// came.
func (h *hose) settled(t *testing.T) int64 {
	t.Helper()
	last, since := int64(-1), time.Now()
	for end := time.Now().Add(Patience); time.Now().Before(end); time.Sleep(20 * time.Millisecond) {
		if now := h.written.Load(); now != last {
			last, since = now, time.Now()
		} else if time.Since(since) > time.Second {
			return last
		}
	}
	t.Fatalf("the upstream goes on writing, %d events by now", last)
	return 0
}

// lazy is a client with a small receive buffer that reads when it is told to.
type lazy struct {
	t    *testing.T
	resp *http.Response
	r    *bufio.Reader
	last string // id
}

func lazily(t *testing.T, url, lastID string) *lazy {
	t.Helper()
	ctx, cancel := context.WithCancel(context.Background())
	t.Cleanup(cancel)
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, url, nil)
	if err != nil {
		t.Fatal(err)
	}
	req.Header.Set("Accept", "text/event-stream")
	if lastID != "" {
		req.Header.Set("Last-Event-ID", lastID)
	}
	d := net.Dialer{Control: func(_, _ string, c syscall.RawConn) error {
		var err error
		c.Control(func(fd uintptr) { err = syscall.SetsockoptInt(int(fd), syscall.SOL_SOCKET, syscall.SO_RCVBUF, 4<<10) })
		return err
	}}
	tr := &http.Transport{DialContext: d.DialContext, DisableKeepAlives: true, DisableCompression: true}
	resp, err := tr.RoundTrip(req)
	if err != nil {
		t.Fatal(err)
	}
	if resp.StatusCode != 200 {
		t.Fatalf("%s is answered %d", url, resp.StatusCode)
	}
	return &lazy{t: t, resp: resp, r: bufio.NewReader(resp.Body)}
}

func (l *lazy) id() string { return l.resp.Header.Get("Ssegate-Stream") }

// next reads an event's data, and how it ends: its first word and its length.
func (l *lazy) next() (word string, size int, err error) {
	var data string
	for {
		line, err := l.r.ReadString('\n')
		if err != nil {
			return "", 0, err
		}
		switch line = strings.TrimSuffix(line, "\n"); {
		case line == "" && data != "":
			word, pad, _ := strings.Cut(data, " ")
			if strings.Trim(pad, "x") != "" {
				l.t.Fatalf("event %s is damaged: %.100q", word, pad)
			}
			return word, len(pad), nil
		case strings.HasPrefix(line, "data: "):
			data = line[6:]
		case strings.HasPrefix(line, "id: "):
			l.last = line[4:]
		case strings.HasPrefix(line, "event: "):
			l.t.Fatalf("among the events is %q", line)
		}
	}
}

// take reads the events from..to and checks them.
func (l *lazy) take(from, to, size int) {
	l.t.Helper()
	for i := from; i <= to; i++ {
		word, got, err := l.next()
		if err != nil || word != strconv.Itoa(i) || got != size {
			l.t.Fatalf("event %q of %d bytes stands where %d of %d should: %v", word, got, i, size, err)
		}
	}
}

// rest reads what there is from..n, [DONE], and the clean end.
func (l *lazy) rest(from, n, size int) {
	l.t.Helper()
	l.take(from, n, size)
	if word, _, err := l.next(); word != "[DONE]" {
		l.t.Fatalf("%q, %v stands where [DONE] should", word, err)
	}
	if _, _, err := l.next(); !errors.Is(err, io.EOF) || errors.Is(err, io.ErrUnexpectedEOF) {
		l.t.Fatalf("the end: %v", err)
	}
}

// whole reads a whole stream in the background, as fast as it can, and notes
// its longest pause.
func (l *lazy) whole(n, size int) (wait func() (took, pause time.Duration)) {
	var wg sync.WaitGroup
	var took, pause time.Duration
	wg.Go(func() {
		begun := time.Now()
		last := begun
		for i := 1; i <= n; i++ {
			word, got, err := l.next()
			if err != nil || word != strconv.Itoa(i) || got != size {
				l.t.Errorf("the fast one got %q of %d bytes where %d of %d should be: %v", word, got, i, size, err)
				return
			}
			now := time.Now()
			pause, last = max(pause, now.Sub(last)), now
		}
		if word, _, _ := l.next(); word != "[DONE]" {
			l.t.Errorf("the fast one got %q at the end", word)
		}
		took = time.Since(begun)
	})
	return func() (time.Duration, time.Duration) { wg.Wait(); return took, pause }
}

func byName(n *Node, id string) string { return n.URL + "/_ssegate/streams/" + id }

// TestSlowBesideFast: who reads nothing for a while gets everything all the
// same, once and in order, and does not hold up who reads fast. On one node,
// and with either of them on another one.
func TestSlowBesideFast(t *testing.T) {
	const events, size = 40_000, 300 // more than ring and sockets hold
	h := newHose(t)
	w := &world{redis: service.Redis(t), rabbit: service.Rabbit(t), backend: NewBackend(t)}
	w.backend.URL = h.URL
	a, b := w.pair(t, "log_length = 50000\nring_bytes = \"2MiB\"\n")
	for name, on := range map[string]struct{ owner, slow, fast *Node }{
		"one node": {a, a, a}, "slow elsewhere": {a, b, a}, "fast elsewhere": {b, b, a}, "both elsewhere": {a, b, b},
	} {
		t.Run(name, func(t *testing.T) {
			runs, caught := h.runs.Load(), on.slow.Metric("ssegate_catch_ups_total")
			url := fmt.Sprintf("/hose?n=%d&size=%d&of=%s", events, size, strings.ReplaceAll(name, " ", "-"))
			first := lazily(t, on.owner.URL+url, "")
			slow, fast := first, first
			if on.slow != on.owner {
				slow = lazily(t, byName(on.slow, first.id()), "")
			}
			if fast == slow || on.fast != on.owner {
				fast = lazily(t, byName(on.fast, first.id()), "")
			}
			if first != slow && first != fast {
				first.resp.Body.Close()
			}
			took, pause := fast.whole(events, size)()
			t.Logf("the fast one: %d events in %v, longest pause %v", events, took.Round(time.Millisecond), pause.Round(time.Millisecond))
			if pause > 2*time.Second {
				t.Errorf("the fast one stood still for %v", pause)
			}
			begun := time.Now()
			slow.rest(1, events, size)
			t.Logf("the slow one then in %v", time.Since(begun).Round(time.Millisecond))
			if on.slow.Metric("ssegate_catch_ups_total") == caught {
				t.Error("it was never away from the ring")
			}
			if got := h.runs.Load() - runs; got != 1 {
				t.Errorf("the backend ran %d times", got)
			}
		})
	}
}

// TestSlowIsCut: with slow = "cut" who falls behind is cut, told from a clean
// end, and gets the rest when it comes back.
func TestSlowIsCut(t *testing.T) {
	const events, size = 40_000, 300
	h := newHose(t)
	n := Start(t, bin, "one", config(h.URL, "slow = \"cut\"\nlog_length = 50000\nring_bytes = \"2MiB\"\n"))
	slow := lazily(t, fmt.Sprintf("%s/hose?n=%d&size=%d", n.URL, events, size), "")
	fast := lazily(t, byName(n, slow.id()), "")
	fast.whole(events, size)()
	got := 0
	for {
		word, _, err := slow.next()
		if err != nil {
			if errors.Is(err, io.EOF) && !errors.Is(err, io.ErrUnexpectedEOF) {
				t.Fatalf("the slow one ended cleanly after %d events", got)
			}
			break
		}
		if got++; word != strconv.Itoa(got) {
			t.Fatalf("event %s stands where %d should", word, got)
		}
	}
	t.Logf("cut after %d events", got)
	if n.Metric(`ssegate_followers_left_total{reason="slow"}`) != 1 {
		t.Error("it was not counted as slow")
	}
	if got == 0 || got == events {
		t.Fatalf("it got %d events", got)
	}
	back := lazily(t, fmt.Sprintf("%s/hose?n=%d&size=%d", n.URL, events, size), slow.last)
	back.rest(got+1, events, size)
	if h.runs.Load() != 1 {
		t.Errorf("the backend ran %d times", h.runs.Load())
	}
}

// TestSlowBackend: one slow client slows its backend, as without a gate, and
// loses nothing. The backend of 50 MB is not read much further than the ring
// holds; for a client of another node, half the log's room further.
func TestSlowBackend(t *testing.T) {
	const events, size = 50_000, 1000
	const ring, log = 2 << 20, 4000
	more := fmt.Sprintf("log_length = %d\nring_events = 100000\nring_bytes = \"%d\"\n", log, ring)
	// What the two sockets between backend and gate hold, generously.
	const sockets = 6 << 20
	h := newHose(t)
	check := func(t *testing.T, slow *lazy, got, ahead int) {
		written := int(h.settled(t))
		t.Logf("the backend is %d events (%s) ahead of who reads nothing", written, mib(int64(written*(size+20))))
		if most := ahead + (ring+sockets)/size; written > most {
			t.Errorf("the backend wrote %d events, want at most %d", written, most)
		}
		slow.take(got+1, got+1000, size)
		later := int(h.settled(t))
		if most := 1000 + ahead + (ring+sockets)/size; later < written || later > most {
			t.Errorf("after 1000 events were read the backend has written %d, before that %d, want at most %d", later, written, most)
		}
		slow.rest(got+1001, events, size)
	}
	t.Run("here", func(t *testing.T) {
		n := Start(t, bin, "one", config(h.URL, more))
		check(t, lazily(t, fmt.Sprintf("%s/hose?n=%d&size=%d", n.URL, events, size), ""), 0, 0)
	})
	kinds(t, func(t *testing.T, w *world) {
		w.backend.URL = h.URL
		a, b := w.pair(t, more)
		url := fmt.Sprintf("/hose?n=%d&size=%d", events, size)
		first := lazily(t, a.URL+url, "")
		first.take(1, 10, size)
		far := lazily(t, b.URL+url, first.last)
		// While nobody seems to follow, a service is read as fast as it goes.
		for end := time.Now().Add(Patience); ; time.Sleep(5 * time.Millisecond) {
			resp, err := http.Get(byName(a, first.id()) + "/status")
			if err != nil {
				t.Fatal(err)
			}
			body, _ := io.ReadAll(resp.Body)
			resp.Body.Close()
			if strings.Contains(string(body), `"followers":2`) {
				break
			}
			if time.Now().After(end) {
				t.Fatalf("the owner does not know of its second follower: %s", body)
			}
		}
		first.resp.Body.Close()
		check(t, far, 10, log/2)
	})
}

// TestPausingClient: while a service is not read because its client does not
// read, its silence is not its own, and no idle_timeout cuts it.
func TestPausingClient(t *testing.T) {
	const events, size, idle = 30_000, 1000, 500 * time.Millisecond
	h := newHose(t)
	for name, more := range map[string]string{"intake": "", "goroutine": "takeover = \"last-event-id\"\n"} {
		t.Run(name, func(t *testing.T) {
			n := Start(t, bin, "one", fmt.Sprintf(`
[[upstream]]
name = "hose"
targets = [%q]
idle_timeout = %q

[[route]]
path = "/"
upstream = "hose"
log_length = 100
ring_events = 50
%s`, h.URL, idle, more))
			slow := lazily(t, fmt.Sprintf("%s/hose?n=%d&size=%d", n.URL, events, size), "")
			slow.take(1, 10, size)
			h.settled(t)
			time.Sleep(3 * idle)
			slow.rest(11, events, size)
		})
	}
}

// TestNeverReads: who never reads is cut after write_timeout, here and
// elsewhere, and its place is free.
func TestNeverReads(t *testing.T) {
	const timeout = time.Second
	h := newHose(t)
	kinds(t, func(t *testing.T, w *world) {
		w.backend.URL = h.URL
		a, b := w.pair(t, "write_timeout = \"1s\"\ndetach_for = \"300ms\"\n")
		for _, n := range []*Node{a, b} {
			first := lazily(t, a.URL+"/hose?n=1000000&size=1000", "")
			never := first
			if n != a {
				never = lazily(t, byName(n, first.id()), "")
				first.resp.Body.Close()
			}
			begun := time.Now()
			Eventually(t, n.Name+" has let it go", func() bool { return n.Metric("ssegate_connections") == 0 })
			if d := time.Since(begun); d < timeout/2 || d > 5*timeout {
				t.Errorf("%s cut it after %v", n.Name, d)
			}
			slow := n.Metric(`ssegate_followers_left_total{reason="slow"}`) + n.Metric(`ssegate_followers_left_total{reason="ghost"}`)
			if slow != 1 {
				t.Errorf("%s counted %v followers as slow or gone", n.Name, slow)
			}
			Eventually(t, "the upstream is cancelled", func() bool { return a.Metric(`ssegate_streams{role="owner"}`) == 0 })
			if _, err := io.Copy(io.Discard, never.r); err == nil {
				t.Error("it ended cleanly")
			}
		}
	})
}

// TestLargeEvents: events of 1 MiB reach the fast, the slow, and those on
// another node.
func TestLargeEvents(t *testing.T) {
	const events, size = 24, 1 << 20
	h := newHose(t)
	kinds(t, func(t *testing.T, w *world) {
		w.backend.URL = h.URL
		a, b := w.pair(t, "")
		first := lazily(t, fmt.Sprintf("%s/hose?n=%d&size=%d&every=20ms", a.URL, events, size), "")
		slow := []*lazy{lazily(t, byName(a, first.id()), ""), lazily(t, byName(b, first.id()), "")}
		here, there := first.whole(events, size), lazily(t, byName(b, first.id()), "").whole(events, size)
		took, pause := here()
		t.Logf("here: %v, longest pause %v", took.Round(time.Millisecond), pause.Round(time.Millisecond))
		took, pause = there()
		t.Logf("elsewhere: %v, longest pause %v", took.Round(time.Millisecond), pause.Round(time.Millisecond))
		for _, l := range slow {
			l.rest(1, events, size)
		}
	})
}

// TestLongHistory: 10 000 events are replayed to who comes late and to another
// node, the first of them soon.
func TestLongHistory(t *testing.T) {
	const events, size = 9_990, 100 // and [DONE]: what the log keeps by default
	h := newHose(t)
	kinds(t, func(t *testing.T, w *world) {
		w.backend.URL = h.URL
		a, b := w.pair(t, "")
		first := lazily(t, fmt.Sprintf("%s/hose?n=%d&size=%d", a.URL, events, size), "")
		first.whole(events, size)()
		Eventually(t, "the log has it", func() bool { return a.Metric("ssegate_frames_logged_total") >= events+2 })
		for _, n := range []*Node{b, a, b} {
			begun := time.Now()
			late := lazily(t, byName(n, first.id()), "")
			late.take(1, 1, size)
			soon := time.Since(begun)
			late.rest(2, events, size)
			t.Logf("%s: first replayed event after %v, all after %v", n.Name, soon.Round(time.Microsecond), time.Since(begun).Round(time.Millisecond))
			if soon > time.Second {
				t.Errorf("%s: the first replayed event came after %v", n.Name, soon)
			}
		}
	})
}

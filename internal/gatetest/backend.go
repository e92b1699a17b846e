package gatetest

import (
	"fmt"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"strconv"
	"sync"
	"testing"
	"time"
)

// Backend is an upstream that knows nothing of ssegate. Its event streams are
// in the test's hand, or count by themselves:
//
//	/count?n=30&every=2ms   events `data: 1` … `data: n`, then [DONE]
//	   &ids=1               with ids of its own; honours Last-Event-ID
//	   &done=0              without the marker
//	   &cut=k               the connection is cut after k events
//	/hold                   a Run that the test writes with Send, see Next
//	/json, /echo            no event streams
//
// Every answer is counted.
type Backend struct {
	URL  string
	t    testing.TB
	srv  *httptest.Server
	runs chan *Run

	mu        sync.Mutex
	started   map[string]int // by path and query (without lastEventId)
	cancelled int
	requests  []*http.Request
	changed   chan struct{}
}

// Run is one request to /hold.
type Run struct {
	Request *http.Request
	Body    []byte
	w       http.ResponseWriter
	done    chan struct{}
	gone    <-chan struct{}
	cut     bool
}

// NewBackend starts one.
func NewBackend(t testing.TB) *Backend {
	b := &Backend{t: t, runs: make(chan *Run, 1024), started: map[string]int{}, changed: make(chan struct{})}
	mux := http.NewServeMux()
	mux.HandleFunc("/count", b.count)
	mux.HandleFunc("/hold", b.hold)
	mux.HandleFunc("/hold/", b.hold)
	mux.HandleFunc("/json", func(w http.ResponseWriter, r *http.Request) {
		b.begin(r)
		w.Header().Set("Content-Type", "application/json")
		io.WriteString(w, `{"ok":true}`)
	})
	mux.HandleFunc("/echo", func(w http.ResponseWriter, r *http.Request) {
		b.begin(r)
		io.Copy(w, r.Body)
	})
	b.srv = httptest.NewUnstartedServer(mux)
	b.srv.Config.ErrorLog = nil
	b.srv.Start()
	b.URL = b.srv.URL
	t.Cleanup(func() {
		b.srv.CloseClientConnections()
		for len(b.runs) > 0 {
			(<-b.runs).End() // nobody came to take it: the test has failed before
		}
		b.srv.Close()
	})
	return b
}

func (b *Backend) begin(r *http.Request) {
	b.mu.Lock()
	b.started[r.URL.Path]++
	b.requests = append(b.requests, r)
	close(b.changed)
	b.changed = make(chan struct{})
	b.mu.Unlock()
}

// Runs is how often a path was asked for.
func (b *Backend) Runs(path string) int {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.started[path]
}

// Cancelled is how many answers were cut short by whoever asked.
func (b *Backend) Cancelled() int {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.cancelled
}

// Last is the newest request.
func (b *Backend) Last() *http.Request {
	b.mu.Lock()
	defer b.mu.Unlock()
	if len(b.requests) == 0 {
		return nil
	}
	return b.requests[len(b.requests)-1]
}

func (b *Backend) count(w http.ResponseWriter, r *http.Request) {
	b.begin(r)
	io.Copy(io.Discard, r.Body)
	q := r.URL.Query()
	n, _ := strconv.Atoi(q.Get("n"))
	every, _ := time.ParseDuration(q.Get("every"))
	cut, _ := strconv.Atoi(q.Get("cut"))
	from := 1
	if q.Get("ids") != "" {
		if last, err := strconv.Atoi(r.Header.Get("Last-Event-ID")); err == nil {
			from = last + 1
		}
	}
	w.Header().Set("Content-Type", "text/event-stream")
	flush := w.(http.Flusher).Flush
	w.WriteHeader(200)
	flush()
	for i := from; i <= n; i++ {
		if q.Get("ids") != "" {
			fmt.Fprintf(w, "id: %d\n", i)
		}
		fmt.Fprintf(w, "data: %d\n\n", i)
		flush()
		if cut == i {
			panic(http.ErrAbortHandler)
		}
		if every > 0 {
			select {
			case <-time.After(every):
			case <-r.Context().Done():
			}
		}
		if r.Context().Err() != nil {
			b.mu.Lock()
			b.cancelled++
			b.mu.Unlock()
			return
		}
	}
	if q.Get("done") != "0" {
		if q.Get("ids") != "" {
			fmt.Fprintf(w, "id: %d\n", n+1)
		}
		io.WriteString(w, "data: [DONE]\n\n")
	}
}

func (b *Backend) hold(w http.ResponseWriter, r *http.Request) {
	body, _ := io.ReadAll(r.Body)
	b.begin(r)
	run := &Run{Request: r, Body: body, w: w, done: make(chan struct{}), gone: r.Context().Done()}
	select {
	case b.runs <- run:
	default:
		b.t.Error("backend: nobody takes the runs")
		return
	}
	select {
	case <-run.done:
		if run.cut {
			panic(http.ErrAbortHandler)
		}
	case <-r.Context().Done():
		b.mu.Lock()
		b.cancelled++
		b.mu.Unlock()
		<-run.done // the test still holds it; see End
	}
}

// Next waits for the next request to /hold. The test must End or Cut it.
func (b *Backend) Next() *Run {
	b.t.Helper()
	select {
	case r := <-b.runs:
		b.t.Cleanup(r.End)
		return r
	case <-time.After(Patience):
		b.t.Fatal("the backend was not asked")
		return nil
	}
}

// Idle fails the test if a request to /hold is waiting.
func (b *Backend) Idle() {
	b.t.Helper()
	select {
	case r := <-b.runs:
		r.End()
		b.t.Fatal("the backend was asked once more")
	default:
	}
}

// Head sends the response head of an event stream.
func (r *Run) Head(kv ...string) {
	r.w.Header().Set("Content-Type", "text/event-stream")
	for i := 0; i+1 < len(kv); i += 2 {
		r.w.Header().Set(kv[i], kv[i+1])
	}
	r.w.WriteHeader(200)
	r.w.(http.Flusher).Flush()
}

// Send writes text as it is, at once.
func (r *Run) Send(text string) {
	io.WriteString(r.w, text)
	r.w.(http.Flusher).Flush()
}

// End ends the answer cleanly; Cut breaks the connection. Only the first of
// them counts.
func (r *Run) End() { r.end(false) }

// Cut breaks the connection.
func (r *Run) Cut() { r.end(true) }

func (r *Run) end(cut bool) {
	select {
	case <-r.done:
	default:
		r.cut = cut
		close(r.done)
	}
}

// Cancelled waits until whoever asked has left.
func (r *Run) Cancelled(t testing.TB) {
	t.Helper()
	select {
	case <-r.gone:
	case <-time.After(Patience):
		t.Fatal("the upstream request was never cancelled")
	}
}

// FreePort is a loopback address that nobody listens on just now.
func FreePort(t testing.TB) string {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	return l.Addr().String()
}

// Refuse answers with a status and no stream.
func (r *Run) Refuse(status int) {
	r.w.WriteHeader(status)
	r.End()
}

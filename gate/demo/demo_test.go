package demo

import (
	"bufio"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"runtime"
	"strings"
	"testing"
	"time"

	"ssegate/gate"
	"ssegate/sse"
)

// running is a demo that serves until the test ends.
func running(t *testing.T) *Demo {
	t.Helper()
	d, err := New(Config{
		Listen:  "127.0.0.1:0",
		Logging: gate.NewLogging(gate.Log{Level: "info", Format: "console"}, t.Output()),
	})
	if err != nil {
		t.Fatal(err)
	}
	ctx, stop := context.WithCancel(context.Background())
	ended := make(chan error, 1)
	go func() { ended <- d.Run(ctx) }()
	t.Cleanup(func() {
		stop()
		select {
		case err := <-ended:
			if err != nil {
				t.Errorf("Run returned %v", err)
			}
		case <-time.After(20 * time.Second):
			_, stacks := goroutines()
			t.Errorf("Run does not end:\n%s", stacks)
		}
	})
	return d
}

// client keeps no connection open behind a test's back.
var client = &http.Client{Transport: &http.Transport{DisableKeepAlives: true}, Timeout: 20 * time.Second}

func post(t *testing.T, url string, header ...string) int {
	t.Helper()
	req, err := http.NewRequest("POST", url, nil)
	if err != nil {
		t.Fatal(err)
	}
	for i := 0; i < len(header); i += 2 {
		req.Header.Set(header[i], header[i+1])
	}
	resp, err := client.Do(req)
	if err != nil {
		t.Fatal(err)
	}
	resp.Body.Close()
	return resp.StatusCode
}

func TestModel(t *testing.T) {
	m := newModel(func() {})
	words := len(m.words)
	f := func(name, method, url, body, lastID string, status int, first, last string) {
		t.Helper()
		t.Run(name, func(t *testing.T) {
			r, _ := http.NewRequestWithContext(t.Context(), method, url, strings.NewReader(body))
			if lastID != "" {
				r.Header.Set("Last-Event-ID", lastID)
			}
			w := &recorder{header: http.Header{}}
			m.ServeHTTP(w, r)
			if w.status != status {
				t.Fatalf("status is %d, want %d: %s", w.status, status, w.body.String())
			}
			blocks := strings.SplitAfter(w.body.String(), "\n\n")
			if !strings.HasPrefix(blocks[0], first) || !strings.Contains(w.body.String(), last) {
				t.Errorf("answer begins with %q, ends with %q", blocks[0], blocks[max(0, len(blocks)-2)])
			}
		})
	}
	f("GET", "GET", "/answer?run=a&pace=2", "", "", 200, "id: a.1\ndata: {\"n\":1,\"word\":\"You\"", fmt.Sprintf("id: a.%d\ndata: [DONE]\n\n", words+1))
	f("POST", "POST", "/answer", `{"run":"b","pace":2}`, "", 200, "id: b.1\n", "[DONE]")
	f("go on", "GET", "/answer?run=a&pace=2", "", fmt.Sprintf("a.%d", words-2), 200, fmt.Sprintf("id: a.%d\n", words-1), "[DONE]")
	f("nothing left", "GET", "/answer?run=a&pace=2", "", fmt.Sprintf("a.%d", words), 200, fmt.Sprintf("id: a.%d\ndata: [DONE]", words+1), "[DONE]")
	f("id of another answer", "GET", "/answer?run=a", "", "b.3", 400, "this Last-Event-ID", "")
	f("id that was never given", "GET", "/answer?run=a", "", "a.0", 400, "this Last-Event-ID", "")
	f("no JSON", "POST", "/answer", "run=a", "", 400, "the body must be JSON", "")
	f("strange name", "GET", "/answer?run=a%0ab", "", "", 400, "run: at most", "")
	f("other method", "PUT", "/answer", "", "", 405, "ask with GET or POST", "")
	f("preflight", "OPTIONS", "/answer", "", "", 204, "", "")
	f("other path", "GET", "/", "", "", 404, "404", "")

	if s := m.state("a"); s != (runState{Started: 1, Continued: 2, Word: words}) {
		t.Errorf("a: %+v", s)
	}
	if s := m.state("b"); s != (runState{Started: 1, Word: words}) {
		t.Errorf("b: %+v", s)
	}
	for i := range 2 * keptRuns {
		m.note(fmt.Sprint(i), func(s *runState) { s.Started++ })
	}
	if len(m.runs) != keptRuns || len(m.order) != keptRuns {
		t.Errorf("%d and %d runs are kept, want %d", len(m.runs), len(m.order), keptRuns)
	}
}

// recorder is a ResponseWriter that can be flushed.
type recorder struct {
	header http.Header
	status int
	body   strings.Builder
}

func (r *recorder) Header() http.Header { return r.header }
func (r *recorder) Flush()              {}
func (r *recorder) WriteHeader(s int) {
	if r.status == 0 {
		r.status = s
	}
}
func (r *recorder) Write(b []byte) (int, error) {
	r.WriteHeader(200)
	return r.body.Write(b)
}

func TestOrders(t *testing.T) {
	d := running(t)
	f := func(path string, want int, header ...string) {
		t.Helper()
		if got := post(t, d.URL()+path, header...); got != want {
			t.Errorf("POST %s %q: %d, want %d", path, header, got, want)
		}
	}
	second := "http://127.0.0.1:" + d.nodes.state()[1].Port + "/"
	reachable := func() bool {
		resp, err := client.Get(second)
		if err == nil {
			resp.Body.Close()
		}
		return err == nil && resp.StatusCode == 404 // the model's answer
	}
	if !reachable() {
		t.Fatal("node 2 does not serve")
	}
	before := d.nodes.state()[1].ID
	f("demo/nodes/2/kill", 403, "Origin", "http://evil.example", "Sec-Fetch-Site", "cross-site")
	f("demo/nodes/2/start", 409)
	f("demo/nodes/2/kill", 204)
	f("demo/nodes/2/kill", 409)
	if d.nodes.state()[1].ID != "" {
		t.Error("node 2 counts as up after its end")
	}
	if reachable() {
		t.Error("node 2 serves after its end")
	}
	f("demo/nodes/2/start", 204)
	if !reachable() {
		t.Error("node 2 does not serve at its old address")
	}
	if after := d.nodes.state()[1].ID; after == "" || after == before {
		t.Errorf("node 2 was %q and is now %q", before, after)
	}
	for _, number := range []string{"0", "4", "x"} {
		f("demo/nodes/"+number+"/kill", 404)
	}
}

// TestNodesAreCluster needs no page: an answer begun at one node goes on at
// another after the first has died.
func TestNodesAreCluster(t *testing.T) {
	d := running(t)
	ask := func(node int, lastID string) (*http.Response, error) {
		req, _ := http.NewRequestWithContext(t.Context(), "GET", fmt.Sprintf("http://127.0.0.1:%s/answer?run=x&pace=10", d.nodes.state()[node-1].Port), nil)
		req.Header.Set("Accept", "text/event-stream")
		if lastID != "" {
			req.Header.Set("Last-Event-ID", lastID)
		}
		return client.Do(req)
	}
	first, err := ask(1, "")
	if err != nil {
		t.Fatal(err)
	}
	defer first.Body.Close()
	var seen strings.Builder // up to and with word 20
	lines := bufio.NewReader(first.Body)
	for last := false; !last; {
		line, err := lines.ReadString('\n')
		if err != nil {
			t.Fatal(err)
		}
		last = strings.Contains(line, `"n":20,`)
		seen.WriteString(line)
	}
	// What the log has not got dies with the node.
	stream, err := sse.ParseStreamID(first.Header.Get("Ssegate-Stream"))
	if err != nil {
		t.Fatal(err)
	}
	for end := time.Now().Add(5 * time.Second); ; time.Sleep(time.Millisecond) {
		_, err := d.nodes.memory.Log.Find(t.Context(), stream, []byte("x.20"))
		if err == nil {
			break
		}
		if time.Now().After(end) {
			t.Fatalf("the log has no word 20: %v", err)
		}
	}
	if err := d.nodes.kill(t.Context(), 1); err != nil {
		t.Fatal(err)
	}
	if _, err := io.Copy(io.Discard, lines); err == nil {
		t.Error("the killed node ended its answer cleanly")
	}
	second, err := ask(2, "x.20")
	if err != nil {
		t.Fatal(err)
	}
	defer second.Body.Close()
	rest, err := io.ReadAll(second.Body)
	if err != nil {
		t.Fatal(err)
	}
	var words []string
	for line := range strings.Lines(seen.String() + string(rest)) {
		var w word
		if data, ok := strings.CutPrefix(line, "data: {"); ok && json.Unmarshal([]byte("{"+data), &w) == nil {
			words = append(words, w.Word)
		}
	}
	if got, want := strings.Join(words, " "), strings.Join(d.model.words, " "); got != want {
		t.Errorf("got\n%s\nwant\n%s", got, want)
	}
	if s := d.model.state("x"); s.Started != 1 || s.Continued != 1 {
		t.Errorf("the model was asked %d times and continued %d times, want 1 and 1", s.Started, s.Continued)
	}
}

func TestNothingIsLeft(t *testing.T) {
	before, _ := goroutines()
	d, err := New(Config{Listen: "127.0.0.1:0"})
	if err != nil {
		t.Fatal(err)
	}
	ctx, stop := context.WithCancel(t.Context())
	ended := make(chan error, 1)
	go func() { ended <- d.Run(ctx) }()
	addresses := []string{d.front.Addr().String(), d.backend.Addr().String()}
	urls := []string{d.URL() + "demo/state"} // these are streams that are open when the demo ends
	for _, n := range d.nodes.state() {
		addresses = append(addresses, "127.0.0.1:"+n.Port)
		urls = append(urls, "http://127.0.0.1:"+n.Port+"/answer")
	}
	var streams []io.ReadCloser
	for _, u := range urls {
		resp, err := client.Get(u)
		if err != nil {
			t.Fatal(err)
		}
		streams = append(streams, resp.Body)
	}
	stop()
	if err := <-ended; err != nil {
		t.Errorf("Run returned %v", err)
	}
	for _, s := range streams {
		io.Copy(io.Discard, s) // an answer that is cut is not read without an error
		s.Close()
	}
	for _, a := range addresses {
		if c, err := net.Dial("tcp", a); err == nil {
			c.Close()
			t.Errorf("%s is still listened at", a)
		}
	}
	for end := time.Now().Add(5 * time.Second); ; time.Sleep(5 * time.Millisecond) {
		after, stacks := goroutines()
		if after <= before {
			return
		}
		if time.Now().After(end) {
			t.Fatalf("%d goroutines before, %d after:\n%s", before, after, stacks)
		}
	}
}

// goroutines counts those that are there, but for one a server of fasthttp's
// that sleeps up to ten seconds before it sees that the server has gone.
func goroutines() (n int, stacks string) {
	buf := make([]byte, 1<<20)
	stacks = string(buf[:runtime.Stack(buf, true)])
	return strings.Count(stacks, "\n\n") + 1 - strings.Count(stacks, "workerPool).Start in"), stacks
}

func TestAddressInUse(t *testing.T) {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	_, err = New(Config{Listen: l.Addr().String()})
	if opErr, ok := errors.AsType[*net.OpError](err); !ok || opErr.Op != "listen" {
		t.Errorf("error is %v", err)
	}
}

func TestPorts(t *testing.T) {
	f := func(page string, n int, want string) {
		t.Helper()
		if got := near(page, n); got != want {
			t.Errorf("near(%q, %d) = %q, want %q", page, n, got, want)
		}
	}
	f("127.0.0.1:8080", 3, "127.0.0.1:8083")
	f("[::]:8080", 1, "[::]:8081")
	f("127.0.0.1:65534", 2, "127.0.0.1:0")
}

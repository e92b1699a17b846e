//go:build unix

package service

import (
	"bufio"
	"context"
	"io"
	"net/http"
	"slices"
	"strings"
	"testing"
	"time"
)

// ask sends a request with a JSON body, or a GET without one, and hands the answer's body to the caller.
func ask(t *testing.T, ctx context.Context, url, body string) io.ReadCloser {
	t.Helper()
	method := http.MethodGet
	if body != "" {
		method = http.MethodPost
	}
	req, err := http.NewRequestWithContext(ctx, method, url, strings.NewReader(body))
	if err != nil {
		t.Fatal(err)
	}
	req.Close = true
	req.Header.Set("Content-Type", "application/json")
	req.Header.Set("Last-Event-ID", "from before")
	resp, err := http.DefaultClient.Do(req)
	if err != nil {
		t.Fatal(err)
	}
	if resp.StatusCode != http.StatusOK {
		t.Fatalf("%s: %s", url, resp.Status)
	}
	t.Cleanup(func() { resp.Body.Close() })
	return resp.Body
}

// awaitReport asks for the report until it is as wanted.
func awaitReport(t *testing.T, report func() Report, ok func(Report) bool) {
	t.Helper()
	var r Report
	for deadline := time.Now().Add(10 * time.Second); time.Now().Before(deadline); time.Sleep(5 * time.Millisecond) {
		if r = report(); ok(r) {
			return
		}
	}
	t.Fatalf("report %+v", r)
}

// walk streams one answer whole and one cut short, and looks at what the backend says of them. heartbeat and last are
// lines of the whole one.
func walk(t *testing.T, url, short, long string, report func() Report, heartbeat, last string) {
	t.Helper()
	b, err := io.ReadAll(ask(t, t.Context(), url, short))
	if err != nil {
		t.Fatal(err)
	}
	lines := slices.DeleteFunc(strings.Split(strings.ReplaceAll(string(b), "\r\n", "\n"), "\n"),
		func(s string) bool { return s == "" })
	if !slices.Contains(lines, heartbeat) {
		t.Errorf("no heartbeat in %q", lines)
	}
	if got := lines[len(lines)-1]; !strings.Contains(got, last) {
		t.Errorf("last line %q, want %q", got, last)
	}
	awaitReport(t, report, func(r Report) bool {
		return r.Started == 1 && r.Finished == 1 && r.Running == 0 && r.Cancelled == 0 && r.Requests["r1"] == 1 &&
			r.LastEventID != nil && *r.LastEventID == "from before"
	})

	ctx, cancel := context.WithCancel(t.Context())
	defer cancel()
	if _, err := bufio.NewReader(ask(t, ctx, url, long)).ReadString('\n'); err != nil {
		t.Fatal(err)
	}
	if r := report(); r.Running != 1 {
		t.Errorf("report %+v while one runs", r)
	}
	cancel()
	awaitReport(t, report, func(r Report) bool { return r.Started == 2 && r.Cancelled == 1 && r.Running == 0 })
}

func TestFastAPI(t *testing.T) {
	p := FastAPI(t, "PING=0.05", "STEP_MS=300")
	report := func(name string) func() Report {
		return func() Report {
			var all map[string]Report
			if err := getJSON(t.Context(), p.URL+"/runs", &all); err != nil {
				t.Fatal(err)
			}
			return all[name]
		}
	}
	walk(t, p.URL+"/deepsearch",
		`{"query": "q", "request_id": "r1", "max_loop": 1, "search_engines": ["web"], "stream": true, "stream_mode": "all"}`,
		`{"query": "q", "request_id": "r2", "max_loop": 1000000}`,
		report("deepsearch"), "data: heartbeat", "data: [DONE]")

	b, err := io.ReadAll(ask(t, t.Context(), p.URL+"/events?n=3&interval_ms=0&ids=true", ""))
	if err != nil {
		t.Fatal(err)
	}
	want := "id: 1\r\ndata: {\"n\": 1}\r\n\r\nid: 2\r\ndata: {\"n\": 2}\r\n\r\nid: 3\r\ndata: {\"n\": 3}\r\n\r\n"
	if string(b) != want {
		t.Errorf("events %q, want %q", b, want)
	}
	awaitReport(t, report("events"), func(r Report) bool { return r.Finished == 1 })
}

func TestSpring(t *testing.T) {
	p := Spring(t, "--agent.heartbeat=50ms", "--agent.step=300ms")
	report := func() (r Report) {
		if err := getJSON(t.Context(), p.URL+"/runs", &r); err != nil {
			t.Fatal(err)
		}
		return r
	}
	walk(t, p.URL+"/AutoAgent",
		`{"query": "q", "requestId": "r1", "steps": 1}`, `{"requestId": "r2", "steps": 1000000}`,
		report, "data:heartbeat", `"finished":true`)

	b, err := io.ReadAll(ask(t, t.Context(), p.URL+"/AutoAgent?requestId=r3&steps=0", ""))
	if err != nil || !strings.Contains(string(b), `"requestId":"r3"`) {
		t.Errorf("by GET: %q, %v", b, err)
	}
}

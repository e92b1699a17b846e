package proxy

import (
	"fmt"
	"io"
	"net/http"
	"strings"
	"testing"
	"time"

	"ssegate/auth"
	"ssegate/push"
)

// withAPI serves a handler as the push API on the public listener.
func withAPI(h http.HandlerFunc) func(*Config, *PushConfig, *Route) {
	return func(_ *Config, c *PushConfig, _ *Route) { c.API = h }
}

func withAuth(t *testing.T) func(*Config, *PushConfig, *Route) {
	return func(c *Config, _ *PushConfig, _ *Route) { c.Auth = testAuth(t, nil) }
}

// The API sees the request as the internal listener would hand it over, and
// who sends it.
func TestPublicAPI(t *testing.T) {
	w := newPushWorld(t, nil, withAuth(t), withAPI(func(w http.ResponseWriter, r *http.Request) {
		body, err := io.ReadAll(r.Body)
		w.Header().Set("Content-Type", "application/json")
		w.Header().Set("X-Request-Id", "of the handler") // ours counts
		w.WriteHeader(202)
		fmt.Fprintf(w, "%s %s %q %s by %s err=%v len=%d", r.Method, r.RequestURI, r.URL.Path, body, auth.FromContext(r.Context()).Principal(), err, r.ContentLength)
	}), func(_ *Config, c *PushConfig, _ *Route) { c.Route.BodySize = 1 << 20 })
	w.p.SetCORS(CORS{Origins: []string{"https://app.example"}, Credentials: true, MaxAge: time.Hour})

	resp, body := w.ask("POST", "/api/v1/messages/send?x=%2F&access_token="+token("alice", time.Now().Add(time.Hour)), "", `{"a":1}`, "Content-Type", "application/json")
	if want := `POST /api/v1/messages/send?x=%2F "/api/v1/messages/send" {"a":1} by sub:alice err=<nil> len=7`; resp.StatusCode != 202 || body != want {
		t.Errorf("%d %s\nwant %s", resp.StatusCode, body, want)
	}
	if got := resp.Header["X-Request-Id"]; len(got) != 1 || got[0] == "of the handler" {
		t.Errorf("request ids: %q", got)
	}
	resp, body = w.ask("POST", "/api/sse/send", "", "{}", "Content-Type", "application/json", "X-Api-Key", "key-1", "Origin", "https://app.example")
	if resp.StatusCode != 202 || !strings.Contains(body, "by key:billing") || resp.Header.Get("Access-Control-Allow-Origin") != "https://app.example" {
		t.Errorf("%d %s %v", resp.StatusCode, body, resp.Header)
	}
	resp, body = w.ask("POST", "/api/sse/send", "", "{}", "Origin", "https://app.example")
	if resp.StatusCode != 401 || reason(body) != "unauthorized" || resp.Header.Get("Access-Control-Allow-Origin") != "https://app.example" {
		t.Errorf("nobody: %d %s %v", resp.StatusCode, body, resp.Header)
	}
	if resp, body = w.ask("POST", "/api/sse/send", "", strings.Repeat("x", 2<<20), "X-Api-Key", "key-1"); resp.StatusCode != 413 || reason(body) != "body_too_large" {
		t.Errorf("too much: %d %s", resp.StatusCode, body)
	}
	// Chunks, and a client that waits to be asked for them.
	c := w.dial()
	c.send("POST /api/sse/send HTTP/1.1\r\nHost: h\r\nX-Api-Key: key-1\r\nTransfer-Encoding: chunked\r\nExpect: 100-continue\r\n\r\n")
	c.expect("HTTP/1.1 100 Continue\r\n\r\n")
	c.send("3\r\nabc\r\n2\r\nde\r\n0\r\n\r\n")
	if resp, body := c.response("POST"); resp.StatusCode != 202 || !strings.Contains(body, "abcde by key:billing err=<nil> len=-1") {
		t.Errorf("chunks: %d %s", resp.StatusCode, body)
	}
	c.send("GET /api/sse/status/u1 HTTP/1.1\r\nHost: h\r\nX-Api-Key: key-1\r\n\r\n") // the connection goes on
	if resp, body := c.response("GET"); resp.StatusCode != 202 || !strings.HasPrefix(body, "GET /api/sse/status/u1") {
		t.Errorf("then: %d %s", resp.StatusCode, body)
	}
}

// A publisher's stream reaches the API as it comes, and its end is told.
func TestPublicAPIStreams(t *testing.T) {
	lines := make(chan string, 10)
	ended := make(chan error, 1)
	w := newPushWorld(t, nil, withAPI(func(_ http.ResponseWriter, r *http.Request) {
		b := make([]byte, 100)
		for {
			n, err := r.Body.Read(b)
			if n > 0 {
				lines <- string(b[:n])
			}
			if err != nil {
				ended <- err
				return
			}
		}
	}))
	c := w.dial()
	c.send("POST /api/v1/streams/user/u1 HTTP/1.1\r\nHost: h\r\nTransfer-Encoding: chunked\r\n\r\n")
	for i := range 3 {
		line := fmt.Sprintf("data: %d\n\n", i)
		c.send(fmt.Sprintf("%x\r\n%s\r\n", len(line), line))
		if got := wait(t, "a line", lines); got != line {
			t.Fatalf("got %q, want %q", got, line)
		}
	}
	c.Close()
	if err := wait(t, "the end", ended); err == io.EOF {
		t.Error("a cut looks like an end")
	}
}

// How long a publisher may be silent is the API's to say, not the listener's;
// and the end of its token is told to one that is silent.
func TestPublicPublisherSilent(t *testing.T) {
	const listener = 100 * time.Millisecond
	w := newPushWorld(t, nil, withAuth(t), withAPI(nil), func(c *Config, _ *PushConfig, _ *Route) { c.BodyTimeout = listener })
	stream := func(idle time.Duration, end time.Time) *peer {
		api, err := push.New(push.Config{Cluster: w.node, Log: w.log, Registry: w.reg, Hosts: []string{"h"}, Options: push.Options{Idle: idle}})
		if err != nil {
			t.Fatal(err)
		}
		w.p.SetPush(&PushConfig{Route: w.cfg.Route, API: api})
		f := w.follow("/sse/user/u1", "Authorization", bearerOf("u1"))
		c := w.dial()
		c.send("POST /api/v1/streams/user/u1?marks=off HTTP/1.1\r\nHost: h\r\nAuthorization: Bearer " + token("u1", end, "user/u1") +
			"\r\nContent-Type: text/event-stream\r\nTransfer-Encoding: chunked\r\n\r\n9\r\ndata: 1\n\n\r\n")
		f.expect("message: 1")
		f.close()
		return c
	}
	c := stream(0, time.Now().Add(time.Hour))
	time.Sleep(5 * listener)
	c.send("9\r\ndata: 2\n\n\r\n0\r\n\r\n")
	if resp, body := c.response("POST"); resp.StatusCode != 200 || !strings.Contains(body, `"events":2`) {
		t.Errorf("no limit: %d %s", resp.StatusCode, body)
	}
	c.send("GET /api/sse/status/u1 HTTP/1.1\r\nHost: h\r\nAuthorization: " + bearerOf("u1") + "\r\n\r\n") // the connection goes on
	if resp, body := c.response("GET"); resp.StatusCode != 200 {
		t.Errorf("then: %d %s", resp.StatusCode, body)
	}
	for reason, c := range map[string]*peer{
		"body_timeout":  stream(3*listener, time.Now().Add(time.Hour)),
		"token_expired": stream(0, time.Now().Add(2*time.Second)),
	} {
		if resp, body := c.response("POST"); resp.StatusCode != map[string]int{"body_timeout": 408, "token_expired": 401}[reason] || !strings.Contains(body, `"`+reason+`"`) || !strings.Contains(body, `"events":1`) {
			t.Errorf("%s: %d %s", reason, resp.StatusCode, body)
		}
		if rest, err := c.rest(); rest != "" || err != nil {
			t.Errorf("%s: the connection goes on: %q, %v", reason, rest, err)
		}
	}
}

// An API call ends when its client leaves.
func TestPublicAPIClientLeaves(t *testing.T) {
	begun, done := make(chan struct{}), make(chan error, 1)
	w := newPushWorld(t, nil, withAPI(func(_ http.ResponseWriter, r *http.Request) {
		close(begun)
		select {
		case <-r.Context().Done():
			done <- nil
		case <-time.After(patience):
			done <- fmt.Errorf("nobody told it")
		}
	}))
	c := w.dial()
	c.send("GET /api/v1/connections HTTP/1.1\r\nHost: h\r\n\r\n")
	wait(t, "the call", begun)
	c.Close()
	if err := wait(t, "the end", done); err != nil {
		t.Error(err)
	}
}

func TestPushPreflight(t *testing.T) {
	w := newPushWorld(t, nil, withAuth(t), withAPI(nil))
	w.p.SetPush(&PushConfig{Route: w.cfg.Route, API: http.NotFoundHandler()})
	w.p.SetCORS(CORS{Origins: []string{"https://app.example", "*"}, Credentials: true, MaxAge: time.Hour})
	for path, methods := range map[string]string{
		"/sse/user/u1": "GET, HEAD, OPTIONS", "/sse/stream/a,b": "GET, HEAD, OPTIONS", "/sse/ack": "POST, OPTIONS",
		"/api/v1/messages/send": "GET, POST, DELETE, OPTIONS",
	} {
		resp, body := w.ask("OPTIONS", path, "Origin", "https://app.example", "Access-Control-Request-Method", "POST", "Access-Control-Request-Headers", "authorization,x-new")
		h := resp.Header
		if resp.StatusCode != 204 || body != "" || h.Get("Access-Control-Allow-Origin") != "https://app.example" || h.Get("Access-Control-Allow-Credentials") != "true" ||
			h.Get("Access-Control-Allow-Methods") != methods || !strings.Contains(h.Get("Access-Control-Allow-Headers"), "Last-Event-ID") ||
			h.Get("Access-Control-Max-Age") != "3600" || !strings.HasPrefix(h.Get("Vary"), "Origin, ") {
			t.Errorf("%s: %d %v", path, resp.StatusCode, h)
		}
		resp, _ = w.ask("OPTIONS", path, "Origin", "https://other.example", "Access-Control-Request-Method", "POST")
		if resp.Header.Get("Access-Control-Allow-Origin") != "*" || resp.Header.Get("Access-Control-Allow-Credentials") != "" {
			t.Errorf("%s for any origin: %v", path, resp.Header)
		}
		if resp, _ = w.ask("OPTIONS", path); resp.StatusCode != 204 || resp.Header.Get("Allow") != methods {
			t.Errorf("%s: OPTIONS: %d %v", path, resp.StatusCode, resp.Header)
		}
	}
	w.p.SetCORS(CORS{Origins: []string{"https://app.example"}, Headers: []string{"*"}})
	resp, _ := w.ask("OPTIONS", "/sse/user/u1", "Origin", "https://app.example", "Access-Control-Request-Method", "GET", "Access-Control-Request-Headers", "x-new, authorization")
	if resp.Header.Get("Access-Control-Allow-Headers") != "x-new, authorization" {
		t.Errorf("any header: %v", resp.Header)
	}
	resp, _ = w.ask("OPTIONS", "/sse/user/u1", "Origin", "https://other.example", "Access-Control-Request-Method", "GET")
	if resp.StatusCode != 204 || len(resp.Header["Access-Control-Allow-Origin"])+len(resp.Header["Access-Control-Allow-Methods"]) > 0 || resp.Header.Get("Vary") == "" {
		t.Errorf("no leave: %d %v", resp.StatusCode, resp.Header)
	}
}

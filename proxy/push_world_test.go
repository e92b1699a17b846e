package proxy

import (
	"bufio"
	"context"
	"crypto/hmac"
	"crypto/sha256"
	"encoding/base64"
	"encoding/json"
	"io"
	"net/http"
	"strings"
	"testing"
	"time"

	"ssegate/auth"
	"ssegate/bus"
	"ssegate/cluster"
	"ssegate/reconnect"
	"ssegate/registry"
)

// pushWorld is a gate with event streams and push, on a cluster of one node
// with everything in memory.
type pushWorld struct {
	*world
	node *cluster.Node
	log  *reconnect.Memory
	reg  *registry.Memory
	cfg  *PushConfig
}

// newPushWorld starts one. backends are addresses behind a route for the rest.
func newPushWorld(t *testing.T, backends []string, options ...func(*Config, *PushConfig, *Route)) *pushWorld {
	t.Helper()
	w := &pushWorld{log: reconnect.NewMemory(reconnect.MemoryConfig{}), reg: registry.NewMemory(nil)}
	h := newHub(t)
	w.node = cluster.New(cluster.Config{
		Self: registry.Node{ID: "n1"}, Hub: h, Log: w.log, Journal: w.log, Registry: w.reg, Bus: bus.NewMemory().Node("n1"),
	})
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan error, 1)
	go func() { done <- w.node.Run(ctx) }()
	t.Cleanup(func() {
		cancel()
		if err := <-done; err != nil {
			t.Error("cluster:", err)
		}
	})
	w.cfg = &PushConfig{Route: Route{Heartbeat: 15 * time.Second, Retry: 2 * time.Second, WriteTimeout: patience, LogLength: 1000, LogTTL: time.Minute}}
	w.world = newWorld(t, backends, func(c *Config, r *Route) {
		c.Cluster, c.Hub, c.Watch = w.node, h, nil
		for _, o := range options {
			o(c, w.cfg, r)
		}
	})
	w.p.SetPush(w.cfg)
	t.Cleanup(func() {
		ctx, cancel := context.WithTimeout(context.Background(), patience)
		defer cancel()
		w.p.CloseStreams(ctx)
	})
	return w
}

// publish puts an event into a topic.
func (w *pushWorld) publish(topic, data string) {
	w.t.Helper()
	for _, r := range w.node.Publish(context.Background(), []cluster.Outgoing{{
		Topic: cluster.TopicOf(topic), Block: []byte("data: " + data + "\n\n"), Limits: reconnect.Limits{Length: 1000, TTL: time.Minute},
	}}) {
		if r.Err != nil {
			w.t.Fatal("publish:", r.Err)
		}
	}
}

// asks is a request and what is to be seen of its answer.
func (w *pushWorld) ask(method, path string, header ...string) (*http.Response, string) {
	w.t.Helper()
	var body io.Reader
	req, err := http.NewRequest(method, w.url+path, nil)
	for i := 0; i < len(header); i += 2 {
		if header[i] == "" {
			body = strings.NewReader(header[i+1])
			req, err = http.NewRequest(method, w.url+path, body)
		}
	}
	if err != nil {
		w.t.Fatal(err)
	}
	for i := 0; i < len(header); i += 2 {
		if header[i] != "" {
			req.Header.Add(header[i], header[i+1])
		}
	}
	resp, err := w.do(req)
	if err != nil {
		w.t.Fatal(err)
	}
	defer resp.Body.Close()
	if strings.HasPrefix(resp.Header.Get("Content-Type"), "text/event-stream") && resp.Header.Get(ConnectionHeader) != "" {
		return resp, ""
	}
	b, _ := io.ReadAll(resp.Body) // what EventSource gets is cut
	return resp, string(b)
}

// reason is the machine word of an error answer.
func reason(body string) string {
	var e struct{ Error struct{ Reason string } }
	if json.Unmarshal([]byte(body), &e) != nil {
		return "no JSON: " + body
	}
	return e.Error.Reason
}

// follower is a client that reads events.
type follower struct {
	t      testing.TB
	resp   *http.Response
	r      *bufio.Reader
	lastID string
}

func (w *pushWorld) follow(path string, header ...string) *follower {
	w.t.Helper()
	req, err := http.NewRequest("GET", w.url+path, nil)
	if err != nil {
		w.t.Fatal(err)
	}
	req.Header.Set("Accept", "text/event-stream")
	for i := 0; i < len(header); i += 2 {
		req.Header.Add(header[i], header[i+1])
	}
	resp, err := w.do(req)
	if err != nil {
		w.t.Fatal(err)
	}
	w.t.Cleanup(func() { resp.Body.Close() })
	if resp.StatusCode != 200 {
		b, _ := io.ReadAll(resp.Body)
		w.t.Fatalf("%s: %d %s", path, resp.StatusCode, b)
	}
	return &follower{t: w.t, resp: resp, r: bufio.NewReader(resp.Body)}
}

// next is the next block that is an event, as "name: data".
func (f *follower) next() string {
	f.t.Helper()
	name, data := "message", []string(nil)
	for {
		line, err := f.r.ReadString('\n')
		if err != nil {
			f.t.Fatalf("waiting for an event: %v", err)
		}
		line = strings.TrimSuffix(line, "\n")
		field, value, _ := strings.Cut(line, ":")
		value = strings.TrimPrefix(value, " ")
		switch {
		case line == "" && data != nil:
			return name + ": " + strings.Join(data, "\n")
		case field == "data":
			data = append(data, value)
		case field == "event":
			name = value
		case field == "id":
			f.lastID = value
		}
	}
}

func (f *follower) expect(events ...string) {
	f.t.Helper()
	for _, want := range events {
		if got := f.next(); got != want {
			f.t.Fatalf("got %q, want %q", got, want)
		}
	}
}

func (f *follower) close() { f.resp.Body.Close() }

const testSecret = "a secret of no less than thirty-two bytes"

// token is a JWT that testAuth believes.
func token(sub string, exp time.Time, follow ...string) string {
	b64 := base64.RawURLEncoding.EncodeToString
	claims, _ := json.Marshal(map[string]any{"sub": sub, "exp": exp.Unix(), "ssegate": map[string]any{"follow": follow, "publish": follow}})
	in := b64([]byte(`{"alg":"HS256","typ":"JWT"}`)) + "." + b64(claims)
	m := hmac.New(sha256.New, []byte(testSecret))
	io.WriteString(m, in)
	return in + "." + b64(m.Sum(nil))
}

func testAuth(t *testing.T, notes auth.Notes) *auth.Authenticator {
	t.Helper()
	a, err := auth.New(auth.Config{
		Secrets: [][]byte{[]byte(testSecret)}, Claim: "ssegate", Cookie: "sg", QueryParam: "access_token",
		Keys: []auth.APIKey{{Name: "billing", SHA256: sha256.Sum256([]byte("key-1")), Publish: []auth.Pattern{auth.Everything}}},
	}, auth.Options{Notes: notes})
	if err != nil {
		t.Fatal(err)
	}
	return a
}

func bearerOf(sub string, follow ...string) string {
	return "Bearer " + token(sub, time.Now().Add(time.Hour), follow...)
}

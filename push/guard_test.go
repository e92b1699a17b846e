package push

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"
	"time"

	"ssegate/auth"
)

// as sends a request as somebody.
func as(id *auth.Identity) func(*http.Request) {
	return func(r *http.Request) { *r = *r.WithContext(auth.NewContext(r.Context(), id)) }
}

func header(name, value string) func(*http.Request) {
	return func(r *http.Request) { r.Header.Set(name, value) }
}

const hello = `{"target":{"user_id":"u"},"data":1}`

// Without [auth] no page in a browser can publish.
func TestPagesAreKeptOut(t *testing.T) {
	inWorld(t, Config{Hosts: []string{"push.internal"}}, func(w *world, n ...*node) {
		const send = "/api/v1/messages/send"
		for host, status := range map[string]int{
			"127.0.0.1:8089": 200, "localhost": 200, "LOCALHOST:1": 200, "[::1]:8089": 200, "10.0.0.7": 200, "push.internal:8089": 200, "app.localhost": 200,
			"evil.example": 403, "localhost.evil.example:8089": 403, "127.0.0.1.evil.example": 403, "": 403,
		} {
			a := w.is(n[0].post(send, hello, func(r *http.Request) { r.Host = host }), status)
			if status == 403 && a.at("error", "reason") != "forbidden_host" {
				t.Errorf("%s", a.raw)
			}
			w.is(n[0].get("/api/v1/connections", func(r *http.Request) { r.Host = host }), status)
		}
		for _, ct := range []string{"", "text/plain", "application/x-www-form-urlencoded", "multipart/form-data; boundary=x", "text/plain; x=application/json", "application/jsonx"} {
			w.is(n[0].do("POST", send, ct, strings.NewReader(hello)), 415)
			w.is(n[0].do("POST", "/api/v1/streams/user/u", ct, strings.NewReader(hello)), map[bool]int{true: 200, false: 415}[ct == "application/jsonx"])
		}
		for _, ct := range []string{"application/json", "application/json; charset=utf-8", "application/merge-patch+json", "Application/JSON"} {
			w.is(n[0].do("POST", send, ct, strings.NewReader(hello)), 200)
		}
		for _, f := range []func(*http.Request){
			header("Origin", "http://evil.example"), header("Origin", "null"), header("Sec-Fetch-Site", "cross-site"), header("Sec-Fetch-Site", "same-site"),
		} {
			if a := w.is(n[0].post(send, hello, f), 403); a.at("error", "reason") != "forbidden_origin" {
				t.Errorf("%s", a.raw)
			}
			w.is(n[0].do("POST", "/api/sse/close/u", "", nil, f), 403)
		}
		w.is(n[0].post(send, hello, header("Origin", "http://127.0.0.1:8089")), 200)
		w.is(n[0].post(send, hello, header("Origin", "http://localhost:3000"), header("Sec-Fetch-Site", "same-origin")), 200)
		w.is(n[0].do("POST", "/api/sse/close/u", "", nil), 200)
		w.is(n[0].do("POST", "/api/sse/close/u", "text/plain", strings.NewReader("x")), 415)
	}, "a")
}

type tickets struct {
	got *auth.Identity
	ttl time.Duration
}

func (k *tickets) Issue(_ context.Context, id *auth.Identity, ttl time.Duration) (string, error) {
	k.got, k.ttl = id, ttl
	if ttl > 10*time.Minute {
		return "", auth.ErrUnavailable
	}
	return "t1", nil
}

// With [auth] everybody may do what their identity says, and no more.
func TestWhoMay(t *testing.T) {
	k := &tickets{}
	cfg := Config{Tickets: k, Identify: func(r *http.Request) (*auth.Identity, error) {
		switch r.Header.Get("Authorization") {
		case "Bearer service":
			return &auth.Identity{Key: "svc", Publish: []auth.Pattern{"user/*", "channel/news", "connection/*"}}, nil
		case "Bearer admin":
			return auth.Anyone(), nil
		case "Bearer alice":
			return &auth.Identity{Subject: "alice", Follow: []auth.Pattern{"channel/*"}}, nil
		case "Bearer old":
			return nil, &auth.BadError{Reason: auth.Expired, Text: "the token has expired"}
		case "Bearer unsure":
			return nil, fmt.Errorf("%w: %w", auth.ErrUnavailable, errors.New("no keys"))
		}
		return nil, auth.ErrNone
	}}
	inWorld(t, cfg, func(w *world, n ...*node) {
		who := func(name string) func(*http.Request) { return header("Authorization", "Bearer "+name) }
		const send = "/api/v1/messages/send"
		for name, status := range map[string]int{"service": 200, "admin": 200, "alice": 403, "old": 401, "unsure": 503, "": 401} {
			a := w.is(n[0].post(send, hello, who(name)), status)
			if status == 401 && !strings.HasPrefix(a.head.Get("Www-Authenticate"), "Bearer") || status == 503 && a.head.Get("Retry-After") == "" {
				t.Errorf("%v %s", a.head, a.raw)
			}
		}
		for path, body := range map[string]string{
			send:                         `{"target":{"channel":"other"}}`,
			"/api/v1/messages/broadcast": `{}`,
			"/api/v1/messages/batch":     `[{"target":{"service":"x"}}]`,
			"/api/v1/streams/channel/x":  `{}`,
		} {
			if a := w.is(n[0].post(path, body, who("service")), 403); a.at("error", "fields", 0, "field") == nil {
				t.Errorf("%s: %s", path, a.raw)
			}
		}
		w.is(n[0].post("/api/v1/streams/user/u?to=user/x,channel/other", `{}`, who("service")), 403)
		// A service's own copy goes only where it may publish.
		a := w.is(n[0].post(send, `{"service":"svc","target":{"user_id":"u"}}`, who("service")), 200)
		if a.at("status") != "stored" || a.at("targets", 1, "status") != "rejected" {
			t.Errorf("%s", a.raw)
		}
		a = w.is(n[0].post("/api/v1/messages/batch", `{"message":{},"targets":["user/u","channel/other"]}`, who("service")), 200)
		if a.at("targets", 0, "status") != "stored" || a.at("targets", 1, "reason") != "forbidden" {
			t.Errorf("%s", a.raw)
		}
		for _, path := range []string{"/api/v1/connections", "/api/v1/connections/stats"} {
			w.is(n[0].get(path, who("service")), 403)
			w.is(n[0].get(path, who("admin")), 200)
		}
		w.is(n[0].do("DELETE", "/api/v1/connections/x", "", nil, who("service")), 403)
		w.is(n[0].do("DELETE", "/api/v1/connections/x", "", nil, who("admin")), 404)
		w.is(n[0].get("/api/sse/status/alice", who("alice")), 200)
		w.is(n[0].get("/api/sse/status/bob", who("alice")), 403)
		w.is(n[0].get("/api/sse/status/bob", who("service")), 200) // it may publish to bob
		w.is(n[0].get("/api/sse/status/bob", who("admin")), 200)
		w.is(n[0].get("/api/sse/status/bob", as(&auth.Identity{Key: "k", Follow: []auth.Pattern{"user/bob"}})), 200)
		w.is(n[0].get("/api/sse/status/bob", as(&auth.Identity{Key: "k", Follow: []auth.Pattern{"channel/*"}, Publish: []auth.Pattern{"user/alice"}})), 403)
		w.is(n[0].do("POST", "/api/sse/close/alice", "", nil, who("alice")), 403)
		w.is(n[0].do("POST", "/api/sse/close/alice", "", nil, who("service")), 200)

		if a := w.is(n[0].do("POST", "/api/v1/tickets", "", nil, who("alice")), 200); a.at("ticket") != "t1" || k.got.Subject != "alice" || a.at("expires_in").(float64) != 60 {
			t.Errorf("%s for %+v", a.raw, k.got)
		}
		if w.is(n[0].post("/api/v1/tickets", `{"user_id":"bob","ttl":30}`, who("service")), 200); k.got.Subject != "bob" || k.got.Key != "" || k.got.Admin || len(k.got.Publish) > 0 {
			t.Errorf("ticket for %+v", k.got)
		}
		// A ticket ends with the token that it was asked with, and says so.
		short := &auth.Identity{Subject: "alice", Expires: time.Now().Add(20*time.Second + 300*time.Millisecond)}
		if a := w.is(n[0].post("/api/v1/tickets", `{"ttl":600}`, as(short)), 200); a.at("expires_in").(float64) != 20 || k.ttl != 20*time.Second {
			t.Errorf("%s, kept for %v", a.raw, k.ttl)
		}
		if a := w.is(n[0].post("/api/v1/tickets", `{"ttl":5}`, as(short)), 200); a.at("expires_in").(float64) != 5 {
			t.Errorf("%s", a.raw)
		}
		short = &auth.Identity{Subject: "alice", Expires: time.Now().Add(300 * time.Millisecond)}
		if a := w.is(n[0].post("/api/v1/tickets", `{}`, as(short)), 401); a.at("error", "reason") != "token_expired" || a.head.Get("Www-Authenticate") == "" {
			t.Errorf("%s", a.raw)
		}
		// Nor does it make another one, be it for the same name or for nobody.
		k.got = nil
		for _, body := range []string{``, `{}`, `{"ttl":3600}`, `{"user_id":"bob"}`, `{"user_id":"alice"}`, `nonsense`} {
			ticket := (&auth.Identity{Subject: "bob", Key: "svc", Publish: []auth.Pattern{auth.Everything}}).ForTicket()
			if a := w.is(n[0].post("/api/v1/tickets", body, as(ticket)), 403); a.at("error", "reason") != "forbidden" || !strings.Contains(a.raw, "Authorization or X-Api-Key") || k.got != nil {
				t.Errorf("%s: %s for %+v", body, a.raw, k.got)
			}
		}
		w.is(n[0].post("/api/v1/tickets", `{"user_id":"bob"}`, who("alice")), 403)
		w.is(n[0].post("/api/v1/tickets", `{"ttl":0}`, who("alice")), 400)
		w.is(n[0].post("/api/v1/tickets", `{"ttl":"1"}`, who("alice")), 400)
		w.is(n[0].post("/api/v1/tickets", `{"ttl":1000}`, who("alice")), 503)

		// A cookie's user may not be made to publish by a foreign page; a token
		// in a header is put there by hand.
		w.is(n[0].post(send, hello, who("service"), header("Origin", "http://app.example")), 200)
		cookie := func(r *http.Request) { *r = *r.WithContext(auth.NewContext(r.Context(), auth.Anyone())) }
		w.is(n[0].post(send, hello, cookie, header("Origin", "http://app.example")), 403)
	}, "a")
}

// What is no message is answered 4xx with the field, never 5xx, whatever it is.
func TestHostile(t *testing.T) {
	inWorld(t, Config{Options: Options{BodySize: 1 << 16, EventSize: 1 << 12, Batch: 5}}, func(w *world, n ...*node) {
		paths := []string{"/api/v1/messages/send", "/api/v1/messages/broadcast", "/api/v1/messages/batch", "/api/sse/send"}
		bodies := []string{
			"", "{", "[", "nul", "\x00", "{\"a\":\"\xff\"}", strings.Repeat("[", 10000), strings.Repeat(`{"a":`, 10000), `{"target":{"user_id":"\ud800"}}`,
			`{"target":{"user_id":"a\r\nb"},"userId":"a\nb","message":1}`, `"x"`, `1e999`, `{"target":[[]],"type":{},"metadata":5,"userId":[],"message":1}`,
			`{"id":"\r\ndata: forged","target":{"user_id":"u"},"userId":"u","message":1}`,
		}
		for _, path := range paths {
			for _, body := range bodies {
				a := n[0].post(path, body)
				if a.status/100 != 4 || len(a.at("error", "fields").([]any)) == 0 || a.at("error", "request_id") == "" {
					t.Errorf("%s %.40q: %d %s", path, body, a.status, a.raw)
				}
			}
			if a := w.is(n[0].post(path, `{"data":"`+strings.Repeat("x", 1<<16)+`"}`), 413); a.at("error", "reason") != "too_large" {
				t.Errorf("%s", a.raw)
			}
			w.is(n[0].do("GET", path, "", nil), 405)
			w.is(n[0].post(path, hello, header("Content-Encoding", "gzip")), 415)
		}
		w.is(n[0].post("/api/v1/messages/send", `{"target":{"user_id":"u"},"data":"`+strings.Repeat("x", 1<<12)+`"}`), 413)
		w.is(n[0].post("/api/sse/send", `{"userId":"u","message":"`+strings.Repeat("x", 1<<12)+`"}`), 413)
		w.is(n[0].post("/api/v1/messages/batch", `[`+strings.Repeat(hello+",", 5)+hello+`]`), 413)
		w.is(n[0].post("/api/v1/messages/batch", `{"message":{},"targets":["a","a","a","a","a","a"]}`), 413)
		w.is(n[0].post("/api/v1/messages/send", `{"data":1}`), 400)
		w.is(n[0].post("/api/v1/messages", hello), 404)
		w.is(n[0].post("/api/v1/streams/user/a/b", hello), 404)
		for _, path := range []string{"/api/v1/streams/users/a", "/api/v1/streams/user/a%2Fb", "/api/v1/streams/user/*", "/api/v1/streams/user/a?to=b", "/api/v1/streams/user/a?session_id=%0A"} {
			w.is(n[0].post(path, hello), 400)
		}
		a := n[0].post("/api/v1/messages/send", "{", header("X-Request-Id", "r-1"))
		if a.at("error", "request_id") != "r-1" || a.head.Get("X-Request-Id") != "r-1" {
			t.Errorf("%v %s", a.head, a.raw)
		}
		if a := n[0].post("/api/v1/messages/send", "{", header("X-Request-Id", "a b\x01")); a.at("error", "request_id") == "a b\x01" {
			t.Errorf("%s", a.raw)
		}
	}, "a")
}

func TestOptions(t *testing.T) {
	for _, o := range []Options{
		{Types: []string{"a\nb"}}, {Types: []string{"ssegate.gap"}}, {Types: []string{""}}, {Webhook: Webhook{URL: "ftp://x"}},
		{Webhook: Webhook{URL: "http://"}}, {Rate: -1}, {Batch: -1}, {TTL: -1},
	} {
		if _, err := New(Config{Options: o}); err == nil {
			t.Errorf("%+v passes", o)
		}
	}
	a, err := New(Config{Options: Options{Types: []string{"build.done"}}})
	if err != nil {
		t.Fatal(err)
	}
	if a.Reload(Options{Rate: -1}) == nil || len(a.opt.Load().Types) != 1 {
		t.Error("a bad reload changed something")
	}
}

func BenchmarkSendHandler(b *testing.B) { benchmark(b, "/api/v1/messages/send", seedMessage, 1) }
func BenchmarkBatchHandler(b *testing.B) {
	benchmark(b, "/api/v1/messages/batch", "["+strings.Repeat(seedMessage+",", 99)+seedMessage+"]", 100)
}

// benchmark measures the API without HTTP and without a cluster.
func benchmark(b *testing.B, path, body string, messages float64) {
	a, err := New(Config{Cluster: nowhere{}, Options: Options{Alone: true}})
	if err != nil {
		b.Fatal(err)
	}
	b.ReportAllocs()
	for b.Loop() {
		r := httptest.NewRequest("POST", path, strings.NewReader(body))
		r.Host = "localhost"
		r.Header.Set("Content-Type", "application/json")
		w := httptest.NewRecorder()
		if a.ServeHTTP(w, r); w.Code != 200 {
			b.Fatal(w.Body.String())
		}
	}
	b.ReportMetric(float64(b.Elapsed().Nanoseconds())/float64(b.N)/messages, "ns/message")
}

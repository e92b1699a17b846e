package e2e

import (
	"crypto/hmac"
	"crypto/sha256"
	"encoding/base64"
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"slices"
	"strings"
	"testing"
	"time"

	. "ssegate/internal/gatetest"
)

// send sends JSON to a node's internal listener and returns what it answers.
func send(t *testing.T, n *Node, path, body string) map[string]any {
	t.Helper()
	resp, err := http.Post(n.Internal+path, "application/json", strings.NewReader(body))
	if err != nil {
		t.Fatal(err)
	}
	defer resp.Body.Close()
	text, err := io.ReadAll(resp.Body)
	if err != nil {
		t.Fatal(err)
	}
	var out map[string]any
	if resp.StatusCode/100 != 2 || json.Unmarshal(text, &out) != nil {
		t.Fatalf("POST %s %s: %d %s", path, body, resp.StatusCode, text)
	}
	return out
}

// pushPair starts two nodes of this world with push, and nothing behind them.
func (w *world) pushPair(t *testing.T) (a, b *Node) {
	return w.pair(t, "[push]\n")
}

// A user on one node is reached through any, in order, and goes on anywhere.
func TestPushReachesUser(t *testing.T) {
	kinds(t, func(t *testing.T, w *world) {
		a, b := w.pushPair(t)
		nodes := []*Node{a, b}
		for _, api := range []struct {
			name, follow, send, message string
			data                        func(string) string
		}{
			{"messages", "/sse/user/u1", "/api/v1/messages/send", `{"type":"progress","target":{"user_id":"u1"},"data":{"n":%d}}`, func(d string) string {
				var envelope struct{ Data struct{ N int } }
				if err := json.Unmarshal([]byte(d), &envelope); err != nil {
					t.Fatalf("%v in %q", err, d)
				}
				return fmt.Sprint(envelope.Data.N)
			}},
			{"seed", "/api/sse/connect/u2", "/api/sse/send", `{"userId":"u2","message":%d}`, func(d string) string { return d }},
		} {
			t.Run(api.name, func(t *testing.T) {
				sent := 0
				more := func(n int) {
					for range n {
						sent++
						send(t, nodes[sent%2], api.send, fmt.Sprintf(api.message, sent))
					}
				}
				var got []string
				take := func(s *Stream, n int) {
					t.Helper()
					for _, ev := range s.Take(n) {
						got = append(got, api.data(ev.Data))
					}
				}
				s := EventSource(t, a.URL+api.follow, "")
				more(30)
				take(s, 30)
				// Away, and back on the other node, several times.
				for hop := range 6 {
					id := s.LastID
					s.Close()
					more(5)
					s = EventSource(t, nodes[(hop+1)%2].URL+api.follow, id)
					more(5)
					take(s, 10)
				}
				if want := Numbers(1, sent, false); !slices.Equal(got, want) {
					t.Errorf("got %q\nwant %q", got, want)
				}
			})
		}
	})
}

// A node with nothing but [push] in its configuration is whole.
func TestPushAlone(t *testing.T) {
	n := Start(t, bin, "alone", "[push]\n")
	s := EventSource(t, n.URL+"/sse/stream/news,session:s1", "")
	out := send(t, n, "/api/v1/messages/send", `{"target":{"channel":"news"},"data":"hello"}`)
	if ev := s.Take(1)[0]; !strings.Contains(ev.Data, `"data":"hello"`) || ev.Name != "" {
		t.Errorf("%+v", ev)
	}
	if out["status"] != "delivered" {
		t.Errorf("%v", out)
	}
	send(t, n, "/api/v1/messages/send", `{"type":"status","target":{"session_id":"s1"},"data":1}`)
	if ev := s.Take(1)[0]; ev.Name != "status" {
		t.Errorf("%+v", ev)
	}
	resp, err := http.Get(n.URL + "/elsewhere")
	if err != nil {
		t.Fatal(err)
	}
	resp.Body.Close()
	if resp.StatusCode != 404 {
		t.Errorf("beside push: %d", resp.StatusCode)
	}
}

// With [auth] the API may be public; nobody follows or publishes without
// leave, and nothing that proves who somebody is stands in the log.
func TestPushWithAuth(t *testing.T) {
	const conf = `
[push]
public = true
[auth]
secret = "0123456789abcdef0123456789abcdef"
[[auth.key]]
name = "backend"
key = "key-of-the-backend"
publish = ["user/*", "channel/*"]
admin = true
[log]
level = "debug"
`
	n := Start(t, bin, "auth", conf)
	ask := func(method, path, body string, header ...string) (int, string, http.Header) {
		t.Helper()
		h := map[string]string{"Content-Type": "application/json"}
		for i := 0; i < len(header); i += 2 {
			h[header[i]] = header[i+1]
		}
		s := Do(t, Request{Method: method, URL: n.URL + path, Body: body, Header: h})
		defer s.Close()
		if s.Resp.Header.Get("Ssegate-Connection") != "" {
			return s.Resp.StatusCode, "", s.Resp.Header
		}
		return s.Resp.StatusCode, s.Body(), s.Resp.Header
	}
	publish := func(want int, data string, header ...string) {
		t.Helper()
		if status, body, _ := ask("POST", "/api/v1/messages/send", `{"target":{"user_id":"alice"},"data":"`+data+`"}`, header...); status != want {
			t.Fatalf("publish %s: %d %s, want %d", data, status, body, want)
		}
	}
	publish(401, "x")
	publish(401, "x", "X-Api-Key", "key-of-nobody-at-all")
	alice := jwt("alice", time.Now().Add(time.Hour))
	publish(403, "x", "Authorization", "Bearer "+alice)
	if status, _, _ := ask("GET", "/sse/user/alice", ""); status != 401 {
		t.Errorf("nobody follows alice: %d", status)
	}
	if status, body, _ := ask("GET", "/sse/user/bob?access_token="+alice, ""); status != 403 || !strings.Contains(body, "user/bob") {
		t.Errorf("alice follows bob: %d %s", status, body)
	}
	s := EventSource(t, n.URL+"/sse/user/alice?access_token="+alice, "")
	publish(200, "hello", "X-Api-Key", "key-of-the-backend")
	if ev := s.Take(1)[0]; !strings.Contains(ev.Data, "hello") {
		t.Errorf("%+v", ev)
	}

	// A ticket is good once.
	status, body, _ := ask("POST", "/api/v1/tickets", "", "Authorization", "Bearer "+alice)
	var ticket struct{ Ticket, Param string }
	if err := json.Unmarshal([]byte(body), &ticket); err != nil || status != 200 {
		t.Fatalf("%d %s", status, body)
	}
	again := EventSource(t, n.URL+"/sse/user/alice?"+ticket.Param+"="+ticket.Ticket, s.LastID)
	publish(200, "both", "X-Api-Key", "key-of-the-backend")
	for _, s := range []*Stream{s, again} {
		if ev := s.Take(1)[0]; !strings.Contains(ev.Data, "both") {
			t.Errorf("%+v", ev)
		}
	}
	if status, _, _ := ask("GET", "/sse/user/alice?"+ticket.Param+"="+ticket.Ticket, ""); status != 401 {
		t.Errorf("a ticket was good twice: %d", status)
	}

	// Forced to leave, it may come back.
	conn := s.Resp.Header.Get("Ssegate-Connection")
	if status, body, _ := ask("DELETE", "/api/v1/connections/"+conn, "", "X-Api-Key", "key-of-the-backend"); status != 200 {
		t.Errorf("disconnect: %d %s", status, body)
	}
	s.Rest()

	// CORS by reload.
	if _, _, h := ask("GET", "/sse/user/alice", "", "Origin", "https://app.example"); h.Get("Access-Control-Allow-Origin") != "" {
		t.Errorf("leave without [cors]: %v", h)
	}
	n.Configure(conf + "[cors]\norigins = [\"https://app.example\"]\ncredentials = true\n")
	n.Signal(hup)
	n.Await(`"msg":"reloaded"`)
	if _, _, h := ask("GET", "/sse/user/alice", "", "Origin", "https://app.example"); h.Get("Access-Control-Allow-Origin") != "https://app.example" {
		t.Errorf("no leave after the reload: %v", h)
	}
	log := n.Log()
	for _, secret := range []string{alice, ticket.Ticket, "key-of-the-backend", "0123456789abcdef0123456789abcdef"} {
		if strings.Contains(log, secret) {
			t.Errorf("%q stands in the log:\n%s", secret, log)
		}
	}
}

// jwt is a token signed with the secret of TestPushWithAuth.
func jwt(sub string, exp time.Time) string {
	b64 := base64.RawURLEncoding.EncodeToString
	in := b64([]byte(`{"alg":"HS256"}`)) + "." + b64(fmt.Appendf(nil, `{"sub":%q,"exp":%d}`, sub, exp.Unix()))
	m := hmac.New(sha256.New, []byte("0123456789abcdef0123456789abcdef"))
	io.WriteString(m, in)
	return in + "." + b64(m.Sum(nil))
}

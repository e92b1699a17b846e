package e2e

import (
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"slices"
	"strings"
	"testing"

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

package e2e

import (
	"encoding/json"
	"fmt"
	"net/http"
	"slices"
	"strings"
	"testing"

	. "ssegate/internal/gatetest"
	"ssegate/internal/gatetest/service"
)

// runs asks an example backend itself how often it ran.
func runs[T any](t *testing.T, p *service.Proc) (r T) {
	t.Helper()
	resp, err := http.Get(p.URL + "/runs")
	if err != nil {
		t.Fatal(err)
	}
	defer resp.Body.Close()
	if err := json.NewDecoder(resp.Body).Decode(&r); err != nil {
		t.Fatal(err)
	}
	return r
}

// beats counts the heartbeats that a backend sends as events, and returns the
// events without them.
func beats(events []Event) (rest []Event, beats int) {
	for _, e := range events {
		if e.Data == "heartbeat" {
			beats++
			continue
		}
		rest = append(rest, e)
	}
	return rest, beats
}

// members picks members of the JSON in each event's data, as one word.
func members(t *testing.T, events []Event, names ...string) (out []string) {
	t.Helper()
	for _, e := range events {
		var object map[string]any
		if json.Unmarshal([]byte(e.Data), &object) != nil {
			out = append(out, e.Data) // [DONE]
			continue
		}
		var words []string
		for _, name := range names {
			words = append(words, fmt.Sprint(object[name]))
		}
		out = append(out, strings.Join(words, " "))
	}
	return out
}

func post(t *testing.T, url, body, lastID string) *Stream {
	t.Helper()
	h := map[string]string{"Content-Type": "application/json"}
	if lastID != "" {
		h["Last-Event-ID"] = lastID
	}
	return Do(t, Request{Method: "POST", URL: url, Body: body, Header: h})
}

// TestFastAPI: a real FastAPI with sse-starlette behind two nodes.
func TestFastAPI(t *testing.T) {
	type report struct{ DeepSearch, Events service.Report }
	fastapi := service.FastAPI(t, "PING=0.05", "STEP_MS=100")
	w := &world{redis: service.Redis(t), rabbit: service.Rabbit(t), backend: &Backend{URL: fastapi.URL}}
	a, b := w.pair(t, "")

	search := func(id string) string {
		return fmt.Sprintf(`{"query":"门","request_id":%q,"max_loop":8,"search_engines":["one","two"]}`, id)
	}
	read := func(events []Event) []string { return members(t, events, "type", "data") }
	alone, _ := post(t, fastapi.URL+"/deepsearch", search("alone"), "").Rest()
	should, _ := beats(alone)
	if n := len(should); n != 1+2*8+1+1 || should[n-1].Data != "[DONE]" {
		t.Fatalf("without ssegate: %q", read(should))
	}

	t.Run("start at a, come back at b", func(t *testing.T) {
		s := post(t, a.URL+"/deepsearch", search("hop"), "")
		got := s.Take(6)
		s.Close()
		s = post(t, b.URL+"/deepsearch", search("hop"), s.LastID)
		got = append(got, s.Take(12)...)
		s.Close()
		s = post(t, a.URL+"/deepsearch", search("hop"), s.LastID)
		rest, clean := s.Rest()
		if !clean {
			t.Error("the end was not clean")
		}
		got, pings := beats(append(got, rest...))
		if !slices.Equal(read(got), read(should)) {
			t.Errorf("got  %q\nwant %q", read(got), read(should))
		}
		if pings == 0 {
			t.Error("the backend's heartbeats did not come through")
		}
		tail := post(t, b.URL+"/deepsearch", search("hop"), s.LastID)
		if got, clean := tail.Rest(); tail.Resp.StatusCode != 200 || len(got) > 0 || !clean {
			t.Errorf("who has it all is answered %d with %q, clean %v", tail.Resp.StatusCode, Data(got), clean)
		}
		r := runs[report](t, fastapi).DeepSearch
		if r.Requests["hop"] != 1 || r.LastEventID != nil || r.Cancelled != 0 {
			t.Errorf("the backend says %+v", r)
		}
	})
	t.Run("nobody comes back", func(t *testing.T) {
		before := runs[report](t, fastapi).DeepSearch
		s := post(t, a.URL+"/deepsearch", search("left"), "")
		s.Take(3)
		s.Close()
		Eventually(t, "the search goes on to its end", func() bool {
			return runs[report](t, fastapi).DeepSearch.Finished == before.Finished+1
		})
	})
	t.Run("on_disconnect cancel", func(t *testing.T) {
		n := Start(t, bin, "cancels", config(fastapi.URL, `on_disconnect = "cancel"`))
		before := runs[report](t, fastapi).DeepSearch
		s := post(t, n.URL+"/deepsearch", `{"query":"long","max_loop":10000}`, "")
		s.Take(3)
		s.Close()
		Eventually(t, "FastAPI notices that the client has left", func() bool {
			r := runs[report](t, fastapi).DeepSearch
			return r.Cancelled == before.Cancelled+1 && r.Running == 0
		})
	})
	t.Run("no stream", func(t *testing.T) {
		s := post(t, a.URL+"/deepsearch", `{"query":"q","max_loop":1,"stream":false}`, "")
		if body := s.Body(); !strings.Contains(body, `"type":"final"`) || s.Resp.Header.Get("Content-Type") != "application/json" {
			t.Errorf("got %s", body)
		}
		s = post(t, a.URL+"/deepsearch", `{"max_loop":1}`, "")
		if s.Resp.StatusCode != 422 {
			t.Errorf("a wrong request is answered %d", s.Resp.StatusCode)
		}
	})
	t.Run("feed with ids of its own", func(t *testing.T) {
		feed := "/events?n=20&interval_ms=60&ids=true"
		s := EventSource(t, a.URL+feed, "")
		got := s.Take(7)
		s.Close()
		s = EventSource(t, b.URL+feed, s.LastID)
		rest, clean := s.Rest()
		if got = append(got, rest...); !clean || !slices.Equal(members(t, got, "n"), Numbers(1, 20, false)) {
			t.Errorf("got %q, clean %v", Data(got), clean)
		}
		for i, e := range got {
			if e.ID != fmt.Sprint(i+1) {
				t.Errorf("event %d has the id %q", i+1, e.ID)
			}
		}
		if r := runs[report](t, fastapi).Events; r.Started != 1 {
			t.Errorf("the backend says %+v", r)
		}
		// It marks no end: who has it all is asked for more, from its own id.
		s = EventSource(t, b.URL+feed, s.LastID)
		rest, clean = s.Rest()
		r := runs[report](t, fastapi).Events
		if len(rest) > 0 || !clean || r.Started != 2 || r.LastEventID == nil || *r.LastEventID != "20" {
			t.Errorf("then got %q, clean %v, and the backend says %+v", Data(rest), clean, r)
		}
	})
}

// TestSpring: a real Spring Boot SseEmitter.
func TestSpring(t *testing.T) {
	spring := service.Spring(t, "--agent.heartbeat=100ms", "--agent.step=60ms")
	n := Start(t, bin, "one", config(spring.URL, ""))
	ask := map[string]func(url, lastID string) *Stream{
		"GET": func(url, lastID string) *Stream {
			return EventSource(t, url+"/AutoAgent?requestId=GET&query=%E9%97%A8&agentType=plan&steps=20", lastID)
		},
		"POST": func(url, lastID string) *Stream {
			return post(t, url+"/AutoAgent", `{"requestId":"POST","query":"门","agentType":"plan","steps":20,"more":1}`, lastID)
		},
	}
	read := func(events []Event) []string {
		return members(t, events, "messageId", "messageType", "result", "finished")
	}
	for method, ask := range ask {
		t.Run(method, func(t *testing.T) {
			alone, _ := ask(spring.URL, "").Rest()
			should, _ := beats(alone)
			if len(should) != 22 {
				t.Fatalf("without ssegate: %q", read(should))
			}
			before := runs[service.Report](t, spring)
			s := ask(n.URL, "")
			got := s.Take(5)
			s.Close()
			s = ask(n.URL, s.LastID)
			got = append(got, s.Take(10)...)
			s.Close()
			s = ask(n.URL, s.LastID)
			rest, clean := s.Rest()
			if !clean {
				t.Error("the end was not clean")
			}
			got, pings := beats(append(got, rest...))
			if !slices.Equal(read(got), read(should)) {
				t.Errorf("got  %q\nwant %q", read(got), read(should))
			}
			if pings == 0 {
				t.Error("the backend's heartbeats did not come through")
			}
			r := runs[service.Report](t, spring)
			if r.Started != before.Started+1 || r.Cancelled != 0 || r.LastEventID != nil {
				t.Errorf("the backend says %+v, and before %+v", r, before)
			}
			// Nothing marks the end. A GET is asked again, as without ssegate; a POST never.
			s = ask(n.URL, s.LastID)
			if method == "GET" {
				got, _ := beats(s.Take(3))
				if r := runs[service.Report](t, spring); r.Started != before.Started+2 || r.LastEventID != nil || read(got)[0] != read(should)[0] {
					t.Errorf("after the end got %q, and the backend says %+v", read(got), r)
				}
				rest, _ := s.Rest()
				if got, _ = beats(append(got, rest...)); !slices.Equal(read(got), read(should)) {
					t.Errorf("after the end got %q", read(got))
				}
			} else if got, clean := s.Rest(); len(got) > 0 || !clean || runs[service.Report](t, spring).Started != r.Started {
				t.Errorf("after the end got %q, clean %v", read(got), clean)
			}
		})
	}
	t.Run("stop", func(t *testing.T) {
		s := EventSource(t, n.URL+"/AutoAgent?requestId=stop&steps=10000", "")
		s.Take(3)
		if d := Do(t, Request{Method: "DELETE", URL: n.URL + "/_ssegate/streams/" + s.ID()}); d.Resp.StatusCode != 200 {
			t.Fatalf("DELETE is answered %d: %s", d.Resp.StatusCode, d.Body())
		}
		Eventually(t, "Spring notices the stop", func() bool {
			r := runs[service.Report](t, spring)
			return r.Cancelled == 1 && r.Running == 0
		})
	})
}

// TestNginx: an nginx in front of ssegate that nobody has told of event
// streams, and one that keeps connections.
func TestNginx(t *testing.T) {
	b := NewBackend(t)
	n := Start(t, bin, "one", config(b.URL, "heartbeat = \"30ms\"\n"))
	pass := fmt.Sprintf("proxy_pass %s;", n.URL)
	keep := `proxy_pass http://ssegate; proxy_http_version 1.1; proxy_set_header Connection "";`
	fronts := map[string]string{"as it comes": pass, "keepalive": keep}
	for name, how := range fronts {
		t.Run(name, func(t *testing.T) {
			nginx := service.Nginx(t, func(addr string) string {
				return fmt.Sprintf("upstream ssegate { server %s; keepalive 4; }\nserver { listen %s; location / { %s } }",
					strings.TrimPrefix(n.URL, "http://"), addr, how)
			})
			open := func() (*Stream, *Run) {
				c := make(chan *Stream, 1)
				go func() { c <- EventSource(t, nginx.URL+"/hold", "") }()
				run := b.Next()
				run.Head()
				run.Send("data: 1\n\n")
				s := <-c
				want(t, s.Take(1), []string{"1"})
				return s, run
			}
			t.Run("at once", func(t *testing.T) {
				s, run := open()
				for _, data := range []string{"2", "3"} {
					for line, err := "", error(nil); line != ":"; line, err = s.Line() {
						if err != nil {
							t.Fatal(err)
						}
					}
					run.Send("data: " + data + "\n\n")
					want(t, s.Take(1), []string{data})
				}
				run.End()
				if got, clean := s.Rest(); len(got) > 0 || !clean {
					t.Errorf("then got %q, clean %v", Data(got), clean)
				}
			})
			t.Run("come back", func(t *testing.T) {
				s, run := open()
				s.Close()
				run.Send("data: 2\n\n")
				s = EventSource(t, nginx.URL+"/hold", s.LastID)
				run.Send("data: 3\n\ndata: [DONE]\n\n")
				run.End()
				got, clean := s.Rest()
				want(t, got, []string{"2", "3", "[DONE]"})
				if !clean {
					t.Error("the end was not clean")
				}
				if s = EventSource(t, nginx.URL+"/hold", s.LastID); s.Resp.StatusCode != 204 {
					t.Errorf("a finished stream answers %d", s.Resp.StatusCode)
				}
			})
			t.Run("cut", func(t *testing.T) {
				s, run := open()
				run.Cut()
				if got, clean := s.Rest(); len(got) > 0 || clean {
					t.Errorf("an upstream that was cut ends with %q, clean %v", Data(got), clean)
				}
			})
			t.Run("leave", func(t *testing.T) {
				s, run := open()
				Do(t, Request{Method: "DELETE", URL: nginx.URL + "/_ssegate/streams/" + s.ID()})
				run.Cancelled(t)
				run.End()
				s.Rest()
			})
			t.Run("one after the other", func(t *testing.T) {
				for range 50 {
					got, clean := post(t, nginx.URL+"/count?n=2", "{}", "").Rest()
					want(t, got, Numbers(1, 2, true))
					if !clean {
						t.Fatal("the end was not clean")
					}
					if s := post(t, nginx.URL+"/json", "{}", ""); s.Resp.StatusCode != 200 || s.Body() != `{"ok":true}` {
						t.Fatalf("answered %d", s.Resp.StatusCode)
					}
				}
			})
		})
	}
}

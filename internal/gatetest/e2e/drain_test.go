package e2e

import (
	"errors"
	"fmt"
	"io"
	"runtime"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	. "ssegate/internal/gatetest"
	"ssegate/internal/gatetest/service"
)

// TestDrain: one of three nodes is told to leave under 200 live streams, half
// of them EventSource, half plain POST. Nobody loses or repeats an event, and
// nobody is cut short.
func TestDrain(t *testing.T) {
	w := &world{redis: service.Redis(t), rabbit: service.Rabbit(t), backend: NewBackend(t)}
	conf := w.together("retry = \"100ms\"\n")
	conf = strings.Replace(conf, "[cluster]\n", "[cluster]\n", 1)
	nodes := []*Node{Start(t, bin, "a", conf), Start(t, bin, "b", conf), Start(t, bin, "c", conf)}
	acquainted(t, nodes...)
	a := nodes[0]
	const streams, events = 200, 60
	var wg sync.WaitGroup
	var mu sync.Mutex
	going := 0
	begun := sync.NewCond(&mu)
	arrive := func() { mu.Lock(); going++; begun.Broadcast(); mu.Unlock() }
	for i := range streams {
		path := fmt.Sprintf("/count?n=%d&every=100ms&i=%d", events, i)
		if i%2 == 0 {
			wg.Go(func() { // as EventSource: comes back, to whoever takes it
				var got []Event
				id, node := "", 0
				for len(got) < events+1 {
					s, err := Try(t, Request{URL: nodes[node].URL + path, Header: map[string]string{"Accept": "text/event-stream", "Last-Event-ID": id}})
					if err != nil {
						node = (node + 1) % 3
						continue
					}
					if s.Resp.StatusCode == 204 {
						break
					}
					if s.Resp.StatusCode != 200 {
						t.Errorf("stream %d: EventSource is answered %d after %d events", i, s.Resp.StatusCode, len(got))
						return
					}
					for {
						ev, err := s.Next()
						if err != nil {
							break
						}
						if len(got) == 0 {
							arrive()
						}
						got = append(got, ev)
					}
					s.Close()
					if s.LastID != "" {
						id = s.LastID
					}
					node = (node + 1) % 3
				}
				if !slices.Equal(Data(got), Numbers(1, events, true)) {
					t.Errorf("stream %d: EventSource got %q", i, Data(got))
				}
			})
			continue
		}
		wg.Go(func() {
			s, err := Try(t, Request{Method: "POST", URL: a.URL + path, Body: "{}"})
			if err != nil {
				t.Errorf("stream %d: %v", i, err)
				return
			}
			var got []Event
			for {
				ev, err := s.Next()
				if err != nil {
					if !errors.Is(err, io.EOF) || errors.Is(err, io.ErrUnexpectedEOF) {
						t.Errorf("stream %d: POST ended with %v", i, err)
					}
					break
				}
				if len(got) == 0 {
					arrive()
				}
				got = append(got, ev)
			}
			if !slices.Equal(Data(got), Numbers(1, events, true)) {
				t.Errorf("stream %d: POST got %q", i, Data(got))
			}
		})
	}
	mu.Lock()
	for going < streams {
		begun.Wait()
	}
	mu.Unlock()
	a.Term()
	a.Await(`"msg":"draining"`)
	if r, status := a.Ready(); status != 503 || !r.Draining {
		t.Errorf("a draining node's /readyz is %d", status)
	}
	if s := Do(t, Request{URL: a.URL + "/count?n=1", Header: map[string]string{"Accept": "text/event-stream"}}); s.Resp.StatusCode != 200 {
		t.Errorf("EventSource at a draining node is answered %d", s.Resp.StatusCode)
	} else if line, _ := s.Line(); !strings.HasPrefix(line, "retry: ") {
		t.Errorf("EventSource at a draining node is told %q", line)
	} else if _, clean := s.Rest(); clean {
		t.Error("the refusal ended cleanly")
	}
	if s := Do(t, Request{Method: "POST", URL: a.URL + "/count?n=1"}); s.Resp.StatusCode != 503 || s.Resp.Header.Get("Retry-After") == "" {
		t.Errorf("POST at a draining node is answered %d", s.Resp.StatusCode)
	}
	if code := a.Exited(); code != 0 {
		t.Errorf("exit code %d", code)
	}
	wg.Wait()
	if runs := w.backend.Runs("/count"); runs != streams {
		t.Errorf("the backend ran %d times for %d streams", runs, streams)
	}
}

// TestDrainTimeout: what drain_timeout cuts is cut for the clients of the node
// that leaves. Who comes back gets the rest of what was read; then a GET is asked
// again of the service, on from its own id, or from the beginning and told so; and
// anything else is told that its answer is lost, and neither run again nor passed
// off as whole.
func TestDrainTimeout(t *testing.T) {
	w := &world{redis: service.Redis(t), backend: NewBackend(t)}
	conf := func(name string) string {
		return fmt.Sprintf("[node]\nid = %q\ndrain_timeout = \"1s\"\n", name) + w.together("retry = \"100ms\"\n")
	}
	a, b := Start(t, bin, "a", conf("a")), Start(t, bin, "b", conf("b"))
	acquainted(t, a, b)
	const events = 700
	cases := []struct{ name, method, accept, ids string }{
		{"EventSource, moved", "GET", "text/event-stream", ""},
		{"GET", "GET", "", ""},
		{"POST", "POST", "", ""},
		{"EventSource, own ids", "GET", "text/event-stream", "&ids=1"},
		{"GET, own ids", "GET", "", "&ids=1"},
		{"POST, own ids", "POST", "", "&ids=1"},
	}
	var wg sync.WaitGroup
	runs := 0
	for i, c := range cases {
		ask := func(n *Node, id string) *Stream {
			r := Request{Method: c.method, URL: fmt.Sprintf("%s/count?n=%d&every=5ms&i=%d%s", n.URL, events, i, c.ids), Header: map[string]string{}}
			if c.method == "POST" {
				r.Body = "{}"
			}
			if c.accept != "" {
				r.Header["Accept"] = c.accept
			}
			if id != "" {
				r.Header["Last-Event-ID"] = id
			}
			s, err := Try(t, r)
			if err != nil {
				t.Errorf("%s: %v", c.name, err)
				runtime.Goexit()
			}
			return s
		}
		s := ask(a, "")
		got := s.Take(5)
		runs++
		if c.method == "GET" {
			runs++
		}
		wg.Go(func() {
			more, clean := s.Rest()
			got = append(got, more...)
			if clean || strings.HasPrefix(got[len(got)-1].Name, "ssegate.") {
				t.Errorf("%s: the node that left ended with %q, clean %v", c.name, got[len(got)-1], clean)
			}
			for clean = false; !clean; {
				s = ask(b, s.LastID)
				more, clean = s.Rest()
				got = append(got, more...)
			}
			word := slices.IndexFunc(got, func(ev Event) bool { return strings.HasPrefix(ev.Name, "ssegate.") })
			switch {
			case c.method == "GET" && c.ids != "":
				if !slices.Equal(Data(got), Numbers(1, events, true)) {
					t.Errorf("%s: got %q", c.name, Data(got))
				}
			case word < 0:
				t.Errorf("%s: is told nothing: %q", c.name, Data(got))
			case c.method == "GET":
				if first := Data(got[:word]); !slices.Equal(first, Numbers(1, len(first), false)) || !slices.Equal(Data(got[word+1:]), Numbers(1, events, true)) {
					t.Errorf("%s: got %q", c.name, Data(got))
				}
				if ev := got[word]; ev.Name != "ssegate.gap" || ev.Data != fmt.Sprintf(`{"from":%d,"to":null,"reason":"unknown"}`, word+1) {
					t.Errorf("%s: is told %q", c.name, ev)
				}
			default:
				if first := Data(got[:word]); !slices.Equal(first, Numbers(1, len(first), false)) {
					t.Errorf("%s: got %q", c.name, first)
				}
				if ev := got[word]; ev.Name != "ssegate.error" || !strings.Contains(ev.Data, "upstream_lost") || word+1 < len(got) {
					t.Errorf("%s: is told %q", c.name, got[word:])
				}
				s = ask(b, s.LastID)
				if more, clean := s.Rest(); len(more) > 0 || !clean || s.Resp.StatusCode != 200 {
					t.Errorf("%s: who was told and comes back is answered %d with %q, clean %v", c.name, s.Resp.StatusCode, Data(more), clean)
				}
			}
		})
	}
	a.Term()
	a.Await("drain_timeout passed", fmt.Sprintf(`"answers":%d`, len(cases)))
	if code := a.Exited(); code != 0 {
		t.Errorf("exit code %d", code)
	}
	wg.Wait()
	if n := w.backend.Runs("/count"); n != runs {
		t.Errorf("the backend ran %d times, not %d", n, runs)
	}
}

// TestDrainBeforeFirstByte: an answer that has not begun when drain_timeout is
// over ends cut, without a word: its client asks again, as it would without us.
func TestDrainBeforeFirstByte(t *testing.T) {
	b := NewBackend(t)
	n := Start(t, bin, "one", "[node]\ndrain_timeout = \"300ms\"\n"+config(b.URL, "first_byte_heartbeat = \"50ms\"\nheartbeat = \"50ms\"\n"))
	s := EventSource(t, n.URL+"/hold", "")
	run := b.Next()
	n.Term()
	events, clean := s.Rest()
	if clean || slices.ContainsFunc(events, func(ev Event) bool { return ev.Name != "" || ev.Data != "" }) {
		t.Errorf("ended with %q, clean %v", events, clean)
	}
	run.Cancelled(t)
	if code := n.Exited(); code != 0 {
		t.Errorf("exit code %d", code)
	}
}

// TestSecondTerm: who is told twice leaves now.
func TestSecondTerm(t *testing.T) {
	b := NewBackend(t)
	n := Start(t, bin, "one", config(b.URL, ""))
	s := EventSource(t, n.URL+"/count?n=10000&every=5ms", "")
	s.Take(5)
	n.Term()
	n.Await(`"msg":"draining"`)
	s.Take(20) // alone, nobody is moved: there is nowhere to go
	told := time.Now()
	n.Term()
	if code := n.Exited(); code != 0 {
		t.Errorf("exit code %d", code)
	}
	if d := time.Since(told); d > 5*time.Second {
		t.Errorf("left after %v", d)
	}
	if _, clean := s.Rest(); clean {
		t.Error("half an answer ended cleanly")
	}
}

func TestReload(t *testing.T) {
	b := NewBackend(t)
	good := config(b.URL, "")
	n := Start(t, bin, "one", good)
	s := EventSource(t, n.URL+"/count?n=500&every=5ms", "")
	got := s.Take(10)

	n.Configure(good + "\n[[route]]\npath = \"/new\"\nupstream = \"backend\"\nheartbeat_stile = \"line\"\n")
	n.Signal(hup)
	line := n.Await("reload refused")
	if !strings.Contains(line, "heartbeat_stile") || !strings.Contains(line, ".toml:") {
		t.Errorf("the refusal names neither key nor line: %s", line)
	}
	if n.Metric(`ssegate_reloads_total{result="refused"}`) != 1 {
		t.Error("the refusal is not counted")
	}
	got = append(got, s.Take(10)...)

	n.Configure(strings.Replace(good, `path = "/"`, `path = "/count"`, 1))
	n.Signal(hup)
	n.Await(`"msg":"reloaded"`)
	if r := Do(t, Request{URL: n.URL + "/json"}); r.Resp.StatusCode != 404 {
		t.Errorf("a route that is gone answers %d", r.Resp.StatusCode)
	}
	rest, clean := s.Rest()
	want(t, append(got, rest...), Numbers(1, 500, true))
	if !clean {
		t.Error("the reload harmed a stream in flight")
	}
}

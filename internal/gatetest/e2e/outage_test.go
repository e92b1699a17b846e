package e2e

import (
	"fmt"
	"slices"
	"strings"
	"testing"
	"time"

	. "ssegate/internal/gatetest"
	"ssegate/internal/gatetest/service"
)

// longestPause is the longest time between two events.
func longestPause(events []Event) (worst time.Duration) {
	for i := 1; i < len(events); i++ {
		worst = max(worst, events[i].At.Sub(events[i-1].At))
	}
	return worst
}

// TestServicesStandStill: while a service, or all of them, stand still, local
// streams flow; when they go on, nodes can be changed again, nothing has been
// lost, and the registry is true.
func TestServicesStandStill(t *testing.T) {
	w := &world{redis: service.Redis(t), rabbit: service.Rabbit(t), backend: NewBackend(t)}
	consul := service.Consul(t)
	conf := strings.Replace(w.together(""), "[cluster]\n", fmt.Sprintf("[cluster]\nconsul = %q\n", consul.URL), 1)
	a, b := Start(t, bin, "a", conf), Start(t, bin, "b", conf)
	acquainted(t, a, b)
	for name, procs := range map[string][]*service.Proc{
		"redis": {w.redis}, "rabbitmq": {w.rabbit}, "consul": {consul}, "all": {w.redis, w.rabbit, consul},
	} {
		t.Run(name, func(t *testing.T) {
			path := "/count?n=2000&every=5ms&of=" + name
			s := EventSource(t, a.URL+path, "").Record()
			s.Wait(50)
			for _, p := range procs {
				p.Pause()
			}
			s.Wait(300)
			// One that begins now, and one that comes back to its own node.
			fresh := EventSource(t, a.URL+"/count?n=100&every=5ms&fresh="+name, "")
			first := fresh.Take(50)
			fresh.Close()
			fresh = EventSource(t, a.URL+"/count?n=100&every=5ms&fresh="+name, fresh.LastID)
			rest, _ := fresh.Rest()
			want(t, append(first, rest...), Numbers(1, 100, true))
			s.Wait(100)
			for _, p := range procs {
				p.Resume()
			}
			s.Wait(50)
			got, id := s.Close()
			if worst := longestPause(got); worst > 500*time.Millisecond {
				t.Errorf("a local stream stood still for %v", worst)
			}
			acquainted(t, a, b)
			for hop := range 6 {
				node := []*Node{b, a}[hop%2]
				far := EventSource(t, node.URL+path, id)
				if far.Resp.StatusCode != 200 {
					t.Fatalf("hop %d is answered %d", hop, far.Resp.StatusCode)
				}
				got = append(got, far.Take(40)...)
				far.Close()
				id = far.LastID
			}
			far := EventSource(t, b.URL+path, id)
			tail, clean := far.Rest()
			want(t, append(got, tail...), Numbers(1, 2000, true))
			if !clean {
				t.Error("the end was not clean")
			}
		})
	}
	if runs := w.backend.Runs("/count"); runs != 8 {
		t.Errorf("the backend ran %d times, want 8", runs)
	}
}

// TestServicesRestartEmpty: the nodes recover by themselves from a Redis or
// RabbitMQ that has forgotten everything, or both, one after the other, so that
// Redis had what the other node had not got. Who follows there misses nothing.
func TestServicesRestartEmpty(t *testing.T) {
	w := &world{redis: service.Redis(t), rabbit: service.Rabbit(t), backend: NewBackend(t)}
	a, b := w.pair(t, "")
	for name, procs := range map[string][]*service.Proc{
		"redis": {w.redis}, "rabbitmq": {w.rabbit}, "both": {w.rabbit, w.redis},
	} {
		t.Run(name, func(t *testing.T) {
			path := "/count?n=4000&every=5ms&of=" + name
			away := EventSource(t, a.URL+path, "") // leaves before, and comes back after
			before := away.Take(20)
			s := EventSource(t, a.URL+path, away.LastID).Record()
			away.Close()
			s.Wait(30)
			there := EventSource(t, b.URL+path, away.LastID).Record()
			there.Wait(30)
			for _, p := range procs {
				p.Kill()
				s.Wait(100)
			}
			for _, p := range slices.Backward(procs) {
				p.Start()
			}
			acquainted(t, a, b)
			s.Wait(50)
			there.Wait(50)
			seen, _ := there.Close()
			want(t, seen, Numbers(21, 20+len(seen), false))
			got, id := s.Close()
			if worst := longestPause(got); worst > 500*time.Millisecond {
				t.Errorf("a local stream stood still for %v", worst)
			}
			for hop := range 4 {
				far := EventSource(t, []*Node{b, a}[hop%2].URL+path, id)
				if far.Resp.StatusCode != 200 {
					t.Fatalf("hop %d is answered %d", hop, far.Resp.StatusCode)
				}
				got = append(got, far.Take(40)...)
				far.Close()
				id = far.LastID
			}
			want(t, got, Numbers(21, 20+len(got), false))
			back := EventSource(t, b.URL+path, away.LastID)
			want(t, back.Take(100), Numbers(21, 120, false))
			back.Close()
			got = append(before, got...)
			far := EventSource(t, b.URL+path, id)
			rest, clean := far.Rest()
			want(t, append(got, rest...), Numbers(1, 4000, true))
			if !clean {
				t.Error("the end was not clean")
			}
		})
	}
}

// TestOwnIDsWhileRedisStands: a client comes back to the other node with an id
// of the backend's while Redis stands still. It is led to its stream over the
// bus; where that stands still too, it is asked to come back. Nothing runs
// twice.
func TestOwnIDsWhileRedisStands(t *testing.T) {
	w := &world{redis: service.Redis(t), rabbit: service.Rabbit(t), backend: NewBackend(t)}
	a, b := w.pair(t, "")
	for method, path := range map[string]string{"POST": "/count?n=600&every=5ms&ids=1", "GET": "/count?n=600&every=5ms&ids=1&get"} {
		ask := func(n *Node, id string) *Stream {
			h := map[string]string{}
			if id != "" {
				h["Last-Event-ID"] = id
			}
			if method == "GET" {
				h["Accept"] = "text/event-stream"
			}
			return Do(t, Request{Method: method, URL: n.URL + path, Header: h})
		}
		s := ask(a, "")
		got := s.Take(20)
		before := w.backend.Runs("/count")
		w.redis.Pause()
		far := ask(b, s.LastID)
		if far.ID() != s.ID() {
			t.Errorf("%s: answered %d, by stream %q and not %q", method, far.Resp.StatusCode, far.ID(), s.ID())
		}
		w.rabbit.Pause()
		told := ask(b, s.LastID)
		line, _ := told.Line()
		switch {
		case method == "POST" && (told.Resp.StatusCode != 503 || told.Resp.Header.Get("Retry-After") == "" || !strings.Contains(line, "stream_unavailable")):
			t.Errorf("POST: answered %d: %q", told.Resp.StatusCode, line)
		case method == "GET" && (told.Resp.StatusCode != 200 || !strings.HasPrefix(line, "retry:")):
			t.Errorf("GET: answered %d: %q", told.Resp.StatusCode, line)
		}
		told.Close()
		w.rabbit.Resume()
		w.redis.Resume()
		rest, clean := far.Rest()
		want(t, append(got, rest...), Numbers(1, 600, true))
		if !clean {
			t.Errorf("%s: the end was not clean", method)
		}
		s.Close()
		if runs := w.backend.Runs("/count"); runs != before {
			t.Errorf("%s: the backend ran %d times more", method, runs-before)
		}
		acquainted(t, a, b)
	}
}

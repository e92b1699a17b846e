package e2e

import (
	"fmt"
	"slices"
	"strings"
	"sync"
	"testing"

	. "ssegate/internal/gatetest"
	"ssegate/internal/gatetest/service"
)

// TestHopWithOwnIDs: clients that bear the backend's ids change nodes at once,
// over and over, and nothing is repeated: who is back sooner than registry and
// log is found all the same.
func TestHopWithOwnIDs(t *testing.T) {
	w := &world{redis: service.Redis(t), rabbit: service.Rabbit(t), backend: NewBackend(t)}
	a, b := w.pair(t, "")
	var wg sync.WaitGroup
	for i := range 6 {
		wg.Go(func() {
			path := fmt.Sprintf("/count?n=60&every=20ms&ids=1&i=%d", i)
			var got []Event
			id := ""
			for hop := 0; len(got) < 61; hop++ {
				s, err := Try(t, Request{URL: []*Node{a, b}[hop%2].URL + path, Header: map[string]string{"Accept": "text/event-stream", "Last-Event-ID": id}})
				if err != nil || s.Resp.StatusCode != 200 {
					t.Errorf("stream %d, hop %d: %v", i, hop, err)
					return
				}
				for range min(1+(i+hop)%9, 61-len(got)) {
					ev, err := s.Next()
					if err != nil {
						t.Errorf("stream %d, hop %d after %d events: %v", i, hop, len(got), err)
						return
					}
					got = append(got, ev)
				}
				id = s.LastID
				s.Close()
			}
			if !slices.Equal(Data(got), Numbers(1, 60, true)) {
				t.Errorf("stream %d: got %q", i, Data(got))
			}
		})
	}
	wg.Wait()
	if runs := w.backend.Runs("/count"); runs != 6 {
		t.Errorf("the backend ran %d times for 6 streams", runs)
	}
}

// TestTakeoverOfPost: the request of a POST is kept for who takes it over.
func TestTakeoverOfPost(t *testing.T) {
	w := &world{redis: service.Redis(t), rabbit: service.Rabbit(t), backend: NewBackend(t)}
	a, b := w.pair(t, `takeover = "last-event-id"`)
	ask := func(n *Node, id string) *Stream {
		h := map[string]string{"Content-Type": "application/json"}
		if id != "" {
			h["Last-Event-ID"] = id
		}
		return Do(t, Request{Method: "POST", URL: n.URL + "/count?n=300&every=5ms&ids=1", Header: h, Body: `{"q":1}`})
	}
	s := ask(a, "")
	got := s.Take(20)
	far := ask(b, s.LastID)
	got = append(got, far.Take(10)...)
	a.Kill()
	rest, clean := far.Rest()
	want(t, append(got, rest...), Numbers(1, 300, true))
	if !clean {
		t.Error("the end was not clean")
	}
	if last := w.backend.Last(); last.Method != "POST" || last.Header.Get("Last-Event-ID") == "" {
		t.Errorf("the upstream was asked on by %s with id %q", last.Method, last.Header.Get("Last-Event-ID"))
	}
}

// TestOwnIDsAtNewOwner: the node that took a stream over knows by itself to
// which request it belongs: who comes back to it with an id of the backend's,
// while Redis is away, finds it.
func TestOwnIDsAtNewOwner(t *testing.T) {
	w := &world{redis: service.Redis(t), rabbit: service.Rabbit(t), backend: NewBackend(t)}
	a, b := w.pair(t, `takeover = "last-event-id"`)
	const path = "/count?n=100000&every=10ms&ids=1"
	s := EventSource(t, a.URL+path, "")
	got := s.Take(20)
	far := EventSource(t, b.URL+path, s.LastID)
	got = append(got, far.Take(5)...)
	a.Kill()
	Eventually(t, "b has taken it over", func() bool { return b.Metric("ssegate_takeovers_total") == 1 })
	got = append(got, far.Take(100)...)
	w.redis.Pause()
	back := EventSource(t, b.URL+path, far.LastID)
	got = append(got, back.Take(5)...)
	w.redis.Resume()
	want(t, got, Numbers(1, len(got), false))
	if runs := w.backend.Runs("/count"); runs != 2 {
		t.Errorf("the backend ran %d times", runs)
	}
}

// TestDoneWithoutID: a backend gives ids, but not to its last event. Who comes
// back with the id before it gets it once more, and then a 204: not the same
// again and again.
func TestDoneWithoutID(t *testing.T) {
	b := NewBackend(t)
	n := Start(t, bin, "one", config(b.URL, ""))
	c := make(chan *Stream, 1)
	go func() { c <- EventSource(t, n.URL+"/hold", "") }()
	run := b.Next()
	run.Head()
	run.Send("id: 1\ndata: a\n\nid: 2\ndata: b\n\ndata: [DONE]\n\n")
	run.End()
	s := <-c
	got, _ := s.Rest()
	want(t, got, []string{"a", "b", "[DONE]"})
	again := EventSource(t, n.URL+"/hold", s.LastID)
	got, _ = again.Rest()
	want(t, got, []string{"[DONE]"})
	Eventually(t, "a 204", func() bool {
		last := EventSource(t, n.URL+"/hold", again.LastID)
		defer last.Close()
		return last.Resp.StatusCode == 204
	})
	b.Idle()
}

// TestFinishedAgain: who comes back to a finished stream with an id of the
// backend's gets all that follows it, each time: a reply that was written need
// not have arrived. Only behind the last id is there an end to it.
func TestFinishedAgain(t *testing.T) {
	b := NewBackend(t)
	n := Start(t, bin, "one", config(b.URL, ""))
	f := func(path, body, id string, behind ...string) (again *Stream) {
		t.Helper()
		c := make(chan *Stream, 1)
		go func() { c <- EventSource(t, n.URL+path, "") }()
		run := b.Next()
		run.Head()
		run.Send(body)
		run.End()
		(<-c).Rest()
		for range 4 {
			again = EventSource(t, n.URL+path, id)
			got, _ := again.Rest()
			want(t, got, behind)
		}
		return again
	}
	marked := "id: 1\ndata: a\n\nid: 2\ndata: b\n\nid: 3\ndata: [DONE]\n\n"
	f("/hold?marked", marked, "1", "b", "[DONE]")
	again := f("/hold?near", strings.ReplaceAll(marked, "id: ", "id: n"), "n2", "[DONE]")
	Eventually(t, "a 204", func() bool {
		last := EventSource(t, n.URL+"/hold?near", again.LastID)
		defer last.Close()
		return last.Resp.StatusCode == 204
	})
	f("/hold?usage", "id: u1\ndata: a\n\ndata: usage\n\ndata: [DONE]\n\n", "u1", "usage", "[DONE]")
	f("/hold?one", "id: o\ndata: a\n\nid: o\ndata: b\n\nid: o\ndata: [DONE]\n\n", "o", "b", "[DONE]")
	b.Idle()
}

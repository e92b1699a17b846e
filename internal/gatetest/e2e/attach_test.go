package e2e

import (
	"encoding/json"
	"fmt"
	"net/http"
	"strings"
	"sync"
	"testing"
	"time"

	. "ssegate/internal/gatetest"
)

func TestSomebodyElsesID(t *testing.T) {
	b := NewBackend(t)
	n := Start(t, bin, "one", config(b.URL, ""))
	mine := map[string]string{"Authorization": "Bearer mine"}
	s := Do(t, Request{URL: n.URL + "/count?n=30&every=5ms", Header: mine})
	s.Take(3)
	for _, who := range []map[string]string{{}, {"Authorization": "Bearer theirs"}, {"X-Api-Key": "mine"}} {
		who["Last-Event-ID"] = s.LastID
		stolen := Do(t, Request{URL: n.URL + "/count?n=30&every=5ms", Header: who})
		if stolen.Resp.StatusCode != 403 {
			t.Errorf("a stolen id with %v is answered %d", who, stolen.Resp.StatusCode)
		}
		for _, method := range []string{"GET", "DELETE"} {
			delete(who, "Last-Event-ID")
			control := Do(t, Request{Method: method, URL: n.URL + "/_ssegate/streams/" + s.ID(), Header: who})
			if control.Resp.StatusCode != 403 {
				t.Errorf("%s of somebody else's stream with %v is answered %d", method, who, control.Resp.StatusCode)
			}
		}
	}
	want(t, s.Take(27), Numbers(4, 30, false))
}

func TestSameKeyRunsOnce(t *testing.T) {
	b := NewBackend(t)
	n := Start(t, bin, "one", config(b.URL, `attach = "key"
attach_key = "json:request.id"`))
	ask := func(key, more string) *Stream {
		return Do(t, Request{
			Method: "POST", URL: n.URL + "/count?n=30&every=5ms", Header: map[string]string{"Content-Type": "application/json"},
			Body: fmt.Sprintf(`{"request":{"id":%q},"more":%q}`, key, more),
		})
	}
	var wg sync.WaitGroup
	for range 6 {
		wg.Go(func() {
			s := ask("k1", "")
			got, clean := s.Rest()
			if len(got) != 31 || !clean {
				t.Errorf("a joiner got %q, clean %v", Data(got), clean)
			}
		})
	}
	wg.Wait()
	if runs := b.Runs("/count"); runs != 1 {
		t.Fatalf("the backend ran %d times", runs)
	}
	late := ask("k1", "")
	if got, _ := late.Rest(); len(got) != 31 || b.Runs("/count") != 1 {
		t.Fatalf("who joins within attach_for got %d events, runs %d", len(got), b.Runs("/count"))
	}
	if other := ask("k1", "another body"); other.Resp.StatusCode != 422 {
		t.Fatalf("another body under the same key is answered %d", other.Resp.StatusCode)
	}
	ask("k2", "").Rest()
	if runs := b.Runs("/count"); runs != 2 {
		t.Fatalf("another key: the backend ran %d times", runs)
	}
}

func TestSameContentJoins(t *testing.T) {
	b := NewBackend(t)
	n := Start(t, bin, "one", config(b.URL, `attach = "content"`))
	ask := func(body string) *Stream {
		return Do(t, Request{Method: "POST", URL: n.URL + "/hold", Body: body})
	}
	streams := make(chan *Stream, 2)
	go func() { streams <- ask("a") }()
	run := b.Next()
	run.Head()
	run.Send("data: one\n\n")
	first := <-streams
	want(t, first.Take(1), []string{"one"})
	second := ask("a")
	want(t, second.Take(1), []string{"one"})
	run.Send("data: two\n\n")
	want(t, first.Take(1), []string{"two"})
	want(t, second.Take(1), []string{"two"})
	go func() { streams <- ask("b") }()
	b.Next().Head()
	<-streams
}

// TestNoStreamUnderKey: joiners of a request that turns out to be no event
// stream ask for themselves, as without a gate.
func TestNoStreamUnderKey(t *testing.T) {
	b := NewBackend(t)
	n := Start(t, bin, "one", config(b.URL, `attach = "key"
attach_key = "header:Idempotency-Key"`))
	for i := range 3 {
		s := Do(t, Request{URL: n.URL + "/json", Header: map[string]string{"Idempotency-Key": "x"}})
		if got := s.Body(); got != `{"ok":true}` || b.Runs("/json") != i+1 {
			t.Fatalf("answer %q, runs %d", got, b.Runs("/json"))
		}
	}
}

func TestLeaving(t *testing.T) {
	b := NewBackend(t)
	n := Start(t, bin, "one", config(b.URL, `detach_for = "200ms"`)+`
[[route]]
path = "/hold/cancel"
upstream = "backend"
on_disconnect = "cancel"
`)
	open := func(path string) (*Stream, *Run) {
		c := make(chan *Stream, 1)
		go func() { c <- EventSource(t, n.URL+path, "") }()
		run := b.Next()
		run.Head()
		run.Send("data: 1\n\n")
		s := <-c
		s.Take(1)
		return s, run
	}
	t.Run("detach", func(t *testing.T) {
		s, run := open("/hold")
		left := time.Now()
		s.Close()
		run.Cancelled(t)
		if d := time.Since(left); d < 190*time.Millisecond || d > 1200*time.Millisecond {
			t.Fatalf("detach_for = 200ms took %v", d)
		}
		run.End()
	})
	t.Run("detach and back in time", func(t *testing.T) {
		s, run := open("/hold")
		s.Close()
		back := EventSource(t, n.URL+"/hold", s.LastID)
		run.Send("data: 2\n\n")
		want(t, back.Take(1), []string{"2"})
		time.Sleep(300 * time.Millisecond) // longer than detach_for: who follows keeps it running
		run.Send("data: 3\n\n")
		want(t, back.Take(1), []string{"3"})
	})
	t.Run("stop", func(t *testing.T) {
		s, run := open("/hold")
		stop := Do(t, Request{Method: "DELETE", URL: n.URL + "/_ssegate/streams/" + s.ID()})
		if stop.Resp.StatusCode != 200 {
			t.Fatalf("DELETE is answered %d", stop.Resp.StatusCode)
		}
		run.Cancelled(t)
		run.End()
		if got, clean := s.Rest(); len(got) > 0 || !clean {
			t.Fatalf("a stopped stream ended with %q, clean %v", Data(got), clean)
		}
		var st struct{ State string }
		json.Unmarshal([]byte(Do(t, Request{URL: n.URL + "/_ssegate/streams/" + s.ID() + "/status"}).Body()), &st)
		if st.State != "stopped" {
			t.Fatalf("state %q", st.State)
		}
	})
}

func TestUnknownIDs(t *testing.T) {
	b := NewBackend(t)
	n := Start(t, bin, "one", config(b.URL, ""))
	s := EventSource(t, n.URL+"/count?n=3", "")
	s.Rest()
	id := s.LastID
	n.Kill()
	n.Run() // remembers nothing
	t.Run("GET runs again, gap first", func(t *testing.T) {
		again := EventSource(t, n.URL+"/count?n=3", id)
		got, _ := again.Rest()
		if len(got) != 5 || got[0].Name != "ssegate.gap" {
			t.Fatalf("got %+v", got)
		}
		if h := b.Last().Header.Get("Last-Event-ID"); h != "" {
			t.Fatalf("an edge id went upstream: %q", h)
		}
	})
	t.Run("in the query", func(t *testing.T) {
		EventSource(t, n.URL+"/count?n=3&lastEventId="+id+"&x=1", "").Rest()
		if q := b.Last().URL.RawQuery; strings.Contains(q, "sg1") || q != "n=3&x=1" {
			t.Fatalf("the upstream was asked with %q", q)
		}
	})
	t.Run("POST is 410", func(t *testing.T) {
		runs := b.Runs("/count")
		p := Do(t, Request{Method: "POST", URL: n.URL + "/count?n=3", Header: map[string]string{"Last-Event-ID": id}})
		if p.Resp.StatusCode != 410 || b.Runs("/count") != runs {
			t.Fatalf("answered %d, runs %d", p.Resp.StatusCode, b.Runs("/count")-runs)
		}
	})
	t.Run("foreign ids go upstream", func(t *testing.T) {
		EventSource(t, n.URL+"/count?n=3&ids=1", "2").Rest()
		if h := b.Last().Header.Get("Last-Event-ID"); h != "2" {
			t.Fatalf("the upstream got Last-Event-ID %q", h)
		}
	})
	t.Run("damaged", func(t *testing.T) {
		p := Do(t, Request{Method: "POST", URL: n.URL + "/count?n=3", Header: map[string]string{"Last-Event-ID": id[:len(id)-3]}})
		if p.Resp.StatusCode != 410 {
			t.Fatalf("answered %d", p.Resp.StatusCode)
		}
	})
}

func TestFeedIsAskedAgain(t *testing.T) {
	b := NewBackend(t)
	n := Start(t, bin, "one", config(b.URL, ""))
	s := EventSource(t, n.URL+"/count?n=5&done=0", "")
	got, _ := s.Rest()
	want(t, got, Numbers(1, 5, false))
	again := EventSource(t, n.URL+"/count?n=5&done=0", s.LastID)
	got, _ = again.Rest()
	want(t, got, Numbers(1, 5, false))
	if b.Runs("/count") != 2 || b.Last().Header.Get("Last-Event-ID") != "" {
		t.Fatalf("runs %d, last id %q", b.Runs("/count"), b.Last().Header.Get("Last-Event-ID"))
	}
	own := EventSource(t, n.URL+"/count?n=5&done=0&ids=1", "")
	own.Rest()
	EventSource(t, n.URL+"/count?n=5&done=0&ids=1", own.LastID).Rest()
	if h := b.Last().Header.Get("Last-Event-ID"); h != "5" {
		t.Fatalf("the feed was asked on from %q, want its own last id", h)
	}
}

func TestFirstByteHeartbeat(t *testing.T) {
	b := NewBackend(t)
	n := Start(t, bin, "one", config(b.URL, `first_byte_heartbeat = "50ms"
heartbeat = "50ms"`))
	s := EventSource(t, n.URL+"/hold", "")
	run := b.Next()
	Eventually(t, "a heartbeat before the first byte", func() bool {
		line, err := s.Line()
		return err == nil && line == ":"
	})
	run.Head()
	run.Send("data: 1\n\n")
	want(t, s.Take(1), []string{"1"})
	run.End()

	failed := EventSource(t, n.URL+"/hold", "")
	run = b.Next()
	failed.Line()
	run.Refuse(http.StatusBadGateway)
	got, clean := failed.Rest()
	if len(got) != 1 || got[0].Name != "ssegate.error" || clean {
		t.Fatalf("got %+v, clean %v", got, clean)
	}
}

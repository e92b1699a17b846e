package e2e

import (
	"fmt"
	"math/rand/v2"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	. "ssegate/internal/gatetest"
	"ssegate/internal/gatetest/service"
)

// world is a cluster's services and its backend.
type world struct {
	redis, rabbit *service.Proc
	backend       *Backend
}

// together is a node's configuration in this world, with times short enough
// for a test; more is put into its route.
func (w *world) together(more string) string {
	c := "[cluster]\nheartbeat = \"300ms\"\ndead_after = \"1s\"\ncheck_every = \"200ms\"\ntail_check = \"500ms\"\n"
	c += fmt.Sprintf("redis = %q\n", w.redis.URL)
	if w.rabbit != nil {
		c += fmt.Sprintf("rabbitmq = %q\n", w.rabbit.URL)
	}
	return c + config(w.backend.URL, more)
}

// kinds are the clusters that every promise is kept on.
func kinds(t *testing.T, test func(t *testing.T, w *world)) {
	t.Run("redis and rabbitmq", func(t *testing.T) {
		test(t, &world{redis: service.Redis(t), rabbit: service.Rabbit(t), backend: NewBackend(t)})
	})
	t.Run("redis", func(t *testing.T) {
		test(t, &world{redis: service.Redis(t), backend: NewBackend(t)})
	})
}

// pair starts two nodes that know each other.
func (w *world) pair(t *testing.T, more string) (a, b *Node) {
	a, b = Start(t, bin, "a", w.together(more)), Start(t, bin, "b", w.together(more))
	acquainted(t, a, b)
	return a, b
}

func acquainted(t *testing.T, nodes ...*Node) {
	t.Helper()
	for _, n := range nodes {
		Eventually(t, n.Name+" knows the others and is on the bus", func() bool {
			r, _ := n.Ready()
			for _, state := range r.Dependencies {
				if state != "up" {
					return false
				}
			}
			return len(r.Nodes) == len(nodes)
		})
	}
}

func TestHop(t *testing.T) {
	kinds(t, func(t *testing.T, w *world) {
		a, b := w.pair(t, "")
		for _, every := range []time.Duration{2 * time.Millisecond, 20 * time.Millisecond} {
			t.Run(fmt.Sprint(every), func(t *testing.T) {
				n := 300
				if every > 10*time.Millisecond {
					n = 120
				}
				before := w.backend.Runs("/count")
				path := fmt.Sprintf("/count?n=%d&every=%s", n, every)
				var got []Event
				id, nodes := "", []*Node{a, b}
				for hop := 0; len(got) < n+1; hop++ {
					s := EventSource(t, nodes[hop%2].URL+path, id)
					if s.Resp.StatusCode != 200 {
						t.Fatalf("hop %d after %d events: %d", hop, len(got), s.Resp.StatusCode)
					}
					k := min(10+rand.IntN(16), n+1-len(got))
					got = append(got, s.Take(k)...)
					id = s.LastID
					s.Close()
				}
				want(t, got, Numbers(1, n, true))
				if runs := w.backend.Runs("/count") - before; runs != 1 {
					t.Fatalf("the backend ran %d times", runs)
				}
			})
		}
	})
}

// TestBehind: a follower on the other node sees what the owner's sees, and
// not much later.
func TestBehind(t *testing.T) {
	kinds(t, func(t *testing.T, w *world) {
		a, b := w.pair(t, "")
		path := "/count?n=300&every=5ms"
		s := EventSource(t, a.URL+path, "")
		first := s.Take(1)
		far := EventSource(t, b.URL+path, s.LastID)
		var wg sync.WaitGroup
		var here, there []Event
		wg.Go(func() { here, _ = s.Rest() })
		wg.Go(func() { there, _ = far.Rest() })
		wg.Wait()
		want(t, append(first, here...), Numbers(1, 300, true))
		want(t, there, Numbers(2, 300, true))
		var late []time.Duration
		for i := range there {
			late = append(late, there[i].At.Sub(here[i].At))
		}
		slices.Sort(late)
		t.Logf("behind: median %v, p95 %v, worst %v", late[len(late)/2], late[len(late)*95/100], late[len(late)-1])
	})
}

func TestSameKeyEverywhere(t *testing.T) {
	kinds(t, func(t *testing.T, w *world) {
		a, b := w.pair(t, `attach = "key"
attach_key = "header:Idempotency-Key"`)
		for round := range 5 {
			before := w.backend.Runs("/count")
			var wg sync.WaitGroup
			for i := range 4 {
				node := []*Node{a, b}[i%2]
				wg.Go(func() {
					s := Do(t, Request{
						Method: "POST", URL: node.URL + "/count?n=30&every=3ms", Body: "{}",
						Header: map[string]string{"Idempotency-Key": fmt.Sprint("k", round)},
					})
					got, clean := s.Rest()
					if !slices.Equal(Data(got), Numbers(1, 30, true)) || !clean {
						t.Errorf("round %d: got %q, clean %v", round, Data(got), clean)
					}
				})
			}
			wg.Wait()
			if runs := w.backend.Runs("/count") - before; runs != 1 {
				t.Errorf("round %d: the backend ran %d times", round, runs)
			}
		}
	})
}

func TestFromTheOtherNode(t *testing.T) {
	kinds(t, func(t *testing.T, w *world) {
		a, b := w.pair(t, `detach_for = "1s"`)
		open := func() (*Stream, *Run) {
			c := make(chan *Stream, 1)
			go func() { c <- EventSource(t, a.URL+"/hold", "") }()
			run := w.backend.Next()
			run.Head()
			run.Send("data: 1\n\n")
			s := <-c
			s.Take(1)
			return s, run
		}
		t.Run("stop", func(t *testing.T) {
			s, run := open()
			if d := Do(t, Request{Method: "DELETE", URL: b.URL + "/_ssegate/streams/" + s.ID()}); d.Resp.StatusCode != 200 {
				t.Fatalf("DELETE is answered %d: %s", d.Resp.StatusCode, d.Body())
			}
			run.Cancelled(t)
			run.End()
			s.Rest()
		})
		t.Run("stolen", func(t *testing.T) {
			s, _ := open()
			theirs := Do(t, Request{URL: b.URL + "/hold", Header: map[string]string{"Last-Event-ID": s.LastID, "Authorization": "x"}})
			if theirs.Resp.StatusCode != 403 {
				t.Fatalf("a stolen id is answered %d", theirs.Resp.StatusCode)
			}
		})
		t.Run("detach", func(t *testing.T) {
			s, run := open()
			s.Close()
			far := EventSource(t, b.URL+"/hold", s.LastID)
			run.Send("data: 2\n\n")
			want(t, far.Take(1), []string{"2"})
			far.Close()
			left := time.Now()
			run.Cancelled(t)
			if d := time.Since(left); d < 900*time.Millisecond || d > 2*time.Second {
				t.Fatalf("detach_for = 1s took %v", d)
			}
			run.End()
		})
	})
}

func TestOwnerKilled(t *testing.T) {
	kinds(t, func(t *testing.T, w *world) {
		t.Run("lost", func(t *testing.T) {
			a, b := w.pair(t, "")
			path := "/count?n=10000&every=5ms"
			s := EventSource(t, a.URL+path, "")
			s.Take(20)
			far := EventSource(t, b.URL+path, s.LastID)
			far.Take(10)
			a.Kill()
			got, clean := far.Rest()
			if len(got) < 1 || got[len(got)-1].Name != "ssegate.error" || !clean {
				t.Fatalf("ended with %q, clean %v", Data(got), clean)
			}
			tail := got[:len(got)-1]
			want(t, tail, Numbers(31, 30+len(tail), false))
			if over := EventSource(t, b.URL+path, far.LastID); over.Resp.StatusCode != 204 {
				t.Fatalf("who comes back is answered %d", over.Resp.StatusCode)
			}
			if w.backend.Runs("/count") != 1 {
				t.Fatalf("the backend ran %d times", w.backend.Runs("/count"))
			}
		})
		t.Run("takeover", func(t *testing.T) {
			a, b := w.pair(t, `takeover = "last-event-id"`)
			path := "/count?n=400&every=5ms&ids=1"
			s := EventSource(t, a.URL+path, "")
			got := s.Take(20)
			far := EventSource(t, b.URL+path, s.LastID)
			got = append(got, far.Take(10)...)
			a.Kill()
			rest, clean := far.Rest()
			want(t, append(got, rest...), Numbers(1, 400, true))
			if !clean {
				t.Fatal("the end was not clean")
			}
		})
	})
}

// TestRedirect: a node with many clients sends new ones to one with few.
func TestRedirect(t *testing.T) {
	w := &world{redis: service.Redis(t), backend: NewBackend(t)}
	conf := strings.Replace(w.together(""), "[cluster]\n", "[cluster]\nredirect = true\n", 1)
	a, b := Start(t, bin, "a", conf), Start(t, bin, "b", conf)
	acquainted(t, a, b)
	url := "/count?n=10000&every=50ms"
	for range 20 {
		Do(t, Request{Method: "POST", URL: a.URL + url}).Take(1)
	}
	var there *Stream
	Eventually(t, "a new client is sent to b", func() bool {
		s := EventSource(t, a.URL+url, "")
		defer s.Close()
		there = s
		return s.Resp.StatusCode == 307
	})
	if to := there.Resp.Header.Get("Location"); to != b.URL+url {
		t.Fatalf("sent to %q", to)
	}
	s := EventSource(t, b.URL+url, "")
	s.Take(2)
	if back := EventSource(t, a.URL+url, s.LastID); back.Resp.StatusCode != 200 {
		t.Fatalf("who comes back is answered %d", back.Resp.StatusCode)
	}
}

package e2e

import (
	"bytes"
	"encoding/json"
	"fmt"
	"io"
	"math/rand/v2"
	"net/http"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/redis/go-redis/v9"

	. "ssegate/internal/gatetest"
	"ssegate/internal/gatetest/service"
	"ssegate/push/client"
)

// A stream that is published reaches its targets as it arrives, in order and
// whole, wherever they are.
func TestPushStreams(t *testing.T) {
	w := &world{redis: service.Redis(t), rabbit: service.Rabbit(t), backend: NewBackend(t)}
	a, b := w.pair(t, pushes)

	t.Run("events as they arrive", func(t *testing.T) {
		user, other := EventSource(t, b.URL+"/sse/user/s", ""), EventSource(t, a.URL+"/sse/stream/s", "")
		up := pipeTo(t, a, "/api/v1/streams/user/s?to=channel/s")
		for _, s := range []*Stream{user, other} {
			markIs(t, s.Take(1)[0], "begin")
		}
		for i := range 20 {
			// The one before has come before the next is sent; every third
			// is sent in two parts.
			event := fmt.Sprintf("event: word\nid: 7\ndata: %d\ndata: more\n\n", i)
			if i%3 == 0 {
				io.WriteString(up, event[:15])
				event = event[15:]
			}
			io.WriteString(up, event)
			for _, s := range []*Stream{user, other} {
				if ev := s.Take(1)[0]; ev.Name != "word" || ev.Data != fmt.Sprintf("%d\nmore", i) || ev.ID == "7" {
					t.Fatalf("event %d arrives as %+v", i, ev)
				}
			}
		}
		io.WriteString(up, "data: no blank line ends it")
		up.Close()
		if out := up.answer(200); out["state"] != "end" || out["events"] != 20.0 || out["unfinished"] == nil {
			t.Errorf("%v", out)
		}
		for _, s := range []*Stream{user, other} {
			markIs(t, s.Take(1)[0], "end")
		}
	})

	t.Run("cut", func(t *testing.T) {
		s := EventSource(t, b.URL+"/sse/user/cut", "")
		Eventually(t, "a knows the connection", func() bool { return slices.Contains(idsOn(t, a, ""), connectionOf(s)) })
		up := pipeTo(t, a, "/api/v1/streams/connection/"+connectionOf(s))
		markIs(t, s.Take(1)[0], "begin")
		io.WriteString(up, "data: 1\n\n")
		want(t, s.Take(1), []string{"1"})
		up.CloseWithError(io.ErrUnexpectedEOF)
		markIs(t, s.Take(1)[0], "cut")
		// An event of ssegate's own cannot be sent by another.
		up = pipeTo(t, b, "/api/v1/streams/user/cut")
		markIs(t, s.Take(1)[0], "begin")
		io.WriteString(up, "event: ssegate.gap\ndata: {}\n\n")
		if out := up.answer(400); fmt.Sprint(out["error"]) == "" {
			t.Errorf("%v", out)
		}
		markIs(t, s.Take(1)[0], "cut")
	})

	t.Run("connection gone", func(t *testing.T) {
		s := EventSource(t, b.URL+"/sse/user/gone", "")
		Eventually(t, "a knows the connection", func() bool { return slices.Contains(idsOn(t, a, ""), connectionOf(s)) })
		up := pipeTo(t, a, "/api/v1/streams/connection/"+connectionOf(s))
		markIs(t, s.Take(1)[0], "begin")
		s.Close()
		if out := up.answer(410); !strings.Contains(fmt.Sprint(out), "connection_gone") || !strings.Contains(fmt.Sprint(out["result"]), "not_connected") {
			t.Errorf("%v", out)
		}
	})

	t.Run("many publishers", func(t *testing.T) {
		// Streams to one topic mix, but each stays in order.
		s := EventSource(t, b.URL+"/sse/user/mix", "")
		const streams, events = 5, 40
		var publishers sync.WaitGroup
		for i := range streams {
			var body bytes.Buffer
			for n := range events {
				fmt.Fprintf(&body, "data: %d of %d\n\n", n, i)
			}
			p := publisher(t, []*Node{a, b}[i%2])
			publishers.Go(func() {
				if out, err := p.Stream(t.Context(), client.Body{Reader: &body, Type: "text/event-stream"}, "user/mix"); err != nil || out.Events != events {
					t.Errorf("%+v, %v", out, err)
				}
			})
		}
		next := [streams]int{}
		for range streams * (events + 2) {
			ev := s.Take(1)[0]
			if ev.Name == "ssegate.stream" {
				continue
			}
			var n, i int
			if _, err := fmt.Sscanf(ev.Data, "%d of %d", &n, &i); err != nil || next[i] != n {
				t.Fatalf("%q came when %d had come to %d", ev.Data, i, next[i])
			}
			next[i]++
		}
		publishers.Wait()
	})

	t.Run("bytes", func(t *testing.T) {
		sent := make([]byte, 1<<20+12345)
		rng := rand.NewChaCha8([32]byte{5})
		rng.Read(sent)
		for _, size := range []int64{int64(len(sent)), 0} {
			topic := fmt.Sprint("user/bytes", size)
			riders := []*rider{
				ride(t, "/sse/"+topic, 1, nil, a), ride(t, "/sse/"+topic+"?since=1", 2, func(rng *rand.Rand) int { return 1 + rng.IntN(4) }, a, b),
				ride(t, "/sse/stream/too"+fmt.Sprint(size), 3, nil, b),
			}
			for _, r := range riders {
				r.begun()
			}
			out, err := publisher(t, a).Stream(t.Context(), client.Body{Reader: bytes.NewReader(sent), Size: size, Name: "../x.bin", Type: "image/x-test"}, topic, "channel/too"+fmt.Sprint(size))
			if err != nil || out.State != "end" || out.Bytes != int64(len(sent)) || len(out.Targets) != 2 {
				t.Fatalf("%+v, %v", out, err)
			}
			for _, r := range riders {
				var whole client.Reassembler
				var file *client.File
				for _, ev := range r.await(out.Events + 2) {
					f, err := whole.Take(ev.Name, []byte(ev.Data))
					if err != nil {
						t.Fatal(err)
					}
					if f != nil {
						file = f
					}
				}
				if file == nil || !bytes.Equal(file.Data, sent) || file.Name != "x.bin" || file.Type != "image/x-test" || file.SHA256 != out.SHA256 {
					t.Errorf("%s: the bytes are not those that were sent", r.path)
				}
			}
		}
	})

	t.Run("node killed", func(t *testing.T) {
		// The others tell of the cut; where there are none, the next one does.
		s := EventSource(t, b.URL+"/sse/user/killed", "")
		up := pipeTo(t, a, "/api/v1/streams/user/killed")
		begin := s.Take(1)[0]
		markIs(t, begin, "begin")
		io.WriteString(up, "data: 1\n\n")
		want(t, s.Take(1), []string{"1"})
		w.noted(t, begin)
		a.Kill()
		ev := s.Take(1)[0]
		if markIs(t, ev, "cut"); !strings.Contains(ev.Data, "node_lost") {
			t.Errorf("told %s", ev.Data)
		}
		pipeTo(t, b, "/api/v1/streams/user/killed")
		begin = s.Take(1)[0]
		markIs(t, begin, "begin")
		w.noted(t, begin)
		b.Kill()
		c := Start(t, bin, "c", w.together(pushes))
		s = EventSource(t, c.URL+"/sse/user/killed", s.LastID)
		markIs(t, s.Take(1)[0], "cut")
	})
}

// noted waits until Redis has a note of the stream that has begun.
func (w *world) noted(t *testing.T, begin Event) {
	t.Helper()
	var m struct{ Stream string }
	if err := json.Unmarshal([]byte(begin.Data), &m); err != nil {
		t.Fatal(err)
	}
	o, err := redis.ParseURL(w.redis.URL)
	if err != nil {
		t.Fatal(err)
	}
	r := redis.NewClient(o)
	defer r.Close()
	Eventually(t, "the stream is noted", func() bool {
		for _, key := range w.allKeys(t) {
			if strings.Contains(key, "push:open:") && strings.Contains(r.Get(t.Context(), key).Val(), m.Stream) {
				return true
			}
		}
		return false
	})
}

func markIs(t *testing.T, ev Event, state string) {
	t.Helper()
	var m struct{ Stream, State string }
	if err := json.Unmarshal([]byte(ev.Data), &m); err != nil || ev.Name != "ssegate.stream" || m.State != state || m.Stream == "" {
		t.Fatalf("got %+v, want a stream's %s", ev, state)
	}
}

// piping is a publisher's event stream under way.
type piping struct {
	*io.PipeWriter
	t    *testing.T
	done chan piped
}

type piped struct {
	status int
	body   []byte
	err    error
}

func pipeTo(t *testing.T, n *Node, path string) *piping {
	r, w := io.Pipe()
	p := &piping{w, t, make(chan piped, 1)}
	req, err := http.NewRequestWithContext(t.Context(), "POST", n.Internal+path, r)
	if err != nil {
		t.Fatal(err)
	}
	req.Header.Set("Content-Type", "text/event-stream")
	go func() {
		resp, err := (&http.Transport{DisableKeepAlives: true}).RoundTrip(req)
		if err != nil {
			p.done <- piped{err: err}
			return
		}
		defer resp.Body.Close()
		body, err := io.ReadAll(resp.Body)
		p.done <- piped{resp.StatusCode, body, err}
	}()
	t.Cleanup(func() { w.Close() })
	return p
}

// answer waits for the answer.
func (p *piping) answer(status int) (out map[string]any) {
	p.t.Helper()
	select {
	case got := <-p.done:
		if got.err != nil || got.status != status || json.Unmarshal(got.body, &out) != nil {
			p.t.Fatalf("the stream is answered %d %s: %v", got.status, got.body, got.err)
		}
	case <-time.After(Patience):
		p.t.Fatal("the stream is not answered")
	}
	return out
}

package push

import (
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"ssegate/cluster"
)

// hookServer is the webhook's address, in memory.
type hookServer struct {
	mu     sync.Mutex
	status int // that it answers
	got    []hooked
	wait   time.Duration
}

type hooked struct {
	body string
	head http.Header
	at   time.Time
	by   *node
}

// hookVia is a node's way there.
type hookVia struct {
	*hookServer
	n *node
}

func (s hookVia) RoundTrip(r *http.Request) (*http.Response, error) {
	b, _ := io.ReadAll(r.Body)
	s.mu.Lock()
	s.got = append(s.got, hooked{string(b), r.Header, time.Now(), s.n})
	status, pause := s.status, s.wait
	s.mu.Unlock()
	select {
	case <-time.After(pause):
	case <-r.Context().Done():
		return nil, r.Context().Err()
	}
	w := httptest.NewRecorder()
	w.WriteHeader(status)
	return w.Result(), nil
}

func (s *hookServer) ids(t *testing.T) (ids []string) {
	s.mu.Lock()
	defer s.mu.Unlock()
	for _, h := range s.got {
		_, id, _ := strings.Cut(h.body, `"id":"`)
		id, _, _ = strings.Cut(id, `"`)
		ids = append(ids, id)
	}
	slices.Sort(ids)
	return ids
}

// hooks has all nodes tell one address.
func (w *world) hooks() *hookServer {
	s := &hookServer{status: 204}
	for _, n := range w.nodes {
		n.api.hook.client.Transport = hookVia{s, n}
	}
	return s
}

var hookOptions = Options{Webhook: Webhook{URL: "http://hook.example/secret-path", After: 10 * time.Second, Secret: "s", Attempts: 3, Retry: 5 * time.Second}}

// Of messages for users those are told that nobody got in time, once.
func TestWebhook(t *testing.T) {
	inWorld(t, Config{Options: hookOptions}, func(w *world, n ...*node) {
		hook := w.hooks()
		n[0].follow(all, "user/here")
		began := time.Now()
		for _, m := range []string{
			`{"id":"got","target":{"user_id":"here"}}`, `{"id":"missed","target":{"user_id":"away"},"data":1,"service":"s"}`,
			`{"id":"channel","target":{"channel":"empty"}}`, `{"id":"later","target":{"user_id":"later"}}`,
		} {
			w.is(n[0].post("/api/v1/messages/send", m), 200)
		}
		w.is(n[0].post("/api/sse/send", `{"userId":"away","message":"text","event":"note","id":"plain"}`), 200)
		w.is(n[1].post("/api/v1/messages/batch", `{"message":{"id":"many"},"targets":["user/away","user/here"]}`), 200)
		wait(5 * time.Second)
		if got := hook.ids(t); len(got) > 0 {
			t.Errorf("too early: %v", got)
		}
		// Who comes back in time and reads from before has got it.
		late := &client{w: w, n: n[1], id: "late"}
		var err error
		if late.sub, err = n[1].SubscribeAll([]cluster.Topic{cluster.TopicOf("user/later")}, cluster.CursorFrom{Last: 5}, late, cluster.SubscribeOptions{ID: "late"}); err != nil {
			t.Fatal(err)
		}
		wait(30 * time.Second)
		if got := hook.ids(t); !slices.Equal(got, []string{"many", "missed", "plain"}) {
			t.Fatalf("told of %v", got)
		}
		for _, h := range hook.got {
			at, sig, _ := strings.Cut(strings.TrimPrefix(h.head.Get("Ssegate-Signature"), "t="), ",v1=")
			if sig != Sign("s", at, []byte(h.body)) || h.head.Get("Ssegate-Topic") != "user/away" || h.head.Get("Idempotency-Key") == "" || h.at.Sub(began) < 10*time.Second {
				t.Errorf("%v", h)
			}
			if strings.Contains(h.body, "plain") && h.body != fmt.Sprintf(`{"id":"plain","timestamp":%q,"type":"note","target":{"user_id":"away"},"data":"text"}`, began.UTC().Format(timeFormat)) {
				t.Errorf("%s", h.body)
			}
			if strings.Contains(h.body, "missed") && !strings.Contains(h.body, `"service":"s"`) {
				t.Errorf("%s", h.body)
			}
		}
		wait(5 * time.Minute) // nor is anybody told again when what was taken is looked at
		if got := hook.ids(t); len(got) != 3 {
			t.Errorf("told of %v", got)
		}
	}, "a", "b")
}

// A header has ASCII alone: an id and a user of other letters are escaped so that
// they can be read back.
func TestWebhookHeaders(t *testing.T) {
	inWorld(t, Config{Options: hookOptions}, func(w *world, n ...*node) {
		hook := w.hooks()
		for _, id := range []string{"50%", "a b", "plain:1", "ü"} {
			w.is(n[0].post("/api/v1/messages/send", `{"id":"`+id+`","target":{"user_id":"张"}}`), 200)
		}
		wait(30 * time.Second)
		var got []string
		for _, h := range hook.got {
			if topic := h.head.Get("Ssegate-Topic"); topic != "user/%E5%BC%A0" {
				t.Errorf("topic %q", topic)
			}
			got = append(got, h.head.Get("Idempotency-Key"))
		}
		if slices.Sort(got); !slices.Equal(got, []string{"%C3%BC", "50%25", "a%20b", "plain:1"}) {
			t.Errorf("keys %q", got)
		}
	}, "a")
}

// An address that fails is tried again, with longer pauses, and not for ever.
func TestWebhookRetries(t *testing.T) {
	inWorld(t, Config{Options: hookOptions}, func(w *world, n ...*node) {
		hook := w.hooks()
		hook.status = 500
		w.is(n[0].post("/api/v1/messages/send", `{"id":"m","target":{"user_id":"away"}}`), 200)
		wait(5 * time.Minute)
		if len(hook.got) != 3 {
			t.Fatalf("%d attempts", len(hook.got))
		}
		first, second := hook.got[1].at.Sub(hook.got[0].at), hook.got[2].at.Sub(hook.got[1].at)
		if first < 5*time.Second || first > 7*time.Second || second < 10*time.Second || second > 12*time.Second {
			t.Errorf("pauses %v and %v", first, second)
		}
		var failed uint64
		var reports []string
		for _, n := range w.nodes {
			failed += n.api.Stats().WebhookFailed
			reports = append(reports, n.reports...)
		}
		if failed != 1 || len(reports) != 1 || strings.Contains(reports[0], "secret") {
			t.Errorf("%d failed, reports %q", failed, reports)
		}
	}, "a", "b")
}

// A node that dies with what it took does not take it with it.
func TestWebhookOutlivesItsNode(t *testing.T) {
	inWorld(t, Config{Options: hookOptions}, func(w *world, n ...*node) {
		hook := w.hooks()
		hook.wait = time.Hour // whoever is told says nothing, until it dies
		for i := range 20 {
			w.is(n[0].post("/api/v1/messages/send", fmt.Sprintf(`{"id":"m%d","target":{"user_id":"away"}}`, i)), 200)
		}
		wait(11 * time.Second)
		hook.mu.Lock()
		if len(hook.got) == 0 {
			t.Fatal("nobody was at it")
		}
		holder := hook.got[0].by
		hook.got, hook.wait = nil, 0
		hook.mu.Unlock()
		holder.Abort()
		holder.leave()
		wait(3 * time.Minute)
		got := hook.ids(t)
		if got = slices.Compact(got); len(got) != 20 {
			t.Errorf("told of %v", got)
		}
	}, "a", "b")
}

// What a node took, and died before it did anything else, is told by another.
func TestWebhookTakenAndLost(t *testing.T) {
	inWorld(t, Config{Options: hookOptions}, func(w *world, n ...*node) {
		hook := w.hooks()
		lost := 0
		w.reg.mu.Lock()
		w.reg.dies = func(taken [][]byte) { lost = len(taken) }
		w.reg.mu.Unlock()
		for i := range 20 {
			w.is(n[0].post("/api/v1/messages/send", fmt.Sprintf(`{"id":"m%d","target":{"user_id":"away"}}`, i)), 200)
		}
		wait(3 * time.Minute)
		if got := hook.ids(t); lost == 0 || len(got) != 20 || len(slices.Compact(got)) != 20 {
			t.Errorf("%d were lost with their taker; told of %v", lost, got)
		}
	}, "a", "b")
}

// However slow the address is, nobody else takes what somebody is at.
func TestWebhookSlow(t *testing.T) {
	inWorld(t, Config{Options: hookOptions}, func(w *world, n ...*node) {
		hook := w.hooks()
		hook.wait = 9 * time.Second // of ten
		for i := range 100 {
			w.is(n[0].post("/api/v1/messages/send", fmt.Sprintf(`{"id":"m%d","target":{"user_id":"away"}}`, i)), 200)
		}
		wait(5 * time.Minute)
		if got := hook.ids(t); len(got) != 100 || len(slices.Compact(got)) != 100 {
			t.Errorf("told of %v", got)
		}
	}, "a", "b")
}

// What cannot be booked is not answered with a 2xx.
func TestWebhookNotBooked(t *testing.T) {
	inWorld(t, Config{Options: hookOptions}, func(w *world, n ...*node) {
		w.hooks()
		w.reg.fails(errAway)
		if a := w.is(n[0].post("/api/v1/messages/send", `{"id":"m","target":{"user_id":"away"}}`), 503); !strings.Contains(a.raw, "same id") {
			t.Errorf("%s", a.raw)
		}
		w.is(n[0].post("/api/v1/messages/send", `{"id":"m","target":{"channel":"c"}}`), 200)
	}, "a")
}

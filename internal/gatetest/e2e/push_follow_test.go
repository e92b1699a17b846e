package e2e

import (
	"context"
	"crypto/hmac"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	. "ssegate/internal/gatetest"
	"ssegate/internal/gatetest/service"
	"ssegate/push/client"
)

// texts are numbers as payload = "data" shows texts.
func texts(from, to int) []string {
	var out []string
	for i := from; i <= to; i++ {
		out = append(out, fmt.Sprintf(`"%d"`, i))
	}
	return out
}

// sendEach sends "from" … "to", alternately through these publishers.
func sendEach(t *testing.T, m client.Message, from, to int, through ...*client.Publisher) (answers []client.Answer) {
	t.Helper()
	for i := from; i <= to; i++ {
		m.Data = fmt.Sprint(i)
		a, err := through[i%len(through)].Send(t.Context(), m)
		if err != nil {
			t.Fatal(err)
		}
		answers = append(answers, a)
	}
	return answers
}

// Who gets what of a topic, and from where on, is for the client to ask and for
// the message to say; how far a message has got can be asked, too.
func TestPushFollow(t *testing.T) {
	hook := newHook(t)
	w := &world{redis: service.Redis(t), backend: NewBackend(t)}
	a, b := w.pair(t, pushes+fmt.Sprintf("webhook = %q\nwebhook_after = \"1s\"\nwebhook_retry = \"100ms\"\nwebhook_secret = %q\n", hook.URL, hook.secret))
	pa, pb := publisher(t, a), publisher(t, b)

	t.Run("narrowing", func(t *testing.T) {
		paths := []string{"", "?session_id=s1", "?session_id=s2", "?kb_id=k2", "?session_id=s1&task_id=t1"}
		should := make([][]string, len(paths))
		var streams []*Stream
		for i, path := range paths {
			streams = append(streams, EventSource(t, []*Node{a, b}[i%2].URL+"/sse/user/n"+path, ""))
		}
		here := connectionOf(streams[1])
		say := func(data string, to client.Target, gets ...int) {
			t.Helper()
			to.UserID = "n"
			if _, err := pa.Send(t.Context(), client.Message{Target: to, Data: data}); err != nil {
				t.Fatal(err)
			}
			for _, i := range gets {
				should[i] = append(should[i], fmt.Sprintf("%q", data))
			}
		}
		all := func(round string) {
			say(round+"for all", client.Target{}, 0, 1, 2, 3, 4)
			say(round+"for s1", client.Target{SessionID: "s1"}, 0, 1, 3, 4)
			say(round+"for s2", client.Target{SessionID: "s2"}, 0, 2, 3)
			say(round+"for k1", client.Target{KBID: "k1"}, 0, 1, 2, 4)
			say(round+"for s1 and t2", client.Target{SessionID: "s1", TaskID: "t2"}, 0, 1, 3)
			say(round+"for one connection", client.Target{ConnectionID: here}, 1)
			say(round+"end", client.Target{}, 0, 1, 2, 3, 4)
		}
		all("")
		for i, s := range streams {
			sameData(t, paths[i], Data(s.Take(len(should[i]))), should[i])
			s.Close()
			should[i] = nil
		}
		// Away, and back on the other node: the same of what was missed, but
		// for what is for a connection that is no more.
		here = "gone"
		all("again ")
		should[1] = slices.DeleteFunc(should[1], func(d string) bool { return strings.Contains(d, "connection") })
		for i, path := range paths {
			s := EventSource(t, []*Node{b, a}[i%2].URL+"/sse/user/n"+path, streams[i].LastID)
			sameData(t, path+" again", Data(s.Take(len(should[i]))), should[i])
		}
	})

	t.Run("last and since", func(t *testing.T) {
		m := client.Message{Target: client.Target{Channel: "past"}}
		sendEach(t, m, 1, 5, pa, pb)
		at := time.Now().Add(2 * time.Millisecond).Truncate(time.Millisecond)
		Eventually(t, "the next millisecond", func() bool { return time.Now().After(at.Add(time.Millisecond)) })
		sendEach(t, m, 6, 10, pa, pb)
		for query, from := range map[string]int{
			"last=3": 8, "last=1000": 1, "since=1": 1, fmt.Sprint("since=", at.UnixMilli()): 6,
			"since=" + at.Add(-time.Hour).UTC().Format(time.RFC3339): 1,
		} {
			for _, n := range []*Node{a, b} {
				s := EventSource(t, n.URL+"/sse/stream/past?"+query, "")
				want(t, s.Take(10-from+1), texts(from, 10))
				s.Close()
			}
		}
		// And then what comes.
		s := EventSource(t, b.URL+"/sse/stream/past?last=2", "")
		want(t, s.Take(2), texts(9, 10))
		sendEach(t, m, 11, 12, pa, pb)
		want(t, s.Take(2), texts(11, 12))
		// Where the client was counts more than what its address says.
		s.Close()
		sendEach(t, m, 13, 13, pa)
		want(t, EventSource(t, a.URL+"/sse/stream/past?last=2", s.LastID).Take(1), texts(13, 13))
		// Several topics: the newest of each.
		sendEach(t, client.Message{Target: client.Target{Channel: "past2"}}, 20, 25, pb)
		got := Data(EventSource(t, b.URL+"/sse/stream/past,past2?last=2", "").Take(4))
		slices.Sort(got)
		sameData(t, "the last of two topics", got, append(texts(12, 13), texts(24, 25)...))
	})

	t.Run("receipts", func(t *testing.T) {
		here, there := EventSource(t, a.URL+"/sse/user/r", ""), EventSource(t, b.URL+"/sse/user/r", "")
		first := sendEach(t, client.Message{Target: client.Target{UserID: "r"}}, 1, 2, pa)
		if first[0].Status != "delivered" || len(first[0].Targets[0].Nodes) != 2 {
			t.Errorf("%+v", first[0])
		}
		for _, n := range []*Node{a, b} { // also of what the other one took
			receipt(t, n, first[0].ID, "is written to both", func(r *receipts) bool {
				return r.Accepted != "" && len(r.Routed) == 2 && r.Written == 2 && !r.Passed
			})
		}
		event := here.Take(1)[0]
		ack := func(n *Node, body map[string]any, want int) {
			t.Helper()
			b, _ := json.Marshal(body)
			s := Do(t, Request{Method: "POST", URL: n.URL + "/sse/ack", Header: map[string]string{"Content-Type": "application/json"}, Body: string(b)})
			defer s.Close()
			if s.Resp.StatusCode != want {
				t.Errorf("ack %s: %d %s, want %d", b, s.Resp.StatusCode, s.Body(), want)
			}
		}
		ack(a, map[string]any{"id": "nonsense"}, 400)
		ack(a, map[string]any{"id": 5}, 400)
		ack(b, map[string]any{"id": event.ID, "topic": "user/r"}, 204)
		receipt(t, a, first[0].ID, "is acknowledged", func(r *receipts) bool { return r.Passed })
		receipt(t, b, first[1].ID, "is not yet", func(r *receipts) bool { return r.Written == 2 && !r.Passed })
		second := here.Take(1)[0]
		ack(a, map[string]any{"id": second.ID, "connection": connectionOf(here)}, 204)
		receipt(t, b, first[1].ID, "is acknowledged by connection", func(r *receipts) bool { return r.Passed })
		// Who comes back has what came before its id.
		third := sendEach(t, client.Message{Target: client.Target{UserID: "r"}}, 3, 3, pb)[0]
		receipt(t, a, third.ID, "is not passed", func(r *receipts) bool { return r.Written == 2 && !r.Passed })
		there.Take(3)
		there.Close()
		EventSource(t, a.URL+"/sse/user/r", there.LastID)
		receipt(t, b, third.ID, "is passed by coming back", func(r *receipts) bool { return r.Passed })
		// In the log of its topic it is found without its receipt.
		var r receipts
		if status := askAPI(t, b, "GET", "/api/v1/messages/"+third.ID+"?target=user/r", &r); status != 200 || !r.Passed {
			t.Errorf("in the log: %d %+v", status, r)
		}
		if status := askAPI(t, b, "GET", "/api/v1/messages/nobody-sent-this", nil); status != 404 {
			t.Errorf("an unknown message: %d", status)
		}
	})

	t.Run("webhook", func(t *testing.T) {
		there := EventSource(t, b.URL+"/sse/user/there", "")
		hook.fail(2)
		sent := map[string]string{} // id by user
		for _, user := range []string{"there", "soon", "never"} {
			ans, err := pa.Send(t.Context(), client.Message{Type: "info", Target: client.Target{UserID: user}, Data: "for " + user})
			if err != nil {
				t.Fatal(err)
			}
			sent[user] = ans.ID
		}
		there.Take(1)
		soon := EventSource(t, a.URL+"/sse/user/soon?last=1", "")
		soon.Take(1)
		got := hook.next(sent["never"])
		if got.header.Get("Ssegate-Topic") != "user/never" || got.body.Target["user_id"] != "never" || got.body.Data != "for never" || got.body.Type != "info" || got.attempt != 3 {
			t.Errorf("the webhook was told %+v", got)
		}
		Eventually(t, "the others are let go", func() bool {
			return a.Metric(`ssegate_webhook_total{result="not_needed"}`)+b.Metric(`ssegate_webhook_total{result="not_needed"}`) >= 2
		})
		for _, user := range []string{"there", "soon"} {
			if hook.told(sent[user]) {
				t.Errorf("the webhook was told of the message for %s, who got it", user)
			}
		}
	})
}

// receipts is what GET /api/v1/messages/{id} says.
type receipts struct {
	ID, Accepted string
	Routed       []string
	Written      int
	Passed       bool
}

// receipt waits until what a node says of a message is so.
func receipt(t *testing.T, n *Node, id, what string, so func(r *receipts) bool) {
	t.Helper()
	var r receipts
	for end := time.Now().Add(Patience); ; time.Sleep(5 * time.Millisecond) {
		r = receipts{}
		if askAPI(t, n, "GET", "/api/v1/messages/"+id, &r) == 200 && so(&r) {
			return
		}
		if time.Now().After(end) {
			t.Fatalf("%s says of a message that %s: %+v", n.Name, what, r)
		}
	}
}

// hook is a webhook's address.
type hook struct {
	t      *testing.T
	URL    string
	secret string
	mu     sync.Mutex
	fails  map[string]int // by id
	most   int
	all    []hooked
	more   chan struct{}
}

type hooked struct {
	id      string
	header  http.Header
	attempt int
	body    struct {
		ID, Type, Data string
		Target         map[string]string
	}
}

func newHook(t *testing.T) *hook {
	h := &hook{t: t, secret: "a secret of the webhook", fails: map[string]int{}, more: make(chan struct{})}
	s := httptest.NewServer(h)
	t.Cleanup(s.Close)
	h.URL = s.URL + "/told?token=hidden"
	return h
}

func (h *hook) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	body, err := io.ReadAll(r.Body)
	at, sum, _ := strings.Cut(strings.TrimPrefix(r.Header.Get("Ssegate-Signature"), "t="), ",v1=")
	mac := hmac.New(sha256.New, []byte(h.secret))
	mac.Write(append([]byte(at+"."), body...))
	if err != nil || hex.EncodeToString(mac.Sum(nil)) != sum {
		h.t.Errorf("the webhook's signature is %q: %v", r.Header.Get("Ssegate-Signature"), err)
	}
	one := hooked{id: r.Header.Get("Idempotency-Key"), header: r.Header}
	if err := json.Unmarshal(body, &one.body); err != nil || one.body.ID != one.id {
		h.t.Errorf("%v in %s", err, body)
	}
	fmt.Sscan(r.Header.Get("Ssegate-Attempt"), &one.attempt)
	h.mu.Lock()
	defer h.mu.Unlock()
	if h.fails[one.id]++; h.fails[one.id] <= h.most {
		w.WriteHeader(500)
		return
	}
	h.all = append(h.all, one)
	close(h.more)
	h.more = make(chan struct{})
}

// fail has each message's first n attempts fail.
func (h *hook) fail(n int) {
	h.mu.Lock()
	defer h.mu.Unlock()
	h.most = n
}

// told reports whether the webhook was told of a message, if in vain.
func (h *hook) told(id string) bool {
	h.mu.Lock()
	defer h.mu.Unlock()
	return h.fails[id] > 0
}

// next waits until the webhook has taken a message.
func (h *hook) next(id string) hooked {
	h.t.Helper()
	for bound := time.After(Patience); ; {
		h.mu.Lock()
		all, more := h.all, h.more
		h.mu.Unlock()
		if i := slices.IndexFunc(all, func(o hooked) bool { return o.id == id }); i >= 0 {
			return all[i]
		}
		select {
		case <-more:
		case <-bound:
			h.t.Fatalf("the webhook was not told of %s", id)
		}
	}
}

// A client that does not keep up loses messages of low priority, and none
// else; who keeps up gets all.
func TestPushPriority(t *testing.T) {
	n := Start(t, bin, "one", pushes+"ring_events = 32\nwrite_timeout = \"0s\"\n")
	c, err := net.Dial("tcp", strings.TrimPrefix(n.URL, "http://"))
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	c.(*net.TCPConn).SetReadBuffer(256 << 10)
	c.SetDeadline(time.Now().Add(Patience))
	fmt.Fprintf(c, "GET /sse/user/slow HTTP/1.0\r\nHost: %s\r\nAccept: text/event-stream\r\n\r\n", strings.TrimPrefix(n.URL, "http://"))
	Eventually(t, "it follows", func() bool { return n.Metric("ssegate_subscriptions") == 1 })
	fast := ride(t, "/sse/user/slow", 1, nil, n)
	fast.begun()
	p := publisher(t, n)
	filler := strings.Repeat("x", 32<<10)
	const messages = 400
	var all, others []string
	for i := range messages {
		priority := []string{"low", "normal", "low", "high"}[i%4]
		data := fmt.Sprintf("%d %s %s", i, priority, filler)
		if _, err := p.Send(context.Background(), client.Message{Target: client.Target{UserID: "slow"}, Metadata: &client.Metadata{Priority: priority}, Data: data}); err != nil {
			t.Fatal(err)
		}
		all = append(all, fmt.Sprintf("%q", data))
		if priority != "low" {
			others = append(others, fmt.Sprintf("%q", data))
		}
	}
	fast.exactly(all)
	// Only now the slow one reads on.
	var got []string
	buf := make([]byte, 1<<20)
	text := ""
	for !strings.Contains(text, fmt.Sprintf("%d high", messages-1)) {
		m, err := c.Read(buf)
		if err != nil {
			t.Fatalf("after %d bytes, the last of them %q: %v", len(text), text[max(0, len(text)-100):], err)
		}
		text += string(buf[:m])
	}
	low := 0
	for line := range strings.Lines(text) {
		if data, ok := strings.CutPrefix(strings.TrimSpace(line), "data: "); ok && strings.HasSuffix(data, `"`) {
			if strings.Contains(data[:min(len(data), 16)], " low ") {
				low++
			} else {
				got = append(got, data)
			}
		}
	}
	if len(got) == len(others)-1 { // the last is not whole yet
		others = others[:len(got)]
	}
	for i := range got {
		got[i] = got[i][:min(len(got[i]), 20)]
	}
	for i := range others {
		others[i] = others[i][:20]
	}
	sameData(t, "normal and high to the slow one", got, others)
	t.Logf("of %d low ones the slow one got %d", messages/2, low)
	if low == messages/2 {
		t.Error("no message of low priority was left out")
	}
	if strings.Contains(text, "ssegate.gap") {
		t.Error("it was told of a gap")
	}
}

package e2e

import (
	"encoding/json"
	"fmt"
	"io"
	"math/rand/v2"
	"net"
	"net/http"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/redis/go-redis/v9"

	. "ssegate/internal/gatetest"
	"ssegate/internal/gatetest/service"
)

// What is wrong is refused with a 4xx that names the field, and thousands of
// requests that are broken in any way cost nothing that stays: no crash, no
// forged event, no goroutine, socket, key or queue.
func TestPushHostile(t *testing.T) {
	w := &world{redis: service.Redis(t), rabbit: service.Rabbit(t), backend: NewBackend(t)}
	a, b := w.pair(t, pushes+"ttl = \"1s\"\nreceipt_ttl = \"1s\"\nmax_ttl = \"2s\"\n[limits]\nevent_size = \"64KiB\"\n")
	nodes := []*Node{a, b}
	var before []usage
	for _, n := range nodes {
		EventSource(t, n.URL+"/sse/user/warm", "").Close()
		send(t, n, "/api/v1/messages/send", `{"target":{"user_id":"warm"}}`)
		Eventually(t, "it is left", func() bool { return n.Metric("ssegate_connections") == 0 })
		before = append(before, w.use(t, n))
	}
	t.Run("named", func(t *testing.T) { namedFields(t, a) })
	t.Run("names in paths", func(t *testing.T) { namedInPaths(t, b) })
	t.Run("random", func(t *testing.T) { randomPushes(t, nodes) })

	allowed := []string{"ssegate:nodes", "ssegate:cleaner", "ssegate:{node:" + a.ID + "}:node", "ssegate:{node:" + b.ID + "}:node"}
	for i, n := range nodes {
		nothingLeft(t, n, processOf(t, n), before[i].goroutines+4) // the registry's and the log's connections
		before[i].check(t, w, n)
		if topics := n.Metric("ssegate_topics"); topics > 0 {
			Eventually(t, "no topic is followed", func() bool { return n.Metric("ssegate_topics") == 0 })
		}
		if n.Logged("panic") {
			t.Errorf("%s panicked", n.Name)
		}
	}
	w.ending(t, allowed...)
	w.queues(t, 2)
	for _, n := range nodes {
		n.Term()
		if code := n.Exited(); code != 0 {
			t.Errorf("%s: exit code %d", n.Name, code)
		}
	}
	w.ending(t)
	w.queues(t, 0)
}

// ending waits until all keys in Redis but those allowed are gone, or end by
// themselves where they are to outlive what they are of.
func (w *world) ending(t *testing.T, allowed ...string) {
	t.Helper()
	o, err := redis.ParseURL(w.redis.URL)
	if err != nil {
		t.Fatal(err)
	}
	r := redis.NewClient(o)
	defer r.Close()
	var left []string
	kinds := map[string]int{}
	for end := time.Now().Add(Patience); time.Now().Before(end); time.Sleep(100 * time.Millisecond) {
		left = nil
		clear(kinds)
		for _, key := range w.allKeys(t) {
			ttl, err := r.PTTL(t.Context(), key).Result()
			if err != nil {
				t.Fatal(err)
			}
			kind := key[strings.LastIndexByte(key, ':')+1:]
			kinds[kind]++
			// The numbering of a topic, so that who comes back after long is told
			// of a gap; the ids that it has seen, those of streams for a minute.
			outlives := kind == "seq" || strings.HasPrefix(kind, "once")
			if !slices.Contains(allowed, key) && (ttl == -1 || ttl >= 0 && !outlives) {
				left = append(left, key)
			}
		}
		if len(left) == 0 {
			t.Logf("keys in Redis: %v", kinds)
			return
		}
	}
	t.Errorf("%d keys are left in Redis: %q", len(left), left[:min(len(left), 20)])
}

// refused sends a request that is wrong, and wants a refusal that names the
// field.
func refused(t *testing.T, method, url, kind, body, field string, statuses ...int) {
	t.Helper()
	req, err := http.NewRequest(method, url, strings.NewReader(body))
	if err != nil {
		t.Fatal(err)
	}
	if kind != "" {
		req.Header.Set("Content-Type", kind)
	}
	resp, err := http.DefaultClient.Do(req)
	if err != nil {
		t.Errorf("%s %.60s %.80q: %v", method, url, body, err)
		return
	}
	defer resp.Body.Close()
	text, err := io.ReadAll(resp.Body)
	var out struct {
		Error struct {
			Reason, Detail string
			RequestID      string `json:"request_id"`
			Fields         []struct{ Field, Problem string }
		}
	}
	if err != nil || json.Unmarshal(text, &out) != nil || out.Error.Reason == "" || out.Error.RequestID == "" {
		t.Errorf("%s %.60s %.80q is answered %d %q (%v)", method, url, body, resp.StatusCode, text, err)
		return
	}
	if len(statuses) == 0 {
		statuses = []int{400}
	}
	names := strings.Contains(out.Error.Detail, field)
	for _, f := range out.Error.Fields {
		names = names || f.Field == field && f.Problem != ""
	}
	if !slices.Contains(statuses, resp.StatusCode) || !names {
		t.Errorf("%s %.60s %.80q is answered %d %.300s, want %v and %s named", method, url, body, resp.StatusCode, text, statuses, field)
	}
}

// badNames are what no user, channel or the like can be called, as JSON.
var badNames = []string{
	`""`, `"a/b"`, `"../x"`, `"*"`, `"room.*"`, `"a,b"`, `"a?b"`, `"a#b"`, `"a\nb"`, `"a\rdata: forged"`, `"a\r\n\r\nevent: forged"`, `"\u0000"`, `"\u2028"`, `"\u0085"`,
	`" x"`, `"x "`, `"\ud800"`, "\"\xff\"", `"` + strings.Repeat("x", 201) + `"`, `5`, `true`, `{}`, `[]`, `["a"]`, `1e400`,
}

func namedFields(t *testing.T, n *Node) {
	const good = `"data":1`
	api := n.Internal
	bad := func(path, body, field string, statuses ...int) {
		t.Helper()
		refused(t, "POST", api+path, "application/json", body, field, statuses...)
	}
	bodies := map[string]string{ // what is wrong in one message
		`{"target":5,` + good + `}`: "target", `{"target":"user/x"}`: "target", `{"target":[]}`: "target",
		`{"type":"nope",T}`: "type", `{"type":5,T}`: "type", `{"type":"error\r\ndata: forged",T}`: "type", `{"type":"ssegate.gap",T}`: "type", `{"type":"",T}`: "type", `{"type":"Error",T}`: "type",
		`{"id":"a\nid: forged",T}`: "id", `{"id":5,T}`: "id", `{"id":"",T}`: "id", `{"id":"` + strings.Repeat("x", 201) + `",T}`: "id", `{"id":"\u0000",T}`: "id", `{"id":"a","id":"b",T}`: "id",
		`{"timestamp":"yesterday",T}`: "timestamp", `{"timestamp":5,T}`: "timestamp", `{"source":5,T}`: "source", `{"source":"a\nb",T}`: "source",
		`{"service":"a/b",T}`: "service", `{"service":{},T}`: "service", `{"metadata":5,T}`: "metadata", `{"metadata":{"priority":"urgent"},T}`: "metadata.priority", `{"metadata":{"priority":1},T}`: "metadata.priority",
		`{"metadata":{"ttl":-1},T}`: "metadata.ttl", `{"metadata":{"ttl":1.5},T}`: "metadata.ttl", `{"metadata":{"ttl":1e99},T}`: "metadata.ttl", `{"metadata":{"ttl":"60"},T}`: "metadata.ttl", `{"metadata":{"ttl":99999999},T}`: "metadata.ttl",
		`{"metadata":{"retry_count":-1},T}`: "metadata.retry_count", `{"target":{"user_id":"x","user_id":"y"}}`: "target.user_id",
	}
	for _, field := range []string{"user_id", "channel", "service", "connection_id", "session_id", "kb_id", "task_id"} {
		for _, name := range badNames {
			bodies[`{"target":{"`+field+`":`+name+`},`+good+`}`] = "target." + field
		}
	}
	for body, field := range bodies {
		body = strings.Replace(body, "T}", `"target":{"user_id":"x"}}`, 1)
		if strings.Contains(body, "\xff") || strings.Contains(body, `\ud800`) {
			field = "" // of the text or of the field: either is right
		}
		bad("/api/v1/messages/send", body, field)
		bad("/api/v1/messages/broadcast", body, field)
		prefix := "messages[0]."
		if field == "" {
			prefix = ""
		}
		bad("/api/v1/messages/batch", `[`+body+`]`, prefix+field)
		bad("/api/v1/messages/batch", `{"messages":[`+body+`]}`, prefix+field)
	}
	for _, name := range badNames {
		field := "userId"
		if strings.Contains(name, "\xff") || strings.Contains(name, `\ud800`) {
			field = ""
		}
		bad("/api/sse/send", `{"userId":`+name+`,"message":1}`, field)
	}
	bad("/api/sse/send", `{"message":1}`, "userId")
	bad("/api/sse/send", `{"userId":"x"}`, "message")
	for _, event := range []string{`"a\nb"`, `"a\rdata: forged"`, `"\u0000"`, `5`, `"ssegate.gap"`} {
		bad("/api/sse/send", `{"userId":"x","message":1,"event":`+event+`}`, "event")
	}
	bad("/api/sse/send", `{"userId":"x","message":1,"id":"\r\n"}`, "id")

	// What is no message at all.
	huge := `{"target":{"user_id":"x"},"data":"` + strings.Repeat("x", 10<<20) + `"}`
	deep := strings.Repeat(`[`, 100_000)
	for _, path := range []string{"/api/v1/messages/send", "/api/v1/messages/broadcast", "/api/v1/messages/batch", "/api/sse/send"} {
		for _, body := range []string{``, `{`, `{"a"}`, `{"a":}`, `{"target":{"user_id":"x"}}{}`, `{"data":01}`, `{"data":"` + "\n" + `"}`, `nul`, `{"data":nan}`, "\xef\xbb\xbf{}", deep, `{"data":` + deep, "\x00", `{'a':1}`} {
			bad(path, body, "body")
		}
		for _, body := range []string{`5`, `"x"`, `true`, `null`} {
			bad(path, body, "") // the field has no name
		}
		bad(path, huge, "body", 413)
		refused(t, "POST", api+path, "text/plain", `{}`, "Content-Type", 415)
		refused(t, "POST", api+path, "", `{}`, "Content-Type", 415)
		refused(t, "PUT", api+path, "application/json", `{}`, "POST", 405)
	}
	large := `{"target":{"user_id":"x"},"data":"` + strings.Repeat("x", 100<<10) + `"}`
	bad("/api/v1/messages/send", large, "data", 413)
	bad("/api/sse/send", `{"userId":"x","message":"`+strings.Repeat("x", 100<<10)+`"}`, "message", 413)
	bad("/api/v1/messages/send", `{"data":1}`, "target")
	bad("/api/v1/messages/batch", `{}`, "messages")
	bad("/api/v1/messages/batch", `{"messages":5}`, "messages")
	bad("/api/v1/messages/batch", `[`+strings.Repeat(`{"target":{"user_id":"x"}},`, 1000)+`{}]`, "messages", 413)
	bad("/api/v1/messages/batch", `{"targets":["user/x"]}`, "message")
	bad("/api/v1/messages/batch", `{"message":{}}`, "targets")
	bad("/api/v1/messages/batch", `{"targets":5,"message":{}}`, "targets")
	bad("/api/v1/messages/batch", `{"targets":[5],"message":{}}`, "targets[0]")
	for _, target := range []string{"", "x", "user", "user/", "user/a/b", "user/*", "*", "topic/x", "User/x", "user/a\\nb"} {
		bad("/api/v1/messages/batch", `{"targets":["`+target+`"],"message":{}}`, "targets[0]")
	}
}

func namedInPaths(t *testing.T, n *Node) {
	names := map[string]bool{ // as a path has them; true: the path is another one
		"a%2Fb": false, "%2A": false, "room.*": false, "a%0Ab": false, "a%0D%0Adata:forged": false, "%00": false, "%20x": false, "%FF": false, "a%2Cb": false,
		strings.Repeat("x", 201): false, "%E2%80%A8": false, "a%3Fb": false, "": true, "..": true, "a/b": true, "%2e%2e%2fb": false, ".%2fx": false,
	}
	for name, other := range names {
		for path, field := range map[string]string{"/sse/user/": "user_id", "/sse/stream/": "channel", "/sse/service/": "service", "/api/sse/connect/": "user_id"} {
			if path == "/sse/stream/" && name == "a%2Cb" {
				continue // two of them
			}
			s := Do(t, Request{URL: n.URL + path + name, Header: map[string]string{"Accept": "text/event-stream"}})
			text, err := io.ReadAll(s.Resp.Body)
			if other { // it may be the backend's
				if s.Resp.StatusCode < 300 || s.Resp.StatusCode >= 500 {
					t.Errorf("%s%s is answered %d %s", path, name, s.Resp.StatusCode, text)
				}
			} else if s.Resp.StatusCode/100 != 4 || err != nil || !strings.Contains(string(text), field) {
				t.Errorf("%s%s is answered %d %s", path, name, s.Resp.StatusCode, text)
			}
			s.Close()
		}
		for _, path := range []string{"/api/v1/streams/user/", "/api/sse/close/", "/api/sse/status/"} {
			method, kind := "POST", "text/event-stream"
			if path == "/api/sse/status/" {
				method = "GET"
			} else if path == "/api/sse/close/" {
				kind = "application/json"
			}
			req, err := http.NewRequest(method, n.Internal+path+name, strings.NewReader("data: 1\n\n"))
			if err != nil {
				t.Fatal(err)
			}
			req.Header.Set("Content-Type", kind)
			resp, err := (&http.Client{CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse }}).Do(req)
			if err != nil {
				t.Fatal(err)
			}
			text, _ := io.ReadAll(resp.Body)
			resp.Body.Close()
			if resp.StatusCode/100 != 4 && !(other && resp.StatusCode/100 == 3) {
				t.Errorf("%s %s%s is answered %d %s", method, path, name, resp.StatusCode, text)
			}
		}
	}
	var many []string
	for i := range 33 {
		many = append(many, fmt.Sprint("c", i))
	}
	for path, field := range map[string]string{
		"/sse/stream/" + strings.Join(many, ","): "channel", "/sse/stream/a,,b": "channel", "/sse/stream/,": "channel",
		"/sse/user/x?last=-1": "last", "/sse/user/x?last=x": "last", "/sse/user/x?last=99999999999": "last", "/sse/user/x?since=yesterday": "since", "/sse/user/x?since=-5": "since",
		"/sse/user/x?since=1&last=1": "since", "/sse/user/x?session_id=a%0Ab": "session_id", "/sse/user/x?kb_id=a/b": "kb_id", "/sse/user/x?task_id=*": "task_id",
		"/sse/user/x?last=%zz": "last", "/sse/user/x?last=1&last=2": "last",
	} {
		refused(t, "GET", n.URL+path, "", "", field)
	}
	for _, body := range []string{``, `{`, `[]`, `{"id":5}`, `{"id":""}`, `{"id":"x"}`, `{"id":"sg1.xxx"}`, `{"id":"sg2.xxx","topics":5}`} {
		refused(t, "POST", n.URL+"/sse/ack", "application/json", body, "id")
	}
	for path, field := range map[string]string{
		"/api/v1/connections?limit=x": "limit", "/api/v1/connections?limit=0": "limit", "/api/v1/connections?limit=1e9": "limit", "/api/v1/messages/a%0Ab": "id",
		"/api/v1/messages/x?target=nope": "target", "/api/v1/messages/x?target=connection/x": "target",
	} {
		refused(t, "GET", n.Internal+path, "", "", field)
	}
	refused(t, "DELETE", n.Internal+"/api/v1/connections/nobody", "", "", "", 404)
	refused(t, "DELETE", n.Internal+"/api/v1/connections/a%2Fb", "", "", "connection_id")
	for path, field := range map[string]string{"/user/x?to=nope": "to[0]", "/user/x?to=user/x,user/": "to[1]", "/topic/x": "target", "/user/x?session_id=a%0Ab": "session_id"} {
		refused(t, "POST", n.Internal+"/api/v1/streams"+path, "text/event-stream", "data: 1\n\n", field)
	}
	refused(t, "POST", n.Internal+"/api/v1/streams/user/x", "text/event-stream", "event: ssegate.error\ndata: forged\n\n", "event[0]")
	refused(t, "POST", n.Internal+"/api/v1/streams/user/x", "text/event-stream", "data: "+strings.Repeat("x", 100<<10)+"\n\n", "body", 413)
}

// randomPushes sends thousands of requests that are wrong in some way, or not,
// while clients follow what they may reach.
func randomPushes(t *testing.T, nodes []*Node) {
	paths := []string{"/sse/user/u0", "/sse/user/u1?session_id=s1", "/sse/stream/u0,u1,u2,session:u0", "/sse/service/u0", "/api/sse/connect/u2"}
	var riders []*rider
	for i, path := range paths {
		r := ride(t, path, i, often, nodes...)
		riders = append(riders, r)
		r.begun()
	}
	var next atomic.Uint64
	var wg sync.WaitGroup
	var mu sync.Mutex
	counts := map[int]int{}
	for range 8 {
		tr := &http.Transport{}
		defer tr.CloseIdleConnections()
		client := &http.Client{Transport: tr, Timeout: Patience, CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse }}
		wg.Go(func() {
			for seed := next.Add(1); seed <= 4000 && !t.Failed(); seed = next.Add(1) {
				rng := rand.New(rand.NewPCG(seed, 23))
				status := randomPush(t, client, nodes[seed%2], rng, seed)
				mu.Lock()
				counts[status]++
				mu.Unlock()
			}
		})
	}
	wg.Go(func() { // and what is no HTTP
		for seed := range uint64(150) {
			rng := rand.New(rand.NewPCG(seed, 29))
			n := nodes[seed%2]
			c, err := net.Dial("tcp", strings.TrimPrefix([]string{n.URL, n.Internal}[seed/2%2], "http://"))
			if err != nil {
				t.Error(err)
				return
			}
			head := pick(rng, "", "POST /api/v1/messages/send HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\n", "GET /sse/user/u0 HTTP/1.1\r\nHost: x\r\n")
			c.Write(append([]byte(head), noise(rng, rng.IntN(2000))...))
			c.Close()
		}
	})
	wg.Wait()
	t.Logf("answers: %v", counts)
	if counts[200] < 100 || counts[400] < 1000 {
		t.Error("that is no mixture")
	}
	for _, n := range nodes { // all is well afterwards
		for i, r := range riders {
			target := []string{`{"user_id":"u0"}`, `{"user_id":"u1"}`, `{"channel":"u1"}`, `{"service":"u0"}`, `{"user_id":"u2"}`}[i]
			send(t, n, "/api/v1/messages/send", `{"target":`+target+`,"type":"info","data":"last of `+n.Name+`"}`)
			Eventually(t, "the last one comes", func() bool {
				r.mu.Lock()
				defer r.mu.Unlock()
				return slices.ContainsFunc(r.events, func(ev Event) bool { return ev.Data == `"last of `+n.Name+`"` })
			})
		}
	}
	tried := 0
	for _, r := range riders {
		r.leave()
		if len(r.events) < 20 {
			t.Errorf("%s: only %d events came", r.path, len(r.events))
		}
		for _, ev := range r.events {
			own := strings.HasPrefix(ev.Name, "ssegate.") && ev.Name != "ssegate.stream" && ev.Name != "ssegate.piece"
			if own || strings.Contains(ev.Name, "forged") || ev.ID == "" || strings.Contains(ev.ID, "forged") {
				t.Errorf("%s: an event was forged: %.300q", r.path, ev)
			}
		}
		for _, line := range r.lines {
			if strings.Contains(line, "forged") {
				tried++
			}
			if strings.HasPrefix(line, "event: forged") || strings.HasPrefix(line, "id: forged") || strings.HasPrefix(line, "data: forged") || strings.HasPrefix(line, "retry: 7") || strings.Contains(line, "\r") {
				t.Errorf("%s: the line %q was forged", r.path, line)
			}
		}
	}
	if tried < 10 {
		t.Errorf("only %d tries to forge came so far as to be harmless", tried)
	}
}

// poison are texts that could break out of a field, as JSON and as they are.
var poison = []string{"\nevent: forged\ndata: forged\n\n", "\r\n\r\nid: forged\r\ndata: forged\r\n\r\n", "\rdata: forged\r\r", "\x00", "\u2028data: forged", "\nretry: 7\n\n", "x"}

// randomPush sends one request and judges the answer.
func randomPush(t *testing.T, client *http.Client, n *Node, rng *rand.Rand, seed uint64) (status int) {
	q := func(s string) string { return string(must(json.Marshal(s))) }
	text := func() string {
		return pick(rng, "x", "u0", "u1", "u2") + pick(rng, "", "", "", "", "", pick(rng, poison...))
	}
	value := func() string {
		return pick(rng, "1", "-1", "1e9", "true", "null", "{}", "[]", `[1,"x"]`, q(text()), q(text()), q(string(noise(rng, rng.IntN(40)))), `{"a":`+q(text())+`}`)
	}
	// A member that is right more often than not.
	member := func(name, right string) string {
		switch rng.IntN(12) {
		case 0:
			return q(name) + ":" + value() + ","
		case 1:
			return ""
		}
		return q(name) + ":" + right + ","
	}
	object := func(members ...string) string { return "{" + strings.TrimSuffix(strings.Join(members, ""), ",") + "}" }
	message := func() string {
		return object(member("id", q(fmt.Sprint(seed%50, pick(rng, "", poison[rng.IntN(len(poison))])))), member("type", q(pick(rng, "info", "error", "custom", "status"))),
			member("target", object(member(pick(rng, "user_id", "channel", "service", "session_id"), q(text())), pick(rng, "", member("session_id", q("s1")), member("kb_id", q(text()))))),
			member("data", value()), pick(rng, "", member("metadata", object(member("priority", q(pick(rng, "low", "high"))), member("ttl", "1")))), pick(rng, "", member("service", q("u0"))))
	}
	base, method, kind, path, body := n.Internal, "POST", "application/json", "", ""
	switch rng.IntN(9) {
	case 0, 1, 2:
		path, body = "/api/v1/messages/"+pick(rng, "send", "send", "broadcast"), message()
	case 3:
		path, body = "/api/v1/messages/batch", "["+message()+","+message()+"]"
	case 4:
		path, body = "/api/v1/messages/batch", object(member("targets", "["+q("user/"+text())+","+q(text())+"]"), member("message", object(member("type", q("info")), member("data", value()))))
	case 5:
		path, body = "/api/sse/send", object(member("userId", q(text())), member("message", value()), pick(rng, "", member("event", q("mine"+pick(rng, "", poison[rng.IntN(len(poison))])))))
	case 6:
		path, kind = "/api/v1/streams/"+pick(rng, "user", "channel", "service", "connection", "x")+"/"+pick(rng, "u0", "u1", "%00", "a%2Fb"), pick(rng, "text/event-stream", "application/octet-stream", "text/plain", "")
		body = "data: 1\n\nevent: mine\ndata: " + strings.ReplaceAll(strings.ReplaceAll(text(), "\n", " "), "\r", " ") + "\n\n"
		if kind != "text/event-stream" {
			body = string(noise(rng, rng.IntN(3000)))
		}
	case 7:
		method, body = pick(rng, "GET", "DELETE", "POST", "PATCH"), pick(rng, "", "{}")
		path = pick(rng, "/api/v1/connections?limit=", "/api/v1/connections?cursor=", "/api/v1/connections/", "/api/v1/messages/", "/api/v1/messages/x?target=", "/api/sse/status/", "/api/v1/tickets", "/api/") +
			pick(rng, "5", "%0a", "user%2Fu0", "%ff", strings.Repeat("x", 300), "u9")
	case 8:
		base, method, body = n.URL, pick(rng, "GET", "POST", "HEAD"), pick(rng, "", `{"id":"x"}`)
		path = pick(rng, "/sse/ack", "/sse/user/%0a", "/sse/stream/a,,"+fmt.Sprint(seed), "/sse/service/*", "/sse/user/x", "/api/sse/connect/a%2fb") + pick(rng, "?", "?since=x", "?last=-1", "?last=%00&")
		if strings.HasPrefix(path, "/sse/user/x") {
			method = "POST" // else it follows
		}
	}
	if rng.IntN(10) == 0 && body != "" {
		b := []byte(body)
		b[rng.IntN(len(b))] = byte(rng.IntN(256))
		body = string(b[:len(b)-rng.IntN(2)])
	}
	req, err := http.NewRequest(method, base+path, strings.NewReader(body))
	if err != nil {
		t.Errorf("%s: %v", path, err)
		return 0
	}
	if kind != "" {
		req.Header.Set("Content-Type", kind)
	}
	resp, err := client.Do(req)
	if err != nil {
		t.Errorf("request %d, %s %s %.200q: %v", seed, method, path, body, err)
		return 0
	}
	defer resp.Body.Close()
	answer, err := io.ReadAll(resp.Body)
	if err != nil || resp.StatusCode >= 500 {
		t.Errorf("request %d, %s %s %.200q is answered %d %s (%v)", seed, method, path, body, resp.StatusCode, answer, err)
	}
	var out struct {
		Error struct{ Reason, Detail string }
	}
	if resp.StatusCode >= 400 && method != "HEAD" && (json.Unmarshal(answer, &out) != nil || out.Error.Reason == "" || out.Error.Detail == "") {
		t.Errorf("request %d, %s %s %.200q is answered %d %q", seed, method, path, body, resp.StatusCode, answer)
	}
	return resp.StatusCode
}

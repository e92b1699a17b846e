package proxy

import (
	"context"
	"fmt"
	"io"
	"net"
	"net/http"
	"strings"
	"testing"
	"time"

	"ssegate/cluster"
	"ssegate/reconnect"
	"ssegate/registry"
	"ssegate/sse"
)

// eventually asks until ok says so.
func eventually(t *testing.T, what string, ok func() bool) {
	t.Helper()
	for end := time.Now().Add(patience); !ok(); time.Sleep(2 * time.Millisecond) {
		if time.Now().After(end) {
			t.Fatal("never happened: ", what)
		}
	}
}

func TestFollowTopic(t *testing.T) {
	w := newPushWorld(t, nil)
	f := w.follow("/sse/user/u1?polyfill=1", "Origin", "https://a.example")
	h := f.resp.Header
	if h.Get("Content-Type") != "text/event-stream" || h.Get("Cache-Control") != "no-cache, no-transform" || h.Get("X-Accel-Buffering") != "no" || h.Get(ConnectionHeader) == "" {
		t.Errorf("head: %v", h)
	}
	if line, _ := f.r.ReadString('\n'); line != ":\n" {
		t.Errorf("first line %q, before any event", line)
	}
	w.publish("user/u1", "1")
	w.publish("user/u2", "not mine")
	w.publish("user/u1", "2")
	f.expect("message: 1")
	id := f.lastID
	if at, err := reconnect.ParseEdgeID([]byte(id)); err != nil || at.Stream != cluster.TopicOf("user/u1").ID {
		t.Errorf("id %q: %v, %v", id, at, err)
	}
	f.expect("message: 2")
	f.close()
	w.publish("user/u1", "3")
	// The seed's other address, and the other ways to say where one was.
	w.follow("/api/sse/connect/u1", "Last-Event-ID", id).expect("message: 2", "message: 3")
	w.follow("/sse/user/u1?lastEventId="+id).expect("message: 2", "message: 3")
	w.follow("/sse/user/u1?last=5&lastEventId=x", "Last-Event-ID", id).expect("message: 2", "message: 3")
	w.follow("/sse/user/u1?last=1").expect("message: 3")
	w.follow("/sse/user/u1?since=2020-01-01T00:00:00Z").expect("message: 1", "message: 2", "message: 3")
	late := w.follow("/sse/user/u1")
	w.publish("user/u1", "4")
	late.expect("message: 4")
}

// Whatever an id is that says nothing of the topic: a gap is told, and then
// what comes.
func TestFollowTopicWithForeignID(t *testing.T) {
	w := newPushWorld(t, nil)
	w.publish("user/u1", "before")
	f := w.follow("/sse/user/u2")
	w.publish("user/u2", "x")
	f.expect("message: x")
	for _, id := range []string{f.lastID, f.lastID[:len(f.lastID)-3], "42", "sg1.nonsense", "sg2.nonsense", strings.Repeat("x", 4000)} {
		g := w.follow("/sse/user/u1", "Last-Event-ID", id)
		if got := g.next(); !strings.HasPrefix(got, "ssegate.gap: ") {
			t.Errorf("%.20s…: got %q", id, got)
		}
		if g.lastID != "" {
			t.Errorf("the gap has the id %q", g.lastID)
		}
		w.publish("user/u1", "now")
		g.expect("message: now")
		g.close()
	}
}

func TestFollowSeveralTopics(t *testing.T) {
	w := newPushWorld(t, nil)
	f := w.follow("/sse/stream/a,b")
	w.publish("channel/a", "a1")
	f.expect("message: a1")
	w.publish("channel/b", "b1")
	f.expect("message: b1")
	id := f.lastID
	f.close()
	w.publish("channel/b", "b2")
	w.publish("channel/a", "a2")
	g := w.follow("/sse/stream/b,a", "Last-Event-ID", id)
	if got := map[string]bool{g.next(): true, g.next(): true}; !got["message: a2"] || !got["message: b2"] {
		t.Errorf("got %v", got)
	}
	w.publish("channel/a", "a3")
	g.expect("message: a3")
}

func TestFollowNarrowed(t *testing.T) {
	w := newPushWorld(t, nil)
	s1, all := w.follow("/sse/user/u?session_id=s1"), w.follow("/sse/user/u")
	for _, m := range []struct {
		data string
		meta cluster.Meta
	}{{"s1", cluster.Meta{Session: "s1"}}, {"s2", cluster.Meta{Session: "s2"}}, {"any", cluster.Meta{}}, {"mine", cluster.Meta{Connection: s1.resp.Header.Get(ConnectionHeader)}}, {"end", cluster.Meta{}}} {
		w.node.Publish(t.Context(), []cluster.Outgoing{{Topic: cluster.TopicOf("user/u"), Block: []byte("data: " + m.data + "\n\n"), Meta: m.meta.Encode(),
			Limits: reconnect.Limits{Length: 100, TTL: time.Minute}}})
	}
	s1.expect("message: s1", "message: any", "message: mine", "message: end")
	all.expect("message: s1", "message: s2", "message: any", "message: end")
}

// A topic cannot be reached by a stream's ways, which ask for no leave: its
// name as a stream can be guessed.
func TestTopicIsNoStream(t *testing.T) {
	w := newPushWorld(t, []string{teller(t)}, withAuth(t), func(_ *Config, _ *PushConfig, r *Route) { r.LogLength, r.LogTTL = 100, time.Minute })
	f := w.follow("/sse/user/alice", "Authorization", bearerOf("alice"))
	w.publish("user/alice", "secret")
	f.expect("message: secret")
	id := cluster.TopicOf("user/alice").ID.String()
	for method, path := range map[string]string{"GET": controlPrefix + id, "DELETE": controlPrefix + id, "HEAD": controlPrefix + id} {
		if resp, _ := w.ask(method, path); resp.StatusCode != 404 {
			t.Errorf("%s %s: %d", method, path, resp.StatusCode)
		}
	}
	if resp, _ := w.ask("GET", controlPrefix+id+"/status"); resp.StatusCode != 404 {
		t.Errorf("status: %d", resp.StatusCode)
	}
	if _, body := w.ask("GET", "/x", "Last-Event-ID", f.lastID); !strings.HasPrefix(body, "GET /x") {
		t.Errorf("with its id on another path: %q", body)
	}
	if resp, body := w.ask("POST", "/x", "Last-Event-ID", f.lastID, "", "{}"); resp.StatusCode != 410 {
		t.Errorf("POST with its id on another path: %d %q", resp.StatusCode, body)
	}
}

// What is known of a connection: in the registry as long as it is there.
func TestConnectionIsRegistered(t *testing.T) {
	w := newPushWorld(t, nil, withAuth(t))
	f := w.follow("/sse/stream/a,b", "Authorization", bearerOf("alice", "channel/*"))
	conns := func() []registry.Connection {
		list, err := w.reg.Conns(context.Background())
		if err != nil {
			t.Fatal(err)
		}
		return list
	}
	eventually(t, "the connection is registered", func() bool { return len(conns()) == 1 })
	c := conns()[0]
	if c.ID != f.resp.Header.Get(ConnectionHeader) || c.User != "alice" || fmt.Sprint(c.Topics) != "[channel/a channel/b]" || c.Remote != "127.0.0.1" || time.Since(c.Since) > patience || c.Node != "n1" {
		t.Errorf("%+v", c)
	}
	if err := w.node.Kick(t.Context(), c.ID); err != nil {
		t.Error(err)
	}
	f.ends(t)
	eventually(t, "the connection is forgotten", func() bool { return len(conns()) == 0 })
}

// ends reads to the end of the stream, and returns what came before it and
// whether it was cut.
func (f *follower) ends(t *testing.T) (rest string, cut bool) {
	t.Helper()
	done := make(chan error, 1)
	var b []byte
	go func() {
		var err error
		b, err = io.ReadAll(f.r)
		done <- err
	}()
	err := wait(t, "the end of the stream", done)
	return string(b), err != nil
}

// A stream ends when its token does: told to come back, and cut; who comes
// back with the same token is stopped.
func TestTokenEnds(t *testing.T) {
	w := newPushWorld(t, nil, withAuth(t))
	end := time.Now().Add(2 * time.Second)
	f := w.follow("/sse/user/alice", "Authorization", "Bearer "+token("alice", end))
	w.publish("user/alice", "1")
	f.expect("message: 1")
	rest, cut := f.ends(t)
	if !cut || !strings.HasPrefix(rest, "retry: ") || strings.Contains(rest, "\n\n") {
		t.Errorf("it ended with %q, cut %v", rest, cut)
	}
	if early := time.Until(end.Truncate(time.Second)); early > 0 {
		t.Errorf("it ended %v early", early)
	}
	if resp, body := w.ask("GET", "/sse/user/alice", "Accept", "text/event-stream", "Authorization", "Bearer "+token("alice", end)); resp.StatusCode != 401 {
		t.Errorf("back with the same token: %d %s", resp.StatusCode, body)
	}
	w.publish("user/alice", "2")
	w.follow("/sse/user/alice", "Authorization", bearerOf("alice"), "Last-Event-ID", f.lastID).expect("message: 2")
}

func TestTopicMaxAge(t *testing.T) {
	w := newPushWorld(t, nil, func(_ *Config, c *PushConfig, _ *Route) { c.Route.MaxAge = 300 * time.Millisecond })
	f := w.follow("/sse/user/u1")
	w.publish("user/u1", "1")
	f.expect("message: 1")
	rest, cut := f.ends(t)
	if !cut || !strings.HasPrefix(rest, "retry: ") {
		t.Errorf("it ended with %q, cut %v", rest, cut)
	}
	w.publish("user/u1", "2")
	w.follow("/sse/user/u1", "Last-Event-ID", f.lastID).expect("message: 2")
}

func TestTopicDrain(t *testing.T) {
	w := newPushWorld(t, nil)
	var all []*follower
	for range 20 {
		all = append(all, w.follow("/sse/user/u1"))
	}
	w.publish("user/u1", "1")
	for _, f := range all {
		f.expect("message: 1")
	}
	w.p.Drain()
	ctx, cancel := context.WithTimeout(t.Context(), 3*time.Second)
	defer cancel()
	done := make(chan struct{})
	go func() { w.p.DrainAll(ctx, true); close(done) }()
	for _, f := range all {
		if rest, cut := f.ends(t); !cut || !strings.HasPrefix(rest, "retry: ") {
			t.Errorf("moved with %q, cut %v", rest, cut)
		}
	}
	wait(t, "the drain", done)
	if ctx.Err() != nil {
		t.Error("it took all the time there was")
	}
	resp, body := w.ask("GET", "/sse/user/u1", "Accept", "text/event-stream")
	if resp.StatusCode != 200 || !strings.HasPrefix(body, "retry: ") || resp.Header.Get(ConnectionHeader) != "" {
		t.Errorf("a new one: %d %q", resp.StatusCode, body)
	}
	if resp, _ := w.ask("GET", "/sse/user/u1"); resp.StatusCode != 503 || resp.Header.Get("Retry-After") == "" {
		t.Errorf("a new one that is no EventSource: %d", resp.StatusCode)
	}
}

func TestTopicLimits(t *testing.T) {
	w := newPushWorld(t, nil, withAuth(t))
	w.p.SetLimits(Limits{PerPrincipal: 1})
	f := w.follow("/sse/user/alice", "Authorization", bearerOf("alice"))
	refused := func(why string, header ...string) {
		t.Helper()
		before := w.refused(why)
		resp, body := w.ask("GET", "/sse/user/alice", append(header, "Accept", "text/event-stream")...)
		if resp.StatusCode != 200 || !strings.HasPrefix(body, "retry: ") || w.refused(why) != before+1 {
			t.Errorf("%d %q, want a refusal as EventSource understands it, for %s", resp.StatusCode, body, why)
		}
	}
	refused("connections_per_principal", "Authorization", bearerOf("alice"))
	w.follow("/sse/user/bob", "Authorization", bearerOf("bob"))
	f.close()
	eventually(t, "there is room again", func() bool {
		resp, _ := w.ask("GET", "/sse/user/alice", "Authorization", bearerOf("alice"))
		return resp.StatusCode == 200
	})
	w.p.SetLimits(Limits{Connections: 1})
	refused("connections", "Authorization", bearerOf("alice"))
	w.p.SetLimits(Limits{})
	w.p.SetRates(0, 2)
	w.ask("HEAD", "/sse/user/carol", "Authorization", bearerOf("carol"))
	w.ask("HEAD", "/sse/user/carol", "Authorization", bearerOf("carol"))
	if resp, body := w.ask("GET", "/sse/user/carol", "Authorization", bearerOf("carol")); resp.StatusCode != 429 || reason(body) != "requests_per_principal" || resp.Header.Get("Retry-After") != "1" {
		t.Errorf("too many: %d %s", resp.StatusCode, body)
	}
	refused("requests_per_principal", "Authorization", bearerOf("carol"))
	w.p.SetRates(1, 0)
	w.ask("HEAD", "/x")
	if resp, body := w.ask("GET", "/x"); resp.StatusCode != 429 || reason(body) != "requests_per_ip" {
		t.Errorf("too many of an address: %d %s", resp.StatusCode, body)
	}
}

func TestAcknowledge(t *testing.T) {
	w := newPushWorld(t, nil, withAuth(t))
	alice := bearerOf("alice", "channel/news", "channel/room.*")
	topic := cluster.TopicOf("channel/news")
	f := w.follow("/sse/stream/news", "Authorization", alice)
	w.publish("channel/news", "1")
	w.publish("channel/news", "2")
	f.expect("message: 1")
	first := f.lastID
	f.expect("message: 2")
	passed := func() sse.Pos {
		pos, err := w.log.Passed(t.Context(), topic.ID)
		if err != nil {
			t.Fatal(err)
		}
		return pos
	}
	post := func(want int, why, body string, header ...string) {
		t.Helper()
		resp, got := w.ask("POST", "/sse/ack", append(header, "", body)...)
		if resp.StatusCode != want || why != "" && reason(got) != why {
			t.Errorf("%s: %d %s, want %d %s", body, resp.StatusCode, got, want, why)
		}
	}
	conn := f.resp.Header.Get(ConnectionHeader)
	post(401, "unauthorized", `{}`)
	post(400, "bad_body", `{"id"`, "Authorization", alice)
	post(400, "bad_body", `{"id":7}`, "Authorization", alice)
	post(400, "bad_body", `[]`, "Authorization", alice)
	post(400, "bad_id", `{}`, "Authorization", alice)
	post(400, "bad_id", `{"id":"x"}`, "Authorization", alice)
	post(400, "bad_topic", `{"id":"`+first+`"}`, "Authorization", alice)
	post(400, "bad_topic", `{"id":"`+first+`","topic":"channel/other"}`, "Authorization", alice)
	post(403, "forbidden", `{"id":"`+first+`","topic":"channel/news"}`, "Authorization", bearerOf("bob"))
	post(413, "body_too_large", strings.Repeat(" ", maxAck+1), "Authorization", alice)
	post(403, "origin_not_allowed", `{}`, "Cookie", "sg="+strings.TrimPrefix(alice, "Bearer "), "Origin", "https://evil.example")
	if pos := passed(); !pos.IsZero() {
		t.Fatalf("passed %v without an acknowledgement", pos)
	}
	post(204, "", `{"id":"`+first+`","topic":"channel/news"}`, "Authorization", alice)
	at, _ := reconnect.ParseEdgeID([]byte(first))
	if pos := passed(); pos != at.Pos {
		t.Errorf("passed %v, want %v", pos, at.Pos)
	}
	post(204, "", `{"id":"`+f.lastID+`","connection":"`+conn+`","more":1}`, "Authorization", alice)
	at, _ = reconnect.ParseEdgeID([]byte(f.lastID))
	if pos := passed(); pos != at.Pos {
		t.Errorf("passed %v, want %v", pos, at.Pos)
	}
	// What is for one user needs no word on the topic.
	g := w.follow("/sse/user/alice", "Authorization", alice)
	w.publish("user/alice", "x")
	g.expect("message: x")
	post(204, "", `{"id":"`+g.lastID+`"}`, "Authorization", alice)
	// An id of several topics acknowledges all of them.
	w.publish("channel/news", "3")
	m := w.follow("/sse/stream/news,room.1?last=1", "Authorization", alice)
	m.expect("message: 3")
	post(400, "bad_topic", `{"id":"`+m.lastID+`","topics":["channel/news"]}`, "Authorization", alice)
	post(403, "forbidden", `{"id":"`+m.lastID+`","topics":["channel/news","channel/room.1"]}`, "Authorization", bearerOf("bob", "channel/news"))
	before := passed()
	post(204, "", `{"id":"`+m.lastID+`","connection":"`+m.resp.Header.Get(ConnectionHeader)+`"}`, "Authorization", alice)
	if pos := passed(); pos.Seq != before.Seq+1 {
		t.Errorf("passed %v after %v", pos, before)
	}
}

// An acknowledgement that does not arrive whole is a broken one, not a long one.
func TestAcknowledgeCut(t *testing.T) {
	w := newPushWorld(t, nil)
	for _, body := range []string{"Content-Length: 100\r\n\r\n{", "Transfer-Encoding: chunked\r\n\r\n5\r\n{", "Transfer-Encoding: chunked\r\n\r\nno chunk\r\n"} {
		c, err := net.Dial("tcp", strings.TrimPrefix(w.url, "http://"))
		if err != nil {
			t.Fatal(err)
		}
		io.WriteString(c, "POST /sse/ack HTTP/1.1\r\nHost: h\r\nContent-Type: application/json\r\n"+body)
		c.(*net.TCPConn).CloseWrite()
		c.SetReadDeadline(time.Now().Add(10 * time.Second))
		got, err := io.ReadAll(c)
		c.Close()
		if err != nil || !strings.HasPrefix(string(got), "HTTP/1.1 400 ") || !strings.Contains(string(got), `"bad_body"`) {
			t.Errorf("%q: %q, %v", body, got, err)
		}
	}
}

// Where everybody may follow everything, what an acknowledgement says of its
// topic is to be true all the same.
func TestAcknowledgeWithoutAuth(t *testing.T) {
	w := newPushWorld(t, nil)
	w.publish("user/u1", "1")
	w.publish("channel/b", "2")
	f, m := w.follow("/sse/user/u1?last=1"), w.follow("/sse/stream/a,b?last=1")
	f.expect("message: 1")
	m.expect("message: 2")
	of := func(topic string) sse.Pos {
		pos, err := w.log.Passed(t.Context(), cluster.TopicOf(topic).ID)
		if err != nil {
			t.Fatal(err)
		}
		return pos
	}
	post := func(want int, id, more string) {
		t.Helper()
		resp, got := w.ask("POST", "/sse/ack", "", `{"id":"`+id+`"`+more+`}`)
		if resp.StatusCode != want || want == 400 && reason(got) != "bad_topic" {
			t.Errorf("%s: %d %s, want %d", more, resp.StatusCode, got, want)
		}
	}
	conn := func(f *follower) string { return `,"connection":"` + f.resp.Header.Get(ConnectionHeader) + `"` }
	for _, wrong := range []string{
		`,"topic":"user/other"`, `,"topic":"nonsense"`, `,"topic":"user/u1/x"`, `,"topics":[]`, `,"topics":["user/other"]`, `,"topics":["user/u1","nonsense"]`,
		`,"topics":["user/u1"],"topic":"user/other"`, `,"connection":"zzz"`, conn(m), `,"topic":"user/other"` + conn(f),
	} {
		post(400, f.lastID, wrong)
	}
	for _, wrong := range []string{
		``, `,"topics":[]`, `,"topics":["channel/a"]`, `,"topics":["channel/a","channel/b"],"topic":"channel/c"`, `,"topic":"channel/b"`, `,"topic":"channel/c"` + conn(m), conn(f),
	} {
		post(400, m.lastID, wrong)
	}
	if !of("user/u1").IsZero() || !of("channel/b").IsZero() {
		t.Error("a refused acknowledgement is noted")
	}
	for _, right := range []string{``, `,"topic":"user/u1"`, `,"topics":["channel/x","user/u1"]`, conn(f), `,"topic":"user/u1","connection":"zzz"`, `,"topics":null`} {
		post(204, f.lastID, right)
	}
	for _, right := range []string{conn(m), `,"topics":["channel/b","channel/a"]`, `,"topic":"channel/b"` + conn(m)} {
		post(204, m.lastID, right)
	}
	if of("user/u1").IsZero() || of("channel/b").IsZero() {
		t.Error("an acknowledgement is not noted")
	}
}

// Who comes back with an id has what is before it.
func TestComingBackAcknowledges(t *testing.T) {
	w := newPushWorld(t, nil)
	f := w.follow("/sse/user/u1")
	w.publish("user/u1", "1")
	f.expect("message: 1")
	at, _ := reconnect.ParseEdgeID([]byte(f.lastID))
	w.follow("/sse/user/u1", "Last-Event-ID", f.lastID)
	eventually(t, "it is noted", func() bool {
		pos, err := w.log.Passed(t.Context(), at.Stream)
		return err == nil && pos == at.Pos
	})
}

// A page may follow, and read which connection it is, where it has leave.
func TestFollowCORS(t *testing.T) {
	w := newPushWorld(t, nil)
	w.p.SetCORS(CORS{Origins: []string{"https://app.example"}, Credentials: true})
	h := w.follow("/sse/user/u1", "Origin", "https://app.example").resp.Header
	if h.Get("Access-Control-Allow-Origin") != "https://app.example" || h.Get("Access-Control-Allow-Credentials") != "true" || h.Get("Vary") != "Origin" || !strings.Contains(h.Get("Access-Control-Expose-Headers"), ConnectionHeader) {
		t.Errorf("%v", h)
	}
	h = w.follow("/sse/user/u1", "Origin", "https://evil.example").resp.Header
	if h.Get("Access-Control-Allow-Origin") != "" || h.Get("Vary") != "Origin" {
		t.Errorf("%v", h)
	}
	resp, _ := w.ask("GET", "/sse/user/a%2Fb", "Origin", "https://app.example")
	if resp.StatusCode != 400 || resp.Header.Get("Access-Control-Allow-Origin") != "https://app.example" {
		t.Errorf("a refusal that its page cannot read: %d %v", resp.StatusCode, resp.Header)
	}
}

// HTTP/1.0 has no chunks, and keeps nothing.
func TestFollowHTTP10(t *testing.T) {
	w := newPushWorld(t, nil)
	c := w.dial()
	c.send("GET /sse/user/u1 HTTP/1.0\r\nAccept: text/event-stream\r\n\r\n")
	if head := c.head(); strings.Contains(head, "Transfer-Encoding") || !strings.Contains(head, "Connection: close") {
		t.Errorf("%q", head)
	}
	c.expect(":\n")
	w.publish("user/u1", "1")
	if line, _ := c.r.ReadString('\n'); !strings.HasPrefix(line, "retry: ") {
		t.Errorf("%q", line)
	}
}

// Without [push] nothing of the backend's is shadowed.
func TestPushOff(t *testing.T) {
	w := newPushWorld(t, []string{teller(t)})
	w.p.SetPush(nil)
	if resp, body := w.ask("GET", "/sse/user/u1"); resp.StatusCode != http.StatusOK || !strings.HasPrefix(body, "GET /sse/user/u1") {
		t.Errorf("%d %s", resp.StatusCode, body)
	}
}

// The streams' own paths may be used by the pages that [cors] names, where the
// backend says nothing of other origins.
func TestControlCORS(t *testing.T) {
	backend := handler(t, func(w http.ResponseWriter, r *http.Request) {
		w.Header().Set("Content-Type", "text/event-stream")
		io.WriteString(w, "data: 1\n\n")
		w.(http.Flusher).Flush()
		<-r.Context().Done()
	})
	w := newPushWorld(t, []string{backend}, func(_ *Config, _ *PushConfig, r *Route) {
		r.LogLength, r.LogTTL, r.DetachFor, r.WriteTimeout, r.EventSize = 100, time.Minute, patience, patience, 1<<20
	})
	w.p.SetCORS(CORS{Origins: []string{"https://app.example"}})
	f := w.follow("/s", "Origin", "https://app.example")
	f.expect("message: 1")
	if got := f.resp.Header.Get("Access-Control-Allow-Origin"); got != "" {
		t.Errorf("the backend's own answer says %q", got)
	}
	path := controlPrefix + f.resp.Header.Get(StreamHeader)
	for method, suffix := range map[string]string{"GET": "/status", "OPTIONS": ""} {
		resp, body := w.ask(method, path+suffix, "Origin", "https://app.example", "Access-Control-Request-Method", "DELETE")
		if got := resp.Header["Access-Control-Allow-Origin"]; len(got) != 1 || got[0] != "https://app.example" || resp.StatusCode > 204 {
			t.Errorf("%s: %d %s %v", method, resp.StatusCode, body, resp.Header)
		}
	}
	again := w.follow(path, "Origin", "https://app.example")
	again.expect("message: 1")
	if got := again.resp.Header.Get("Access-Control-Allow-Origin"); got != "https://app.example" {
		t.Errorf("following by name says %q", got)
	}
	resp, _ := w.ask("DELETE", controlPrefix+"AAAAAAAAAAAAAAAAAAAAAA", "Origin", "https://app.example")
	if resp.StatusCode != 404 || resp.Header.Get("Access-Control-Allow-Origin") != "https://app.example" {
		t.Errorf("unknown: %d %v", resp.StatusCode, resp.Header)
	}
}

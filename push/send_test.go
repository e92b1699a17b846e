package push

import (
	"context"
	"fmt"
	"net/http"
	"slices"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"ssegate/cluster"
)

var all cluster.Filter

// A message reaches whom it is for on whatever node, and nobody else; the
// sender learns what became of it.
func TestSend(t *testing.T) {
	inWorld(t, Config{}, func(w *world, n ...*node) {
		a, b := n[0], n[1]
		u1 := a.follow(all, "user/u1")
		u2 := b.follow(all, "user/u2")
		svc := b.follow(all, "service/knowledge-service")
		got := w.is(b.post("/api/v1/messages/send", `{"id":"m1","type":"progress","service":"knowledge-service","target":{"user_id":"u1"},"data":1}`), 200)
		if got.at("status") != "delivered" || got.at("id") != "m1" || got.at("targets", 0, "target") != "user/u1" ||
			fmt.Sprint(got.at("targets", 0, "nodes")) != "[a]" || got.at("targets", 1, "target") != "service/knowledge-service" {
			t.Errorf("%s", got.raw)
		}
		wait(time.Second)
		u1.got1("1")
		u2.got1()
		svc.got1("1")
		if e := u1.events()[0]; e.name != "progress" {
			t.Errorf("event %q", e.name)
		}
		got = w.is(a.post("/api/v1/messages/send", `{"target":{"user_id":"nobody"},"data":2}`), 200)
		if got.at("status") != "stored" || got.at("id") == "" || got.at("targets", 0, "position").(float64) < 1 {
			t.Errorf("%s", got.raw)
		}
		got = w.is(a.post("/api/v1/messages/send", `{"target":{"connection_id":"nobody"},"data":2}`), 200)
		if got.at("status") != "not_connected" {
			t.Errorf("%s", got.raw)
		}
		got = w.is(a.post("/api/v1/messages/send", `{"target":{"connection_id":"`+u2.id+`"},"data":3}`), 200)
		if got.at("status") != "delivered" {
			t.Errorf("%s", got.raw)
		}
		wait(time.Second)
		u1.got1("1")
		u2.got1("3")
	}, "a", "b")
}

// 30 messages through two nodes in turn arrive in order.
func TestOrder(t *testing.T) {
	inWorld(t, Config{}, func(w *world, n ...*node) {
		c := n[0].follow(all, "user/u")
		var want []string
		for i := range 30 {
			w.is(n[i%2].post("/api/v1/messages/send", fmt.Sprintf(`{"target":{"user_id":"u"},"data":%d}`, i)), 200)
			want = append(want, fmt.Sprint(i))
		}
		wait(time.Second)
		c.got1(want...)
	}, "a", "b")
}

// session_id and the like narrow; alone they name channels.
func TestNarrow(t *testing.T) {
	inWorld(t, Config{}, func(w *world, n ...*node) {
		every := n[0].follow(all, "user/u")
		s1 := n[0].follow(cluster.Filter{Session: "s1"}, "user/u")
		s2 := n[0].follow(cluster.Filter{Session: "s2"}, "user/u")
		task := n[0].follow(all, "channel/task:t9")
		for i, target := range []string{`{"user_id":"u","session_id":"s1"}`, `{"user_id":"u"}`, `{"task_id":"t9"}`, `{"user_id":"u","connection_id":"` + s2.id + `"}`} {
			if a := w.is(n[0].post("/api/v1/messages/send", fmt.Sprintf(`{"target":%s,"data":%d}`, target, i)), 200); a.at("status") != "delivered" {
				t.Errorf("%s", a.raw)
			}
		}
		wait(time.Second)
		every.got1("0", "1")
		s1.got1("0", "1")
		s2.got1("1", "3")
		task.got1("2")
	}, "a")
}

// Nobody is there whom a message is not for: it is stored, not delivered.
func TestDeliveredIsTrue(t *testing.T) {
	inWorld(t, Config{}, func(w *world, n ...*node) {
		of1 := n[0].follow(cluster.Filter{Session: "s1"}, "user/u")
		there := n[1].follow(all, "user/v", "channel/x")
		check := func(target, status string, nodes ...any) {
			t.Helper()
			a := w.is(n[0].post("/api/v1/messages/send", `{"target":`+target+`,"data":1}`), 200)
			got, _ := a.at("targets", 0, "nodes").([]any)
			if a.at("status") != status || !slices.Equal(got, nodes) {
				t.Errorf("%s: %s, want %s on %v", target, a.raw, status, nodes)
			}
		}
		check(`{"user_id":"u"}`, delivered, "a")
		check(`{"user_id":"u","session_id":"s1"}`, delivered, "a")
		check(`{"user_id":"u","session_id":"s2"}`, stored)
		check(`{"user_id":"u","connection_id":"`+of1.id+`"}`, delivered, "a")
		check(`{"user_id":"u","connection_id":"other"}`, stored)
		check(`{"user_id":"v"}`, delivered, "b")
		mine := n[0].follow(all, "user/v")
		check(`{"user_id":"v"}`, delivered, "a", "b")
		check(`{"connection_id":"`+mine.id+`"}`, delivered, "a")
		check(`{"connection_id":"`+there.id+`"}`, delivered, "b")
		// Who has left is not there, at once on the same node, and within a second on another.
		of1.sub.Kick(cluster.ReasonKicked, nil, true)
		there.sub.Kick(cluster.ReasonKicked, nil, true)
		synctest.Wait()
		check(`{"user_id":"u"}`, stored)
		wait(time.Second)
		check(`{"channel":"x"}`, stored)
		check(`{"user_id":"v"}`, delivered, "a")
	}, "a", "b")
}

// The same id is published once, on whatever node it comes, until its time is
// over.
func TestSameID(t *testing.T) {
	inWorld(t, Config{}, func(w *world, n ...*node) {
		c := n[0].follow(all, "user/u")
		const m = `{"id":"m1","target":{"user_id":"u"},"data":1,"metadata":{"ttl":60}}`
		first := w.is(n[0].post("/api/v1/messages/send", m), 200)
		again := w.is(n[1].post("/api/v1/messages/send", m), 200)
		if again.at("targets", 0, "duplicate") != true || again.at("targets", 0, "position") != first.at("targets", 0, "position") {
			t.Errorf("%s, then %s", first.raw, again.raw)
		}
		wait(time.Second)
		c.got1("1")
		wait(2 * time.Minute)
		w.is(n[1].post("/api/v1/messages/send", m), 200)
		wait(time.Second)
		c.got1("1", "1")
	}, "a", "b")
}

// An id is remembered as long as the message that had it said, whatever the
// next one says.
func TestSameIDOtherTTL(t *testing.T) {
	inWorld(t, Config{}, func(w *world, n ...*node) {
		for _, step := range []struct {
			meta string
			dup  bool
		}{
			{`{"ttl":5}`, false}, {`{"ttl":60}`, true}, {`{}`, true}, // within the five seconds
			{`{}`, false}, {`{"ttl":5}`, true}, // after it
		} {
			a := w.is(n[0].post("/api/v1/messages/send", `{"id":"m","target":{"user_id":"u"},"metadata":`+step.meta+`}`), 200)
			if dup := a.at("targets", 0, "duplicate") == true; dup != step.dup {
				t.Errorf("%s: duplicate %t, want %t", step.meta, dup, step.dup)
			}
			wait(2 * time.Second)
		}
	}, "a")
}

func TestSendTo(t *testing.T) {
	inWorld(t, Config{}, func(w *world, n ...*node) {
		c := n[0].follow(all, "user/u1")
		for _, body := range []string{
			`{"userId":"u1","message":"hello\nworld\r\ndata: x"}`, `{"userId":"u1","message":{"a": [1]},"event":"chat"}`,
			`{"message":false,"userId":"u1","event":null,"ttl":null}`, `{"userId":"u1","message":"once","id":"x1"}`, `{"userId":"u1","message":"once","id":"x1"}`,
		} {
			w.is(n[1].post("/api/sse/send", body), 200)
		}
		wait(time.Second)
		want := []told{{"", "hello\nworld\ndata: x"}, {"chat", `{"a":[1]}`}, {"", "false"}, {"", "once"}}
		if got := c.events(); !slices.Equal(got, want) {
			t.Errorf("got %q, want %q", got, want)
		}
		for body, field := range map[string]string{
			`{}`: "userId", `{"userId":"u","message":1,"event":"a\nb"}`: "event", `{"userId":"u","message":1,"event":"ssegate.gap"}`: "event",
			`{"userId":"a/b","message":1}`: "userId", `{"userId":5,"message":1}`: "userId", `{"userId":"u"}`: "message",
			`[]`: "message", `{"userId":"u","message":1,"id":"a\u0000"}`: "id", `{"userId":"u","message":null}`: "message",
			`{"userId":"u","message":1,"ttl":-1}`: "ttl", `{"userId":"u","message":1,"ttl":"5"}`: "ttl", `{"userId":"u","message":1,"ttl":1e9}`: "ttl",
			`{"userId":"..","message":1}`: "userId", `{"userId":".","message":1}`: "userId",
		} {
			if a := w.is(n[0].post("/api/sse/send", body), 400); !strings.Contains(a.raw, `"field":"`+field+`"`) {
				t.Errorf("%s: %s", body, a.raw)
			}
		}
	}, "a", "b")
}

// What is sent in the short form is no longer told than it is good for.
func TestSendToTTL(t *testing.T) {
	inWorld(t, Config{}, func(w *world, n ...*node) {
		w.is(n[0].post("/api/sse/send", `{"userId":"u","message":"short","ttl":5}`), 200)
		w.is(n[0].post("/api/sse/send", `{"userId":"u","message":"long","ttl":0}`), 200)
		wait(6 * time.Second)
		c := &client{w: w, n: n[0], id: "c"}
		var err error
		if c.sub, err = n[0].SubscribeAll([]cluster.Topic{cluster.TopicOf("user/u")}, cluster.CursorFrom{Last: 5}, c, cluster.SubscribeOptions{ID: "c"}); err != nil {
			t.Fatal(err)
		}
		wait(time.Second)
		if got := c.events(); !slices.Equal(got, []told{{"", "long"}}) {
			t.Errorf("got %q", got)
		}
	}, "a")
}

// Of a batch each message has its own answer, and a wrong one stops no other.
func TestBatch(t *testing.T) {
	inWorld(t, Config{}, func(w *world, n ...*node) {
		c := n[0].follow(all, "user/u")
		list := `[{"id":"a","target":{"user_id":"u"},"data":1},{"target":{"user_id":"x/y"}},{"data":3},` +
			`{"target":{"connection_id":"gone"}},{"target":{"user_id":"away"}},{"target":{"user_id":"u"},"data":2}]`
		for _, body := range []string{list, `{"messages":` + list + `,"x":1}`} {
			a := w.is(n[0].post("/api/v1/messages/batch", body), 200)
			var got []string
			for i := range 6 {
				got = append(got, fmt.Sprint(a.at("results", i, "status")))
				if a.at("results", i, "index").(float64) != float64(i) {
					t.Errorf("index of %d: %s", i, a.raw)
				}
			}
			if want := "[delivered rejected rejected not_connected stored delivered]"; fmt.Sprint(got) != want {
				t.Errorf("%v, want %s\n%s", got, want, a.raw)
			}
			if a.at("results", 1, "fields", 0, "field") != "target.user_id" || a.at("accepted").(float64) != 3 || a.at("rejected").(float64) != 2 {
				t.Errorf("%s", a.raw)
			}
		}
		wait(time.Second)
		c.got1("1", "2", "2") // the second "a" was there
		if w.log.together < 2 {
			t.Errorf("a batch is no batch: %d together", w.log.together)
		}
		a := w.is(n[0].post("/api/v1/messages/batch", `[{"target":{"user_id":"*"}}]`), 400)
		if a.at("error", "fields", 0, "field") != "messages[0].target.user_id" {
			t.Errorf("%s", a.raw)
		}
		w.is(n[0].post("/api/v1/messages/batch", `[]`), 200)
		for body, field := range map[string]string{
			`{}`: "messages", `5`: "batch", `{"messages":5}`: "messages", `{"messages":[],"targets":[]}`: "messages", `{"targets":["user/u"]}`: "message",
			`{"message":{}}`: "targets", `{"targets":[1],"message":{}}`: "targets[0]", `{"targets":["user/u"],"message":{"target":{"user_id":"u"}}}`: "message.target",
			`{"targets":["user/u"],"message":{"type":"x"}}`: "message.type", `{"targets":"user/u","message":{}}`: "targets",
		} {
			if a := w.is(n[0].post("/api/v1/messages/batch", body), 400); !strings.Contains(a.raw, `"field":"`+field+`"`) {
				t.Errorf("%s: %s", body, a.raw)
			}
		}
	}, "a")
}

// One message for many targets: an answer for each.
func TestOneForMany(t *testing.T) {
	inWorld(t, Config{}, func(w *world, n ...*node) {
		u := n[1].follow(all, "user/u")
		x := n[0].follow(all, "user/x")
		y := n[0].follow(all, "user/x")
		a := w.is(n[0].post("/api/v1/messages/batch",
			`{"message":{"id":"m","data":7,"service":"svc"},"targets":["user/u","connection/`+x.id+`","connection/none","user/a*","channel/c"]}`), 200)
		var got []string
		for i := range 5 {
			got = append(got, fmt.Sprint(a.at("targets", i, "status")))
		}
		if want := "[delivered delivered not_connected rejected stored]"; fmt.Sprint(got) != want || a.at("status") != "delivered" {
			t.Errorf("%s", a.raw)
		}
		wait(time.Second)
		u.got1("7")
		x.got1("7")
		y.got1()
		if r := w.is(n[1].get("/api/v1/messages/m"), 200); r.at("targets", 3, "target") != "service/svc" && r.at("targets", 2, "target") == nil {
			t.Errorf("%s", r.raw)
		}
	}, "a", "b")
}

// A target that is listed twice gets the message once, and has one answer; so
// do the service's own listeners where they are a target as well.
func TestOneForManyTwice(t *testing.T) {
	inWorld(t, Config{}, func(w *world, n ...*node) {
		u, svc := n[0].follow(all, "user/u"), n[1].follow(all, "service/svc")
		a := w.is(n[0].post("/api/v1/messages/batch",
			`{"targets":["user/u","user/u","channel/c","service/svc","user/u","user/a*","user/a*"],"message":{"data":1,"service":"svc"}}`), 200)
		wait(time.Second)
		u.got1("1")
		svc.got1("1")
		var targets []string
		for _, res := range a.at("targets").([]any) {
			targets = append(targets, fmt.Sprint(res.(map[string]any)["target"], " ", res.(map[string]any)["status"]))
		}
		if want := []string{"user/u delivered", "channel/c stored", "service/svc delivered", "user/a* rejected"}; !slices.Equal(targets, want) {
			t.Errorf("%q, want %q", targets, want)
		}
		// Two messages of a list are two messages.
		w.is(n[0].post("/api/v1/messages/batch", `[{"target":{"user_id":"u"},"data":2},{"target":{"user_id":"u"},"data":2}]`), 200)
		wait(time.Second)
		u.got1("1", "2", "2")
	}, "a", "b")
}

// TestOneIDOneTopic: targets that share a topic are told from each other, also
// where the sender gave the message an id; sent again, nobody gets it twice.
func TestOneIDOneTopic(t *testing.T) {
	inWorld(t, Config{}, func(w *world, n ...*node) {
		one, two, other := n[0].follow(all, "user/u"), n[1].follow(all, "user/u"), n[1].follow(all, "user/u")
		wait(time.Second)
		for round := range 2 {
			for _, c := range []*client{one, two} {
				got := w.is(n[0].post("/api/v1/messages/send", `{"id":"m","target":{"connection_id":"`+c.id+`"},"data":1}`), 200)
				if got.at("status") != "delivered" {
					t.Errorf("round %d: %s", round, got.raw)
				}
			}
		}
		wait(time.Second)
		one.got1("1")
		two.got1("1")
		other.got1()
		w.is(n[1].post("/api/v1/messages/send", `{"id":"m","target":{"user_id":"u"},"data":2}`), 200)
		wait(time.Second)
		other.got1("2")
	}, "a", "b")
}

// A connection that follows a topic to which the message goes as well gets it
// once, with an id of its own or without, in whatever order they are named.
func TestTopicAndItsConnection(t *testing.T) {
	inWorld(t, Config{}, func(w *world, n ...*node) {
		user, room := n[1].follow(all, "user/u"), n[1].follow(all, "channel/a", "channel/b")
		svc := n[0].follow(all, "service/s")
		wait(time.Second)
		for i, targets := range []string{
			`"user/u","connection/` + user.id + `","connection/none"`, `"connection/` + user.id + `","user/u"`,
			`"channel/a","connection/` + room.id + `"`, `"connection/` + room.id + `","channel/b"`, // not its first topic
		} {
			for _, id := range []string{"", fmt.Sprintf(`"id":"m%d",`, i)} {
				for again := range 2 {
					a := w.is(n[0].post("/api/v1/messages/batch", fmt.Sprintf(`{"targets":[%s],"message":{%s"data":%d}}`, targets, id, i)), 200)
					dup := id != "" && again == 1
					for j := range 2 {
						if a.at("targets", j, "status") != delivered || (a.at("targets", j, "duplicate") == true) != dup || a.at("targets", j, "position") != a.at("targets", 0, "position") {
							t.Errorf("%s%s: %s", id, targets, a.raw)
						}
					}
				}
			}
		}
		// So does one of the service's own listeners, which get a copy.
		w.is(n[1].post("/api/v1/messages/send", `{"id":"s","service":"s","target":{"connection_id":"`+svc.id+`"},"data":7}`), 200)
		wait(time.Second)
		user.got1("0", "0", "0", "1", "1", "1")
		room.got1("2", "2", "2", "3", "3", "3")
		svc.got1("7")
	}, "a", "b")
}

// A broadcast reaches each connection once, whatever it follows.
func TestBroadcast(t *testing.T) {
	inWorld(t, Config{}, func(w *world, n ...*node) {
		if a := w.is(n[0].post("/api/v1/messages/broadcast", `{"data":0}`), 200); a.at("status") != "not_connected" {
			t.Errorf("%s", a.raw)
		}
		clients := []*client{
			n[0].follow(all, "user/u"), n[0].follow(all, "user/u"), n[1].follow(all, "user/u"),
			n[1].follow(all, "channel/a", "channel/b", "user/u"), n[0].follow(all, "channel/b", "channel/a"), n[1].follow(all, "service/s"),
		}
		a := w.is(n[0].post("/api/v1/messages/broadcast", `{"data":1,"type":"info"}`), 200)
		if a.at("status") != "delivered" || a.at("topics").(float64) != 4 || len(a.at("nodes").([]any)) != 2 {
			t.Errorf("%s", a.raw)
		}
		w.is(n[0].post("/api/v1/messages/broadcast", `{"data":2,"target":{"channel":"b"}}`), 200)
		w.is(n[0].post("/api/v1/messages/broadcast", `{"data":3,"target":{"chanel":"b"}}`), 400)
		w.is(n[0].post("/api/v1/messages/broadcast", `{"data":3,"target":{}}`), 400)
		wait(time.Second)
		for i, c := range clients {
			want := []string{"1"}
			if i == 3 || i == 4 {
				want = []string{"1", "2"}
			}
			got := c.datas("data")
			slices.Sort(got) // what comes by two topics comes in no order
			if !slices.Equal(got, want) {
				t.Errorf("%s got %q, want %q", c.id, got, want)
			}
		}
	}, "a", "b")
}

// A broadcast that comes again with its id is said to; one that finds somebody
// new is not, for it went there.
func TestBroadcastAgain(t *testing.T) {
	inWorld(t, Config{}, func(w *world, n ...*node) {
		const m = `{"id":"b","data":1}`
		if a := w.is(n[0].post("/api/v1/messages/broadcast", m), 200); a.at("duplicate") != nil {
			t.Errorf("to nobody: %s", a.raw)
		}
		first, second := n[0].follow(all, "user/u"), n[1].follow(all, "channel/c")
		for round := range 2 {
			if a := w.is(n[round].post("/api/v1/messages/broadcast", m), 200); a.at("status") != delivered || (a.at("duplicate") == true) != (round > 0) {
				t.Errorf("round %d: %s", round, a.raw)
			}
			wait(time.Second)
		}
		third := n[0].follow(all, "user/v")
		if a := w.is(n[0].post("/api/v1/messages/broadcast", m), 200); a.at("duplicate") != nil {
			t.Errorf("to another one: %s", a.raw)
		}
		wait(time.Second)
		for _, c := range []*client{first, second, third} {
			c.got1("1")
		}
	}, "a", "b")
}

// While the log is away nothing is taken in silence, and what was answered
// 503 can be sent again with its id.
func TestLogAway(t *testing.T) {
	inWorld(t, Config{}, func(w *world, n ...*node) {
		c := n[0].follow(all, "user/u")
		for _, after := range []bool{false, true} {
			w.log.fails(errAway, after)
			m := fmt.Sprintf(`{"id":"m%v","target":{"user_id":"u"},"data":"%v"}`, after, after)
			a := w.is(n[0].post("/api/v1/messages/send", m), 503)
			if a.head.Get("Retry-After") == "" || !strings.Contains(a.raw, "fate is unknown") || !strings.Contains(a.raw, "same id") || a.at("result", "status") != "unknown" {
				t.Errorf("%s", a.raw)
			}
			if a := w.is(n[0].post("/api/v1/messages/send", `{"target":{"user_id":"other"}}`), 503); !strings.Contains(a.raw, "twice") {
				t.Errorf("%s", a.raw)
			}
			if a := w.is(n[0].post("/api/v1/messages/batch", `[`+m+`,{"target":{"user_id":""}}]`), 503); a.at("result", "results", 1, "status") != "rejected" {
				t.Errorf("%s", a.raw)
			}
			w.is(n[0].post("/api/v1/messages/broadcast", `{"id":"b`+m[7:8]+`"}`), 503)
			w.log.fails(nil, false)
			w.is(n[0].post("/api/v1/messages/send", m), 200)
		}
		wait(3 * time.Second)
		got := c.datas("data")
		if n := len(slices.DeleteFunc(got, func(s string) bool { return s == "null" })); n != 2 {
			t.Errorf("got %q", got)
		}
	}, "a")
}

// However many things do not answer, a request waits for all of them together
// no longer than it may for one.
func TestWaitBoundsAnswers(t *testing.T) {
	const limit = 3 * time.Second
	inWorld(t, Config{Options: Options{Wait: limit}}, func(w *world, n ...*node) {
		c := n[0].follow(all, "user/u")
		ask := func(what string, ask func(change func(*http.Request)) answer) {
			t.Helper()
			ctx, cancel := context.WithTimeout(w.Context(), time.Minute) // the client's
			defer cancel()
			wait(2 * time.Second) // what was known is old
			began := time.Now()
			a := w.is(ask(func(r *http.Request) { *r = *r.WithContext(ctx) }), 503)
			if took := time.Since(began); took > limit+100*time.Millisecond {
				t.Errorf("%s took %v: %s", what, took, a.raw)
			}
			if a.head.Get("Retry-After") == "" {
				t.Errorf("%s: %v", what, a.head)
			}
		}
		for _, slow := range []time.Duration{time.Hour, limit - time.Second} {
			w.reg.mu.Lock()
			w.reg.slow = slow
			w.reg.mu.Unlock()
			w.log.mu.Lock()
			w.log.hangs = slow < limit
			w.log.mu.Unlock()
			for path, body := range map[string]string{
				"/api/v1/messages/send":      `{"target":{"connection_id":"` + c.id + `"}}`,
				"/api/v1/messages/broadcast": `{"data":1}`,
				"/api/v1/messages/batch":     `{"message":{},"targets":["connection/` + c.id + `","connection/none","user/u"]}`,
			} {
				ask(path, func(change func(*http.Request)) answer { return n[0].post(path, body, change) })
			}
		}
		w.log.mu.Lock()
		w.log.hangs = false
		w.log.mu.Unlock()
	}, "a")
}

func TestRate(t *testing.T) {
	inWorld(t, Config{Options: Options{Rate: 10, Burst: 20}}, func(w *world, n ...*node) {
		m := `{"target":{"user_id":"u"}}`
		for range 20 {
			w.is(n[0].post("/api/v1/messages/send", m), 200)
		}
		if a := w.is(n[0].post("/api/v1/messages/send", m), 429); a.head.Get("Retry-After") != "1" {
			t.Errorf("%v", a.head)
		}
		w.is(n[0].post("/api/v1/messages/send", m, func(r *http.Request) { r.RemoteAddr = "192.0.2.9:5" }), 200)
		time.Sleep(time.Second)
		w.is(n[0].post("/api/v1/messages/batch", `[`+strings.Repeat(m+",", 9)+m+`]`), 200)
		w.is(n[0].post("/api/v1/messages/batch", `[`+m+`]`), 429)
	}, "a")
}

// An expired message is handed to nobody who comes later.
func TestExpired(t *testing.T) {
	inWorld(t, Config{}, func(w *world, n ...*node) {
		w.is(n[0].post("/api/v1/messages/send", `{"target":{"user_id":"u"},"data":"old","metadata":{"ttl":10}}`), 200)
		w.is(n[0].post("/api/v1/messages/send", `{"target":{"user_id":"u"},"data":"kept"}`), 200)
		wait(time.Minute)
		c := &client{w: w, n: n[0], id: "late"}
		var err error
		if c.sub, err = n[0].SubscribeAll([]cluster.Topic{cluster.TopicOf("user/u")}, cluster.CursorFrom{Last: 10}, c, cluster.SubscribeOptions{ID: "late"}); err != nil {
			t.Fatal(err)
		}
		wait(time.Second)
		c.got1("kept")
	}, "a")
}

package push

import (
	"fmt"
	"slices"
	"strings"
	"testing"
	"time"

	"ssegate/auth"
	"ssegate/cluster"
	"ssegate/registry"
)

// A receipt tells on any node how far a message has got.
func TestReceipts(t *testing.T) {
	inWorld(t, Config{}, func(w *world, n ...*node) {
		n[0].follow(all, "user/u")
		n[0].follow(all, "user/u")
		n[1].follow(all, "user/u")
		n[1].follow(cluster.Filter{Session: "other"}, "user/u")
		own := w.is(n[0].post("/api/v1/messages/send", `{"id":"own id/1","target":{"user_id":"u","session_id":"s"},"data":1}`), 200)
		made := w.is(n[0].post("/api/v1/messages/send", `{"target":{"user_id":"u"},"service":"s","data":1}`), 200)
		wait(time.Second)
		for _, at := range n {
			a := w.is(at.get("/api/v1/messages/own%20id%2F1"), 200)
			if a.at("id") != "own id/1" || a.at("written").(float64) != 3 || fmt.Sprint(a.at("routed")) != "[a b]" || a.at("passed") != false || a.at("accepted") == "" ||
				a.at("targets", 0, "target") != "user/u" || a.at("targets", 0, "position") != own.at("targets", 0, "position") {
				t.Errorf("%s: %s", at.ID(), a.raw)
			}
			a = w.is(at.get("/api/v1/messages/"+made.at("id").(string)), 200)
			if a.at("written").(float64) != 4 || a.at("targets", 1, "target") != "service/s" {
				t.Errorf("%s: %s", at.ID(), a.raw)
			}
			a = w.is(at.get("/api/v1/messages/"+made.at("id").(string)+"?target=user/u"), 200)
			if a.at("written").(float64) != 4 {
				t.Errorf("%s: %s", at.ID(), a.raw)
			}
		}
		topic := cluster.TopicOf("user/u")
		pos, err := w.log.Find(t.Context(), topic.ID, []byte("own id/1"))
		if err != nil {
			t.Fatal(err)
		}
		if err := w.log.Pass(t.Context(), topic.ID, pos, time.Hour); err != nil {
			t.Fatal(err)
		}
		if a := n[1].get("/api/v1/messages/own%20id%2F1"); a.at("passed") != true {
			t.Errorf("%s", a.raw)
		}
		if a := n[1].get("/api/v1/messages/" + made.at("id").(string)); a.at("passed") != false {
			t.Errorf("%s", a.raw)
		}
		w.is(n[0].get("/api/v1/messages/none"), 404)
		w.is(n[0].get("/api/v1/messages/msg_zzzzzzzz1"), 404)
		w.is(n[0].get("/api/v1/messages/none?target=user/u"), 404)
		w.is(n[0].get("/api/v1/messages/none?target=user/nobody"), 404)
		w.is(n[0].get("/api/v1/messages/none?target=users"), 400)
		w.is(n[0].get("/api/v1/messages/none?target="), 400)
		w.is(n[0].get("/api/v1/messages/a%0Ab"), 400)
	}, "a", "b")
}

// Who has the answer of one node may ask another at once: that it is told of a
// message only a moment later is not that there is none.
func TestReceiptAtOnceOnAnotherNode(t *testing.T) {
	inWorld(t, Config{}, func(w *world, n ...*node) {
		w.is(n[0].post("/api/v1/messages/send", `{"id":"own","target":{"user_id":"u"}}`), 200)
		w.is(n[1].get("/api/v1/messages/own"), 200)
		made := w.is(n[0].post("/api/v1/messages/send", `{"target":{"user_id":"u"}}`), 200).at("id").(string)
		w.is(n[1].get("/api/v1/messages/"+made), 200)
		// What nobody knows is said to be unknown, soon.
		since := time.Now()
		if w.is(n[1].get("/api/v1/messages/none"), 404); time.Since(since) != awaitReceipt {
			t.Errorf("unknown after %v", time.Since(since))
		}
		since = time.Now()
		if w.is(n[1].get("/api/v1/messages/none?target=user/u"), 404); time.Since(since) != 0 {
			t.Errorf("not in the log after %v", time.Since(since))
		}
		w.reg.fails(errAway)
		w.is(n[1].get("/api/v1/messages/none"), 503)
	}, "a", "b")
	inWorld(t, Config{Options: Options{Alone: true}}, func(w *world, n ...*node) {
		since := time.Now()
		if w.is(n[0].get("/api/v1/messages/none"), 404); time.Since(since) != 0 {
			t.Errorf("alone, unknown after %v", time.Since(since))
		}
	}, "a")
	inWorld(t, Config{Options: Options{Wait: 20 * time.Millisecond}}, func(w *world, n ...*node) {
		w.is(n[0].get("/api/v1/messages/none"), 404) // it has no time to ask for long
	}, "a", "b")
}

// An id that was sent to several targets, on several nodes, or again to fewer
// of them, has one receipt that tells of all.
func TestReceiptsOfOneID(t *testing.T) {
	for _, alone := range []bool{true, false} {
		names := []string{"a", "b"}
		if alone {
			names = names[:1]
		}
		inWorld(t, Config{Options: Options{Alone: alone, ReceiptTTL: 5 * time.Minute}}, func(w *world, n ...*node) {
			n[0].follow(all, "user/u")
			last := n[len(n)-1]
			first := w.is(n[0].post("/api/v1/messages/send", `{"id":"m","target":{"user_id":"u","channel":"c"}}`), 200)
			w.is(last.post("/api/v1/messages/send", `{"id":"m","target":{"channel":"d"}}`), 200)
			w.is(n[0].post("/api/v1/messages/send", `{"id":"m","target":{"service":"e"}}`), 200)
			w.is(last.post("/api/v1/messages/send", `{"id":"m","target":{"channel":"c"}}`), 200) // again
			w.is(last.post("/api/v1/messages/batch", `[{"id":"m","target":{"user_id":"v"}},{"id":"m","target":{"user_id":"v"}}]`), 200)
			want := []string{"user/u", "channel/c", "channel/d", "service/e", "user/v"}
			check := func(reader *auth.Identity, want ...string) {
				t.Helper()
				wait(time.Second)
				for _, at := range n {
					a := w.is(at.get("/api/v1/messages/m", as(reader)), 200)
					var got []string
					for _, target := range a.at("targets").([]any) {
						got = append(got, target.(map[string]any)["target"].(string))
					}
					slices.Sort(got)
					if slices.Sort(want); !slices.Equal(got, want) || a.at("incomplete") != nil {
						t.Errorf("alone %t, %s: targets %q, want %q: %s", alone, at.ID(), got, want, a.raw)
					}
					if at := slices.IndexFunc(a.at("targets").([]any), func(v any) bool { return v.(map[string]any)["target"] == "user/u" }); at >= 0 &&
						(a.at("targets", at, "position") != first.at("targets", 0, "position") || fmt.Sprint(a.at("targets", at, "routed")) != "[a]") {
						t.Errorf("%s", a.raw)
					}
				}
			}
			admin := &auth.Identity{Admin: true}
			check(admin, want...)
			check(&auth.Identity{Publish: []auth.Pattern{"channel/*"}}, "channel/c", "channel/d") // the others are others'
			// What this node knows is told while the registry is away, and that it may not be all.
			if !alone {
				w.reg.fails(errAway)
				if a := w.is(last.get("/api/v1/messages/m"), 200); a.at("incomplete") != true {
					t.Errorf("%s", a.raw)
				}
				w.reg.fails(nil)
			}
			// A made id that its sender uses for its own goes with the made one, and spoils no other of its group.
			made := w.is(n[0].post("/api/v1/messages/send", `{"target":{"user_id":"u"}}`), 200).at("id").(string)
			other := w.is(n[0].post("/api/v1/messages/send", `{"target":{"user_id":"u"}}`), 200).at("id").(string)
			w.is(n[0].post("/api/v1/messages/send", `{"id":"`+made+`","target":{"channel":"x"}}`), 200)
			wait(time.Second)
			if a := w.is(last.get("/api/v1/messages/"+made), 200); len(a.at("targets").([]any)) != 2 {
				t.Errorf("%s", a.raw)
			}
			w.is(last.get("/api/v1/messages/"+other), 200)
			// Its life is that of the last: then all is forgotten.
			wait(6 * time.Minute)
			for _, at := range n {
				w.is(at.get("/api/v1/messages/m"), 404)
			}
		}, names...)
	}
}

// Many receipts of ids that were made share a note; none is lost to the others.
func TestReceiptsOfMany(t *testing.T) {
	inWorld(t, Config{}, func(w *world, n ...*node) {
		var ids []string
		for range 5 {
			var body strings.Builder
			body.WriteString("[")
			for i := range 100 {
				if i > 0 {
					body.WriteString(",")
				}
				body.WriteString(`{"target":{"user_id":"u"}}`)
			}
			a := w.is(n[0].post("/api/v1/messages/batch", body.String()+"]"), 200)
			for i := range 100 {
				ids = append(ids, a.at("results", i, "id").(string))
			}
		}
		wait(time.Second)
		for _, id := range ids {
			w.is(n[1].get("/api/v1/messages/"+id), 200)
		}
		if lost := n[0].api.Stats().ReceiptsLost; lost != 0 {
			t.Errorf("%d lost", lost)
		}
	}, "a", "b")
}

// Receipts are for those who may publish there.
func TestReceiptsOfOthers(t *testing.T) {
	inWorld(t, Config{}, func(w *world, n ...*node) {
		w.is(n[0].post("/api/v1/messages/send", `{"id":"m","target":{"user_id":"u"}}`), 200)
		w.is(n[0].get("/api/v1/messages/m", as(&auth.Identity{Publish: []auth.Pattern{"channel/*"}})), 403)
		w.is(n[0].get("/api/v1/messages/m?target=user/u", as(&auth.Identity{Publish: []auth.Pattern{"channel/*"}})), 403)
		w.is(n[0].get("/api/v1/messages/m", as(&auth.Identity{Publish: []auth.Pattern{"user/*"}})), 200)
		w.is(n[0].get("/api/v1/messages/m", as(&auth.Identity{Admin: true})), 200)
	}, "a")
}

func TestConnections(t *testing.T) {
	inWorld(t, Config{}, func(w *world, n ...*node) {
		var ids []string
		for i := range 5 {
			ids = append(ids, n[i%2].follow(all, fmt.Sprintf("user/u%d", i%3)).id)
		}
		n[0].follow(all, "channel/a", "channel/b")
		n[1].Connected(registry.Connection{ID: "proxied", Stream: cluster.TopicOf("x").ID, Remote: "192.0.2.7", Since: time.Now(), User: "u1"})
		wait(time.Second)
		for _, at := range n {
			a := w.is(at.get("/api/v1/connections"), 200)
			if a.at("total").(float64) != 7 || len(a.at("connections").([]any)) != 7 || a.at("next") != nil {
				t.Errorf("%s", a.raw)
			}
			for query, total := range map[string]float64{"user=u1": 3, "node=a": 4, "topic=channel/b": 1, "node=a&user=u0": 1, "user=nobody": 0} {
				if a := w.is(at.get("/api/v1/connections?"+query), 200); a.at("total").(float64) != total {
					t.Errorf("%s: %s", query, a.raw)
				}
			}
			seen := map[any]bool{}
			cursor := ""
			for range 10 {
				a := w.is(at.get("/api/v1/connections?limit=3&cursor="+cursor), 200)
				for _, c := range a.at("connections").([]any) {
					seen[c.(map[string]any)["id"]] = true
				}
				if a.at("next") == nil {
					break
				}
				cursor = a.at("next").(string)
			}
			if len(seen) != 7 {
				t.Errorf("pages have %v", seen)
			}
			a = w.is(at.get("/api/v1/connections/stats"), 200)
			if a.at("total").(float64) != 7 || a.at("nodes", "a").(float64) != 4 || a.at("kinds", "user").(float64) != 5 || a.at("users").(float64) != 3 || a.at("topics").(float64) != 5 || a.at("streams").(float64) != 1 {
				t.Errorf("%s", a.raw)
			}
			a = w.is(at.get("/api/sse/status/u0"), 200)
			if a.at("connected") != true || a.at("connections").(float64) != 2 || a.at("node") == nil {
				t.Errorf("%s", a.raw)
			}
			if a := w.is(at.get("/api/sse/status/nobody"), 200); a.at("connected") != false {
				t.Errorf("%s", a.raw)
			}
		}
		for query, field := range map[string]string{
			"limit=0": "limit", "limit=x": "limit", "limit=": "limit", "limit=1001": "limit", "user=": "user", "user=a%2Fb": "user", "user=..": "user",
			"node=": "node", "node=%00": "node", "topic=": "topic", "topic=news": "topic", "topic=connection/c": "topic", "topic=user/a*": "topic",
			"cursor=%0A": "cursor", "user=a&user=b": "user", "user=%zz": "query",
		} {
			if a := w.is(n[0].get("/api/v1/connections?"+query), 400); a.at("error", "reason") != "invalid_query" || a.at("error", "fields", 0, "field") != field {
				t.Errorf("%s: %s", query, a.raw)
			}
		}
		w.is(n[0].get("/api/sse/status/a%2Fb"), 400)

		// From the other node, and true within a second.
		w.is(n[0].do("DELETE", "/api/v1/connections/"+ids[1], "", nil), 200)
		wait(time.Second)
		w.is(n[0].do("DELETE", "/api/v1/connections/"+ids[1], "", nil), 404)
		if a := n[1].get("/api/v1/connections"); a.at("total").(float64) != 6 {
			t.Errorf("%s", a.raw)
		}
		if a := w.is(n[1].do("POST", "/api/sse/close/u0", "", nil), 200); a.at("closed").(float64) != 2 {
			t.Errorf("%s", a.raw)
		}
		wait(time.Second)
		if a := n[0].get("/api/sse/status/u0"); a.at("connected") != false {
			t.Errorf("%s", a.raw)
		}
		// A node that is killed takes its connections with it.
		n[0].Abort()
		n[0].leave()
		wait(5 * time.Second)
		if a := n[1].get("/api/v1/connections"); a.at("total").(float64) != 1 {
			t.Errorf("%s", a.raw)
		}
		w.reg.fails(errAway)
		wait(time.Second)
		for _, path := range []string{"/api/v1/connections", "/api/v1/connections/stats", "/api/sse/status/u0"} {
			if a := w.is(n[1].get(path), 503); a.head.Get("Retry-After") == "" {
				t.Errorf("%v", a.head)
			}
		}
	}, "a", "b")
}

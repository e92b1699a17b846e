package proxy

import (
	"strings"
	"testing"
	"time"
)

func TestTopicsOf(t *testing.T) {
	f := func(serve pushPath, path, uri, want string) {
		t.Helper()
		x := &exchange{path: uri, route: &Route{Path: path, serve: serve}}
		topics, bad := x.topicsOf(3)
		got := strings.Join(topics, " ")
		if bad != nil {
			got = bad.reason
			if bad.status < 400 || bad.status > 499 || bad.detail == "" {
				t.Errorf("%s: refused with %+v", uri, bad)
			}
		}
		if got != want {
			t.Errorf("%s: got %q, want %q", uri, got, want)
		}
	}
	user := func(uri, want string) { t.Helper(); f(followUser, "/sse/user", uri, want) }
	channel := func(uri, want string) { t.Helper(); f(followChannel, "/sse/stream", uri, want) }
	user("/sse/user/123", "user/123")
	user("/sse/user/a%20b@example.com", "user/a b@example.com")
	user("/sse/user/%E5%BC%A0", "user/张")
	user("/sse/user/a+b", "user/a+b")
	for _, bad := range []string{
		"", "/", "/..", "/%2e%2E", "/.", "/a/b", "/a%2Fb", "/a/", "//a", "/*", "/a*", "/%2A", "/a%00", "/a%0d%0aid:x", "/a%", "/%zz", "/%ff", "/a,b", "/" + strings.Repeat("x", 300),
	} {
		user("/sse/user"+bad, "bad_user_id")
	}
	for _, none := range []string{"/sse/user", "/sse/user/"} {
		x := &exchange{path: none, route: &Route{Path: "/sse/user", serve: followUser}}
		if _, bad := x.topicsOf(3); bad == nil || !strings.HasPrefix(bad.detail, "user_id is missing") {
			t.Errorf("%s: %+v", none, bad)
		}
	}
	user("/sse/./user/a", "no_such_path")
	f(followUser, "/api/sse/connect", "/api/sse/connect/u1", "user/u1")
	f(followService, "/sse/service", "/sse/service/knowledge-service", "service/knowledge-service")
	f(followService, "/sse/service", "/sse/service/", "bad_service")
	channel("/sse/stream/news", "channel/news")
	channel("/sse/stream/news,session:s1", "channel/news channel/session:s1")
	channel("/sse/stream/b,a,b", "channel/b channel/a")
	channel("/sse/stream/a%2Cb", "channel/a channel/b") // encodeURIComponent of a whole list
	channel("/sse/stream/a,", "bad_channel")
	channel("/sse/stream/,", "bad_channel")
	channel("/sse/stream/a,b,c", "channel/a channel/b channel/c")
	channel("/sse/stream/a,b,c,d", "bad_channel")
}

func TestWants(t *testing.T) {
	f := func(query string, want wants, reason string) {
		t.Helper()
		got, bad := (&exchange{query: query}).wants()
		switch {
		case reason != "":
			name := strings.TrimPrefix(reason, "bad_")
			if bad == nil || bad.reason != reason || bad.status != 400 || !strings.HasPrefix(bad.detail, name+" ") {
				t.Errorf("%s: got %+v, want %s", query, bad, reason)
			}
		case bad != nil:
			t.Errorf("%s: refused: %+v", query, bad)
		case got.session != want.session || got.kb != want.kb || got.task != want.task || got.last != want.last || !got.since.Equal(want.since):
			t.Errorf("%s: got %+v, want %+v", query, got, want)
		}
	}
	at := time.Date(2025, 7, 30, 15, 10, 0, 0, time.UTC)
	f("", wants{}, "")
	f("session_id=s1&kb_id=k&task_id=t%201", wants{session: "s1", kb: "k", task: "t 1"}, "")
	f("withCredentials=true&r=0.123&_=1&x=%zz", wants{}, "") // what polyfills add
	for _, name := range []string{"session_id", "kb_id", "task_id", "last", "since"} {
		f(name+"=", wants{}, "bad_"+name)
		f("last=2&"+name, wants{}, "bad_"+name)
	}
	f("last=20", wants{last: 20}, "")
	f("last=0", wants{}, "")
	f("since=2025-07-30T15:10:00Z", wants{since: at}, "")
	f("since=2025-07-30T17:10:00%2B02:00", wants{since: at}, "")
	f("since=2025-07-30T17:10:00+02:00", wants{since: at}, "") // nobody escaped the plus
	f("since=1753888200000", wants{since: at}, "")
	f("since=0", wants{since: time.UnixMilli(0)}, "")
	f("since=1970-01-01T00:00:00Z", wants{since: time.UnixMilli(0)}, "")
	f("last=-1", wants{}, "bad_last")
	f("last=many", wants{}, "bad_last")
	f("last=99999999999", wants{}, "bad_last")
	f("since=yesterday", wants{}, "bad_since")
	f("since=-5", wants{}, "bad_since")
	f("since=99999999999999999", wants{}, "bad_since")
	f("last=3&since=2025-07-30T15:10:00Z", wants{}, "bad_since")
	f("session_id=a%2Fb", wants{}, "bad_session_id")
	f("session_id=%zz", wants{}, "bad_session_id")
	f("kb_id=a%0Ab", wants{}, "bad_kb_id")
	f("task_id="+strings.Repeat("x", 300), wants{}, "bad_task_id")
	f("session_id=a&session_id=b", wants{}, "bad_session_id")
}

// The paths of push are routes like others.
func TestPushRoutes(t *testing.T) {
	p, err := New(Config{})
	if err != nil {
		t.Fatal(err)
	}
	defer p.Close(t.Context())
	route := func(path string, methods ...string) *Route { return &Route{Name: path, Path: path, Methods: methods} }
	p.SetTable(NewTable([]*Route{route("/"), route("/sse/user/vip"), route("/sse/service"), route("/sse/stream", "POST"), route("/sse")}))
	f := func(method, path, want string) {
		t.Helper()
		r, _ := p.table.Load().Match("h", path, method)
		if got := r.Name; got != want {
			t.Errorf("%s %s leads to %q, want %q", method, path, got, want)
		}
	}
	f("GET", "/sse/user/1", "/sse")
	p.SetPush(&PushConfig{})
	for range 2 {
		f("GET", "/sse/user/1", "push /sse/user")
		f("POST", "/sse/user/1/2", "push /sse/user") // nothing below falls through
		f("GET", "/sse/user/vip", "/sse/user/vip")   // what is configured and longer
		f("GET", "/sse/service/s", "/sse/service")   // or as long
		f("GET", "/sse/stream/c", "push /sse/stream")
		f("POST", "/sse/stream/c", "/sse/stream")
		f("GET", "/sse/users", "/sse")
		f("GET", "/sse", "/sse") // an MCP server's, say
		f("POST", "/sse/ack", "push /sse/ack")
		f("GET", "/api/sse/connect/1", "push /api/sse/connect")
		f("POST", "/api/sse/send", "/")
		f("POST", "/api/v1/messages/send", "/")
		// A reload leaves them.
		p.SetTable(NewTable([]*Route{route("/"), route("/sse/user/vip"), route("/sse/service"), route("/sse/stream", "POST"), route("/sse")}))
	}
	p.SetPush(&PushConfig{API: p.LimitPrincipals(nil, nil)})
	f("POST", "/api/sse/send", "push /api/sse/send")
	f("POST", "/api/v1/messages/send", "push /api/v1/messages")
	f("GET", "/api/v1/other", "/")
	p.SetPush(nil)
	f("GET", "/sse/user/1", "/sse")
	if r := p.table.Load().Named("push /sse/user"); r != nil {
		t.Error("a path of ours is found as a configured route")
	}
}

package proxy

import (
	"strings"
	"testing"
)

// Whatever is wrong with a subscription is a 4xx that says what, and never
// falls through to a backend.
func TestSubscribeRefusals(t *testing.T) {
	w := newPushWorld(t, []string{teller(t)}, withAuth(t))
	alice := bearerOf("alice", "channel/news", "channel/room.*")
	f := func(method, path string, status int, want, names string, header ...string) {
		t.Helper()
		resp, body := w.ask(method, path, append(header, "Accept", "text/event-stream")...)
		if resp.StatusCode != status || method != "HEAD" && (reason(body) != want || !strings.Contains(body, names)) {
			t.Errorf("%s %s: %d %s, want %d %s naming %q", method, path, resp.StatusCode, body, status, want, names)
		}
	}
	f("GET", "/sse/user/alice", 401, "unauthorized", "token")
	f("GET", "/sse/user/alice", 401, "unauthorized", "JWT", "Authorization", "Bearer x")
	f("HEAD", "/sse/user/alice", 401, "", "")
	f("GET", "/sse/user/bob", 403, "forbidden", "user/bob", "Authorization", alice)
	f("GET", "/api/sse/connect/bob", 403, "forbidden", "user/bob", "Authorization", alice)
	f("GET", "/sse/service/s", 403, "forbidden", "service/s", "Authorization", alice)
	f("GET", "/sse/stream/news,other", 403, "forbidden", "channel/other", "Authorization", alice)
	f("GET", "/sse/stream/*", 400, "bad_channel", "channel", "Authorization", alice)
	f("GET", "/sse/user/", 400, "bad_user_id", "user_id", "Authorization", alice)
	f("GET", "/sse/user", 400, "bad_user_id", "user_id", "Authorization", alice)
	f("GET", "/sse/user/a/b", 400, "bad_user_id", "user_id", "Authorization", alice)
	f("GET", "/sse/user/alice?last=x", 400, "bad_last", "last", "Authorization", alice)
	f("GET", "/sse/user/alice?since=x", 400, "bad_since", "since", "Authorization", alice)
	f("GET", "/sse/user/alice?session_id=a%0ab", 400, "bad_session_id", "session_id", "Authorization", alice)
	f("GET", "/sse/user/alice", 400, "bad_body", "body", "Authorization", alice, "", "a body")
	f("POST", "/sse/user/alice", 405, "method_not_allowed", "GET", "Authorization", alice, "", "{}")
	f("DELETE", "/sse/stream/news", 405, "method_not_allowed", "GET", "Authorization", alice)
	f("GET", "/sse/ack", 405, "method_not_allowed", "POST", "Authorization", alice)
	f("POST", "/sse/ack/x", 404, "no_route", "/sse/ack", "Authorization", alice)
	f("HEAD", "/sse/user/alice", 200, "", "", "Authorization", alice)
	if resp, body := w.ask("HEAD", "/sse/user/alice", "Authorization", alice); resp.Header.Get("Content-Type") != "text/event-stream" || body != "" {
		t.Errorf("HEAD: %v %q", resp.Header, body)
	}
	if resp, body := w.ask("GET", "/sse/other", "Authorization", alice); resp.StatusCode != 200 || !strings.HasPrefix(body, "GET /sse/other") {
		t.Errorf("a path beside ours: %d %s", resp.StatusCode, body)
	}
}

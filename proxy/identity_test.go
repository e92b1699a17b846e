package proxy

import (
	"io"
	"net/http"
	"net/url"
	"strings"
	"testing"
	"time"

	"ssegate/auth"
	"ssegate/registry"
)

// teller answers with the request line and what tells who asks.
func teller(t *testing.T) string {
	return handler(t, func(w http.ResponseWriter, r *http.Request) {
		io.WriteString(w, r.Method+" "+r.RequestURI+" auth="+r.Header.Get("Authorization"))
	})
}

// A route that asks lets nobody through who cannot say who it is, and takes
// its own tokens out of what goes upstream.
func TestRouteRequiresAuth(t *testing.T) {
	w := newPushWorld(t, []string{teller(t)}, func(c *Config, _ *PushConfig, r *Route) {
		c.Auth = testAuth(t, nil)
		r.RequireAuth = true
	})
	good := token("alice", time.Now().Add(time.Hour))
	old := token("alice", time.Now().Add(-time.Hour))
	f := func(path string, want int, has string, header ...string) {
		t.Helper()
		resp, body := w.ask("GET", path, header...)
		if resp.StatusCode != want || !strings.Contains(body, has) {
			t.Errorf("%s %q: %d %s, want %d %s", path, header, resp.StatusCode, body, want, has)
		}
		if want == 401 && !strings.HasPrefix(resp.Header.Get("WWW-Authenticate"), "Bearer") {
			t.Errorf("%s: 401 without a challenge", path)
		}
	}
	f("/x?a=1", 401, "unauthorized")
	f("/x", 401, "expired", "Authorization", "Bearer "+old)
	f("/x", 401, "unauthorized", "Authorization", "Bearer nonsense")
	f("/x", 401, "unauthorized", "Accept", "text/event-stream") // EventSource, too: its page must hear of it
	f("/x?a=1", 200, "GET /x?a=1 auth=Bearer "+good, "Authorization", "Bearer "+good)
	f("/x?a=1&access_token="+good+"&b=%20", 200, "GET /x?a=1&b=%20 auth=")
	f("/x?%61ccess_token="+good, 200, "GET /x auth=")
	f("/x", 200, "GET /x", "Cookie", "other=1; sg="+good)
	f("/x", 200, "GET /x", "X-Api-Key", "key-1")
	if resp, body := w.ask("OPTIONS", "/x", "Origin", "https://a", "Access-Control-Request-Method", "POST"); resp.StatusCode != 200 || !strings.HasPrefix(body, "OPTIONS /x") {
		t.Errorf("a preflight, which never bears a token, did not reach the backend: %d %s", resp.StatusCode, body)
	}
}

// Where nobody could say who it is, a route that asks lets nobody through.
func TestRouteRequiresAuthWhereThereIsNone(t *testing.T) {
	w := newPushWorld(t, []string{teller(t)}, func(_ *Config, _ *PushConfig, r *Route) { r.RequireAuth = true })
	for _, header := range []string{"", bearerOf("alice")} {
		if resp, body := w.ask("GET", "/x", "Authorization", header); resp.StatusCode != 401 || reason(body) != "unauthorized" {
			t.Errorf("%q: %d %s", header, resp.StatusCode, body)
		}
	}
}

// A ticket lets one request pass, to a route that asks as well; whatever it is
// answered, it is used up then. A preflight bears none.
func TestTicketIsForOneRequest(t *testing.T) {
	tickets := testAuth(t, registry.NewMemory(nil))
	w := newPushWorld(t, []string{teller(t)}, func(c *Config, _ *PushConfig, r *Route) {
		c.Auth = tickets
		r.RequireAuth = true
	})
	for path, want := range map[string]int{
		"GET /x?a=1": 200, "POST /x": 200, "HEAD /x": 200, "GET /sse/user/bob": 403, "HEAD /sse/user/alice": 200, "GET /sse/user/alice/x": 400,
	} {
		ticket, err := tickets.Issue(t.Context(), &auth.Identity{Subject: "alice"}, time.Minute)
		if err != nil {
			t.Fatal(err)
		}
		method, path, _ := strings.Cut(path, " ")
		query := strings.Replace(path+"?ticket="+ticket, "?a=1?", "?a=1&", 1)
		for range 3 {
			if resp, body := w.ask("OPTIONS", query, "Origin", "https://a", "Access-Control-Request-Method", method); resp.StatusCode/100 != 2 {
				t.Errorf("preflight of %s %s: %d %s", method, path, resp.StatusCode, body)
			}
		}
		if resp, body := w.ask(method, query); resp.StatusCode != want || strings.Contains(body, ticket) {
			t.Errorf("%s %s: %d %s, want %d", method, path, resp.StatusCode, body, want)
		}
		if resp, body := w.ask(method, query); resp.StatusCode != 401 {
			t.Errorf("%s %s once more: %d %s", method, path, resp.StatusCode, body)
		}
	}
}

// A connection ends with its token where ssegate itself asked for one, and can
// be had again by asking once more.
func TestWhoseTimeEndsWithTheToken(t *testing.T) {
	exp := time.Now().Add(time.Hour)
	for what, c := range map[string]struct {
		route  Route
		method string
		ends   bool
	}{
		"a topic":                    {Route{serve: followUser}, "GET", true},
		"a route that asks":          {Route{RequireAuth: true}, "GET", true},
		"a POST to it, let finish":   {Route{RequireAuth: true}, "POST", false},
		"where the service judges":   {Route{}, "GET", false},
		"where it judges, of a POST": {Route{}, "POST", false},
	} {
		x := &exchange{route: &c.route, method: c.method, identity: &auth.Identity{Subject: "alice", Expires: exp}}
		if at, why := until(x, true); at.Equal(exp) != c.ends || at.IsZero() == c.ends || (why == ReasonExpired) != c.ends {
			t.Errorf("%s: %v %q", what, at, why)
		}
	}
}

// Elsewhere a token of ours says whose the stream is, and goes no further; what
// is not ours is the backend's, untouched.
func TestRoutePassesAuth(t *testing.T) {
	w := newPushWorld(t, []string{teller(t)}, func(c *Config, _ *PushConfig, r *Route) { c.Auth = testAuth(t, nil) })
	good := token("alice", time.Now().Add(time.Hour))
	old := token("alice", time.Now().Add(-time.Hour))
	f := func(path, want string, header ...string) {
		t.Helper()
		if resp, body := w.ask("GET", path, header...); resp.StatusCode != 200 || body != want {
			t.Errorf("%s %q: %d %s, want %s", path, header, resp.StatusCode, body, want)
		}
	}
	f("/x", "GET /x auth=")
	f("/x", "GET /x auth=Bearer sk-of-the-backend", "Authorization", "Bearer sk-of-the-backend")
	f("/x?access_token=theirs&ticket=7", "GET /x?access_token=theirs&ticket=7 auth=")
	f("/x?access_token="+old, "GET /x?access_token="+old+" auth=")
	f("/x?access_token="+good, "GET /x auth=")
	f("/x?q=1&access_token="+good+"&ticket=7", "GET /x?q=1&ticket=7 auth=")
	f("/x?access_token="+good, "GET /x auth=Basic abc=", "Authorization", "Basic abc=")
}

// A stream is its subject's, whatever token that one comes back with; nobody
// else's, though the id be known.
func TestSubjectOwnsStream(t *testing.T) {
	release := make(chan struct{})
	backend := handler(t, func(w http.ResponseWriter, r *http.Request) {
		w.Header().Set("Content-Type", "text/event-stream")
		io.WriteString(w, "data: 1\n\n")
		w.(http.Flusher).Flush()
		select {
		case <-release:
		case <-r.Context().Done():
		}
		io.WriteString(w, "data: 2\n\ndata: [DONE]\n\n")
	})
	w := newPushWorld(t, []string{backend}, func(c *Config, _ *PushConfig, r *Route) {
		c.Auth = testAuth(t, nil)
		r.LogLength, r.LogTTL, r.DetachFor, r.Done, r.WriteTimeout, r.EventSize = 100, time.Minute, patience, []string{"[DONE]"}, patience, 1<<20
	})
	first := w.follow("/s", "Authorization", bearerOf("alice", "channel/a"))
	first.expect("message: 1")
	first.close()
	resp, body := w.ask("GET", "/s", "Authorization", bearerOf("bob"), "Last-Event-ID", first.lastID)
	if resp.StatusCode != 403 || reason(body) != "not_yours" {
		t.Errorf("somebody else: %d %s", resp.StatusCode, body)
	}
	// Another token of hers, in another place.
	again := w.follow("/s?access_token="+url.QueryEscape(token("alice", time.Now().Add(2*time.Hour))), "Last-Event-ID", first.lastID)
	close(release)
	again.expect("message: 2", "message: [DONE]")
}

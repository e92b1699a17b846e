package e2e

import (
	"crypto"
	"crypto/hmac"
	"crypto/rand"
	"crypto/rsa"
	"crypto/sha256"
	"encoding/base64"
	"encoding/json"
	"fmt"
	"io"
	"math/big"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync"
	"testing"
	"time"

	. "ssegate/internal/gatetest"
	"ssegate/internal/gatetest/service"
)

const (
	tokenSecret = "the secret that tokens are signed with"
	serviceKey  = "the-key-of-the-backend"
	guestKey    = "the-key-of-another-one"
)

// issuer makes tokens and serves the keys that it signs them with.
type issuer struct {
	URL  string
	mu   sync.Mutex
	keys map[string]*rsa.PrivateKey // that it shows
}

func newIssuer(t *testing.T) *issuer {
	i := &issuer{keys: map[string]*rsa.PrivateKey{}}
	s := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		i.mu.Lock()
		defer i.mu.Unlock()
		var list []map[string]string
		for kid, k := range i.keys {
			list = append(list, map[string]string{"kty": "RSA", "use": "sig", "alg": "RS256", "kid": kid,
				"n": b64(k.N.Bytes()), "e": b64(big.NewInt(int64(k.E)).Bytes())})
		}
		json.NewEncoder(w).Encode(map[string]any{"keys": list})
	}))
	t.Cleanup(s.Close)
	i.URL = s.URL + "/jwks.json"
	return i
}

// show replaces the keys that it shows.
func (i *issuer) show(keys map[string]*rsa.PrivateKey) {
	i.mu.Lock()
	defer i.mu.Unlock()
	i.keys = keys
}

func b64(b []byte) string { return base64.RawURLEncoding.EncodeToString(b) }

type claims map[string]any

// claimsOf are good ones.
func claimsOf(sub string, more ...any) claims {
	c := claims{"sub": sub, "aud": "ssegate", "exp": time.Now().Add(time.Hour).Unix()}
	for i := 0; i+1 < len(more); i += 2 {
		if c[more[i].(string)] = more[i+1]; more[i+1] == nil {
			delete(c, more[i].(string))
		}
	}
	return c
}

func signed(header, payload any, sign func(in []byte) []byte) string {
	h, _ := json.Marshal(header)
	p, _ := json.Marshal(payload)
	in := b64(h) + "." + b64(p)
	return in + "." + b64(sign([]byte(in)))
}

func hs256(secret string, c claims) string {
	return signed(claims{"alg": "HS256", "typ": "JWT"}, c, macOf(secret))
}

func macOf(secret string) func([]byte) []byte {
	return func(in []byte) []byte {
		m := hmac.New(sha256.New, []byte(secret))
		m.Write(in)
		return m.Sum(nil)
	}
}

func rs256(t *testing.T, kid string, key *rsa.PrivateKey, c claims) string {
	return signed(claims{"alg": "RS256", "kid": kid}, c, func(in []byte) []byte {
		sum := sha256.Sum256(in)
		sig, err := rsa.SignPKCS1v15(rand.Reader, key, crypto.SHA256, sum[:])
		if err != nil {
			t.Error(err)
		}
		return sig
	})
}

func newKey(t *testing.T) *rsa.PrivateKey {
	k, err := rsa.GenerateKey(rand.Reader, 2048)
	if err != nil {
		t.Fatal(err)
	}
	return k
}

// Who follows and publishes has to say who it is, and may do no more than it
// may, on all nodes; and what it says so with is not told to anybody.
func TestPushAuth(t *testing.T) {
	idp := newIssuer(t)
	k1, k2 := newKey(t), newKey(t)
	idp.show(map[string]*rsa.PrivateKey{"k1": k1})
	w := &world{redis: service.Redis(t), backend: NewBackend(t)}
	a, b := w.pair(t, fmt.Sprintf(`auth = "require"
[push]
payload = "data"
public = true
[auth]
secret = %q
jwks = %q
jwks_refresh = "1s"
audiences = ["ssegate"]
cookie = "session"
[[auth.key]]
name = "backend"
key = %q
publish = ["*"]
admin = true
[[auth.key]]
name = "guest"
key = %q
publish = ["channel/public.*"]
[cors]
origins = ["https://app.example", "https://*.sub.example"]
credentials = true
max_age = "1h"
[log]
level = "debug"
`, tokenSecret, idp.URL, serviceKey, guestKey))
	x := &asker{t: t}
	secrets := []string{tokenSecret, serviceKey, guestKey}
	secret := func(s string) string {
		if len(s) > 20 {
			secrets = append(secrets, s)
		}
		return s
	}
	good := secret(hs256(tokenSecret, claimsOf("alice", "ssegate", claims{"follow": []string{"channel/room.*"}, "publish": []string{"user/bob"}})))

	t.Run("forged", func(t *testing.T) {
		parts := strings.Split(good, ".")
		pub := base64.StdEncoding.EncodeToString(k1.N.Bytes())
		for what, token := range map[string]string{
			"expired":             hs256(tokenSecret, claimsOf("alice", "exp", time.Now().Add(-time.Minute).Unix())),
			"not yet valid":       hs256(tokenSecret, claimsOf("alice", "nbf", time.Now().Add(time.Hour).Unix())),
			"without exp":         hs256(tokenSecret, claimsOf("alice", "exp", nil)),
			"without sub":         hs256(tokenSecret, claimsOf("alice", "sub", nil)),
			"exp as a text":       hs256(tokenSecret, claimsOf("alice", "exp", "never")),
			"another audience":    hs256(tokenSecret, claimsOf("alice", "aud", "mail")),
			"another secret":      hs256(tokenSecret+"!", claimsOf("alice")),
			"alg none":            signed(claims{"alg": "none"}, claimsOf("alice"), func([]byte) []byte { return nil }),
			"alg None, signed":    signed(claims{"alg": "None"}, claimsOf("alice"), macOf(tokenSecret)),
			"alg HS512":           signed(claims{"alg": "HS512"}, claimsOf("alice"), macOf(tokenSecret)),
			"public key as HMAC":  signed(claims{"alg": "HS256", "kid": "k1"}, claimsOf("alice"), macOf(pub)),
			"key of its own":      signed(claims{"alg": "HS256", "jwk": claims{"kty": "oct", "k": b64([]byte("x"))}}, claimsOf("alice"), macOf("x")),
			"RS256 by another":    rs256(t, "k1", k2, claimsOf("alice")),
			"RS256, unknown kid":  rs256(t, "k9", k2, claimsOf("alice")),
			"other claims":        parts[0] + "." + b64([]byte(`{"sub":"bob","aud":"ssegate","exp":99999999999}`)) + "." + parts[2],
			"cut":                 good[:len(good)-5],
			"without a signature": parts[0] + "." + parts[1] + ".",
			"no token":            "nonsense",
			"wrong claim":         hs256(tokenSecret, claimsOf("alice", "ssegate", claims{"follow": "everything"})),
			"pattern":             hs256(tokenSecret, claimsOf("alice", "ssegate", claims{"follow": []string{"*/*"}})),
		} {
			secret(token)
			n := a
			for _, way := range []call{
				{url: n.URL + "/sse/user/alice", bearer: token},
				{url: n.URL + "/sse/user/alice?access_token=" + token},
				{url: n.URL + "/sse/user/alice", cookie: token},
				{url: n.URL + "/sse/stream/room.1", bearer: token},
				{method: "POST", url: n.URL + "/api/v1/messages/send", bearer: token, body: `{"target":{"user_id":"bob"}}`},
				{method: "POST", url: n.Internal + "/api/v1/messages/send", bearer: token, body: `{"target":{"user_id":"bob"}}`},
				{url: n.Internal + "/api/v1/connections", bearer: token},
				{method: "POST", url: n.URL + "/sse/ack", bearer: token, body: `{"id":"x"}`},
				{url: n.URL + "/json", bearer: token},
			} {
				if status, body, h := x.ask(way); status != 401 || !strings.Contains(body, `"unauthorized"`) || !strings.HasPrefix(h.Get("Www-Authenticate"), "Bearer") {
					t.Errorf("%s, %s %s: %d %s %q", what, way.method, way.url[:40], status, body, h.Get("Www-Authenticate"))
				}
			}
		}
		if n := w.backend.Runs("/json"); n > 0 {
			t.Errorf("the backend was asked %d times", n)
		}
	})

	t.Run("may", func(t *testing.T) {
		room := `{"target":{"user_id":"bob"},"data":1}`
		for what, c := range map[string]struct {
			call
			want int
		}{
			"own user":                  {call{url: "/sse/user/alice", bearer: good}, 200},
			"by cookie":                 {call{url: "/sse/user/alice", cookie: good}, 200},
			"the seed's address":        {call{url: "/api/sse/connect/alice", bearer: good}, 200},
			"foreign user":              {call{url: "/sse/user/bob", bearer: good}, 403},
			"foreign, escaped":          {call{url: "/sse/user/%62ob", bearer: good}, 403},
			"foreign by seed's":         {call{url: "/api/sse/connect/bob", bearer: good}, 403},
			"a room":                    {call{url: "/sse/stream/room.1,room.2", bearer: good}, 200},
			"a room and more":           {call{url: "/sse/stream/room.1,other", bearer: good}, 403},
			"a user as a channel":       {call{url: "/sse/stream/user%2Fbob", bearer: good}, 400},
			"a pattern as a name":       {call{url: "/sse/stream/room.*", bearer: good}, 400},
			"service":                   {call{url: "/sse/service/billing", bearer: good}, 403},
			"publish":                   {call{method: "POST", url: "/api/v1/messages/send", bearer: good, body: room}, 200},
			"publish elsewhere":         {call{method: "POST", url: "/api/v1/messages/send", bearer: good, body: `{"target":{"user_id":"alice"}}`}, 403},
			"to everybody":              {call{method: "POST", url: "/api/v1/messages/broadcast", bearer: good, body: `{"data":1}`}, 403},
			"a stream elsewhere":        {call{method: "POST", url: "/api/v1/streams/user/bob?to=user/eve", bearer: good, body: "x"}, 403},
			"the list":                  {call{url: "/api/v1/connections", bearer: good}, 403},
			"the list, by key":          {call{url: "/api/v1/connections", key: serviceKey}, 200},
			"a disconnect":              {call{method: "DELETE", url: "/api/v1/connections/x", bearer: good}, 403},
			"key":                       {call{method: "POST", url: "/api/v1/messages/send", key: guestKey, body: `{"target":{"channel":"public.1"}}`}, 200},
			"key elsewhere":             {call{method: "POST", url: "/api/v1/messages/send", key: guestKey, body: room}, 403},
			"key as bearer":             {call{method: "POST", url: "/api/v1/messages/send", bearer: guestKey, body: `{"target":{"channel":"public.1"}}`}, 200},
			"wrong key":                 {call{method: "POST", url: "/api/v1/messages/send", key: guestKey[1:], body: room}, 401},
			"cookie, page of another":   {call{method: "POST", url: "/api/v1/messages/send", cookie: good, body: room, origin: "https://evil.example"}, 403},
			"cookie, page that may":     {call{method: "POST", url: "/api/v1/messages/send", cookie: good, body: room, origin: "https://app.example"}, 200},
			"nobody":                    {call{url: "/sse/user/alice"}, 401},
			"status of a stranger":      {call{url: "/api/sse/status/eve", bearer: good}, 403},
			"backend, token in query":   {call{url: "/json?x=1&access_token=" + good + "&y=2"}, 200},
			"backend, key of a service": {call{url: "/json", key: serviceKey}, 200},
		} {
			for _, n := range []*Node{a, b} {
				r := c.call
				r.url = n.URL + r.url
				if status, body, _ := x.ask(r); status != c.want {
					t.Errorf("%s: %d %s, want %d", what, status, body, c.want)
				}
				if strings.HasPrefix(what, "backend, token") {
					if q := w.backend.Last().URL.RawQuery; q != "x=1&y=2" {
						t.Errorf("the backend was asked with the query %q", q)
					}
				}
			}
		}
	})

	t.Run("rotation", func(t *testing.T) {
		one, two := secret(rs256(t, "k1", k1, claimsOf("carol"))), secret(rs256(t, "k2", k2, claimsOf("carol")))
		status := func(n *Node, token string) int {
			s, _, _ := x.ask(call{url: n.URL + "/sse/user/carol", bearer: token})
			return s
		}
		for _, n := range []*Node{a, b} {
			if got := status(n, one); got != 200 {
				t.Fatalf("the first key's token: %d", got)
			}
			if got := status(n, two); got != 401 {
				t.Fatalf("the second key's token before its time: %d", got)
			}
		}
		idp.show(map[string]*rsa.PrivateKey{"k1": k1, "k2": k2})
		for _, n := range []*Node{a, b} {
			Eventually(t, "the second key is known", func() bool { return status(n, two) == 200 })
			if got := status(n, one); got != 200 {
				t.Errorf("the first key's token: %d", got)
			}
		}
		idp.show(map[string]*rsa.PrivateKey{"k2": k2})
		for _, n := range []*Node{a, b} {
			Eventually(t, "the first key is no longer good", func() bool { return status(n, one) == 401 })
			if got := status(n, two); got != 200 {
				t.Errorf("the second key's token: %d", got)
			}
		}
		idp.show(nil) // who shows nothing is out of order, and takes no key back
		Eventually(t, "it is asked", func() bool { return a.Logged("key set") && b.Logged("key set") })
		for _, n := range []*Node{a, b} {
			if got := status(n, two); got != 200 {
				t.Errorf("while the issuer is out of order: %d", got)
			}
		}
	})

	t.Run("end of a token", func(t *testing.T) {
		exp := time.Now().Add(2 * time.Second).Truncate(time.Second).Add(time.Second)
		short := secret(hs256(tokenSecret, claimsOf("dave", "exp", exp.Unix())))
		s := EventSource(t, a.URL+"/sse/user/dave?access_token="+short, "")
		others := EventSource(t, a.URL+"/sse/user/alice?access_token="+good, "")
		if status, body, _ := x.ask(call{method: "POST", url: b.Internal + "/api/v1/messages/send", key: serviceKey, body: `{"target":{"user_id":"dave"},"data":1}`}); status != 200 {
			t.Fatalf("%d %s", status, body)
		}
		s.Take(1)
		got, clean := s.Rest()
		late := time.Since(exp)
		if len(got) > 0 || clean || late < 0 || late > 2*time.Second {
			t.Errorf("the stream ended %v after its token, clean %v, with %q", late, clean, Data(got))
		}
		for _, n := range []*Node{a, b} {
			again := EventSource(t, n.URL+"/sse/user/dave?access_token="+short, s.LastID)
			if again.Resp.StatusCode != 401 {
				t.Errorf("who comes back with it is answered %d", again.Resp.StatusCode)
			}
		}
		x.ask(call{method: "POST", url: b.Internal + "/api/v1/messages/send", key: serviceKey, body: `{"target":{"user_id":"alice"},"data":"still there"}`})
		want(t, others.Take(1), []string{`"still there"`})
	})

	t.Run("tickets", func(t *testing.T) {
		issue := func(r call) string {
			r.method = "POST"
			status, body, _ := x.ask(r)
			var out struct{ Ticket string }
			if err := json.Unmarshal([]byte(body), &out); err != nil || status != 200 {
				t.Fatalf("%d %s", status, body)
			}
			return secret(out.Ticket)
		}
		for round := range 5 { // of many who come at once, on two nodes, one is let in
			ticket := issue(call{url: []*Node{a, b}[round%2].URL + "/api/v1/tickets", bearer: good})
			if round > 2 { // a service asks for somebody else's
				ticket = issue(call{url: a.Internal + "/api/v1/tickets", key: serviceKey, body: `{"user_id":"alice"}`})
			}
			var wg sync.WaitGroup
			var mu sync.Mutex
			got := map[int]int{}
			for i := range 8 {
				wg.Go(func() {
					status, _, _ := x.ask(call{url: []*Node{a, b}[i%2].URL + "/sse/user/alice?ticket=" + ticket})
					mu.Lock()
					got[status]++
					mu.Unlock()
				})
			}
			wg.Wait()
			if got[200] != 1 || got[401] != 7 {
				t.Errorf("a ticket was good %v times", got)
			}
		}
		ticket := issue(call{url: a.URL + "/api/v1/tickets", bearer: good})
		if status, body, _ := x.ask(call{method: "POST", url: a.URL + "/api/v1/messages/send?ticket=" + ticket, body: `{"target":{"user_id":"bob"}}`}); status != 403 {
			t.Errorf("to publish with a ticket: %d %s", status, body)
		}
		ticket = issue(call{url: a.URL + "/api/v1/tickets", bearer: good})
		if status, _, _ := x.ask(call{url: b.URL + "/sse/user/bob?ticket=" + ticket}); status != 403 {
			t.Errorf("to follow another with a ticket: %d", status)
		}
		ticket = issue(call{url: a.Internal + "/api/v1/tickets", key: serviceKey, body: `{"user_id":"alice","ttl":30}`})
		if status, body, _ := x.ask(call{method: "POST", url: b.URL + "/api/v1/tickets?ticket=" + ticket, body: `{"ttl":3600}`}); status != 403 {
			t.Errorf("a ticket for a ticket: %d %s", status, body)
		}
		ticket = issue(call{url: a.URL + "/api/v1/tickets", bearer: good})
		for i, want := range []int{200, 401} { // a route that asks takes one, once
			status, body, _ := x.ask(call{url: []*Node{a, b}[i].URL + "/json?x=1&ticket=" + ticket})
			if status != want || w.backend.Last().URL.RawQuery != "x=1" {
				t.Errorf("a backend's answer for a ticket: %d %s, want %d", status, body, want)
			}
		}
		for what, r := range map[string]call{
			"of another": {url: a.URL + "/api/v1/tickets", bearer: good, body: `{"user_id":"eve"}`},
			"for ever":   {url: a.URL + "/api/v1/tickets", bearer: good, body: `{"ttl":1e9}`},
		} {
			r.method = "POST"
			if status, body, _ := x.ask(r); status != 403 && status != 400 {
				t.Errorf("a ticket %s: %d %s", what, status, body)
			}
		}
	})

	t.Run("cors", func(t *testing.T) {
		for _, path := range []string{"/sse/user/alice", "/sse/stream/x", "/api/sse/connect/alice", "/sse/ack", "/api/v1/messages/send", "/api/v1/connections/x"} {
			for origin, may := range map[string]bool{
				"https://app.example": true, "https://a.sub.example": true, "http://app.example": false, "https://sub.example.evil.example": false,
				"https://xsub.example": false, "null": false, "https://app.example:444": false,
			} {
				_, _, h := x.ask(call{method: "OPTIONS", url: b.URL + path, origin: origin, asks: "POST"})
				if !strings.Contains(h.Get("Vary"), "Origin") {
					t.Errorf("%s: Vary is %q", path, h.Get("Vary"))
				}
				allowed := h.Get("Access-Control-Allow-Origin")
				if !may {
					if allowed != "" || h.Get("Access-Control-Allow-Credentials") != "" {
						t.Errorf("%s: %s is let in: %v", path, origin, h)
					}
					continue
				}
				if allowed != origin || h.Get("Access-Control-Allow-Credentials") != "true" || h.Get("Access-Control-Max-Age") != "3600" ||
					!strings.Contains(h.Get("Access-Control-Allow-Headers"), "Last-Event-ID") || h.Get("Access-Control-Allow-Methods") == "" {
					t.Errorf("%s: %s is answered %v", path, origin, h)
				}
			}
		}
		// Also what is refused can be read by the page.
		for _, r := range []call{{url: a.URL + "/sse/user/alice", origin: "https://app.example"}, {url: a.URL + "/sse/user/alice", bearer: good, origin: "https://app.example"}} {
			if _, _, h := x.ask(r); h.Get("Access-Control-Allow-Origin") != "https://app.example" || !strings.Contains(h.Get("Access-Control-Expose-Headers"), "Ssegate-Connection") {
				t.Errorf("%v", h)
			}
		}
	})

	for _, n := range []*Node{a, b} {
		log := n.Log()
		for _, s := range secrets {
			if strings.Contains(log, s) {
				t.Errorf("%.30s… stands in the log of %s", s, n.Name)
			}
		}
	}
	for _, key := range w.allKeys(t) {
		for _, s := range secrets {
			if strings.Contains(key, s) {
				t.Errorf("%.30s… stands in Redis as %s", s, key)
			}
		}
	}
}

// call is what somebody asks, and what it shows to say who it is.
type call struct {
	method, url, body                 string
	bearer, key, cookie, origin, asks string
}

// asker sends requests. It may be used by several goroutines.
type asker struct{ t *testing.T }

// ask returns the answer; a stream is left once its head is there.
func (x *asker) ask(r call) (status int, body string, h http.Header) {
	x.t.Helper()
	q := Request{Method: r.method, URL: r.url, Body: r.body, Header: map[string]string{}}
	for name, value := range map[string]string{
		"X-Api-Key": r.key, "Origin": r.origin, "Access-Control-Request-Method": r.asks,
	} {
		if value != "" {
			q.Header[name] = value
		}
	}
	if r.bearer != "" {
		q.Header["Authorization"] = "Bearer " + r.bearer
	}
	if r.cookie != "" {
		q.Header["Cookie"] = "a=b; session=" + r.cookie
	}
	if r.body != "" {
		q.Header["Content-Type"] = "application/json"
		if strings.Contains(r.url, "/streams/") {
			q.Header["Content-Type"] = "text/event-stream"
		}
	}
	s, err := Try(x.t, q)
	if err != nil {
		x.t.Errorf("%s %s: %v", r.method, r.url, err)
		return 0, "", http.Header{}
	}
	defer s.Close()
	if s.Resp.Header.Get("Ssegate-Connection") != "" {
		return s.Resp.StatusCode, "", s.Resp.Header
	}
	text, err := io.ReadAll(s.Resp.Body)
	if err != nil {
		x.t.Errorf("%s %s: %v", r.method, r.url, err)
	}
	return s.Resp.StatusCode, string(text), s.Resp.Header
}

// Whether there is an [auth] takes a restart. Until then what needs it is shut
// where the file has it now and the node has none, and nobody is let in where
// the node has it and the file has no keys any more.
func TestAuthComesAndGoesByReload(t *testing.T) {
	b := NewBackend(t)
	x := &asker{t: t}
	open := config(b.URL, "[push]\n")
	shut := config(b.URL, fmt.Sprintf(`auth = "require"
[push]
public = true
[auth]
secret = %q
[[auth.key]]
name = "backend"
key = %q
publish = ["*"]
`, tokenSecret, serviceKey))
	token := hs256(tokenSecret, claimsOf("alice"))
	message := `{"target":{"user_id":"alice"},"data":1}`
	f := func(n *Node, what string, r call, want int) {
		t.Helper()
		if status, body, _ := x.ask(r); status != want {
			t.Errorf("%s, %s: %d %s, want %d", n.Name, what, status, body, want)
		}
	}

	n := Start(t, bin, "comes", open)
	f(n, "public API before", call{method: "POST", url: n.URL + "/api/v1/messages/send", body: message}, 404)
	f(n, "a route before", call{url: n.URL + "/json"}, 200)
	n.Configure(shut)
	n.Signal(hup)
	n.Await(`"msg":"reloaded"`, `,"auth"]`)
	for what, key := range map[string]string{"nobody": "", "a service": serviceKey} {
		f(n, "public API, which is the backend's still, "+what, call{method: "POST", url: n.URL + "/api/v1/messages/send", key: key, body: message}, 401)
		f(n, "a route that asks, "+what, call{url: n.URL + "/json", key: key}, 401)
	}
	f(n, "internal API", call{method: "POST", url: n.Internal + "/api/v1/messages/send", body: message}, 200)

	n = Start(t, bin, "goes", shut)
	f(n, "public API before", call{method: "POST", url: n.URL + "/api/v1/messages/send", key: serviceKey, body: message}, 200)
	f(n, "a topic before", call{url: n.URL + "/sse/user/alice", bearer: token}, 200)
	n.Configure(open)
	n.Signal(hup)
	n.Await(`"msg":"reloaded"`, `,"auth"]`)
	for what, r := range map[string]call{"nobody": {}, "a service": {key: serviceKey}, "a user": {bearer: token}} {
		r.url = n.URL + "/sse/user/alice"
		f(n, "a topic, "+what, r, 401)
		r.method, r.url, r.body = "POST", n.Internal+"/api/v1/messages/send", message
		f(n, "internal API, "+what, r, 401)
		r.url = n.URL + "/api/v1/messages/send"
		f(n, "public API, "+what, r, 404)
	}
	n.Configure(shut)
	n.Signal(hup)
	n.Await(`"msg":"reloaded"`, `"needs_restart":[]`)
	f(n, "a topic again", call{url: n.URL + "/sse/user/alice", bearer: token}, 200)
	f(n, "public API again", call{method: "POST", url: n.URL + "/api/v1/messages/send", key: serviceKey, body: message}, 200)
}

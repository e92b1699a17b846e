package auth

import (
	"bytes"
	"context"
	"crypto"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/rsa"
	"crypto/x509"
	"errors"
	"io"
	"log"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"
)

// issuer is a real server of keys that can be told to misbehave.
type issuer struct {
	*httptest.Server
	answer atomic.Pointer[http.HandlerFunc]
	asked  atomic.Int32
}

func newIssuer(t *testing.T, keys ...object) *issuer {
	t.Helper()
	i := new(issuer)
	i.say(set(keys...))
	i.Server = httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		i.asked.Add(1)
		(*i.answer.Load())(w, r)
	}))
	t.Cleanup(i.Close)
	return i
}

func (i *issuer) do(h http.HandlerFunc) { i.answer.Store(&h) }
func (i *issuer) say(text []byte) {
	i.do(func(w http.ResponseWriter, _ *http.Request) { w.Write(text) })
}

// rested lets the next unknown kid ask again.
func rested(a *Authenticator) {
	s := a.now().jwks
	s.mu.Lock()
	s.last = time.Time{}
	s.mu.Unlock()
}

func TestKeySetOfEveryKind(t *testing.T) {
	is := newIssuer(t,
		jwk("r", &rsaKey.PublicKey, object{"use": "sig"}), jwk("e2", &ec256.PublicKey, object{"alg": "ES256"}), jwk("e3", &ec384.PublicKey, nil),
		jwk("e5", &ec521.PublicKey, nil), jwk("d", edKey.Public(), object{"alg": "EdDSA"}), jwk("ps", &otherRSA.PublicKey, object{"alg": "PS256"}),
		// None of these is a key for us.
		jwk("secret", secret, nil), jwk("enc", &rsaKey.PublicKey, object{"use": "enc"}), object{"kty": "XYZ", "kid": "new"}, object{},
		jwk("odd", &ec256.PublicKey, object{"alg": "ES384"}), jwk("short", &rsa.PublicKey{N: must(rand.Prime(rand.Reader, 1024)), E: 65537}, nil),
		jwk("off", &ec256.PublicKey, object{"x": b64(make([]byte, 32))}), jwk("private", &rsaKey.PublicKey, object{"d": b64(rsaKey.D.Bytes()), "p": b64(rsaKey.Primes[0].Bytes()), "q": b64(rsaKey.Primes[1].Bytes())}),
	)
	a := running(t, Config{JWKS: is.URL + "/keys?tenant=1"}, Options{})
	f := func(alg string, key any, kid string, want Reason) {
		t.Helper()
		h := object{}
		if kid != "" {
			h["kid"] = kid
		}
		if _, err := a.Identify(t.Context(), byToken(sign(alg, key, h, alice(nil)))); reason(err) != want || err != nil && want == "" {
			t.Errorf("%s %s: %v, want %q", alg, kid, err, want)
		}
	}
	f("RS256", rsaKey, "r", "")
	f("PS512", rsaKey, "r", "")
	f("ES256", ec256, "e2", "")
	f("ES384", ec384, "e3", "")
	f("ES512", ec521, "e5", "")
	f("EdDSA", edKey, "d", "")
	f("PS256", otherRSA, "ps", "")
	f("ES256", ec256, "", "") // no kid: any key that fits
	if n := a.Stats().JWKSKeys; n != 6 {
		t.Errorf("%d keys are in use", n)
	}
	f("RS256", otherRSA, "ps", UnknownKey) // its alg is PS256 alone
	f("RS256", otherRSA, "r", Signature)
	f("RS256", rsaKey, "enc", UnknownKey)
	f("RS256", rsaKey, "private", UnknownKey)
	f("RS256", rsaKey, "e2", UnknownKey)
	for _, alg := range []string{"HS256", "HS512"} { // no secret is configured, so there is no such algorithm
		f(alg, secret, "secret", Algorithm)
		f(alg, pemOf(t, "PUBLIC KEY", &rsaKey.PublicKey), "r", Algorithm)
	}
}

func TestPublicKeysOfASetAreNoSecrets(t *testing.T) {
	is := newIssuer(t, jwk("r", &rsaKey.PublicKey, nil))
	a := running(t, Config{JWKS: is.URL, Secrets: [][]byte{secret}}, Options{})
	for _, form := range [][]byte{pemOf(t, "PUBLIC KEY", &rsaKey.PublicKey), rsaKey.N.Bytes()} {
		if _, err := a.Identify(t.Context(), byToken(sign("HS256", form, object{"kid": "r"}, alice(nil)))); reason(err) != Signature {
			t.Error(err)
		}
	}
	if _, err := a.Identify(t.Context(), byToken(sign("HS256", secret, object{"kid": "r"}, alice(nil)))); err != nil {
		t.Error(err)
	}
}

func TestKeySetRotates(t *testing.T) {
	is := newIssuer(t, jwk("1", &rsaKey.PublicKey, nil))
	a := running(t, Config{JWKS: is.URL}, Options{})
	first, second := sign("RS256", rsaKey, object{"kid": "1"}, alice(nil)), sign("ES256", ec256, object{"kid": "2"}, alice(nil))
	f := func(token string, want Reason) {
		t.Helper()
		if _, err := a.Identify(t.Context(), byToken(token)); reason(err) != want || err != nil && want == "" {
			t.Errorf("%v, want %q", err, want)
		}
	}
	f(first, "") // the first request waits for the first fetch
	f(second, UnknownKey)
	is.say(set(jwk("1", &rsaKey.PublicKey, nil), jwk("2", &ec256.PublicKey, nil)))
	f(second, UnknownKey) // asked only just now
	rested(a)
	f(second, "") // an unknown kid makes it ask, and the same request waits for the answer
	f(first, "")
	is.say(set(jwk("2", &ec256.PublicKey, nil)))
	f(first, "") // nobody had a reason to ask yet
	rested(a)
	f(sign("ES256", ec384asP256, object{"kid": "3"}, alice(nil)), UnknownKey)
	f(first, UnknownKey) // what was withdrawn is believed no longer
	f(second, "")
}

var ec384asP256 = must(ecdsa.GenerateKey(elliptic.P256(), rand.Reader))

// Made-up kids cost the issuer one request each pause, however many there are.
func TestUnknownKidsAreNoFlood(t *testing.T) {
	is := newIssuer(t, jwk("1", &rsaKey.PublicKey, nil))
	a := running(t, Config{JWKS: is.URL}, Options{})
	if _, err := a.Identify(t.Context(), byToken(sign("RS256", rsaKey, object{"kid": "1"}, alice(nil)))); err != nil {
		t.Fatal(err)
	}
	before := is.asked.Load()
	rested(a)
	var wg sync.WaitGroup
	for i := range 8 {
		wg.Go(func() {
			for j := range 50 {
				token := sign("ES256", ec256, object{"kid": string(rune('a'+i)) + string(rune('0'+j))}, alice(nil))
				if _, err := a.Identify(t.Context(), byToken(token)); reason(err) != UnknownKey {
					t.Error(err)
				}
			}
		})
	}
	wg.Wait()
	if n := is.asked.Load() - before; n != 1 {
		t.Errorf("asked %d times", n)
	}
}

// An address that dies, answers nonsense or sends too much takes no key away,
// and is told once.
func TestKeySetThatFailsKeepsWhatItHad(t *testing.T) {
	is := newIssuer(t, jwk("1", &rsaKey.PublicKey, nil))
	reports := make(chan error, 16)
	a := running(t, Config{JWKS: is.URL}, Options{Report: func(err error) { reports <- err }})
	known := byToken(sign("RS256", rsaKey, object{"kid": "1"}, alice(nil)))
	unknown := byToken(sign("RS256", rsaKey, object{"kid": "2"}, alice(nil)))
	if _, err := a.Identify(t.Context(), known); err != nil {
		t.Fatal(err)
	}
	f := func(what string, h http.HandlerFunc, report string) {
		t.Helper()
		is.do(h)
		rested(a)
		if _, err := a.Identify(t.Context(), unknown); reason(err) != UnknownKey {
			t.Errorf("%s: %v", what, err)
		}
		if _, err := a.Identify(t.Context(), known); err != nil {
			t.Errorf("%s: %v", what, err)
		}
		if err := <-reports; err == nil || !strings.Contains(err.Error(), report) {
			t.Errorf("%s: reported %v, want %q", what, err, report)
		}
		is.say(set(jwk("1", &rsaKey.PublicKey, nil)))
		rested(a)
		a.Identify(t.Context(), unknown)
		if err := <-reports; err != nil {
			t.Errorf("after %s: %v", what, err)
		}
	}
	write := func(code int, text string) http.HandlerFunc {
		return func(w http.ResponseWriter, _ *http.Request) { w.WriteHeader(code); io.WriteString(w, text) }
	}
	const none = "sent no key that can be used"
	f("an error", write(500, string(set(jwk("2", &rsaKey.PublicKey, nil)))), "was answered 500")
	f("HTML", write(200, "<html>"), none)
	f("nothing", write(200, ""), none)
	f("no keys", write(200, `{"keys":[]}`), none)
	f("odd keys", write(200, `{"keys":[null,5,"x",{"kty":5},{"kty":"RSA","n":"!","e":"AQAB"},{"kty":"EC","crv":"P-256"}]}`), none)
	f("a list", write(200, `[{"kty":"RSA"}]`), none)
	f("too much", write(200, `{"keys":[`+strings.Repeat(" ", maxKeySet)), "sent more than")
	f("half an answer", func(w http.ResponseWriter, _ *http.Request) {
		w.Header().Set("Content-Length", "1000")
		io.WriteString(w, `{"keys":[`)
	}, "unexpected EOF")
	f("a cut", func(http.ResponseWriter, *http.Request) { panic(http.ErrAbortHandler) }, "EOF")
	f("a redirect to a place without TLS", func(w http.ResponseWriter, r *http.Request) {
		http.Redirect(w, r, "http://192.0.2.1/keys", http.StatusFound)
	}, "redirected")
	f("a circle", func(w http.ResponseWriter, r *http.Request) { http.Redirect(w, r, "/again", http.StatusFound) }, "redirected")
}

// Before the first answer nobody can be told from anybody: that is no 401.
func TestKeySetThatWasNeverThere(t *testing.T) {
	is := newIssuer(t)
	is.CloseClientConnections()
	is.Close()
	reports := make(chan error, 1)
	a := running(t, Config{JWKS: is.URL + "/keys?token=of-the-address", Secrets: [][]byte{secret}}, Options{Report: func(err error) { reports <- err }})
	if err := <-reports; err == nil || strings.Contains(err.Error(), "of-the-address") || !strings.Contains(err.Error(), is.Listener.Addr().String()) {
		t.Fatalf("reported %v: want the host, and nothing that may be secret", err)
	}
	if _, err := a.Identify(t.Context(), byToken(sign("RS256", rsaKey, nil, alice(nil)))); !errors.Is(err, ErrUnavailable) || errors.Is(err, ErrBad) {
		t.Error(err)
	}
	// What needs no key set does not wait for one.
	if _, err := a.Identify(t.Context(), byToken(sign("HS256", secret, nil, alice(nil)))); err != nil {
		t.Error(err)
	}
	if _, err := a.Identify(t.Context(), byToken(sign("none", nil, nil, alice(nil)))); reason(err) != Algorithm {
		t.Error(err)
	}
}

func TestKeySetByReload(t *testing.T) {
	one, two := newIssuer(t, jwk("1", &rsaKey.PublicKey, nil)), newIssuer(t, jwk("2", &ec256.PublicKey, nil))
	a := running(t, Config{Secrets: [][]byte{secret}}, Options{})
	first, second := byToken(sign("RS256", rsaKey, object{"kid": "1"}, alice(nil))), byToken(sign("ES256", ec256, object{"kid": "2"}, alice(nil)))
	f := func(cfg Config, c Credentials, want Reason) {
		t.Helper()
		if err := a.Reload(cfg); err != nil {
			t.Fatal(err)
		}
		if _, err := a.Identify(t.Context(), c); reason(err) != want || err != nil && want == "" {
			t.Errorf("%v, want %q", err, want)
		}
	}
	f(Config{JWKS: one.URL}, first, "")
	f(Config{JWKS: one.URL, Issuers: []string{"x"}}, first, BadIssuer) // the same keys, at once
	f(Config{JWKS: two.URL}, second, "")
	f(Config{JWKS: two.URL}, first, UnknownKey)
	f(Config{PublicKeys: []crypto.PublicKey{&rsaKey.PublicKey}}, first, "")
	f(Config{PublicKeys: []crypto.PublicKey{&rsaKey.PublicKey}}, second, Algorithm)
	for _, address := range []string{"http://192.0.2.1/keys", "ftp://127.0.0.1/", "keys", "https://", "http://localhost.example/", "%"} {
		if err := a.Reload(Config{JWKS: address}); err == nil {
			t.Errorf("%s passes", address)
		}
	}
	for _, address := range []string{"https://id.example/keys", "http://localhost:1/", "http://[::1]/", "http://127.9.9.9/"} {
		if _, err := New(Config{JWKS: address}, Options{}); err != nil {
			t.Errorf("%s: %v", address, err)
		}
	}
}

func TestKeySetOverTLS(t *testing.T) {
	s := httptest.NewTLSServer(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) { w.Write(set(jwk("1", &rsaKey.PublicKey, nil))) }))
	t.Cleanup(s.Close)
	s.Config.ErrorLog = log.New(io.Discard, "", 0) // of the handshake that fails
	token := byToken(sign("RS256", rsaKey, object{"kid": "1"}, alice(nil)))
	reports := make(chan error, 1)
	stranger := running(t, Config{JWKS: s.URL}, Options{Report: func(err error) { reports <- err }})
	if _, err := stranger.Identify(t.Context(), token); !errors.Is(err, ErrUnavailable) {
		t.Error("keys from who has no certificate:", err)
	}
	if _, ok := errors.AsType[x509.UnknownAuthorityError](<-reports); !ok {
		t.Error("the reason was not reported")
	}
	a := newAuth(t, Config{JWKS: s.URL})
	a.now().jwks.client.Transport.(*http.Transport).TLSClientConfig.RootCAs = s.Client().Transport.(*http.Transport).TLSClientConfig.RootCAs
	if err := a.now().jwks.fetch(t.Context()); err != nil {
		t.Fatal(err)
	}
	if _, err := a.Identify(t.Context(), token); err != nil {
		t.Error(err)
	}
}

// far is an issuer in the bubble's time.
type far func(context.Context) ([]byte, error)

func (f far) RoundTrip(r *http.Request) (*http.Response, error) {
	text, err := f(r.Context())
	if err != nil {
		return nil, err
	}
	return &http.Response{StatusCode: 200, Body: io.NopCloser(bytes.NewReader(text)), Request: r}, nil
}

// inBubble runs an Authenticator whose key set is answered by f.
func inBubble(t *testing.T, every time.Duration, f far, during func(*testing.T, *Authenticator)) {
	synctest.Test(t, func(t *testing.T) {
		a, err := New(Config{JWKS: "https://id.example/keys", JWKSRefresh: every}, Options{})
		if err != nil {
			t.Fatal(err)
		}
		a.now().jwks.client.Transport = f
		ctx, stop := context.WithCancel(t.Context())
		var wg sync.WaitGroup
		wg.Go(func() { a.Run(ctx) })
		during(t, a)
		stop()
		wg.Wait()
	})
}

// An address that hangs holds no request for longer than it says.
func TestKeySetThatHangs(t *testing.T) {
	var keys atomic.Pointer[[]byte]
	var asked atomic.Int32
	hang := func(ctx context.Context) ([]byte, error) {
		asked.Add(1)
		if text := keys.Load(); text != nil {
			return *text, nil
		}
		<-ctx.Done()
		return nil, ctx.Err()
	}
	token := sign("RS256", rsaKey, object{"kid": "1"}, object{"sub": "alice", "exp": 1 << 40})
	text := set(jwk("1", &rsaKey.PublicKey, nil))
	inBubble(t, time.Hour, hang, func(t *testing.T, a *Authenticator) {
		f := func(most time.Duration, want error) {
			t.Helper()
			start := time.Now()
			_, err := a.Identify(t.Context(), byToken(token))
			if !errors.Is(err, want) || err == nil && want != nil || time.Since(start) > most {
				t.Errorf("%v after %s", err, time.Since(start))
			}
		}
		f(JWKSWait, ErrUnavailable)
		f(JWKSWait, ErrUnavailable)
		gone, cancel := context.WithTimeout(t.Context(), 100*time.Millisecond)
		start := time.Now()
		if _, err := a.Identify(gone, byToken(token)); !errors.Is(err, ErrUnavailable) || time.Since(start) != 100*time.Millisecond {
			t.Error("a client that left is waited for:", err, time.Since(start))
		}
		cancel()
		time.Sleep(fetchTimeout - 2*JWKSWait - 100*time.Millisecond + retryFirst/2)
		f(0, ErrUnavailable) // it failed only just now: nobody waits for the next try
		keys.Store(&text)
		time.Sleep(retryFirst)
		f(0, nil)
		if n := asked.Load(); n != 2 {
			t.Errorf("asked %d times", n)
		}
	})
}

// It is fetched again and again, and sooner after a failure.
func TestKeySetIsKeptFresh(t *testing.T) {
	var times []time.Duration
	var fail atomic.Bool
	text := set(jwk("1", &rsaKey.PublicKey, nil))
	synctest.Test(t, func(t *testing.T) {
		start := time.Now()
		a, err := New(Config{JWKS: "https://id.example/keys", JWKSRefresh: time.Minute}, Options{})
		if err != nil {
			t.Fatal(err)
		}
		a.now().jwks.client.Transport = far(func(context.Context) ([]byte, error) {
			times = append(times, time.Since(start))
			if fail.Load() {
				return nil, errors.New("away")
			}
			return text, nil
		})
		ctx, stop := context.WithCancel(t.Context())
		var wg sync.WaitGroup
		wg.Go(func() { a.Run(ctx) })
		time.Sleep(90 * time.Second)
		fail.Store(true)
		time.Sleep(2 * time.Minute)
		if n := a.Stats().JWKSKeys; n != 1 {
			t.Errorf("%d keys", n)
		}
		stop()
		wg.Wait()
	})
	want := []time.Duration{0, 60, 120, 121, 123, 127, 135, 151, 181}
	if len(times) != len(want) {
		t.Fatal(times)
	}
	for i := range want {
		if times[i] != want[i]*time.Second {
			t.Fatal(times)
		}
	}
}

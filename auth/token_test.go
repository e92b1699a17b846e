package auth

import (
	"bytes"
	"crypto"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/rsa"
	"errors"
	"reflect"
	"strings"
	"testing"
	"testing/synctest"
	"time"
)

func TestEveryAlgorithm(t *testing.T) {
	pubs := []crypto.PublicKey{&rsaKey.PublicKey, &ec256.PublicKey, &ec384.PublicKey, &ec521.PublicKey, edKey.Public()}
	all := newAuth(t, Config{Secrets: [][]byte{secret}, PublicKeys: pubs})
	keys := map[string]any{
		"HS256": secret, "HS384": secret, "HS512": secret,
		"RS256": rsaKey, "RS384": rsaKey, "RS512": rsaKey, "PS256": rsaKey, "PS384": rsaKey, "PS512": rsaKey,
		"ES256": ec256, "ES384": ec384, "ES512": ec521, "EdDSA": edKey,
	}
	only := map[string]*Authenticator{"HS": newAuth(t, Config{Secrets: [][]byte{secret}})}
	for i, kind := range []string{"RSA", "ES256", "ES384", "ES512", "EdDSA"} {
		only[kind] = newAuth(t, Config{PublicKeys: pubs[i : i+1]})
	}
	for alg, key := range keys {
		token := sign(alg, key, nil, alice(nil))
		id, err := all.Identify(t.Context(), byToken(token))
		if err != nil || id.Subject != "alice" {
			t.Errorf("%s: %v, %v", alg, id, err)
		}
		// One kind of key lets its own algorithms pass and no other.
		for kind, a := range only {
			fits := kind == alg || kind == alg[:2] || kind == "RSA" && (alg[:2] == "RS" || alg[:2] == "PS")
			_, err := a.Identify(t.Context(), byToken(token))
			if fits != (err == nil) || !fits && reason(err) != Algorithm {
				t.Errorf("%s for a key of kind %s: %v", alg, kind, err)
			}
		}
	}
}

func reason(err error) Reason {
	if b, ok := errors.AsType[*BadError](err); ok && errors.Is(err, ErrBad) {
		return b.Reason
	}
	return ""
}

func TestForgedTokens(t *testing.T) {
	a := newAuth(t, Config{
		Secrets: [][]byte{secret}, PublicKeys: []crypto.PublicKey{&rsaKey.PublicKey, &ec256.PublicKey},
		Issuers: []string{"https://id.example"}, Audiences: []string{"push", "chat"}, Claim: "ssegate",
	})
	good := func(more object) object {
		c := alice(object{"iss": "https://id.example", "aud": "push"})
		for k, v := range more {
			if c[k] = v; v == nil {
				delete(c, k)
			}
		}
		return c
	}
	f := func(token string, want Reason) {
		t.Helper()
		id, err := a.Identify(t.Context(), byToken(token))
		if reason(err) != want || (err == nil) != (want == "") || (id == nil) != (err != nil) {
			t.Errorf("%v, %v; want %q", id, err, want)
		}
		if err == nil {
			return
		}
		// Nothing of the token comes back.
		for part := range strings.SplitSeq(token, ".") {
			if len(part) > 4 && strings.Contains(err.Error()+Challenge(err), part) {
				t.Errorf("%v repeats %s", err, part)
			}
		}
	}
	hs := func(claims object) string { return sign("HS256", secret, nil, claims) }
	f(hs(good(nil)), "")
	f(hs(good(object{"aud": []string{"x", "chat"}})), "")

	// alg none, in all spellings, with a signature and without.
	for _, none := range []string{"none", "None", "NONE", "nOnE", ""} {
		token := signRaw("none", nil, []byte(`{"alg":"`+none+`"}`), []byte(`{"sub":"alice","exp":99999999999,"iss":"https://id.example","aud":"push"}`))
		want := Algorithm
		f(token, want)
		f(token+"AAAA", want)
	}
	f(signRaw("none", nil, []byte(`{"typ":"JWT"}`), []byte(`{}`)), Algorithm)
	f(signRaw("none", nil, []byte(`{"alg":null}`), []byte(`{}`)), Algorithm)
	f(signRaw("none", nil, []byte(`{"alg":["HS256"]}`), []byte(`{}`)), Algorithm)

	// Public keys, in every form an attacker has them, are no secrets.
	for _, form := range [][]byte{
		pemOf(t, "PUBLIC KEY", &rsaKey.PublicKey), bytes.TrimSpace(pemOf(t, "PUBLIC KEY", &rsaKey.PublicKey)),
		pemOf(t, "RSA PUBLIC KEY", &rsaKey.PublicKey), rsaKey.N.Bytes(), set(jwk("", &rsaKey.PublicKey, nil)),
		pemOf(t, "PUBLIC KEY", &ec256.PublicKey), must(ec256.PublicKey.Bytes()), nil, make([]byte, 64),
	} {
		for _, alg := range []string{"HS256", "HS384", "HS512"} {
			f(sign(alg, form, nil, good(nil)), Signature)
		}
	}
	// Keys that the token brings itself count for nothing.
	stranger := must(ecdsa.GenerateKey(elliptic.P256(), rand.Reader))
	f(sign("ES256", stranger, object{"jwk": jwk("", &stranger.PublicKey, nil)}, good(nil)), Signature)
	f(sign("ES256", stranger, object{"jku": "http://127.0.0.1:1/keys", "x5u": "http://127.0.0.1:1/"}, good(nil)), Signature)
	f(sign("RS256", otherRSA, object{"kid": "../../dev/null"}, good(nil)), Signature)
	f(sign("PS512", otherRSA, nil, good(nil)), Signature)
	f(sign("HS256", []byte("another secret of thirty-two byte"), nil, good(nil)), Signature)
	f(sign("HS256", secret[:31], nil, good(nil)), Signature)
	f(sign("EdDSA", edKey, nil, good(nil)), Algorithm) // no such key is configured
	f(sign("ES256", ec256, object{"crit": []string{"exp"}}, good(nil)), Signature)

	// A good token, changed in each place.
	token := hs(good(nil))
	h, rest, _ := strings.Cut(token, ".")
	p, sig, _ := strings.Cut(rest, ".")
	f(h+"."+b64([]byte(`{"sub":"mallory","exp":99999999999,"iss":"https://id.example","aud":"push"}`))+"."+sig, Signature)
	f(h+"."+p+"."+b64(make([]byte, 32)), Signature)
	f(h+"."+p+"."+sig[:len(sig)-4], Signature)
	f(h+"."+p+".", Signature)
	f(h+"."+p, Malformed)
	f(h+".."+sig, Signature)
	f(token+".", Malformed)
	f(token+".x.y", Malformed) // as long as an encrypted one
	f("."+token, Malformed)
	f("..", Algorithm) // none is named
	for _, garbage := range []string{"x", "a.b.c", "€.€.€", `{"payload":"e30","signatures":[]}`, h, strings.Repeat("a", 20_000), h + "=" + "." + p + "." + sig, "\x00.\x00.\x00"} {
		f(garbage, Malformed)
	}
	f(signRaw("HS256", secret, []byte(`{"alg":"HS256","alg":"none"}`), []byte(`{}`)), Malformed)

	// What stands in it.
	f(hs(good(object{"exp": nil})), NoExpiry)
	f(hs(good(object{"exp": in(-time.Second)})), Expired)
	f(hs(good(object{"exp": 0})), Expired)
	f(hs(good(object{"exp": -5})), Expired)
	f(hs(good(object{"exp": "tomorrow"})), BadClaims)
	f(hs(good(object{"exp": 1e300})), BadClaims)
	f(hs(good(object{"nbf": in(time.Minute)})), NotYet)
	f(hs(good(object{"iss": nil})), BadIssuer)
	f(hs(good(object{"iss": "https://id.example/"})), BadIssuer)
	f(hs(good(object{"iss": 5})), BadClaims)
	f(hs(good(object{"aud": nil})), BadAudience)
	f(hs(good(object{"aud": []string{"pus", "pushy"}})), BadAudience)
	f(hs(good(object{"aud": []int{1}})), BadClaims)
	f(hs(good(object{"sub": nil})), NoSubject)
	f(hs(good(object{"sub": ""})), NoSubject)
	f(hs(good(object{"sub": 7})), BadClaims)
	f(hs(good(object{"sub": "a\nb"})), BadClaims)
	f(hs(good(object{"sub": strings.Repeat("a", 256)})), BadClaims)
	for _, payload := range []string{"", "null", "[]", "5", "{", `{"sub":"a","sub":"b"}`} {
		want := BadClaims
		if payload == "null" {
			want = NoExpiry
		}
		f(signRaw("HS256", secret, []byte(`{"alg":"HS256"}`), []byte(payload)), want)
	}
	for _, claim := range []any{"all", 5, []string{"channel/*"}, object{"follow": "channel/*"}, object{"follow": []int{1}}, object{"admin": "yes"},
		object{"follow": []string{"channel/*", "rooms/1"}}, object{"publish": []string{"*/*"}}, object{"publish": []string{""}}} {
		f(hs(good(object{"ssegate": claim})), BadClaims)
	}
	f(hs(good(object{"ssegate": nil})), "")
	f(hs(good(object{"ssegate": object{"new": 1}})), "")
	stats := a.Stats()
	if stats.Accepted != 4 || stats.Refused[Signature] < 20 || stats.Refused[BadAudience] != 2 {
		t.Errorf("%+v", stats)
	}
	for why := range stats.Refused {
		if !strings.Contains(strings.Join(reasonTexts(), " "), string(why)) {
			t.Errorf("%s is not in Reasons", why)
		}
	}
}

func reasonTexts() (texts []string) {
	for _, r := range Reasons {
		texts = append(texts, string(r))
	}
	return texts
}

func TestWhatATokenGrants(t *testing.T) {
	a := newAuth(t, Config{Secrets: [][]byte{secret}, Claim: "https://x.example/push", Leeway: 30 * time.Second})
	exp := in(time.Hour)
	id, err := a.Identify(t.Context(), byToken(sign("HS512", secret, nil, object{
		"sub": "auth0|5", "exp": exp,
		"https://x.example/push": object{"follow": []string{"channel/news", "channel/room.*"}, "publish": []string{"user/*"}, "admin": true},
	})))
	want := &Identity{Subject: "auth0|5", Follow: []Pattern{"channel/news", "channel/room.*"}, Publish: []Pattern{"user/*"}, Admin: true,
		Expires: time.Unix(exp, 0).Add(30 * time.Second)}
	if err != nil || !id.Expires.Equal(want.Expires) {
		t.Fatal(id, err)
	}
	if id.Expires = want.Expires; !reflect.DeepEqual(id, want) {
		t.Errorf("%+v, want %+v", id, want)
	}
}

// A token is good until the second of exp, and leeway later; from nbf on, and
// 5 s sooner.
func TestTimesToTheSecond(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		for _, leeway := range []time.Duration{0, 30 * time.Second} {
			a := newAuth(t, Config{Secrets: [][]byte{secret}, Leeway: leeway})
			c := byToken(sign("HS256", secret, nil, object{"sub": "alice", "nbf": in(time.Minute), "exp": in(2 * time.Minute)}))
			f := func(after time.Duration, want Reason) {
				t.Helper()
				time.Sleep(after)
				id, err := a.Identify(t.Context(), c)
				if reason(err) != want {
					t.Errorf("leeway %s: %v, want %q", leeway, err, want)
				}
				if err == nil && !id.Expires.After(time.Now()) {
					t.Error("a stream that begins now would have ended before")
				}
			}
			f(time.Minute-max(leeway, 5*time.Second)-1, NotYet)
			f(1, "")
			f(time.Minute+max(leeway, 5*time.Second)+leeway-1, "")
			f(1, Expired)
		}
	})
}

func TestNoExpiryWhereAllowed(t *testing.T) {
	a := newAuth(t, Config{Secrets: [][]byte{secret}, NoExpiry: true})
	id, err := a.Identify(t.Context(), byToken(sign("HS256", secret, nil, object{"sub": "alice"})))
	if err != nil || !id.Expires.IsZero() {
		t.Error(id, err)
	}
	if _, err = a.Identify(t.Context(), byToken(sign("HS256", secret, nil, alice(object{"exp": in(-time.Hour)})))); reason(err) != Expired {
		t.Error("an exp that is there counts all the same:", err)
	}
}

// While keys change, tokens of both are good; afterwards only the new one's.
func TestSecretsRotateByReload(t *testing.T) {
	next := bytes.Repeat([]byte{7}, 32)
	a := newAuth(t, Config{Secrets: [][]byte{secret}})
	old, young := byToken(sign("HS256", secret, nil, alice(nil))), byToken(sign("HS256", next, nil, alice(nil)))
	f := func(oldIs, youngIs Reason) {
		t.Helper()
		_, err1 := a.Identify(t.Context(), old)
		_, err2 := a.Identify(t.Context(), young)
		if reason(err1) != oldIs || reason(err2) != youngIs {
			t.Error(err1, err2)
		}
	}
	f("", Signature)
	if err := a.Reload(Config{Secrets: [][]byte{next, secret}}); err != nil {
		t.Fatal(err)
	}
	f("", "")
	if err := a.Reload(Config{Secrets: [][]byte{next, secret[:31]}}); err == nil {
		t.Fatal("a short secret passed")
	}
	f("", "") // what was bad has changed nothing
	if err := a.Reload(Config{Secrets: [][]byte{next}}); err != nil {
		t.Fatal(err)
	}
	f(Signature, "")
}

func TestParsePEM(t *testing.T) {
	f := func(text []byte, keys int, want string) {
		t.Helper()
		got, err := ParsePEM(text)
		if len(got) != keys || (err == nil) != (want == "") || err != nil && err.Error() != "auth: "+want {
			t.Errorf("%d keys, %v; want %d, %s", len(got), err, keys, want)
		}
	}
	pub := pemOf(t, "PUBLIC KEY", &rsaKey.PublicKey)
	f(pub, 1, "")
	f(bytes.Join([][]byte{[]byte("# comment\n"), pub, pemOf(t, "RSA PUBLIC KEY", &otherRSA.PublicKey), pemOf(t, "PUBLIC KEY", edKey.Public()),
		pemOf(t, "CERTIFICATE", ec256), pemOf(t, "PUBLIC KEY", &ec521.PublicKey)}, nil), 5, "")
	f(nil, 0, "no public key in PEM form")
	f([]byte("x"), 0, "no public key in PEM form")
	f(bytes.Join([][]byte{pub, pemOf(t, "PRIVATE KEY", ec256)}, nil), 0, "a private key, where only the public one belongs")
	f([]byte("-----BEGIN PUBLIC KEY-----\nAAAA\n-----END PUBLIC KEY-----\n"), 0, "a PUBLIC KEY that cannot be read")
	kind := "a key of an unknown kind: RSA of 2048 bits or more, EC (P-256, P-384, P-521) and Ed25519 are known"
	f(pemOf(t, "PUBLIC KEY", &must(ecdsa.GenerateKey(elliptic.P224(), rand.Reader)).PublicKey), 0, kind)
	f(pemOf(t, "RSA PUBLIC KEY", &rsa.PublicKey{N: must(rand.Prime(rand.Reader, 1024)), E: 65537}), 0, kind)
}

func TestAPIKeys(t *testing.T) {
	sum := func(s string) APIKey { return APIKey{SHA256: sha(s)} }
	billing, ops := sum("billing-key"), sum("ops-key")
	billing.Name, billing.Publish = "billing", []Pattern{"user/*"}
	ops.Name, ops.Admin, ops.Follow = "ops", true, []Pattern{Everything}
	a := newAuth(t, Config{Keys: []APIKey{billing, ops}, Secrets: [][]byte{secret}})
	f := func(c Credentials, want Reason, key string) {
		t.Helper()
		id, err := a.Identify(t.Context(), c)
		if reason(err) != want || err == nil && (id.Key != key || id.Principal() != "key:"+key || !id.Expires.IsZero()) {
			t.Errorf("%+v, %v", id, err)
		}
	}
	f(Credentials{APIKey: "billing-key"}, "", "billing")
	f(Credentials{APIKey: "ops-key"}, "", "ops")
	f(Credentials{Authorization: "bearer  ops-key "}, "", "ops")
	f(Credentials{APIKey: "ops-ke"}, BadKey, "")
	f(Credentials{APIKey: "ops-key "}, BadKey, "")
	f(Credentials{Authorization: "Bearer ops"}, Malformed, "")
	f(Credentials{Query: "ops-key"}, Malformed, "") // a key never stands in an address
	f(Credentials{Cookie: "ops-key"}, Malformed, "")
	f(Credentials{APIKey: sign("HS256", secret, nil, alice(nil))}, BadKey, "")
	id, _ := a.Identify(t.Context(), Credentials{APIKey: "billing-key"})
	if id.Admin || !id.MayPublish("user/u1") || id.MayPublish("channel/x") || id.MayFollow("user/u1") || id.MayFollow("user/") {
		t.Errorf("%+v", id)
	}
	alone := newAuth(t, Config{Keys: []APIKey{billing}})
	if _, err := alone.Identify(t.Context(), byToken(sign("HS256", secret, nil, alice(nil)))); reason(err) != BadKey {
		t.Error(err)
	}
}

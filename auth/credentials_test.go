package auth

import (
	"crypto"
	"crypto/sha256"
	"errors"
	"net/http/httptest"
	"strings"
	"testing"
)

func sha(s string) [sha256.Size]byte { return sha256.Sum256([]byte(s)) }

func TestWhereATokenMayBe(t *testing.T) {
	a, err := New(Config{Secrets: [][]byte{secret}, Cookie: "session", QueryParam: "access_token", Keys: []APIKey{{Name: "k", SHA256: sha("key")}}}, Options{Notes: new(notes)})
	if err != nil {
		t.Fatal(err)
	}
	good := sign("HS256", secret, nil, alice(nil))
	ticket, err := a.Issue(t.Context(), &Identity{Subject: "bob"}, 1<<40)
	if err != nil {
		t.Fatal(err)
	}
	f := func(target string, header map[string]string, who string, want error) {
		t.Helper()
		r := httptest.NewRequest("GET", target, nil)
		for k, v := range header {
			r.Header.Set(k, v)
		}
		id, err := a.Identify(t.Context(), a.Credentials(r))
		if !errors.Is(err, want) || id.Principal() != who {
			t.Errorf("%s %v: %q, %v; want %q, %v", target, header, id.Principal(), err, who, want)
		}
	}
	type h = map[string]string
	f("/", nil, "", ErrNone)
	f("/?access_token=&ticket=", h{"X-Api-Key": "", "Authorization": "", "Cookie": "session="}, "", ErrNone)
	f("/", h{"Authorization": "Basic YTpi"}, "", ErrNone) // the backend's affair
	f("/", h{"Authorization": "Bearer"}, "", ErrNone)
	f("/", h{"Authorization": "Bearer " + good}, "sub:alice", nil)
	f("/", h{"Authorization": "bEaReR " + good}, "sub:alice", nil)
	f("/", h{"Cookie": "a=b; session=" + good}, "sub:alice", nil)
	f("/", h{"Cookie": "sessions=" + good}, "", ErrNone)
	f("/?access_token="+good, nil, "sub:alice", nil)
	f("/?x=1&access%5ftoken="+good, nil, "sub:alice", nil)
	f("/?token="+good, nil, "", ErrNone)
	f("/", h{"X-Api-Key": "key"}, "key:k", nil)
	// The first of several counts, be it good or bad: no other is tried.
	f("/?access_token="+good, h{"Authorization": "Bearer x.y.z", "Cookie": "session=" + good}, "", ErrBad)
	f("/?access_token=x", h{"Authorization": "Bearer " + good, "X-Api-Key": "x"}, "sub:alice", nil)
	f("/?access_token=x", h{"Cookie": "session=" + good}, "", ErrBad)
	f("/?access_token=x&access_token="+good, nil, "", ErrBad)
	f("/?access_token="+good+"&ticket="+ticket, h{"Authorization": "Basic YTpi"}, "sub:bob", nil)
	f("/?ticket="+ticket, nil, "", ErrBad)
}

func TestSplitQuery(t *testing.T) {
	a := newAuth(t, Config{QueryParam: "access_token"})
	f := func(raw, wantRest, wantToken, wantTicket string) {
		t.Helper()
		if rest, token, ticket := a.SplitQuery(raw); rest != wantRest || token != wantToken || ticket != wantTicket {
			t.Errorf("%q: %q, %q, %q", raw, rest, token, ticket)
		}
	}
	f("", "", "", "")
	f("a=1&b=%20&&c", "a=1&b=%20&&c", "", "")
	f("access_token=t", "", "t", "")
	f("a=1&access_token=t&b=2", "a=1&b=2", "t", "")
	f("ticket=k&&a=%zz&access_token=t%2B%20", "&a=%zz", "t+ ", "k")
	f("access_token=t&access_token=u&ticket=&ticket=v", "", "t", "v")
	f("a%63cess_token=t&%74icket=k&x", "x", "t", "k")
	f("access_token", "", "", "")
	f("my_access_token=x&ticket_id=5", "my_access_token=x&ticket_id=5", "", "")
	f("Access_Token=x", "Access_Token=x", "", "")
	none := newAuth(t, Config{})
	if rest, token, ticket := none.SplitQuery("access_token=t&ticket=k"); rest != "access_token=t" || token != "" || ticket != "k" {
		t.Error(rest, token, ticket)
	}
}

func FuzzSplitQuery(f *testing.F) {
	for _, s := range []string{"a=1&access_token=t", "%61ccess_token=x&ticket=%", "&&=&ticket", "access_token;x"} {
		f.Add(s)
	}
	a := newAuth(f, Config{QueryParam: "access_token"})
	f.Fuzz(func(t *testing.T, raw string) {
		rest, token, ticket := a.SplitQuery(raw)
		if len(rest) > len(raw) {
			t.Error("grew")
		}
		again, t2, k2 := a.SplitQuery(rest)
		if again != rest || t2 != "" || k2 != "" {
			t.Errorf("%q still has something in it: %q %q", rest, t2, k2)
		}
		if r := httptest.NewRequest("GET", "/", nil); !strings.ContainsAny(raw, "#;") {
			r.URL.RawQuery = raw
			if q := r.URL.Query(); len(q["access_token"]) > 0 && q["access_token"][0] != "" && token != q["access_token"][0] {
				t.Errorf("%q: token %q, net/http sees %q", raw, token, q["access_token"])
			} else if len(q["ticket"]) > 0 && q["ticket"][0] != "" && ticket != q["ticket"][0] {
				t.Errorf("%q: ticket %q, net/http sees %q", raw, ticket, q["ticket"])
			}
		}
	})
}

func FuzzIdentify(f *testing.F) {
	a, err := New(Config{
		Secrets: [][]byte{secret}, PublicKeys: []crypto.PublicKey{&rsaKey.PublicKey, &ec256.PublicKey, edKey.Public()}, Claim: "ssegate",
		Keys: []APIKey{{Name: "k", SHA256: sha("key")}}, Cookie: "c", QueryParam: "access_token",
	}, Options{Notes: new(notes)})
	if err != nil {
		f.Fatal(err)
	}
	good := sign("HS256", secret, nil, alice(object{"ssegate": object{"follow": []string{"*"}}}))
	for _, s := range []string{good, sign("RS256", otherRSA, object{"kid": "x"}, alice(nil)), sign("none", nil, nil, alice(nil)), "key", "", "..", "é.é.é"} {
		f.Add("Bearer "+s, s, s, s)
	}
	f.Fuzz(func(t *testing.T, authorization, key, ticket, token string) {
		for _, c := range []Credentials{{Authorization: authorization}, {APIKey: key}, {Ticket: ticket}, {Query: token}, {Cookie: token}} {
			id, err := a.Identify(t.Context(), c)
			switch {
			case err == nil:
				// Only who knows the secret gets in: the seeds and what means the same.
				if !strings.Contains(authorization+key+token, good[:40]) && c.APIKey != "key" && !strings.Contains(authorization, "key") {
					t.Errorf("%+v let in as %+v", c, id)
				}
			case !errors.Is(err, ErrBad) && !errors.Is(err, ErrNone):
				t.Errorf("%+v: %v", c, err)
			case id != nil:
				t.Error("an identity beside an error")
			}
		}
	})
}

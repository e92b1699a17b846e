package proxy

import (
	"bytes"
	"crypto/sha256"
	"crypto/subtle"
	"hash"

	"github.com/valyala/fasthttp"
)

// principal is who a request comes from, as far as it can be proved: a hash of
// Authorization and X-Api-Key, else of the cookies that the route names, else
// nil for nobody in particular. An unverified claim is nobody's name.
func principal(h *fasthttp.RequestHeader, route *Route) []byte {
	auth, key := h.Peek("Authorization"), h.Peek("X-Api-Key")
	if len(auth) > 0 || len(key) > 0 {
		sum := newSum("auth")
		sum.add(auth)
		sum.add(key)
		return sum.done()
	}
	var sum *summer
	for _, name := range route.Bind {
		if v := h.Cookie(name); len(v) > 0 {
			if sum == nil {
				sum = newSum("cookie")
			}
			sum.add([]byte(name))
			sum.add(v)
		}
	}
	if sum == nil {
		return nil
	}
	return sum.done()
}

// anonymousCookies reports whether the request bears cookies of which none
// says whose it is: who it comes from is then not known, so nothing but an id
// may lead it to a stream.
func anonymousCookies(h *fasthttp.RequestHeader, who []byte) bool {
	return len(who) == 0 && len(h.Peek("Cookie")) > 0
}

// samePrincipal compares in constant time.
func samePrincipal(a, b []byte) bool { return subtle.ConstantTimeCompare(a, b) == 1 }

// summer hashes parts so that no two lists of parts give the same sum.
type summer struct{ h hash.Hash }

func newSum(kind string) *summer {
	s := &summer{sha256.New()}
	s.add([]byte(kind))
	return s
}

func (s *summer) add(part []byte) {
	var n [8]byte
	for i, l := 0, len(part); i < 8; i++ {
		n[i] = byte(l >> (8 * i))
	}
	s.h.Write(n[:])
	s.h.Write(part)
}

func (s *summer) done() []byte { return s.h.Sum(nil)[:16] }

// withoutParam returns the query string without the named parameters, the
// rest byte for byte.
func withoutParam(query []byte, names ...string) []byte {
	if len(query) == 0 {
		return query
	}
	out := make([]byte, 0, len(query))
	for part := range bytes.SplitSeq(query, []byte("&")) {
		name, _, _ := bytes.Cut(part, []byte("="))
		drop := false
		for _, n := range names {
			drop = drop || string(name) == n
		}
		if drop {
			continue
		}
		if len(out) > 0 {
			out = append(out, '&')
		}
		out = append(out, part...)
	}
	return out
}

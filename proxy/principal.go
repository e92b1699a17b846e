package proxy

import (
	"crypto/sha256"
	"crypto/subtle"
	"hash"
	"strings"
)

// principal is who a request comes from, as far as it can be proved: whom its
// token names, where that was verified; else what bearer says.
func principal(x *exchange) []byte {
	if name := x.identity.Principal(); name != "" {
		return subject(name)
	}
	return bearer(x)
}

// subject is the principal of a verified name.
func subject(name string) []byte {
	sum := newSum("subject")
	sum.add([]byte(name))
	return sum.done()
}

// bearer is who a request comes from, as far as that shows in what it bears: a
// hash of Authorization and X-Api-Key, else of the cookies that the route
// names, else nil for nobody in particular. An unverified claim is nobody's
// name.
func bearer(x *exchange) []byte {
	auth, key := x.header("Authorization"), x.header("X-Api-Key")
	if auth != "" || key != "" {
		sum := newSum("auth")
		sum.add([]byte(auth))
		sum.add([]byte(key))
		return sum.done()
	}
	var sum *summer
	for _, name := range x.route.Bind {
		if v := x.cookie(name); v != "" {
			if sum == nil {
				sum = newSum("cookie")
			}
			sum.add([]byte(name))
			sum.add([]byte(v))
		}
	}
	if sum == nil {
		return nil
	}
	return sum.done()
}

// cookie is the value of a cookie as the client wrote it, "" for none.
func (x *exchange) cookie(name string) string {
	for line := range x.headers("Cookie") {
		for pair := range strings.SplitSeq(line, ";") {
			k, v, _ := strings.Cut(pair, "=")
			if strings.TrimSpace(k) == name {
				return strings.TrimSpace(v)
			}
		}
	}
	return ""
}

// anonymousCookies reports whether the request bears cookies of which none
// says whose it is: who it comes from is then not known, so nothing but an id
// may lead it to a stream.
func anonymousCookies(x *exchange, who []byte) bool {
	return len(who) == 0 && x.header("Cookie") != ""
}

// owns reports whether a stream of this principal belongs to who asks. A
// stream may have been started while the same token could not be verified: it
// then belongs to whoever bears the token.
func (st *streams) owns(x *exchange, a asks, principal []byte) bool {
	return samePrincipal(principal, a.who) || x.identity != nil && samePrincipal(principal, bearer(x))
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

// withoutParam returns a query string without a parameter, the rest byte for
// byte.
func withoutParam(query, name string) string {
	var out strings.Builder
	for part := range strings.SplitSeq(query, "&") {
		if k, _, _ := strings.Cut(part, "="); k == name {
			continue
		}
		if out.Len() > 0 {
			out.WriteByte('&')
		}
		out.WriteString(part)
	}
	return out.String()
}

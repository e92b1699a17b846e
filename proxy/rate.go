package proxy

import (
	"net/http"
	"strconv"
	"sync/atomic"
	"time"

	"ssegate/internal/rate"
)

// requestRate bounds how many requests a second each of many may send, and as
// many at once. The zero value lets everything pass.
type requestRate struct {
	second atomic.Int64 // allowed; 0: any number
	kept   rate.Limiter
}

// on reports whether there is a limit.
func (r *requestRate) on() bool { return r.second.Load() > 0 }

// take reports after how long key may: 0 is now.
func (r *requestRate) take(key string, now time.Time) (wait time.Duration) {
	most := int(r.second.Load())
	if most <= 0 {
		return 0
	}
	return r.kept.Take(key, 1, most, most, now)
}

// SetRates swaps how many requests a second one address and one principal may
// send; 0: any number.
func (p *Proxy) SetRates(perIP, perPrincipal int) {
	p.perIP.second.Store(int64(perIP))
	p.perWho.second.Store(int64(perPrincipal))
}

// What is told to who sends more than it may.
var (
	tooManyOfIP        = refusal{http.StatusTooManyRequests, "requests_per_ip", "too many requests a second from this address"}
	tooManyOfPrincipal = refusal{http.StatusTooManyRequests, "requests_per_principal", "too many requests a second from whoever this is"}
)

// limited is true for a request that came too soon after others of key; it has
// been answered then.
func (p *Proxy) limited(x *exchange, of *requestRate, key string, why refusal) bool {
	wait := of.take(key, time.Now())
	if wait == 0 {
		return false
	}
	if x.eventSource() {
		p.refuse(x, why.reason, max(wait, 2*time.Second)) // a 429 would stop it for ever
		return true
	}
	p.failWith(x, why.status, why.reason, why.detail, field{"Retry-After", retryAfter(wait)})
	return true
}

// limitedPrincipal is limited for who sends the request, where that is known.
func (p *Proxy) limitedPrincipal(x *exchange) bool {
	if !p.perWho.on() {
		return false
	}
	who := principal(x)
	return len(who) > 0 && p.limited(x, &p.perWho, string(who), tooManyOfPrincipal)
}

// retryAfter is a wait in whole seconds, at least one.
func retryAfter(wait time.Duration) string {
	return strconv.FormatInt(max(1, int64((wait+time.Second-1)/time.Second)), 10)
}

// LimitPrincipals has a handler of net/http refuse who sends more than
// requests_per_principal allows, counted together with the public listener's.
// who names the principal of a request, "" for nobody in particular.
func (p *Proxy) LimitPrincipals(h http.Handler, who func(*http.Request) string) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if p.perWho.on() {
			if name := who(r); name != "" {
				if wait := p.perWho.take(string(subject(name)), time.Now()); wait > 0 {
					why := tooManyOfPrincipal
					p.counters.refused(why.reason)
					id := requestID(r.Header.Get("X-Request-Id"))
					w.Header().Set("Retry-After", retryAfter(wait))
					w.Header().Set("Content-Type", "application/json")
					w.Header().Set("Cache-Control", "no-store")
					w.Header()["X-Request-Id"] = []string{id}
					w.WriteHeader(why.status)
					w.Write(errorBody(why.reason, why.detail, id))
					return
				}
			}
		}
		h.ServeHTTP(w, r)
	})
}

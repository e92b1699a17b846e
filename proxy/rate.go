package proxy

import (
	"net/http"
	"strconv"
	"sync"
	"sync/atomic"
	"time"
)

// Rate bounds how often each of many may do something: so many times a
// second, and as many at once. All methods may be called concurrently; the
// zero value lets everything pass.
//
// Of each it keeps one time, that at which its bucket will be full again
// (GCRA). Whose bucket is full is forgotten, so what is kept is bounded by
// what was let pass within the last second.
type Rate struct {
	on     atomic.Bool // there is a limit
	mu     sync.Mutex
	second int // allowed; 0: no limit
	full   map[string]time.Time
	swept  time.Time
}

// Set changes the limit, at once and for everybody; 0: none.
func (r *Rate) Set(perSecond int) {
	r.mu.Lock()
	r.second = perSecond
	r.on.Store(perSecond > 0)
	r.full = nil
	r.mu.Unlock()
}

// Take reports whether key may now, and if not, after how long it may.
func (r *Rate) Take(key string, now time.Time) (wait time.Duration, ok bool) {
	if !r.on.Load() {
		return 0, true
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.second <= 0 {
		return 0, true
	}
	each := time.Second / time.Duration(r.second)
	if now.Sub(r.swept) >= time.Second {
		r.swept = now
		for k, t := range r.full {
			if !t.After(now) {
				delete(r.full, k)
			}
		}
	}
	t := r.full[key]
	if t.Before(now) {
		t = now
	}
	if t = t.Add(each); t.Sub(now) > time.Second {
		return t.Sub(now) - time.Second, false
	}
	if r.full == nil {
		r.full = make(map[string]time.Time)
	}
	r.full[key] = t
	return 0, true
}

// SetRates swaps how many requests a second one address and one principal may
// send; 0: any number.
func (p *Proxy) SetRates(perIP, perPrincipal int) {
	p.perIP.Set(perIP)
	p.perWho.Set(perPrincipal)
}

// What is told to who sends more than it may.
var (
	tooManyOfIP        = refusal{http.StatusTooManyRequests, "requests_per_ip", "too many requests a second from this address"}
	tooManyOfPrincipal = refusal{http.StatusTooManyRequests, "requests_per_principal", "too many requests a second from whoever this is"}
)

// limited is true for a request that came too soon after others of key; it has
// been answered then.
func (p *Proxy) limited(x *exchange, rate *Rate, key string, why refusal) bool {
	wait, ok := rate.Take(key, time.Now())
	if ok {
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
	if !p.perWho.on.Load() {
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
		if p.perWho.on.Load() {
			if name := who(r); name != "" {
				if wait, ok := p.perWho.Take(string(subject(name)), time.Now()); !ok {
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

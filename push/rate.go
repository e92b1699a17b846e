package push

import (
	"net"
	"net/http"
	"sync"
	"time"
)

// rate bounds how many messages each publisher sends. Of each it keeps one
// time, that at which its bucket is full again (GCRA); whose bucket is full is
// forgotten.
type rate struct {
	mu    sync.Mutex
	full  map[string]time.Time
	swept time.Time
}

// take takes n messages for key at perSecond, burst at once, and reports after
// how long they may be sent: 0 is now. n is at most burst.
func (r *rate) take(key string, n, perSecond, burst int, now time.Time) (wait time.Duration) {
	each := time.Second / time.Duration(perSecond)
	most := each * time.Duration(burst)
	r.mu.Lock()
	defer r.mu.Unlock()
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
	if t = t.Add(each * time.Duration(n)); t.Sub(now) > most {
		return t.Sub(now) - most
	}
	if r.full == nil {
		r.full = make(map[string]time.Time)
	}
	r.full[key] = t
	return 0
}

// spend takes n messages of the publisher's rate.
func (c *call) spend(n int) *refusal {
	if c.opt.Rate <= 0 {
		return nil
	}
	wait := c.rate.take(c.publisher(), min(n, c.opt.Burst), c.opt.Rate, c.opt.Burst, time.Now())
	if wait == 0 {
		return nil
	}
	return &refusal{status: http.StatusTooManyRequests, reason: "rate_limited", after: wait,
		detail: "too many messages a second"}
}

// publisher is whose rate it is: a principal's, or an address's where there is
// none.
func (c *call) publisher() string {
	if p := c.who.Principal(); p != "" {
		return p
	}
	host, _, err := net.SplitHostPort(c.r.RemoteAddr)
	if err != nil {
		return c.r.RemoteAddr
	}
	return "ip:" + host
}

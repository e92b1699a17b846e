package push

import (
	"net"
	"net/http"
	"time"
)

// spend takes n messages of the publisher's rate.
func (c *call) spend(n int) *refusal {
	if c.opt.Rate <= 0 {
		return nil
	}
	wait := c.rate.Take(c.publisher(), min(n, c.opt.Burst), c.opt.Rate, c.opt.Burst, time.Now())
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

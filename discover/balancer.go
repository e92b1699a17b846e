package discover

import (
	"context"
	"errors"
	"slices"
	"sync"
	"time"
)

// Strategy says which of several endpoints is asked next.
type Strategy uint8

const (
	// RoundRobin asks each in turn.
	RoundRobin Strategy = iota
	// LeastConnections asks the one with the fewest requests in flight, in
	// turn among equals.
	LeastConnections
)

// BalancerConfig says how a Balancer chooses.
type BalancerConfig struct {
	Strategy Strategy
	// MaxFails is how many failures in a row set an endpoint aside; 0 means
	// that none do.
	MaxFails int
	// FailFor is how long it stays aside before one request at a time tries
	// it again; 0 means 10 s.
	FailFor time.Duration
	// Now is the clock; nil means time.Now.
	Now func() time.Time
}

// Balancer chooses among the endpoints of one upstream. All methods may be
// called concurrently; none waits for anything but a short lock, save Check.
//
// What it learns about an endpoint it learns from the requests themselves (see
// [Pick.Done]) and, where somebody runs Check, by asking. When no endpoint is
// thought to work, the likeliest is chosen all the same: only an empty list
// makes Pick fail.
type Balancer struct {
	strategy Strategy
	maxFails int
	failFor  time.Duration
	now      func() time.Time

	mu      sync.Mutex
	targets []*target
	next    int // where the turn begins
}

// target is an endpoint and what is known of it; guarded by Balancer.mu.
type target struct {
	Endpoint
	active int       // requests in flight
	fails  int       // in a row
	aside  time.Time // until when, if fails says that it is aside
	trials int       // requests in flight that were sent although it is aside
	missed int       // active checks failed in a row
	picked uint64
	failed uint64
	asides uint64
}

// NewBalancer returns a balancer without endpoints; see Update.
func NewBalancer(c BalancerConfig) *Balancer {
	b := &Balancer{strategy: c.Strategy, maxFails: c.MaxFails, failFor: c.FailFor, now: c.Now}
	if b.failFor <= 0 {
		b.failFor = 10 * time.Second
	}
	if b.now == nil {
		b.now = time.Now
	}
	return b
}

// Update makes these the endpoints. What is known of those that stay (same ID
// and URL) is kept; requests in flight to those that go are left alone. It
// fits [Source.Watch].
func (b *Balancer) Update(list []Endpoint) {
	b.mu.Lock()
	defer b.mu.Unlock()
	targets := make([]*target, 0, len(list))
	for _, e := range list {
		same := func(t *target) bool { return t.Endpoint == e }
		if slices.ContainsFunc(targets, same) {
			continue
		}
		if i := slices.IndexFunc(b.targets, same); i >= 0 {
			targets = append(targets, b.targets[i])
		} else {
			targets = append(targets, &target{Endpoint: e})
		}
	}
	b.targets = targets
}

// Pick is one request to one endpoint.
type Pick struct {
	Endpoint
	b     *Balancer
	t     *target
	trial bool
	known bool // the endpoint has answered, or failed to
	done  bool
}

// Pick chooses an endpoint and counts a request to it, until Done. The ids of
// endpoints that were tried already are passed over; ErrNoEndpoint when that
// leaves none. Endpoints that are set aside or that fail their checks are
// chosen only when there is no other: then the one that is due soonest.
func (b *Balancer) Pick(tried ...string) (*Pick, error) {
	b.mu.Lock()
	defer b.mu.Unlock()
	now := b.now()
	best, at := (*target)(nil), 0
	for i := range b.targets {
		j := (b.next + i) % len(b.targets)
		t := b.targets[j]
		if slices.Contains(tried, t.ID) {
			continue
		}
		if best == nil || b.better(t, best, now) {
			best, at = t, j
		}
	}
	if best == nil {
		return nil, ErrNoEndpoint
	}
	b.next = at + 1
	best.active++
	best.picked++
	p := &Pick{Endpoint: best.Endpoint, b: b, t: best, trial: b.isAside(best)}
	if p.trial {
		best.trials++
	}
	return p, nil
}

// better reports whether t is to be preferred to o, which comes first in turn.
func (b *Balancer) better(t, o *target, now time.Time) bool {
	tUp, oUp := b.usable(t, now), b.usable(o, now)
	switch {
	case tUp != oUp:
		return tUp
	case tUp:
		return b.strategy == LeastConnections && t.active < o.active
	case t.down() != o.down():
		return o.down()
	case (t.trials > 0) != (o.trials > 0):
		return o.trials > 0
	default:
		return t.aside.Before(o.aside)
	}
}

// usable reports whether t may be asked: it is neither down nor aside, or
// aside for long enough and nobody is trying it now.
func (b *Balancer) usable(t *target, now time.Time) bool {
	return !t.down() && (!b.isAside(t) || t.trials == 0 && !now.Before(t.aside))
}

func (b *Balancer) isAside(t *target) bool { return b.maxFails > 0 && t.fails >= b.maxFails }

// Answered says that the endpoint has answered: it works, whatever becomes of
// the rest of the request. Without it Done(nil) says so; an answer that goes on
// for an hour should not make others wait for the news.
func (p *Pick) Answered() {
	p.b.mu.Lock()
	defer p.b.mu.Unlock()
	p.learn(nil)
}

// Done ends the request; later calls do nothing. With nil the endpoint works,
// with an error it has failed, which counts towards setting it aside; a
// context.Canceled says nothing about it (nobody waited for the answer), and
// nor does any error after Answered.
func (p *Pick) Done(err error) {
	p.b.mu.Lock()
	defer p.b.mu.Unlock()
	if p.done {
		return
	}
	p.done = true
	p.t.active--
	p.learn(err)
}

// learn books what came of the request; the first time counts.
func (p *Pick) learn(err error) {
	if p.known {
		return
	}
	p.known = true
	t := p.t
	if p.trial {
		t.trials--
	}
	switch {
	case err == nil:
		t.fails = 0
	case errors.Is(err, context.Canceled):
	default:
		t.failed++
		was := p.b.isAside(t)
		if t.fails++; p.b.isAside(t) && (p.trial || !was) {
			t.aside = p.b.now().Add(p.b.failFor)
			t.asides++
		}
	}
}

// Status is what a Balancer knows of an endpoint.
type Status struct {
	Endpoint
	Active int       // requests in flight
	Fails  int       // failures in a row
	Aside  time.Time // when it may be tried again; zero when it is not set aside
	Down   bool      // its active checks fail
	Picked uint64    // requests since it appeared
	Failed uint64    // of these, that failed
	Asides uint64    // how often it was set aside
}

// Snapshot returns the state of all endpoints, in their order.
func (b *Balancer) Snapshot() []Status {
	b.mu.Lock()
	defer b.mu.Unlock()
	list := make([]Status, len(b.targets))
	for i, t := range b.targets {
		list[i] = Status{
			Endpoint: t.Endpoint, Active: t.active, Fails: t.fails, Down: t.down(),
			Picked: t.picked, Failed: t.failed, Asides: t.asides,
		}
		if b.isAside(t) {
			list[i].Aside = t.aside
		}
	}
	return list
}

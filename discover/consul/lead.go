package consul

import (
	"context"
	"time"

	"github.com/hashicorp/consul/api"
)

// lockDelay is how long a lock that its holder has not given up itself stays
// closed. It is short, for what the cleaner does may be done twice.
const lockDelay = time.Second

// lock is the cleaner's lock, as this node sees it. Who sends into turn may
// use the rest; a mutex would make others wait for Consul longer than they
// want to.
type lock struct {
	turn    chan struct{}
	session string // "" = none
	left    bool   // this node has said goodbye
}

func newLock() lock { return lock{turn: make(chan struct{}, 1)} }

// Lead makes this node the one cleaner if nobody else is, and keeps it so if it
// is called again within SessionTTL. It answers whether this node is the
// cleaner now; after Register has ended it never is.
func (c *Consul) Lead(ctx context.Context) (bool, error) {
	ctx, cancel := context.WithTimeout(ctx, callTimeout)
	defer cancel()
	l := &c.lock
	select {
	case l.turn <- struct{}{}:
		defer func() { <-l.turn }()
	case <-ctx.Done():
		return false, ctx.Err()
	}
	if l.left {
		return false, nil
	}
	if err := c.note(ctx, "renew session", c.renew(ctx)); err != nil {
		return false, err
	}
	held, _, err := c.api.KV().Acquire(c.pair(), (&api.WriteOptions{}).WithContext(ctx))
	if err := c.note(ctx, "acquire the cleaner's lock", err); err != nil {
		return false, err
	}
	return held, nil
}

// renew makes sure that there is a session. One that Consul does not know any
// more takes the lock with it.
func (c *Consul) renew(ctx context.Context) error {
	l, opt := &c.lock, (&api.WriteOptions{}).WithContext(ctx)
	if l.session != "" {
		known, _, err := c.api.Session().Renew(l.session, opt)
		if err != nil {
			return err
		}
		if known != nil {
			return nil
		}
		l.session = ""
	}
	// No checks: those of the agent's machine say nothing about this node,
	// and right after a start there are none.
	id, _, err := c.api.Session().CreateNoChecks(&api.SessionEntry{
		Name: c.id(), TTL: c.cfg.SessionTTL.String(), LockDelay: lockDelay, Behavior: api.SessionBehaviorRelease,
	}, opt)
	l.session = id
	return err
}

func (c *Consul) pair() *api.KVPair {
	return &api.KVPair{Key: c.cfg.Service + "/cleaner", Value: []byte(c.cfg.Self.ID), Session: c.lock.session}
}

// resign gives the lock to whoever asks next, and ends the session.
func (c *Consul) resign(ctx context.Context) {
	l, opt := &c.lock, (&api.WriteOptions{}).WithContext(ctx)
	select {
	case l.turn <- struct{}{}:
		defer func() { <-l.turn }()
	case <-ctx.Done():
		return
	}
	l.left = true
	if l.session == "" {
		return
	}
	_, _, err := c.api.KV().Release(c.pair(), opt)
	_ = c.note(ctx, "give up the cleaner's lock", err)
	_, err = c.api.Session().Destroy(l.session, opt)
	_ = c.note(ctx, "end session", err)
	l.session = ""
}

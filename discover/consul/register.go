package consul

import (
	"context"
	"errors"
	"net"
	"net/url"
	"strconv"
	"time"

	"github.com/hashicorp/consul/api"
)

// Register keeps this node registered until ctx is done: it registers, beats,
// and registers again when Consul does not know it any more. Then it takes the
// registration back and gives up the cleaner's lock, for at most two seconds,
// and returns nil.
func (c *Consul) Register(ctx context.Context) error {
	defer c.leave(ctx)
	wait := backoff()
	registered := false
	for ctx.Err() == nil {
		var err error
		if registered {
			err = c.note(ctx, "beat", c.beat(ctx))
		} else {
			err = c.note(ctx, "register", c.register(ctx))
		}
		if _, answered := errors.AsType[api.StatusError](err); answered && registered {
			registered = false // it does not know us: again, at once
			continue
		}
		if err != nil {
			sleep(ctx, min(c.cfg.Beat, wait.Next(time.Now())))
			continue
		}
		registered = true
		wait.Good(time.Now())
		sleep(ctx, c.cfg.Beat)
	}
	return nil
}

// id is what this node's registration is called.
func (c *Consul) id() string { return c.cfg.Service + "-" + c.cfg.Self.ID }

func (c *Consul) register(ctx context.Context) error {
	ctx, cancel := context.WithTimeout(ctx, callTimeout)
	defer cancel()
	host, port := c.address()
	self := c.cfg.Self
	return c.api.Agent().ServiceRegisterOpts(&api.AgentServiceRegistration{
		ID: c.id(), Name: c.cfg.Service, Address: host, Port: port,
		Meta: map[string]string{metaNode: self.ID, metaAdvertise: self.Advertise, metaInternal: self.Internal},
		Check: &api.AgentServiceCheck{
			CheckID: c.check(), Name: "ssegate beats",
			TTL: c.cfg.TTL.String(), Status: api.HealthPassing,
			DeregisterCriticalServiceAfter: c.cfg.DropAfter.String(),
		},
	}, api.ServiceRegisterOpts{ReplaceExistingChecks: true}.WithContext(ctx))
}

func (c *Consul) check() string { return "service:" + c.id() }

// address is where others reach this node: what it advertises, else its
// internal listener; nothing where that names no host.
func (c *Consul) address() (host string, port int) {
	authority := c.cfg.Self.Internal
	if u, err := url.Parse(c.cfg.Self.Advertise); err == nil && u.Host != "" {
		authority = u.Host
		switch {
		case u.Port() != "":
		case u.Scheme == "https":
			authority = net.JoinHostPort(u.Hostname(), "443")
		default:
			authority = net.JoinHostPort(u.Hostname(), "80")
		}
	}
	host, p, err := net.SplitHostPort(authority)
	if err != nil {
		return "", 0
	}
	port, err = strconv.Atoi(p)
	if err != nil {
		return "", 0
	}
	return host, port
}

func (c *Consul) beat(ctx context.Context) error {
	ctx, cancel := context.WithTimeout(ctx, callTimeout)
	defer cancel()
	return c.api.Agent().UpdateTTLOpts(c.check(), "", api.HealthPassing, (&api.QueryOptions{}).WithContext(ctx))
}

// leave says goodbye. What Consul does not hear it finds out by itself.
func (c *Consul) leave(ctx context.Context) {
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), leaveTimeout)
	defer cancel()
	c.resign(ctx)
	_ = c.note(ctx, "deregister", c.api.Agent().ServiceDeregisterOpts(c.id(), (&api.QueryOptions{}).WithContext(ctx)))
}

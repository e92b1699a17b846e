package proxy

import (
	"context"
	"time"
)

// Limits bound what clients may hold of a node. 0 means no limit.
type Limits struct {
	Connections  int // event streams, all together
	PerIP        int
	PerPrincipal int
}

// SetLimits swaps the limits; they hold for connections made from now on.
func (p *Proxy) SetLimits(l Limits) { p.limits.Store(&l) }

// DrainAll empties the node, until ctx is done: clients of event streams that
// can come back are moved, if there is somewhere to move them to; everything
// else may finish. Drain must have been called before.
func (p *Proxy) DrainAll(ctx context.Context, move bool) {
	if p.streams != nil {
		p.streams.drain(ctx, move)
	}
	for ctx.Err() == nil && (p.active.Load() > 0 || p.tunnels.count() > 0) {
		pause(ctx, 20*time.Millisecond)
	}
}

// CloseStreams ends the event streams that still run, and waits for that
// within ctx.
func (p *Proxy) CloseStreams(ctx context.Context) {
	if p.streams != nil {
		p.streams.close(ctx)
	}
}

package push

import (
	"context"
	"net/http"
	"sync"
	"sync/atomic"
	"time"

	"ssegate/cluster"
	"ssegate/sse"
)

// connLook is how often it is looked whether a connection that is streamed to
// is still there, and connMissed how often in a row it must be missed: one that
// is just being made is known before it follows its topic.
const (
	connLook   = 500 * time.Millisecond
	connMissed = 2
)

// connGone is the cause of the end of a stream that nobody can get any more: a
// client that comes back has another connection.
var connGone = &refusal{status: http.StatusGone, reason: "connection_gone",
	detail: "the connection has gone, and with it whoever could get the rest: a client that comes back has another one"}

// audience watches the connections that a stream goes to.
type audience struct {
	p    *pipe
	gone []atomic.Bool // for each target
	left atomic.Int32  // targets that are not gone
	wg   sync.WaitGroup
}

// watch begins to look after the targets that are connections, until live is
// done; when no target is left it halts the stream.
func (a *audience) watch(p *pipe) {
	a.p, a.gone = p, make([]atomic.Bool, len(p.targets))
	for i := range p.targets {
		if p.targets[i].Status != notConnected {
			a.left.Add(1)
		}
	}
	for i := range p.targets {
		if t := &p.targets[i]; t.conn != "" {
			a.wg.Go(func() { a.look(i, t.topic, t.conn) })
		}
	}
}

func (a *audience) look(i int, topic cluster.Topic, conn string) {
	for missed := 0; missed < connMissed; {
		if pause(a.p.live, connLook); a.p.live.Err() != nil {
			return
		}
		if a.there(a.p.live, topic, conn) {
			missed = 0
		} else {
			missed++
		}
	}
	a.gone[i].Store(true)
	if a.left.Add(-1) == 0 {
		a.p.halt(connGone)
	}
}

// there reports whether a connection follows its topic somewhere. A node that
// does not answer may have it.
func (a *audience) there(ctx context.Context, topic cluster.Topic, conn string) bool {
	only := cluster.Meta{Connection: conn}
	d := a.p.c.cfg.Cluster.Written(ctx, topic, sse.Pos{}, only.Encode())
	return d.Connections > 0 || d.Silent > 0 || ctx.Err() != nil
}

// settle corrects what is said of connections at the end: nothing is stored for
// one that is not there.
func (a *audience) settle(ctx context.Context) {
	ctx, cancel := context.WithTimeout(ctx, a.p.c.opt.Wait)
	defer cancel()
	var wg sync.WaitGroup
	for i := range a.p.targets {
		t := &a.p.targets[i]
		if t.conn == "" {
			continue
		}
		wg.Go(func() {
			if a.gone[i].Load() || t.Status == stored && !a.there(ctx, t.topic, t.conn) {
				t.Status, t.Nodes = notConnected, nil
			}
		})
	}
	wg.Wait()
}

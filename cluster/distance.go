package cluster

import (
	"context"
	"errors"
	"sync"
	"sync/atomic"
	"time"

	"ssegate/bus"
	"ssegate/sse"
)

// near is the round-trip time at which a node counts as twice as loaded as one
// next door.
const near = 50 * time.Millisecond

// distances are what is known of the way to the peers.
type distances struct {
	measuring atomic.Bool

	mu   sync.Mutex
	rtt  map[string]time.Duration // smoothed
	sent map[string]int           // clients sent there since it last said how many it has
}

// measure asks every peer for nothing, over the bus, and notes how long the
// answers take.
func (n *Node) measure(ctx context.Context) {
	peers := *n.peers.Load()
	var wg sync.WaitGroup
	for id := range peers {
		if id == n.ID() {
			continue
		}
		wg.Go(func() {
			ctx, cancel := context.WithTimeout(ctx, n.cfg.Ask)
			defer cancel()
			asked := time.Now()
			// Nobody has the zero stream: the answer is that it is unknown.
			if _, err := n.call(ctx, id, bus.Message{Kind: kindAsk, Stream: sse.StreamID{}}); errors.Is(err, ErrUnknown) {
				n.far.note(id, time.Since(asked))
			}
		})
	}
	wg.Wait()
	n.far.mu.Lock()
	defer n.far.mu.Unlock()
	clear(n.far.sent)
	for id := range n.far.rtt {
		if _, alive := peers[id]; !alive {
			delete(n.far.rtt, id)
		}
	}
}

func (d *distances) note(id string, rtt time.Duration) {
	d.mu.Lock()
	defer d.mu.Unlock()
	if d.rtt == nil {
		d.rtt, d.sent = map[string]time.Duration{}, map[string]int{}
	}
	if before, ok := d.rtt[id]; ok {
		rtt = (7*before + rtt) / 8
	}
	d.rtt[id] = rtt
}

// Lighter returns the public address of the live peer with the fewest
// connections, weighed by the way to it, if a new client is clearly better
// off there than here; "" otherwise. Each call counts as a client sent.
func (n *Node) Lighter() string {
	n.far.mu.Lock()
	defer n.far.mu.Unlock()
	best, where, least := "", "", 0.0
	for id, p := range *n.peers.Load() {
		rtt, reached := n.far.rtt[id]
		if id == n.ID() || p.Draining || p.Advertise == "" || !reached {
			continue
		}
		load := float64(p.Connections+n.far.sent[id]+1) * (1 + float64(rtt)/float64(near))
		if best == "" || load < least {
			best, where, least = id, p.Advertise, load
		}
	}
	// Clearly: counts are as old as a heartbeat, and a client that is sent to
	// and fro is worse off than one on the fuller node.
	if best == "" || float64(n.Connections()) < 1.25*least+8 {
		return ""
	}
	n.far.sent[best]++
	return where
}

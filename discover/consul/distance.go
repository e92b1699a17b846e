package consul

import (
	"context"
	"time"

	"github.com/hashicorp/consul/api"
)

// Distances estimates the round trip from this node to each peer, by node id,
// from the network coordinates that Consul's agents keep. Peers whose agent
// has none yet (they take half a minute after its start) are left out; all
// are while this node is not registered.
func (c *Consul) Distances(ctx context.Context) (map[string]time.Duration, error) {
	ctx, cancel := context.WithTimeout(ctx, callTimeout)
	defer cancel()
	q := (&api.QueryOptions{}).WithContext(ctx)
	entries, _, err := c.api.Health().Service(c.cfg.Service, "", true, q)
	if err := c.note(ctx, "list peers", err); err != nil {
		return nil, err
	}
	list, _, err := c.api.Coordinate().Nodes(q)
	if err := c.note(ctx, "list coordinates", err); err != nil {
		return nil, err
	}
	agents := map[string]string{} // by node id
	for _, e := range entries {
		if p, ok := readPeer(e); ok {
			agents[p.ID] = e.Node.Node
		}
	}
	here, ok := agents[c.cfg.Self.ID]
	if !ok {
		return nil, nil
	}
	all := map[string]time.Duration{}
	for id, agent := range agents {
		if d, ok := between(list, here, agent); ok {
			all[id] = d
		}
	}
	return all, nil
}

// between is the distance of two agents; coordinates of two network segments
// have nothing to do with each other.
func between(list []*api.CoordinateEntry, a, b string) (d time.Duration, ok bool) {
	if a == b {
		return 0, true
	}
	for _, x := range list {
		for _, y := range list {
			if x.Node == a && y.Node == b && x.Segment == y.Segment && x.Coord.IsCompatibleWith(y.Coord) {
				return x.Coord.DistanceTo(y.Coord), true
			}
		}
	}
	return 0, false
}

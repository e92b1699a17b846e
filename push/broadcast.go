package push

import (
	"errors"
	"net/http"
	"slices"

	"ssegate/auth"
	"ssegate/cluster"
)

// inBroadcast is how many topics a broadcast publishes to in one go.
const inBroadcast = 500

// broadcast is POST /api/v1/messages/broadcast: a message to where it says or,
// if it does not say, to everybody who is connected, each connection once.
func (c *call) broadcast() {
	m, bad := c.message()
	if bad == nil && m.named == 0 && m.aimed {
		bad = needTarget("target") // a name that is misspelt is not everybody
	}
	if bad == nil && m.named == 0 && !c.who.MayPublish(string(auth.Everything)) {
		bad = forbidden("target", "is missing, and you may not publish to everybody")
	}
	if bad == nil {
		bad = c.may("target", m.at[:m.named])
	}
	if bad == nil {
		bad = c.spend(1)
	}
	switch {
	case bad != nil:
		c.refuse(bad)
	case m.named > 0:
		c.sendOne(&m)
	default:
		c.toAll(&m)
	}
}

// reach is what became of a message to everybody.
type reach struct {
	ID        string   `json:"id"`
	Status    string   `json:"status"`
	Topics    int      `json:"topics"`    // that it went to
	Delivered int      `json:"delivered"` // of them, those where somebody was
	Nodes     []string `json:"nodes"`
	Failed    int      `json:"failed,omitempty"`
	Duplicate bool     `json:"duplicate,omitempty"` // it was in each of the topics before
}

// toAll publishes a message to the first topic of each connection. Frames that
// are so marked reach a connection by that one only, so it comes once.
func (c *call) toAll(m *message) {
	topics, bad := c.firstTopics()
	if bad != nil {
		c.refuse(bad)
		return
	}
	r := c.round(0)
	about := r.about(m)
	about.meta.Primary = true
	about.encoded = about.meta.Encode()
	out := reach{ID: m.id, Status: notConnected, Topics: len(topics), Nodes: []string{}}
	kept := &receipt{ID: m.id, own: m.own}
	var fate, fresh bool
	ctx, cancel := c.within()
	defer cancel()
	for part := range slices.Chunk(topics, inBroadcast) {
		posts := make([]cluster.Outgoing, len(part))
		for i, t := range part {
			posts[i] = c.post(t, m, &about, about.encoded)
		}
		got := c.cfg.Cluster.Publish(ctx, posts)
		for i := range got {
			res := result{Target: part[i]}
			c.outcome(&res, &got[i])
			if err := got[i].Err; err != nil {
				out.Failed++
				fate = fate || !errors.Is(err, cluster.ErrNotStored)
				continue
			}
			fresh = fresh || !got[i].Dup
			kept.Time = got[i].Time
			kept.add(part[i], &posts[i], &got[i])
			if res.Status == delivered {
				out.Delivered++
			}
			if rank(res.Status) > rank(out.Status) {
				out.Status = res.Status
			}
			for _, n := range res.Nodes {
				if !slices.Contains(out.Nodes, n) {
					out.Nodes = append(out.Nodes, n)
				}
			}
		}
	}
	if kept.Time > 0 {
		out.Duplicate = !fresh && out.Failed == 0
		c.receipts.keep(kept)
	}
	if out.Failed > 0 {
		out.Status = rejected
		if fate {
			out.Status = unknown
		}
		bad := lost(m.own, fate)
		bad.more = out
		c.refuse(bad)
		return
	}
	c.answer(http.StatusOK, out)
}

// firstTopics are the first topics of all connections, each once.
func (c *call) firstTopics() ([]string, *refusal) {
	l, bad := c.listing(freshMiss)
	if bad != nil {
		return nil, bad
	}
	seen := map[string]bool{}
	var out []string
	add := func(t string) {
		if !seen[t] {
			seen[t] = true
			out = append(out, t)
		}
	}
	for s := range c.cfg.Cluster.Subscriptions() { // the registry may not know of them yet
		add(s.Topics()[0].Name)
	}
	for i := range l.list {
		if topics := l.list[i].Topics; len(topics) > 0 {
			add(topics[0])
		}
	}
	return out, nil
}

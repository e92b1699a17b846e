package cluster

import (
	"sync/atomic"

	"ssegate/bus"
)

type counters struct {
	logged, sent, received                        atomic.Uint64
	logErrors, registryErrors, sendErrors         atomic.Uint64
	rewritten                                     atomic.Uint64
	lostUnroutable, lostRefused, lostOverfl       atomic.Uint64
	jumps, foundByCheck, gaps                     atomic.Uint64
	garbage, registryDropped                      atomic.Uint64
	nodesGone, takeovers, electionsUnheld, landed atomic.Uint64

	published, publishErrors, holes, renumbered, wireDropped, parcelsMissed atomic.Uint64
}

func (c *counters) lost(why bus.LostReason) {
	switch why {
	case bus.LostUnroutable:
		c.lostUnroutable.Add(1)
	case bus.LostRefused:
		c.lostRefused.Add(1)
	default:
		c.lostOverfl.Add(1)
	}
}

// Stats are counters since the start of the node.
type Stats struct {
	FramesLogged, FramesSent, FramesReceived uint64
	LogErrors, RegistryErrors, SendErrors    uint64
	Lost                                     map[bus.LostReason]uint64
	Jumps                                    uint64 // times a replica met frames beyond the next one
	Rewritten                                uint64 // logs that were found empty, to be written again
	FoundByCheck                             uint64 // replicas that a tail check found behind while the bus was up
	Gaps                                     uint64 // gaps told to clients
	Garbage                                  uint64 // messages that could not be understood
	RegistryDropped                          uint64 // operations given up because too many waited
	NodesGone, Takeovers, ElectionsUnheld    uint64
	BusUp                                    bool
	Outbox                                   int // streams with news that the log does not have

	Topics, Subscriptions int    // that clients here follow; clients that do
	Published             uint64 // messages that the log took from this node
	PublishErrors         uint64 // times that it did not take a topic's, or nobody knows
	Holes                 uint64 // times that a topic's missing message had to be read from the log
	Renumbered            uint64 // topics whose log was found to have forgotten
	WireDropped           uint64 // messages of topics that found no room on the way to another node
	ParcelsMissed         uint64 // parcels of topics that did not arrive here
}

// Stats reads the counters.
func (n *Node) Stats() Stats {
	c := &n.count
	waiting := n.out.waiting()
	topics, subscriptions := n.topics.size()
	return Stats{
		Topics: topics, Subscriptions: subscriptions,
		Published: c.published.Load(), PublishErrors: c.publishErrors.Load(),
		Holes: c.holes.Load(), Renumbered: c.renumbered.Load(),
		WireDropped: c.wireDropped.Load(), ParcelsMissed: c.parcelsMissed.Load(),

		FramesLogged: c.logged.Load(), FramesSent: c.sent.Load(), FramesReceived: c.received.Load(),
		LogErrors: c.logErrors.Load(), RegistryErrors: c.registryErrors.Load(), SendErrors: c.sendErrors.Load(),
		Lost: map[bus.LostReason]uint64{
			bus.LostUnroutable: c.lostUnroutable.Load(),
			bus.LostRefused:    c.lostRefused.Load(),
			bus.LostOverflow:   c.lostOverfl.Load(),
		},
		Jumps: c.jumps.Load(), FoundByCheck: c.foundByCheck.Load(), Rewritten: c.rewritten.Load(), Gaps: c.gaps.Load(),
		Garbage: c.garbage.Load(), RegistryDropped: c.registryDropped.Load(),
		NodesGone: c.nodesGone.Load(), Takeovers: c.takeovers.Load(), ElectionsUnheld: c.electionsUnheld.Load(),
		BusUp: n.busUp.Load(), Outbox: waiting,
	}
}

// Landed counts the times that another node began to follow a stream of ours.
func (n *Node) Landed() uint64 { return n.count.landed.Load() }

// CountGap counts a gap that the caller tells a client of by itself.
func (n *Node) CountGap() { n.count.gaps.Add(1) }

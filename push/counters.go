package push

import (
	"maps"
	"sync"
	"sync/atomic"
)

// Stats are counters since the start of the API, but for Receipts.
type Stats struct {
	Messages  uint64 // taken, each target once
	Delivered uint64 // of them, those that somebody was there for
	Stored    uint64 // of them, those that wait in the log
	Repeated  uint64 // of them, those that were there before
	Failed    uint64 // that found no log
	Events    uint64 // of streams, each once however many targets
	Streams   uint64 // that ended, in whatever way
	CutShort  uint64 // of them, those that did not end well
	Bytes     uint64 // of streams
	CutsLost  uint64 // streams that broke off, and whose followers were never told

	WebhookDone    uint64            // messages that the webhook was told of
	WebhookGot     uint64            // that somebody got in time
	WebhookRetried uint64            // attempts that failed
	WebhookFailed  uint64            // messages given up
	ReceiptsLost   uint64            // receipts that other nodes do not find
	Refused        map[string]uint64 // by reason
}

type counters struct {
	messages, delivered, stored, repeated, failed                atomic.Uint64
	events, streams, cutShort, cutsLost, bytes                   atomic.Uint64
	webhookDone, webhookGot, webhookRetried, webhookFailed, lost atomic.Uint64

	mu      sync.Mutex
	refused map[string]uint64
}

func (c *counters) refuse(reason string) {
	c.mu.Lock()
	if c.refused == nil {
		c.refused = make(map[string]uint64)
	}
	c.refused[reason]++
	c.mu.Unlock()
}

// Stats reads the counters.
func (a *API) Stats() Stats {
	c := &a.stats
	c.mu.Lock()
	refused := maps.Clone(c.refused)
	c.mu.Unlock()
	return Stats{
		Messages: c.messages.Load(), Delivered: c.delivered.Load(), Stored: c.stored.Load(), Repeated: c.repeated.Load(),
		Failed: c.failed.Load(), Events: c.events.Load(), Streams: c.streams.Load(), CutShort: c.cutShort.Load(), CutsLost: c.cutsLost.Load(), Bytes: c.bytes.Load(),
		WebhookDone: c.webhookDone.Load(), WebhookGot: c.webhookGot.Load(), WebhookRetried: c.webhookRetried.Load(),
		WebhookFailed: c.webhookFailed.Load(), ReceiptsLost: c.lost.Load(), Refused: refused,
	}
}

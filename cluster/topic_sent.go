package cluster

import (
	"context"
	"maps"
	"sync"
	"time"

	"ssegate/reconnect"
	"ssegate/sse"
)

const (
	// sentKept is how many topics of a generation are remembered, and sentTurn
	// how long one lasts: what was published before that a log has on its disk.
	sentKept = 32 << 10
	sentTurn = 10 * time.Minute
	// sentPause is how often the log is told at most, and sentRest the rest
	// that it is given between two round trips.
	sentPause = 5 * time.Second
	sentRest  = 10 * time.Millisecond
)

// sent remembers where the messages stand that this node has published of late.
// A log that has lost some of them may not know that there were any, and if
// nobody follows their topic, nobody else does.
type sent struct {
	mu       sync.Mutex
	now, old map[sse.StreamID]sentTo
	turned   time.Time
	telling  bool
	told     time.Time
}

// sentTo is what was published to one topic.
type sentTo struct {
	seq uint64 // of the last message
	ttl time.Duration
}

// note remembers positions that the log has given out in a topic. It reports
// whether a new numbering has begun since the last time.
func (s *sent) note(id sse.StreamID, all []sse.Pos, ttl time.Duration) (anew bool) {
	if len(all) == 0 {
		return false
	}
	last := all[0]
	for _, pos := range all {
		if pos.Seq > last.Seq {
			last = pos
		}
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	was := s.get(id).seq
	if len(s.now) >= sentKept || s.now == nil || time.Since(s.turned) > sentTurn {
		s.old, s.now, s.turned = s.now, map[sse.StreamID]sentTo{}, time.Now()
	}
	s.now[id] = sentTo{max(was, last.Seq), ttl}
	return was > 0 && was < reconnect.Origin(last.Epoch).Seq
}

func (s *sent) get(id sse.StreamID) sentTo {
	if to, ok := s.now[id]; ok {
		return to
	}
	return s.old[id]
}

// after is the last position of a topic that this node knows of, or zero.
func (n *Node) after(id sse.StreamID) sse.Pos {
	n.sent.mu.Lock()
	at := sse.Pos{Seq: n.sent.get(id).seq}
	n.sent.mu.Unlock()
	if t := n.topics.get(id); t != nil {
		if tail, open, _ := t.position(); open && tail.Seq > at.Seq {
			at = tail
		}
	}
	return at
}

// tell tells the log of all that was published of late, since it may have
// forgotten some. Nobody waits for it.
func (s *sent) tell(ts *topics) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.telling || len(s.now)+len(s.old) == 0 {
		return
	}
	wait := max(0, sentPause-time.Since(s.told))
	s.telling = ts.spawn(func() {
		sleep(ts.n.ctx, wait)
		s.mu.Lock()
		all := maps.Clone(s.old)
		if all == nil {
			all = map[sse.StreamID]sentTo{}
		}
		maps.Copy(all, s.now)
		s.telling, s.told = false, time.Now()
		s.mu.Unlock()
		ts.tellSent(all)
	})
}

// tellSent opens topics, some at a time, behind what was published to them.
func (ts *topics) tellSent(all map[sse.StreamID]sentTo) {
	part := make([]reconnect.OpenTopic, 0, min(len(all), topicPart))
	for ts.n.ctx.Err() == nil && len(all) > 0 {
		part = part[:0]
		for id, to := range all {
			if part = append(part, reconnect.OpenTopic{Stream: id, After: sse.Pos{Seq: to.seq}, TTL: to.ttl}); len(part) == topicPart {
				break
			}
		}
		ctx, cancel := context.WithTimeout(ts.n.ctx, topicWait)
		tails, err := ts.n.cfg.Journal.Open(ctx, part)
		cancel()
		rest := sentRest
		if err != nil {
			rest = mergePause // and then again
		} else {
			ts.n.sent.mu.Lock()
			for i := range part {
				id := part[i].Stream
				delete(all, id)
				if to, ok := ts.n.sent.now[id]; ok && to.seq < tails[i].Seq {
					ts.n.sent.now[id] = sentTo{tails[i].Seq, to.ttl}
				} else if to, ok := ts.n.sent.old[id]; ok && to.seq < tails[i].Seq {
					ts.n.sent.old[id] = sentTo{tails[i].Seq, to.ttl}
				}
			}
			ts.n.sent.mu.Unlock()
		}
		sleep(ts.n.ctx, rest)
	}
}

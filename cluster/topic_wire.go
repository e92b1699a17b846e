package cluster

import (
	"context"
	"encoding/binary"
	"sync"
	"time"

	"ssegate/bus"
	"ssegate/sse"
)

const (
	// laneBytes bounds what waits to be sent to one node. What is beyond is
	// dropped: the node finds out by the number of the next parcel.
	laneBytes = 8 << 20
	// wireBody is how long a message is made, unless one frame is longer.
	wireBody = 1 << 20
	// laneQuiet is how long a lane on which nothing was sent is announced.
	laneQuiet = time.Minute
	// laneAvoid is how long nothing is sent to a node that could not be
	// reached. When it can, it looks into the log by itself.
	laneAvoid = time.Second
)

// wire carries what was published to the nodes that follow it. Each node
// numbers its parcels to each other one, and says now and then how many there
// were, so that who has missed one knows, without asking the log about every
// topic all the time.
type wire struct {
	n    *Node
	wake chan struct{}
	busy sync.Mutex // held while a round is under way

	mu    sync.Mutex
	lanes map[string]*lane  // by the node they lead to
	from  map[string]uint64 // number of the last parcel of each node
}

// lane is what is sent to one node.
type lane struct {
	msgs   []bus.Message // not sent yet
	bytes  int
	lost   bool // some had to be dropped
	say    bool // its number is to be told, whatever there is to be sent
	number uint64
	used   time.Time
	avoid  time.Time // nothing is sent before
}

func (w *wire) init(n *Node) {
	w.n = n
	w.wake = make(chan struct{}, 1)
	w.lanes = map[string]*lane{}
	w.from = map[string]uint64{}
}

// add puts messages on the lanes to nodes, without waiting.
func (w *wire) add(to []string, msgs ...bus.Message) {
	now := time.Now()
	size := 0
	for i := range msgs {
		size += len(msgs[i].Body) + 64
	}
	w.mu.Lock()
	for _, id := range to {
		l := w.lanes[id]
		if l == nil {
			l = &lane{}
			w.lanes[id] = l
		}
		switch {
		case l.avoid.After(now):
		case l.bytes > 0 && l.bytes+size > laneBytes:
			l.lost = true
			w.n.count.wireDropped.Add(uint64(len(msgs)))
		default:
			l.msgs = append(l.msgs, msgs...)
			l.bytes += size
		}
	}
	w.mu.Unlock()
	nudge(w.wake)
}

// frames puts frames of a topic on the lanes to nodes.
func (w *wire) frames(to []string, id sse.StreamID, frames []sse.Frame) {
	if len(to) == 0 {
		return
	}
	var msgs []bus.Message
	for len(frames) > 0 {
		n, size := 0, 0
		for n < len(frames) && (n == 0 || size+len(frames[n].Block) <= wireBody) {
			size += len(frames[n].Block) + len(frames[n].Meta) + len(frames[n].ID) + 64
			n++
		}
		m := bus.Message{Kind: kindLook, Stream: id}
		if size <= bus.MaxBody {
			m.Kind, m.Body = kindTopic, bus.AppendFrames(make([]byte, 0, size), frames[:n])
		}
		msgs = append(msgs, m)
		w.n.count.sent.Add(uint64(n * len(to)))
		frames = frames[n:]
	}
	w.add(to, msgs...)
}

// run sends what is on the lanes until ctx is done: one parcel a node and
// round. Nobody waits for it.
func (w *wire) run(ctx context.Context) {
	for {
		select {
		case <-ctx.Done():
			return
		case <-w.wake:
		}
		w.round(ctx)
	}
}

// round sends what is on the lanes now.
func (w *wire) round(ctx context.Context) {
	w.busy.Lock()
	defer w.busy.Unlock()
	for _, p := range w.parcels() {
		sctx, cancel := context.WithTimeout(ctx, 50*time.Millisecond)
		w.n.sendTo(sctx, p.to, p.msgs...)
		cancel()
	}
}

type parcel struct {
	to   string
	msgs []bus.Message
}

// parcels takes what is on the lanes.
func (w *wire) parcels() []parcel {
	now := time.Now()
	w.mu.Lock()
	defer w.mu.Unlock()
	var out []parcel
	for id, l := range w.lanes {
		own := len(l.msgs) > 0
		if !own && !l.say {
			continue
		}
		l.say = false
		if l.lost {
			l.number++ // one that never comes
			l.lost = false
		}
		if !own {
			out = append(out, parcel{id, []bus.Message{counted(l.number, false)}})
			continue
		}
		l.number++
		l.used = now
		msgs := append([]bus.Message{counted(l.number, true)}, l.msgs...)
		out = append(out, parcel{id, msgs})
		l.msgs, l.bytes = nil, 0
	}
	return out
}

// announce has it said on each lane in use how many parcels there were.
func (w *wire) announce() {
	now := time.Now()
	w.mu.Lock()
	for id, l := range w.lanes {
		switch {
		case now.Sub(l.used) < laneQuiet:
			l.say = true
		case len(l.msgs) == 0 && !w.n.lives(id):
			delete(w.lanes, id)
		}
	}
	for id := range w.from {
		if !w.n.lives(id) {
			delete(w.from, id)
		}
	}
	w.mu.Unlock()
	nudge(w.wake)
}

// lives reports whether a node is among those last listed.
func (n *Node) lives(id string) bool {
	_, ok := (*n.peers.Load())[id]
	return ok
}

// counted is the message with a parcel's number: its own, or that of the last
// one sent.
func counted(number uint64, own bool) bus.Message {
	body := []byte{0}
	if own {
		body[0] = 1
	}
	return bus.Message{Kind: kindParcel, Body: binary.AppendUvarint(body, number)}
}

// parcel takes note of a parcel's number.
func (w *wire) parcel(m *bus.Message) {
	if len(m.Body) < 2 {
		w.n.count.garbage.Add(1)
		return
	}
	number, n := binary.Uvarint(m.Body[1:])
	if n <= 0 {
		w.n.count.garbage.Add(1)
		return
	}
	w.mu.Lock()
	next := w.from[m.From]
	if m.Body[0] == 1 {
		next++
	}
	w.from[m.From] = max(number, w.from[m.From])
	w.mu.Unlock()
	if number > next {
		w.n.count.parcelsMissed.Add(number - next)
		w.n.topics.lookAtAll()
	}
}

// avoid sends nothing to a node for a moment.
func (w *wire) avoid(id string) {
	w.mu.Lock()
	defer w.mu.Unlock()
	if l := w.lanes[id]; l != nil {
		l.avoid = time.Now().Add(laneAvoid)
		l.lost = true
	}
}

// receiveTopic takes what another node says about topics.
func (n *Node) receiveTopic(m *bus.Message) {
	switch m.Kind {
	case kindParcel:
		n.topics.wire.parcel(m)
		return
	case kindLook:
		if t := n.topics.get(m.Stream); t != nil {
			n.topics.look(t)
		}
		return
	}
	t := n.topics.get(m.Stream)
	if t == nil {
		n.topics.unknown(m.Stream)
		return
	}
	frames, err := bus.DecodeFrames(m.Body)
	if err != nil {
		n.count.garbage.Add(1)
		return
	}
	n.count.received.Add(uint64(len(frames)))
	t.receive(frames)
}

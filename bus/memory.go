package bus

import (
	"context"
	"slices"
	"sync"
)

// Memory carries messages between nodes of one process: the whole transport
// of a node that is alone, and a small world for tests, which can make it
// lossy. It keeps the promises of Bus, and time has no part in it, so it works
// in a testing/synctest bubble. All methods may be called concurrently.
type Memory struct {
	mu    sync.Mutex
	nodes map[string]*memoryNode // those whose Run runs
	cut   map[string]bool
	drop  func(from, to string, m Message) bool
}

// memoryRoom bounds, in bytes, what waits for one node's handler. A parcel
// that finds nothing waiting is always taken.
const memoryRoom = 32 << 20

// messageSize is what a message takes of memoryRoom besides its body.
const messageSize = 96

// NewMemory returns a transport without nodes.
func NewMemory() *Memory {
	return &Memory{nodes: map[string]*memoryNode{}, cut: map[string]bool{}}
}

// Node returns a new node's place on the transport. Where two run under one
// id, the messages go to the one that was run last.
func (n *Memory) Node(id string) Bus {
	return &memoryNode{net: n, id: id, wake: make(chan struct{}, 1), losses: map[memoryLost]bool{}}
}

// Drop has f asked about every message that is sent from now on: those for
// which it says true are lost, and nobody is told. f is called one call at a
// time and must not call the transport. A nil f loses nothing.
func (n *Memory) Drop(f func(from, to string, m Message) bool) {
	n.mu.Lock()
	defer n.mu.Unlock()
	n.drop = f
}

// Cut takes the transport away from the node id, as when its connection is
// lost, together with what waits for its handler: it gets Up(false), and to
// the others it is unroutable.
func (n *Memory) Cut(id string) {
	n.mu.Lock()
	defer n.mu.Unlock()
	if n.cut[id] {
		return
	}
	n.cut[id] = true
	if node := n.nodes[id]; node != nil {
		node.queue = slices.DeleteFunc(node.queue, func(e memoryEvent) bool { return e.msgs != nil })
		node.size = 0
		node.push(memoryEvent{up: upFalse})
	}
}

// Heal ends Cut: the node gets Up(true).
func (n *Memory) Heal(id string) {
	n.mu.Lock()
	defer n.mu.Unlock()
	if !n.cut[id] {
		return
	}
	delete(n.cut, id)
	if node := n.nodes[id]; node != nil {
		node.push(memoryEvent{up: upTrue})
	}
}

// memoryNode is one node's Bus. net.mu guards what is below it.
type memoryNode struct {
	net  *Memory
	id   string
	wake chan struct{} // there is something in queue; one token

	ran, closed bool
	queue       []memoryEvent
	losses      map[memoryLost]bool // those in queue
	size        int                 // bytes of the messages in queue
}

// memoryEvent is one call of the handler: one of the three.
type memoryEvent struct {
	msgs []Message
	lost memoryLost
	up   memoryUp
}

type memoryLost struct {
	to  string
	why LostReason
}

type memoryUp uint8

const (
	upFalse memoryUp = 1 + iota
	upTrue
)

// push queues a call of the handler; a loss that still waits to be told is
// not told twice.
func (b *memoryNode) push(e memoryEvent) {
	if e.lost.why != "" {
		if b.losses[e.lost] {
			return
		}
		b.losses[e.lost] = true
	}
	b.queue = append(b.queue, e)
	select {
	case b.wake <- struct{}{}:
	default:
	}
}

// Send implements Bus. It never waits.
func (b *memoryNode) Send(ctx context.Context, to string, msgs []Message) error {
	if err := ctx.Err(); err != nil {
		return err
	}
	if err := CheckSize(msgs); err != nil {
		return err
	}
	n := b.net
	n.mu.Lock()
	defer n.mu.Unlock()
	switch {
	case b.closed:
		return ErrClosed
	case n.nodes[b.id] != b || n.cut[b.id]:
		return ErrDown
	}
	msgs, size := b.copied(to, msgs)
	dest := n.nodes[to]
	switch {
	case len(msgs) == 0:
	case dest == nil || n.cut[to]:
		b.push(memoryEvent{lost: memoryLost{to, LostUnroutable}})
	case dest.size > 0 && dest.size+size > memoryRoom:
		b.push(memoryEvent{lost: memoryLost{to, LostOverflow}})
	default:
		dest.size += size
		dest.push(memoryEvent{msgs: msgs})
	}
	return nil
}

// copied returns the messages that are not dropped, with bodies of their own,
// and the room that they take.
func (b *memoryNode) copied(to string, msgs []Message) (own []Message, size int) {
	own = make([]Message, 0, len(msgs))
	for _, m := range msgs {
		m.From = b.id
		if b.net.drop != nil && b.net.drop(b.id, to, m) {
			continue
		}
		m.Body = slices.Clone(m.Body)
		own = append(own, m)
		size += len(m.Body) + messageSize
	}
	return own, size
}

// Run implements Bus.
func (b *memoryNode) Run(ctx context.Context, h Handler) error {
	n := b.net
	n.mu.Lock()
	if b.ran {
		n.mu.Unlock()
		return ErrClosed
	}
	b.ran = true
	n.nodes[b.id] = b
	if !n.cut[b.id] {
		b.push(memoryEvent{up: upTrue})
	}
	n.mu.Unlock()
	defer func() {
		n.mu.Lock()
		defer n.mu.Unlock()
		b.closed, b.queue = true, nil
		if n.nodes[b.id] == b {
			delete(n.nodes, b.id)
		}
	}()
	for {
		select {
		case <-ctx.Done():
			return nil
		case <-b.wake:
		}
		for ctx.Err() == nil {
			e, ok := b.next()
			if !ok {
				break
			}
			switch {
			case e.msgs != nil:
				h.Receive(e.msgs)
			case e.lost.why != "":
				h.Lost(e.lost.to, e.lost.why)
			default:
				h.Up(e.up == upTrue)
			}
		}
	}
}

// next takes the first call that waits.
func (b *memoryNode) next() (e memoryEvent, ok bool) {
	b.net.mu.Lock()
	defer b.net.mu.Unlock()
	if len(b.queue) == 0 {
		return e, false
	}
	e = b.queue[0]
	b.queue[0] = memoryEvent{}
	if b.queue = b.queue[1:]; len(b.queue) == 0 {
		b.queue = nil
	}
	delete(b.losses, e.lost)
	for _, m := range e.msgs {
		b.size -= len(m.Body) + messageSize
	}
	return e, true
}

package link

import (
	"context"
	"encoding/binary"
	"errors"
	"io"
	"sync"

	"ssegate/bus"
)

// Parcel is what goes to one node in one piece: a parcel of bus.AppendMessages
// with a stamp behind it.
type Parcel struct {
	To   string
	Data []byte
}

// errFull says that the queue has no room for what was to be sent.
var errFull = errors.New("link: queue full")

// queue holds what was sent and not yet taken by the writer: parcels in order,
// the youngest to each node still open for what is sent next.
type queue struct {
	room  int // bytes, in all
	batch int // bytes above which a parcel takes no further message

	mu    sync.Mutex
	shut  error // why nothing can be sent now; nil when it can
	ended bool  // nothing comes any more
	list  []*Parcel
	open  map[string]*Parcel
	size  int
	free  [][]byte      // buffers of parcels that were written
	ready chan struct{} // something was queued, or ended: one token
}

// spare is how many buffers of written parcels are kept for the next ones.
const spare = 4

func newQueue(room, batch int) *queue {
	return &queue{
		room: room, batch: batch,
		shut: bus.ErrDown, open: map[string]*Parcel{}, ready: make(chan struct{}, 1),
	}
}

// add queues msgs for node to, all or none.
func (q *queue) add(to string, msgs []bus.Message) error {
	need := bus.EncodedLen(msgs)
	q.mu.Lock()
	defer q.mu.Unlock()
	switch {
	case q.shut != nil:
		return q.shut
	case len(msgs) == 0:
		return nil
	case q.size > 0 && q.size+need > q.room:
		return errFull
	}
	for len(msgs) > 0 {
		p := q.open[to]
		if p == nil {
			p = q.begin(to)
		}
		n := q.fitting(len(p.Data), msgs)
		if n == 0 {
			delete(q.open, to) // full: the next one begins
			continue
		}
		before := len(p.Data)
		p.Data = bus.AppendMessages(p.Data, msgs[:n])
		q.size += len(p.Data) - before
		msgs = msgs[n:]
	}
	q.signal()
	return nil
}

// fitting returns how many of msgs a parcel of so many bytes takes: as many as
// keep it below the batch size, and one in any case when it is empty.
func (q *queue) fitting(have int, msgs []bus.Message) int {
	for n := range msgs {
		if have > 1 && have+bus.EncodedLen(msgs[n:n+1]) > q.batch {
			return n
		}
		have += bus.EncodedLen(msgs[n : n+1])
	}
	return len(msgs)
}

// probe queues an empty parcel, whether or not anything else can be sent.
func (q *queue) probe(to string) {
	q.mu.Lock()
	defer q.mu.Unlock()
	p := q.begin(to)
	p.Data = bus.AppendMessages(p.Data, nil)
	delete(q.open, to)
	q.signal()
}

// begin queues a parcel that has nothing in it yet.
func (q *queue) begin(to string) *Parcel {
	p := &Parcel{To: to}
	if n := len(q.free); n > 0 {
		p.Data, q.free = q.free[n-1][:0], q.free[:n-1]
	}
	q.list = append(q.list, p)
	q.open[to] = p
	return p
}

func (q *queue) signal() {
	select {
	case q.ready <- struct{}{}:
	default:
	}
}

// take waits for parcels and returns the first ones, in order, as many as have
// most bytes together, and one in any case. The error is io.EOF when the queue
// was ended and is empty, or ctx's.
func (q *queue) take(ctx context.Context, most int) ([]*Parcel, error) {
	for {
		q.mu.Lock()
		n, size := 0, 0
		for n < len(q.list) && (n == 0 || size+len(q.list[n].Data) <= most) {
			size += len(q.list[n].Data)
			n++
		}
		if n > 0 {
			taken := q.list[:n:n]
			for _, p := range taken {
				if q.open[p.To] == p {
					delete(q.open, p.To)
				}
			}
			if q.list = q.list[n:]; len(q.list) == 0 {
				q.list = nil
			}
			q.size -= size
			q.mu.Unlock()
			return taken, nil
		}
		ended := q.ended
		q.mu.Unlock()
		if ended {
			return nil, io.EOF
		}
		select {
		case <-ctx.Done():
			return nil, ctx.Err()
		case <-q.ready:
		}
	}
}

// written gives the buffers of taken parcels back.
func (q *queue) written(parcels []*Parcel) {
	q.mu.Lock()
	defer q.mu.Unlock()
	for _, p := range parcels {
		if len(q.free) < spare && cap(p.Data) <= 2*q.batch {
			q.free = append(q.free, p.Data)
		}
		p.Data = nil
	}
}

// start lets everything be sent.
func (q *queue) start() {
	q.mu.Lock()
	defer q.mu.Unlock()
	q.shut = nil
}

// stop lets nothing be sent any more, for the reason why, and returns the nodes
// that what was queued is thrown away for.
func (q *queue) stop(why error) (lost []string) {
	q.mu.Lock()
	defer q.mu.Unlock()
	q.shut = why
	for _, p := range q.list {
		if len(p.Data) > 1 { // else a probe
			lost = append(lost, p.To)
		}
	}
	q.list, q.size = nil, 0
	clear(q.open)
	return lost
}

// end lets nothing be sent any more, for ever, and has take say io.EOF once
// what is queued was taken.
func (q *queue) end() {
	q.mu.Lock()
	defer q.mu.Unlock()
	q.shut, q.ended = bus.ErrClosed, true
	q.signal()
}

// stamp says which session of which run of a node a parcel was sent in. It
// stands behind the parcel, so that the parcel's version byte comes first.
//
// A broker that was paused may hold parcels of a connection that was given up
// since, and hand them over behind newer ones: whoever knows of a newer session
// of the sender drops them, for their sender was told that they are lost.
type stamp struct {
	run     uint64 // drawn when the node starts
	session uint64 // counts up from 1
}

const stampSize = 16

func (s stamp) append(data []byte) []byte {
	data = binary.BigEndian.AppendUint64(data, s.run)
	return binary.BigEndian.AppendUint64(data, s.session)
}

// cutStamp takes the stamp from a parcel.
func cutStamp(data []byte) (parcel []byte, s stamp, ok bool) {
	at := len(data) - stampSize
	if at < 1 {
		return nil, s, false
	}
	s.run = binary.BigEndian.Uint64(data[at:])
	s.session = binary.BigEndian.Uint64(data[at+8:])
	return data[:at:at], s, true
}

// senders remembers the newest session of each sender.
type senders map[string]sender

type sender struct {
	newest stamp
	before uint64 // the run before newest.run; 0 when none is known
}

// manySenders bounds the memory of nodes that went. Forgetting all of them is
// harmless where no parcel of an old session is on its way, so nearly always.
const manySenders = 4096

// stale reports whether a newer session of node from is known, and books s.
func (m senders) stale(from string, s stamp) bool {
	known, ok := m[from]
	switch {
	case ok && s.run == known.newest.run && s.session == known.newest.session:
		return false
	case ok && s.run == known.newest.run && s.session < known.newest.session, ok && s.run == known.before:
		return true
	case !ok && len(m) >= manySenders:
		clear(m)
	}
	if s.run != known.newest.run {
		known.before = known.newest.run
	}
	known.newest = s
	m[from] = known
	return false
}

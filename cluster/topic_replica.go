package cluster

import (
	"bytes"
	"cmp"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"ssegate/hub"
	"ssegate/reconnect"
	"ssegate/sse"
)

const (
	// topicHold is how many frames, and topicHoldBytes how many bytes, wait
	// for one that is on its way. What is beyond is read from the log.
	topicHold      = 4096
	topicHoldBytes = 4 << 20
	// topicLate is how long a frame may be on its way before the log is asked:
	// of several publishers' messages some overtake others.
	topicLate = 10 * time.Millisecond
	// flushHere is how many followers are written to by whoever appends.
	flushHere = 64
)

// A topic is what this node has of a topic that clients of its own follow. It
// is fed by what is published here, by the bus, and by the log.
type topic struct {
	Topic
	ts     *topics
	hub    *hub.Stream
	limits reconnect.Limits
	ring   int // frames
	cutGap bool

	ready chan struct{} // closed when open is set

	refs int       // subscriptions; under topics.mu
	idle time.Time // since when there are none; under topics.mu

	feed     sync.Mutex
	open     bool        // the log has told where it ends
	began    sse.Pos     // where that was
	tail     sse.Pos     // all up to here was appended, or is gone
	held     []sse.Frame // beyond the tail, by Seq
	bytes    int         // of held
	forked   bool        // the log gave numbers out again that it had lost
	lost     uint64      // Seq of the tail before a gap, of which the log is to be told; 0: none
	waiting  bool        // a timer runs, and then the log is asked for what held waits for
	watchers []*part     // of connections that follow several topics
	orders   map[uint64]*order
	lastOrd  uint64

	minter  atomic.Pointer[reconnectMinter]
	page    *topicPage  // what is being appended; under feed
	reading atomic.Bool // somebody reads the log for it

	// The opener's and the checker's, under topics.mu.
	followed bool      // the registry knows that we follow
	touched  time.Time // when it was last told
	numbered time.Time // when the log's numbering was last put off
	checked  time.Time // when the tail was last compared with the log's
}

// reconnectMinter makes the ids of one epoch of a topic.
type reconnectMinter struct {
	epoch uint64
	*reconnect.Minter
}

// newTopic is a topic whose place in the log is not known yet. Followers wait
// in an empty ring.
func (ts *topics) newTopic(id Topic, o *SubscribeOptions) *topic {
	t := &topic{Topic: id, ts: ts, limits: o.Limits, ring: o.RingEvents, cutGap: o.CutGap, ready: make(chan struct{})}
	if t.ring <= 0 {
		t.ring = 1024
	}
	t.hub = ts.n.cfg.Hub.Open(hub.StreamOptions{
		Heartbeat:  o.HeartbeatText,
		Slow:       o.Slow,
		RingEvents: t.ring, RingBytes: o.RingBytes,
		Source: (*topicSource)(t),
		Joined: joined,
		Left:   t.left,
	})
	return t
}

func joined(f *hub.Follower, _ hub.Reason) { f.Tag().(*Subscription).join(f) }

func (t *topic) left(f *hub.Follower, why hub.Reason) {
	s := f.Tag().(*Subscription)
	if seq := f.Pos().Seq; seq < firstSeq {
		t.drop(seq)
	}
	t.ts.gone(s)
	t.ts.release(t)
	s.leave(why)
}

// opened says where the log ended after the registry knew that we follow.
// Whatever comes later is in the log and on its way here.
func (t *topic) opened(at sse.Pos) {
	t.feed.Lock()
	first, behind := !t.open, t.tail.Seq < at.Seq
	t.lost = 0
	t.forked = t.forked && at.Epoch == t.tail.Epoch
	switch {
	case first:
		t.open, t.began = true, at
		t.jump(at)
		close(t.ready)
	case behind && t.tail.Epoch < at.Epoch:
		// The log may have forgotten, and numbers anew.
		t.jump(at)
		t.ts.n.count.renumbered.Add(1)
	case behind:
		t.feed.Unlock()
		t.ts.read(t)
		return
	}
	t.take(nil)
	t.feed.Unlock()
	t.flush()
}

// jump moves the tail on into a new epoch, without frames. Followers that are
// behind it read the log, which tells of a gap if there is one. The caller holds
// feed.
func (t *topic) jump(to sse.Pos) {
	t.tail = to
	t.hub.Append([]sse.Frame{{Kind: sse.KindFence, Pos: to}})
}

// receive takes frames that are in the log, in any order.
func (t *topic) receive(frames []sse.Frame) {
	t.feed.Lock()
	news := t.take(frames)
	t.feed.Unlock()
	if news {
		t.flush()
	}
}

// take appends what comes next and holds the rest. It reports whether anything
// was appended. The caller holds feed.
func (t *topic) take(frames []sse.Frame) (news bool) {
	p, _ := t.ts.pages.Get().(*topicPage)
	if p == nil {
		p = new(topicPage)
	}
	defer t.ts.pages.Put(p)
	t.page = p
	if t.open {
		for len(frames) > 0 && frames[0].Pos.Seq <= t.tail.Seq+1 {
			if frames[0].Pos.Seq == t.tail.Seq+1 {
				t.next(&frames[0])
			} else if t.differs(&frames[0]) {
				t.forked = true
				t.ts.look(t)
			}
			frames = frames[1:]
		}
	}
	if len(frames) > 0 {
		t.hold(frames)
	}
	if t.open && len(t.held) > 0 {
		n := 0
		for ; n < len(t.held) && t.held[n].Pos.Seq <= t.tail.Seq+1; n++ {
			t.bytes -= len(t.held[n].Block)
			if t.held[n].Pos.Seq == t.tail.Seq+1 {
				t.next(&t.held[n])
			}
		}
		t.held = slices.Delete(t.held, 0, n)
		if len(t.held) == 0 {
			t.held = nil
		} else {
			t.await()
		}
	}
	t.page = nil
	if len(p.frames) == 0 {
		return false
	}
	// Blocks were appended to one buffer, which has moved meanwhile.
	at := 0
	for i := range p.frames {
		end := at + len(p.frames[i].Block)
		p.frames[i].Block = p.blocks[at:end:end]
		at = end
	}
	t.hub.Append(p.frames)
	clear(p.frames)
	p.frames, p.blocks = p.frames[:0], p.blocks[:0]
	if cap(p.blocks) > wireBody {
		p.blocks = nil
	}
	return true
}

// topicPage is what a topic is about to append: frames, and their blocks one
// behind the other. All topics use the same few.
type topicPage struct {
	frames []sse.Frame
	blocks []byte
}

// next puts a frame, with its id, behind the tail.
func (t *topic) next(f *sse.Frame) {
	p := t.page
	at := len(p.blocks)
	p.blocks = t.withID(p.blocks, f)
	g := *f
	g.Block = p.blocks[at:]
	p.frames = append(p.frames, g)
	t.forked = t.forked && f.Pos.Epoch == t.tail.Epoch
	t.tail = f.Pos
}

// differs reports whether a frame is another one than what the ring has under
// its number: the log has lost what it once had, and gave the number out again.
func (t *topic) differs(f *sse.Frame) bool {
	had := t.hub.Frames(f.Pos.Seq-1, 1, 1)
	return len(had) > 0 && had[0].Pos.Seq == f.Pos.Seq &&
		(!bytes.Equal(had[0].ID, f.ID) || !bytes.Equal(withoutID(had[0].Block), f.Block))
}

// hold keeps frames that do not come next.
func (t *topic) hold(frames []sse.Frame) {
	for i := range frames {
		f := &frames[i]
		if f.Pos.Seq <= t.tail.Seq {
			continue
		}
		if len(t.held) >= topicHold || t.bytes+len(f.Block) > topicHoldBytes && len(t.held) > 0 {
			t.ts.look(t)
			break // the log has it
		}
		at, found := len(t.held), false
		if at > 0 && t.held[at-1].Pos.Seq >= f.Pos.Seq {
			at, found = slices.BinarySearchFunc(t.held, f.Pos.Seq, func(g sse.Frame, seq uint64) int {
				return cmp.Compare(g.Pos.Seq, seq)
			})
		}
		if !found {
			t.held = slices.Insert(t.held, at, *f)
			t.bytes += len(f.Block)
		}
	}
}

// await has the log asked for what held waits for, unless it comes by itself.
func (t *topic) await() {
	if t.waiting {
		return
	}
	t.waiting = true
	first := t.tail.Seq
	late := topicLate
	if !t.ts.n.busUp.Load() {
		late = time.Millisecond
	}
	time.AfterFunc(late, func() {
		t.feed.Lock()
		t.waiting = false
		stuck := len(t.held) > 0 && t.tail.Seq == first
		if len(t.held) > 0 && !stuck {
			t.await() // another one
		}
		t.feed.Unlock()
		if stuck {
			t.ts.n.count.holes.Add(1)
			t.ts.read(t)
		}
	})
}

// fromLog takes what the log has behind after, which was the tail, and the gap
// before it if there is one. It reports whether there may be more.
func (t *topic) fromLog(after sse.Pos, frames []sse.Frame, gap *reconnect.Gap) (more bool) {
	t.feed.Lock()
	if gap != nil && t.tail.Seq < gap.To {
		// The ring begins anew with what follows; then each follower reads of
		// the gap itself. What was here may be news to the log: the others are
		// to be told of the gap as well.
		t.lost = max(t.lost, t.tail.Seq)
		t.tail.Seq, t.forked = gap.To, false
		defer t.ts.look(t)
	}
	if len(frames) > 0 && frames[0].Kind == sse.KindNote {
		// A new numbering begins, and nothing is missing before it; unless
		// something came meanwhile that the log does not have.
		if t.tail.Seq == after.Seq {
			t.tail, t.forked = frames[0].Pos, false
			frames = frames[1:]
		} else {
			frames, more = nil, true
		}
	}
	t.take(frames)
	more = more || len(frames) > 0 || gap != nil
	t.feed.Unlock()
	t.flush()
	return more
}

// forgive drops what is held in vain: the log, asked last, does not have what
// came before it, so it has lost what it once had.
func (t *topic) forgive() {
	t.feed.Lock()
	t.held, t.bytes = nil, 0
	t.feed.Unlock()
}

// newest is the position that the log must not fall below.
func (t *topic) newest() sse.Pos {
	t.feed.Lock()
	defer t.feed.Unlock()
	at := t.tail
	if t.forked {
		at.Seq++ // what it has is not what was told here
	}
	return at
}

// known is the position that the log is to be told of: where what was here ended
// before a gap, else the newest.
func (t *topic) known() sse.Pos {
	t.feed.Lock()
	lost := t.lost
	t.feed.Unlock()
	if lost > 0 {
		return sse.Pos{Seq: lost}
	}
	return t.newest()
}

// missed reports whether something may be news to the log.
func (t *topic) missed() bool {
	t.feed.Lock()
	defer t.feed.Unlock()
	return t.lost > 0
}

// position is the tail, and whether it is known where the log is.
func (t *topic) position() (tail sse.Pos, open, stuck bool) {
	t.feed.Lock()
	defer t.feed.Unlock()
	return t.tail, t.open, len(t.held) > 0
}

// flush hands on what was appended. Whoever publishes does not write to
// thousands of clients first.
func (t *topic) flush() {
	if t.hub.Followers() <= flushHere || !t.ts.spawn(t.hub.Flush) {
		t.hub.Flush()
	}
	t.feed.Lock()
	for _, p := range t.watchers {
		p.mark()
	}
	t.feed.Unlock()
}

func (t *topic) watch(p *part) {
	t.feed.Lock()
	t.watchers = append(t.watchers, p)
	t.feed.Unlock()
}

func (t *topic) unwatch(p *part) {
	t.feed.Lock()
	if i := slices.Index(t.watchers, p); i >= 0 {
		t.watchers = slices.Delete(t.watchers, i, i+1)
	}
	t.feed.Unlock()
}

// withID appends a frame's block with the id line that every node gives it.
func (t *topic) withID(dst []byte, f *sse.Frame) []byte {
	m := t.minter.Load()
	if m == nil || m.epoch != f.Pos.Epoch {
		m = &reconnectMinter{f.Pos.Epoch, reconnect.NewMinter(t.ID, [8]byte{}, f.Pos.Epoch)}
		t.minter.Store(m)
	}
	dst = append(dst, idField...)
	dst = append(m.Append(dst, f.Pos.Seq), '\n')
	return append(dst, f.Block...)
}

const idField = "id: "

// idRoom is how long an id line is at most.
const idRoom = len(idField) + 65 + 1

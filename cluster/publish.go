package cluster

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"sync"
	"time"

	"ssegate/bus"
	"ssegate/reconnect"
	"ssegate/sse"
)

// How a message may fail to be published. Every Receipt.Err matches one of
// these.
var (
	// ErrNotStored says that the message is in no log and never will be.
	ErrNotStored = errors.New("cluster: message not stored")
	// ErrFate says that nobody knows whether the message is in the log. Who
	// publishes it again gives it the same ID and Once, so that it is there
	// once at most. Too few replicas (reconnect.ErrReplicas) are such a case
	// too: it is in one log at least, and Pos says where.
	ErrFate = errors.New("cluster: fate of the message unknown")
)

const (
	// publishWait bounds the round trip to the log.
	publishWait = 2 * time.Second
	// publishPosts and publishBytes bound one round trip, unless one call has
	// more.
	publishPosts = 4096
	publishBytes = 4 << 20
	// publishQueue bounds, in bytes, what waits for its round trip.
	publishQueue = 64 << 20
	// lookPause is how often the others are told at most to look at a topic.
	lookPause = 100 * time.Millisecond
	// postSize is what a message takes of that besides its own bytes.
	postSize = 256
)

// Outgoing is a message to be published.
type Outgoing struct {
	Topic  Topic
	ID     []byte           // of the message; "" = none
	Once   time.Duration    // see reconnect.Post
	Meta   []byte           // of Meta.Encode
	Block  []byte           // the whole event without an id line, in LF
	Limits reconnect.Limits // of the topic's log from now on
}

// Receipt says what became of a message.
type Receipt struct {
	Pos   sse.Pos
	Dup   bool     // it was there before; Pos is where
	Time  int64    // when the log took it, in Unix ms
	Nodes []string // live nodes that have subscribers of the topic or had them a moment ago; shared
	Local int      // subscriptions to the topic on this node
	Here  bool     // the message is for one of them, as far as its Meta says
	Err   error    // nil: it is in the log
}

// publisher writes what is published, one round trip at a time.
type publisher struct {
	n    *Node
	wake chan struct{}

	mu     sync.Mutex
	queue  []*publishing
	flying []*publishing // being written
	bytes  int           // of queue
	room   chan struct{} // closed when there is some again; nil while nobody waits
	closed bool
}

// publishing is one call of Publish.
type publishing struct {
	posts    []Outgoing
	bytes    int
	receipts []Receipt
	done     chan struct{}
}

func (p *publisher) init(n *Node) {
	p.n = n
	p.wake = make(chan struct{}, 1)
}

// Publish appends messages to their topics' logs and then has them delivered,
// here and on the other nodes. It returns when the log has answered for all of
// them, with a receipt each. Concurrent calls are written together: at once
// when nothing is under way, else with the next round trip. Messages of one
// call to one topic follow one another in its log; so do those of calls made
// one after the other. Of a call some may fail and others not.
//
// It waits no longer than ctx allows: for room among what is to be written
// (then ErrNotStored), and for the log (then ErrFate). Meta, ID and Block must
// not be changed afterwards.
func (n *Node) Publish(ctx context.Context, posts []Outgoing) []Receipt {
	if len(posts) == 0 {
		return nil
	}
	p := &n.pub
	call := &publishing{posts: posts, done: make(chan struct{})}
	for i := range posts {
		call.bytes += len(posts[i].Block) + len(posts[i].Meta) + len(posts[i].ID) + postSize
	}
	if err := p.add(ctx, call); err != nil {
		return refused(posts, fmt.Errorf("%w: %w", ErrNotStored, err))
	}
	select {
	case <-call.done:
		return call.receipts
	case <-ctx.Done():
	}
	if p.withdraw(call) {
		return refused(posts, fmt.Errorf("%w: %w", ErrNotStored, context.Cause(ctx)))
	}
	select {
	case <-call.done:
		return call.receipts
	default:
		return refused(posts, fmt.Errorf("%w: %w", ErrFate, context.Cause(ctx)))
	}
}

func refused(posts []Outgoing, err error) []Receipt {
	receipts := make([]Receipt, len(posts))
	for i := range receipts {
		receipts[i].Err = err
	}
	return receipts
}

// add queues a call, when there is room.
func (p *publisher) add(ctx context.Context, call *publishing) error {
	for {
		if err := ctx.Err(); err != nil {
			return context.Cause(ctx)
		}
		p.mu.Lock()
		if p.closed || p.n.cfg.Journal == nil {
			p.mu.Unlock()
			return ErrLeaving
		}
		if p.bytes == 0 || p.bytes+call.bytes <= publishQueue {
			p.queue = append(p.queue, call)
			p.bytes += call.bytes
			p.mu.Unlock()
			nudge(p.wake)
			return nil
		}
		if p.room == nil {
			p.room = make(chan struct{})
		}
		room := p.room
		p.mu.Unlock()
		select {
		case <-room:
		case <-ctx.Done():
		}
	}
}

// withdraw takes a call back that is not being written yet.
func (p *publisher) withdraw(call *publishing) bool {
	p.mu.Lock()
	defer p.mu.Unlock()
	i := slices.Index(p.queue, call)
	if i < 0 {
		return false
	}
	p.queue = slices.Delete(p.queue, i, i+1)
	p.freed(call)
	return true
}

// freed makes the room known that a call has left. The caller holds mu.
func (p *publisher) freed(call *publishing) {
	p.bytes -= call.bytes
	if p.room != nil {
		close(p.room)
		p.room = nil
	}
}

// take is what goes with the next round trip.
func (p *publisher) take(into []*publishing) []*publishing {
	p.mu.Lock()
	defer p.mu.Unlock()
	clear(into)
	into = into[:0]
	posts, bytes := 0, 0
	for _, call := range p.queue {
		posts += len(call.posts)
		bytes += call.bytes
		if len(into) > 0 && (posts > publishPosts || bytes > publishBytes) {
			break
		}
		into = append(into, call)
		p.freed(call)
	}
	p.queue = slices.Delete(p.queue, 0, len(into))
	p.flying = into
	return into
}

// run writes what is published until ctx is done.
func (p *publisher) run(ctx context.Context) {
	var b batch
	var calls []*publishing
	for {
		select {
		case <-ctx.Done():
			return
		case <-p.wake:
		}
		for calls = p.take(calls); len(calls) > 0; calls = p.take(calls) {
			b.write(ctx, p.n, calls)
		}
	}
}

// drain lets nothing more in, and waits within ctx for what was.
func (p *publisher) drain(ctx context.Context) {
	p.mu.Lock()
	p.closed = true
	all := slices.Concat(p.flying, p.queue)
	p.mu.Unlock()
	for _, call := range all {
		select {
		case <-call.done:
		case <-ctx.Done():
			return
		}
	}
}

// close answers whoever still waits when run has ended.
func (p *publisher) close() {
	p.mu.Lock()
	p.closed = true
	queue := p.queue
	p.queue = nil
	p.mu.Unlock()
	for _, call := range queue {
		call.receipts = refused(call.posts, fmt.Errorf("%w: %w", ErrNotStored, ErrLeaving))
		close(call.done)
	}
}

// batch is one round trip. It is used again for the next one.
type batch struct {
	index  map[sse.StreamID]int
	posts  []reconnect.Posts
	frames []sse.Frame
	told   map[sse.StreamID]bool // that the others were to look at, since toldAt
	toldAt time.Time
}

// write publishes the calls' messages, delivers them, and answers. A client
// here does not wait for the bus.
func (b *batch) write(ctx context.Context, n *Node, calls []*publishing) {
	b.gather(n, calls)
	wctx, cancel := context.WithTimeout(ctx, publishWait)
	posted := n.cfg.Journal.Publish(wctx, b.posts)
	cancel()
	local := make([]int, len(posted))
	nodes := make([][]string, len(posted))
	to := make([][]string, len(posted))
	for i := range posted {
		local[i] = b.deliver(n, i, &posted[i])
		nodes[i], to[i] = n.followers(posted[i].Followers)
	}
	b.answer(n, calls, posted, local, nodes)
	for i := range posted {
		b.send(n, i, &posted[i], to[i])
	}
	clear(b.posts)
	clear(b.frames)
}

// gather sorts the calls' messages by topic.
func (b *batch) gather(n *Node, calls []*publishing) {
	if b.index == nil {
		b.index, b.told = map[sse.StreamID]int{}, map[sse.StreamID]bool{}
	}
	clear(b.index)
	b.posts = b.posts[:0]
	for _, call := range calls {
		for i := range call.posts {
			o := &call.posts[i]
			at, ok := b.index[o.Topic.ID]
			if !ok {
				at = len(b.posts)
				b.index[o.Topic.ID] = at
				b.posts = append(b.posts, reconnect.Posts{Stream: o.Topic.ID, After: n.after(o.Topic.ID)})
			}
			p := &b.posts[at]
			p.Limits = o.Limits
			p.Posts = append(p.Posts, reconnect.Post{ID: o.ID, Once: o.Once, Meta: o.Meta, Block: o.Block})
		}
	}
}

// taken reports whether posts are in the log.
func taken(p *reconnect.Posted) bool { return p.Err == nil || errors.Is(p.Err, reconnect.ErrReplicas) }

// fresh are the frames of a topic that are in the log since now.
func (b *batch) fresh(i int, p *reconnect.Posted) []sse.Frame {
	b.frames = b.frames[:0]
	for j := range b.posts[i].Posts {
		if p.Dup != nil && p.Dup[j] {
			continue
		}
		post := &b.posts[i].Posts[j]
		b.frames = append(b.frames, sse.Frame{
			Pos: p.Pos[j], Kind: sse.KindEvent, ID: post.ID, Block: post.Block, Time: p.Time, Meta: post.Meta,
		})
	}
	return b.frames
}

// deliver hands a topic's messages to clients here, and tells how many there
// are.
func (b *batch) deliver(n *Node, i int, p *reconnect.Posted) (local int) {
	id := b.posts[i].Stream
	t := n.topics.get(id)
	if !taken(p) {
		n.count.publishErrors.Add(1)
		if t != nil {
			n.topics.look(t) // it may be in the log
		}
		return 0
	}
	n.count.published.Add(uint64(len(p.Pos)))
	if n.sent.note(id, p.Pos, b.posts[i].Limits.TTL) {
		n.sent.tell(&n.topics)
	}
	if t == nil {
		return 0
	}
	t.receive(b.fresh(i, p))
	return t.subscribers()
}

// send puts a topic's messages on their way to other nodes.
func (b *batch) send(n *Node, i int, p *reconnect.Posted, to []string) {
	id := b.posts[i].Stream
	switch {
	case taken(p):
		if frames := b.fresh(i, p); len(frames) > 0 {
			n.topics.wire.frames(to, id, frames)
		}
	case !errors.Is(p.Err, reconnect.ErrBroken):
		// Perhaps it is in the log, and nobody else will tell.
		now := time.Now()
		if now.Sub(b.toldAt) > lookPause {
			b.toldAt = now
			clear(b.told)
		}
		if b.told[id] {
			return
		}
		b.told[id] = true
		var others []string
		for peer := range *n.peers.Load() {
			if peer != n.ID() {
				others = append(others, peer)
			}
		}
		n.topics.wire.add(others, bus.Message{Kind: kindLook, Stream: id})
	}
}

// followers tells which of the nodes that follow a topic live, in order, and
// which are to be sent to: the others, also such as are not listed yet.
func (n *Node) followers(all []string) (live, to []string) {
	for _, id := range all {
		if id != n.ID() {
			to = append(to, id)
		}
		if n.lives(id) || id == n.ID() {
			live = append(live, id)
		}
	}
	slices.Sort(live) // people read it
	return live, to
}

// answer gives each call its receipts.
func (b *batch) answer(n *Node, calls []*publishing, posted []reconnect.Posted, local []int, nodes [][]string) {
	next := make([]int, len(posted))
	for _, call := range calls {
		receipts := make([]Receipt, len(call.posts))
		for i := range receipts {
			at := b.index[call.posts[i].Topic.ID]
			p := &posted[at]
			r := &receipts[i]
			r.Time, r.Nodes, r.Local, r.Err = p.Time, nodes[at], local[at], fate(p.Err)
			if j := next[at]; taken(p) {
				r.Pos, r.Dup = p.Pos[j], p.Dup != nil && p.Dup[j]
			}
			if r.Err == nil && r.Local > 0 {
				t := n.topics.get(b.posts[at].Stream)
				r.Here = t != nil && t.meant(call.posts[i].Meta)
			}
			next[at]++
		}
		call.receipts = receipts
		close(call.done)
	}
}

// fate says in our words what the log's error means.
func fate(err error) error {
	switch {
	case err == nil:
		return nil
	case errors.Is(err, reconnect.ErrBroken), errors.Is(err, reconnect.ErrBatch):
		return fmt.Errorf("%w: %w", ErrNotStored, err)
	}
	return fmt.Errorf("%w: %w", ErrFate, err)
}

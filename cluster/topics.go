package cluster

import (
	"context"
	"iter"
	"maps"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"ssegate/reconnect"
	"ssegate/sse"
)

const (
	// topicGrace is how long a topic is kept that nobody here follows: who
	// comes back at once finds it. So long those who publish elsewhere are told
	// that somebody is here; that must not be much.
	topicGrace = 500 * time.Millisecond
	// topicWait bounds a round trip to log or registry that nobody waits for.
	topicWait = 2 * time.Second
	// topicPart is how many topics one round trip is about, at most.
	topicPart = 512
	// topicCalls is how many single calls run at once.
	topicCalls = 16
	// topicTurns is in how many tail checks every topic has its turn, while
	// the bus carries and loses nothing.
	topicTurns = 15
	// topicFew is how many topics are not worth taking turns.
	topicFew = 256
)

// topics are the topics that clients of this node follow. One goroutine opens
// them, one compares them with the log; what is followed and quiet costs its
// turn in that and nothing else.
type topics struct {
	n      *Node
	wire   wire
	passes passes
	awayAt atomic.Int64 // when the log was last found away, since the start; 0: never

	failing atomic.Bool // topics could not be opened when it was last tried

	mu       sync.Mutex
	all      map[sse.StreamID]*topic
	turn     []*topic // those that have not had their turn yet
	subs     map[string]*Subscription
	opening  []*topic
	leaving  map[sse.StreamID]bool // whose interest is to be given up
	suspects map[*topic]bool       // to be compared with the log soon
	doubtAll bool                  // all of them
	recent   departures
	closed   bool
	wg       sync.WaitGroup

	pages               sync.Pool // of *topicPage
	openWake, checkWake chan struct{}
	reads               chan struct{} // one for each log that is read on
}

func (ts *topics) init(n *Node) {
	ts.n = n
	ts.all = map[sse.StreamID]*topic{}
	ts.subs = map[string]*Subscription{}
	ts.leaving = map[sse.StreamID]bool{}
	ts.suspects = map[*topic]bool{}
	ts.openWake, ts.checkWake = make(chan struct{}, 1), make(chan struct{}, 1)
	ts.reads = make(chan struct{}, topicCalls)
	ts.wire.init(n)
}

// spawn starts a goroutine that close waits for; false when it is too late.
func (ts *topics) spawn(f func()) bool {
	ts.mu.Lock()
	defer ts.mu.Unlock()
	if ts.closed {
		return false
	}
	ts.wg.Go(f)
	return true
}

func nudge(wake chan struct{}) {
	select {
	case wake <- struct{}{}:
	default:
	}
}

// enter takes a reference on a topic, for who follows it.
func (ts *topics) enter(id Topic, o *SubscribeOptions) (*topic, error) {
	ts.mu.Lock()
	defer ts.mu.Unlock()
	if ts.closed || ts.n.cfg.Journal == nil {
		return nil, ErrLeaving
	}
	t := ts.all[id.ID]
	if t == nil {
		t = ts.newTopic(id, o)
		ts.all[id.ID] = t
		ts.opening = append(ts.opening, t)
		nudge(ts.openWake)
	}
	t.refs++
	return t, nil
}

func (ts *topics) release(t *topic) {
	ts.mu.Lock()
	defer ts.mu.Unlock()
	if t.refs--; t.refs == 0 {
		t.idle = time.Now()
		time.AfterFunc(topicGrace, func() { ts.retire(t) })
	}
}

// retire forgets a topic that nobody has followed for a while.
func (ts *topics) retire(t *topic) {
	ts.mu.Lock()
	if ts.closed || ts.all[t.ID] != t || t.refs > 0 || time.Since(t.idle) < topicGrace {
		ts.mu.Unlock()
		return
	}
	delete(ts.all, t.ID)
	delete(ts.suspects, t)
	ts.leaving[t.ID] = true
	nudge(ts.openWake)
	ts.mu.Unlock()
	t.hub.Close()
}

// get is a topic that is followed here, or nil.
func (ts *topics) get(id sse.StreamID) *topic {
	ts.mu.Lock()
	defer ts.mu.Unlock()
	return ts.all[id]
}

// unknown notes that somebody takes us for a follower of what nobody follows
// here.
func (ts *topics) unknown(id sse.StreamID) {
	ts.mu.Lock()
	defer ts.mu.Unlock()
	if ts.all[id] == nil && len(ts.leaving) < registrarOps {
		ts.leaving[id] = true
		nudge(ts.openWake)
	}
}

// look has a topic compared with the log soon.
func (ts *topics) look(t *topic) {
	ts.mu.Lock()
	ts.suspects[t] = true
	ts.mu.Unlock()
	nudge(ts.checkWake)
}

// lookAtAll has all of them compared: something may have been lost.
func (ts *topics) lookAtAll() {
	ts.mu.Lock()
	ts.doubtAll = true
	ts.mu.Unlock()
	nudge(ts.checkWake)
}

// again tells the registry once more what we follow, for it has forgotten.
func (ts *topics) again() {
	ts.mu.Lock()
	for _, t := range ts.all {
		t.followed = false
	}
	ts.opening = slices.AppendSeq(ts.opening[:0], maps.Values(ts.all))
	ts.mu.Unlock()
	nudge(ts.openWake)
	ts.lookAtAll()
	ts.n.sent.tell(ts)
}

// run opens topics and gives them up until ctx is done.
func (ts *topics) run(ctx context.Context) {
	wait := reconnect.Backoff{Max: registrarPause}
	for {
		select {
		case <-ctx.Done():
			return
		case <-ts.openWake:
		}
		if err := ts.round(ctx); err != nil {
			ts.failing.Store(true)
			ts.n.cfg.Report(Report{What: "topics not opened; clients wait", Err: err})
			sleep(ctx, wait.Next(time.Now()))
			nudge(ts.openWake)
		} else {
			ts.failing.Store(false)
			wait.Good(time.Now())
		}
	}
}

// round opens what is to be opened. The error is one of those that kept it
// from being done, and then it is to be tried again.
func (ts *topics) round(ctx context.Context) error {
	ts.mu.Lock()
	opening, leaving := ts.opening, ts.leaving
	ts.opening, ts.leaving = nil, map[sse.StreamID]bool{}
	ts.mu.Unlock()
	ts.unfollow(ctx, leaving)
	var failed error
	for part := range slices.Chunk(opening, topicPart) {
		if err := ts.open(ctx, part); err != nil {
			failed = err
			ts.mu.Lock()
			ts.opening = append(ts.opening, part...)
			ts.mu.Unlock()
		}
	}
	return failed
}

// open registers our interest in topics, and then sees where their logs end.
func (ts *topics) open(ctx context.Context, part []*topic) error {
	ts.mu.Lock()
	var follow []*topic
	part = slices.DeleteFunc(slices.Clone(part), func(t *topic) bool { return ts.all[t.ID] != t })
	for _, t := range part {
		if !t.followed {
			follow = append(follow, t)
		}
	}
	ts.mu.Unlock()
	ctx, cancel := context.WithTimeout(ctx, topicWait)
	defer cancel()
	if err := ts.follow(ctx, follow); err != nil {
		ts.n.count.registryErrors.Add(1)
		return err
	}
	asked := make([]reconnect.OpenTopic, 0, len(part))
	for _, t := range part {
		asked = append(asked, reconnect.OpenTopic{Stream: t.ID, After: t.known(), TTL: t.limits.TTL})
	}
	if len(asked) == 0 {
		return nil
	}
	tails, err := ts.n.cfg.Journal.Open(ctx, asked)
	if err != nil {
		_ = ts.away(err)
		return err
	}
	now := time.Now()
	ts.mu.Lock()
	for _, t := range part {
		t.numbered, t.checked = now, now
	}
	ts.mu.Unlock()
	for i, t := range part {
		t.opened(tails[i])
	}
	return nil
}

// follow registers our interest, some topics at a time.
func (ts *topics) follow(ctx context.Context, part []*topic) error {
	return each(part, func(t *topic) error {
		err := ts.n.cfg.Registry.Follow(ctx, t.ID, ts.n.ID(), ts.n.keeps())
		if err == nil {
			ts.mu.Lock()
			t.followed, t.touched = true, time.Now()
			ts.mu.Unlock()
		}
		return err
	})
}

// unfollow gives up our interest. What fails ends by itself.
func (ts *topics) unfollow(ctx context.Context, leaving map[sse.StreamID]bool) {
	ctx, cancel := context.WithTimeout(ctx, topicWait)
	defer cancel()
	_ = each(slices.Collect(maps.Keys(leaving)), func(id sse.StreamID) error {
		if ts.get(id) != nil {
			return nil // followed again meanwhile
		}
		return ts.n.cfg.Registry.Unfollow(ctx, id, ts.n.ID())
	})
}

// each calls f for all, a few at a time, until one fails.
func each[T any](all []T, f func(T) error) error {
	if len(all) == 1 {
		return f(all[0])
	}
	var wg sync.WaitGroup
	var next atomic.Int64
	var mu sync.Mutex
	var failed error
	for range min(topicCalls, len(all)) {
		wg.Go(func() {
			for i := next.Add(1) - 1; i < int64(len(all)); i = next.Add(1) - 1 {
				if err := f(all[i]); err != nil {
					next.Store(int64(len(all)))
					mu.Lock()
					failed = err
					mu.Unlock()
				}
			}
		})
	}
	wg.Wait()
	return failed
}

// close ends all subscriptions and waits for what was started for them.
func (ts *topics) close() {
	ts.mu.Lock()
	ts.closed = true
	all := slices.Collect(maps.Values(ts.all))
	clear(ts.all)
	ts.mu.Unlock()
	for _, t := range all {
		t.hub.Close()
	}
	ts.wg.Wait()
}

// endTopics ends what follows topics and what is still to be published.
func (n *Node) endTopics() {
	n.pub.close()
	n.topics.close()
}

// drain sends, within ctx, what is on its way, and gives up what the others know
// of us.
func (ts *topics) drain(ctx context.Context) {
	if ts.n.cfg.Journal == nil {
		return
	}
	ts.wire.round(ctx)
	ts.mu.Lock()
	leaving := ts.leaving
	ts.leaving = map[sse.StreamID]bool{}
	for id := range ts.all {
		leaving[id] = true
	}
	ts.mu.Unlock()
	_ = each(slices.Collect(maps.Keys(leaving)), func(id sse.StreamID) error {
		return ts.n.cfg.Registry.Unfollow(ctx, id, ts.n.ID())
	})
}

// Topics is how many topics this node follows, and Subscriptions how many
// connections.
func (ts *topics) size() (topics, subscriptions int) {
	ts.mu.Lock()
	defer ts.mu.Unlock()
	return len(ts.all), len(ts.subs)
}

// Subscriptions are those of the moment on this node.
func (n *Node) Subscriptions() iter.Seq[*Subscription] {
	n.topics.mu.Lock()
	subs := slices.Collect(maps.Values(n.topics.subs))
	n.topics.mu.Unlock()
	return slices.Values(subs)
}

// Subscribers is how many subscriptions this node has to a topic.
func (n *Node) Subscribers(t Topic) int {
	tp := n.topics.get(t.ID)
	if tp == nil {
		return 0
	}
	return tp.subscribers()
}

// meant reports whether a message is for one of the topic's subscriptions here,
// of which there are some.
func (t *topic) meant(meta []byte) bool {
	if meta == nil {
		return true
	}
	var v metaView
	if !v.read(meta) {
		return false
	}
	if v.session == nil && v.kb == nil && v.task == nil && v.connection == nil && v.flags&metaPrimary == 0 {
		return true
	}
	for f := range t.hub.All() {
		if s := f.Tag().(*Subscription); s.filter.meant(&v) {
			return true
		}
	}
	t.feed.Lock()
	defer t.feed.Unlock()
	return slices.ContainsFunc(t.watchers, func(p *part) bool { return p.filter.meant(&v) })
}

func (t *topic) subscribers() int {
	t.feed.Lock()
	defer t.feed.Unlock()
	return t.hub.Followers() + len(t.watchers)
}

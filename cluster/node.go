package cluster

import (
	"context"
	"errors"
	"maps"
	"sync"
	"sync/atomic"
	"time"

	"ssegate/bus"
	"ssegate/hub"
	"ssegate/reconnect"
	"ssegate/registry"
	"ssegate/sse"
)

var (
	// ErrUnknown says that nobody knows the stream: not this node, not the
	// registry, not the owner that its id names.
	ErrUnknown = errors.New("cluster: unknown stream")
	// ErrUnavailable says that whoever knows could not be reached in time, so
	// nothing may be concluded.
	ErrUnavailable = errors.New("cluster: registry or owner out of reach")
	// ErrStopped is the cause with which an upstream is cancelled on request.
	ErrStopped = errors.New("cluster: stopped by request")
	// ErrDetached is the cause with which an upstream is cancelled because
	// nobody followed it any more.
	ErrDetached = errors.New("cluster: nobody follows")
	// ErrFenced is the cause with which an upstream is cancelled because a
	// newer owner took the stream over.
	ErrFenced = errors.New("cluster: a newer owner holds the stream")
	// ErrLeaving is the cause with which an upstream is cancelled because the
	// node shuts down.
	ErrLeaving = errors.New("cluster: node is leaving")
)

// ReasonMoved is why a follower left that was told to come back elsewhere.
const ReasonMoved hub.Reason = "kicked:moved"

// Config is what a Node is made of. All fields without a default are needed.
type Config struct {
	Self     registry.Node // ID with its boot nonce; Advertise and Internal
	Hub      *hub.Hub
	Log      reconnect.Log
	Registry registry.Registry
	Bus      bus.Bus
	// Journal is the log of topics; nil: there are none. It may be Log.
	Journal reconnect.Journal
	// Lead decides who sweeps after the dead; nil asks the registry.
	Lead func(ctx context.Context) (bool, error)

	Heartbeat  time.Duration // default 10s
	DeadAfter  time.Duration // default 30s
	CheckEvery time.Duration // default 5s
	TailCheck  time.Duration // default 2s: a message that the bus lost is found by then
	Ask        time.Duration // default 250ms: bound of one question to log, registry or owner
	Elect      time.Duration // default 300ms: bound of an election by key
	Keep       time.Duration // default 10m: how long records and interest live without news; see KeepAtLeast
	Grace      time.Duration // default 30s: how long an ended stream stays in memory
	// Linger is how long frames may wait for others on their way to the log,
	// where no other node follows their stream. Default 0.
	Linger time.Duration

	// Resume starts the pump of a stream that this node has taken over. It
	// is called once the log is fenced; from is the last frame before the
	// fence. It must not block.
	Resume func(s *Stream, rec registry.Record, from sse.Frame)
	// KickOther ends a connection that is no subscription, by its id; false
	// when there is none. Nil: there are none. It must not block.
	KickOther func(id string) bool
	// Draining reports whether the node is leaving; told to the others.
	Draining func() bool
	// Report is told what an operator wants to read; nil: nothing is. It
	// must not block.
	Report func(Report)
}

// Report is something worth a log line: Node or Stream may be zero.
type Report struct {
	What   string // constant text, e.g. "node gone"
	Node   string
	Stream sse.StreamID
	Err    error
}

const (
	nodeGone  = "node gone"
	nodeSwept = "swept after a dead node"
)

// Dead reports whether the report says that Node has no lease any more. It may
// be back soon.
func (r Report) Dead() bool { return r.What == nodeGone || r.What == nodeSwept }

// Node is this process's seat in the cluster. Its methods may be called
// concurrently.
type Node struct {
	cfg Config

	mu      sync.Mutex
	streams map[sse.StreamID]*Stream
	keys    map[string]*bid
	prints  map[string][]sse.StreamID
	calls   map[uint64]chan bus.Message
	lastID  uint64 // of the last call
	ended   []*Stream

	peers     atomic.Pointer[map[string]registry.Node] // live nodes as last listed
	busUp     atomic.Bool
	busFell   chan struct{} // wakes who watches the log while the bus carries
	aborted   atomic.Bool
	keep      atomic.Int64 // Config.Keep or what was asked for since, in nanoseconds
	far       distances
	out       outbox
	regs      registrar
	topics    topics
	pub       publisher
	sent      sent
	lapsed    time.Time // when our own lease was last found gone, be it because we began
	forgotten time.Time // the same, but for that

	lapses    atomic.Uint64 // how often the lease was found gone by a node that had begun
	renewed   atomic.Int64  // when the last beat that got through began, since the start
	beatFails atomic.Bool   // the last one did not
	died      atomic.Int64  // when another node was last found gone, since the start; 0: never

	tag   [8]byte        // of our id, as edge ids bear it
	wg    sync.WaitGroup // short-lived helpers: takeovers, follow-ups
	ctx   context.Context
	stop  context.CancelFunc
	count counters
}

// New makes a node; nothing runs before Run.
func New(cfg Config) *Node {
	def := func(d *time.Duration, v time.Duration) {
		if *d <= 0 {
			*d = v
		}
	}
	def(&cfg.Heartbeat, 10*time.Second)
	def(&cfg.DeadAfter, 30*time.Second)
	def(&cfg.CheckEvery, 5*time.Second)
	def(&cfg.TailCheck, 2*time.Second)
	def(&cfg.Ask, 250*time.Millisecond)
	def(&cfg.Elect, 300*time.Millisecond)
	def(&cfg.Keep, 10*time.Minute)
	def(&cfg.Grace, 30*time.Second)
	if cfg.Report == nil {
		cfg.Report = func(Report) {}
	}
	if cfg.Draining == nil {
		cfg.Draining = func() bool { return false }
	}
	cfg.Self.Started = time.Now()
	n := &Node{
		cfg:     cfg,
		streams: map[sse.StreamID]*Stream{},
		keys:    map[string]*bid{},
		prints:  map[string][]sse.StreamID{},
		calls:   map[uint64]chan bus.Message{},
		busFell: make(chan struct{}, 1),
		tag:     reconnect.OwnerTag(cfg.Self.ID),
	}
	n.ctx, n.stop = context.WithCancel(context.Background())
	n.keep.Store(int64(cfg.Keep))
	n.peers.Store(&map[string]registry.Node{})
	n.out.init(n)
	n.regs.init(n)
	n.topics.init(n)
	n.pub.init(n)
	return n
}

// KeepAtLeast makes records and interest live for d without news, from now
// on, if that is longer than before, and returns how long they do. It is never
// made shorter: logs that were begun before need their records.
func (n *Node) KeepAtLeast(d time.Duration) time.Duration {
	for {
		old := n.keep.Load()
		if int64(d) <= old || n.keep.CompareAndSwap(old, int64(d)) {
			return max(d, time.Duration(old))
		}
	}
}

// keeps is how long what is registered now lives without news.
func (n *Node) keeps() time.Duration { return time.Duration(n.keep.Load()) }

// renewal is how old a registration may be before it is renewed: what was
// registered before KeepAtLeast lives no longer than Config.Keep said.
func (n *Node) renewal() time.Duration { return n.cfg.Keep / 3 }

// ID is the node's id.
func (n *Node) ID() string { return n.cfg.Self.ID }

// Run keeps the node's seat until ctx is done: it listens on the bus, renews
// the lease, empties outbox and registrar, checks tails. Before it returns it
// tries, bounded, to write what is still due and to give up the lease. The
// hub must outlive it. It returns nil when ctx ended it.
func (n *Node) Run(ctx context.Context) error {
	run, cancel := context.WithCancel(context.WithoutCancel(ctx))
	defer cancel()
	var wg sync.WaitGroup
	var busErr error
	busCtx, busStop := context.WithCancel(run)
	defer busStop()
	wg.Go(func() { busErr = n.cfg.Bus.Run(busCtx, (*receiver)(n)); cancel() })
	wg.Go(func() { n.out.run(run) })
	wg.Go(func() { n.regs.run(run) })
	wg.Go(func() { n.renew(run) })
	wg.Go(func() { n.members(run) })
	wg.Go(func() { n.watch(run) })
	wg.Go(func() { n.tend(run) })
	if n.cfg.Journal != nil {
		wg.Go(func() { n.topics.run(run) })
		wg.Go(func() { n.topics.check(run) })
		wg.Go(func() { n.topics.wire.run(run) })
		wg.Go(func() { n.pub.run(run) })
	}

	select {
	case <-ctx.Done():
	case <-run.Done():
	}
	if n.aborted.Load() {
		n.stop()
		busStop()
		cancel()
		wg.Wait()
		n.wg.Wait()
		n.endTopics()
		return nil
	}
	// Goodbyes outlive ctx, within a bound.
	bye, byeCancel := context.WithTimeout(context.WithoutCancel(ctx), 2*time.Second)
	defer byeCancel()
	n.pub.drain(bye)
	n.out.drain(bye)
	n.regs.drain(bye)
	n.topics.drain(bye)
	n.stop()
	busStop()
	cancel()
	wg.Wait()
	n.wg.Wait()
	n.endTopics()
	leave, leaveCancel := context.WithTimeout(context.WithoutCancel(ctx), time.Second)
	defer leaveCancel()
	if err := n.cfg.Registry.Leave(leave, n.ID()); err != nil {
		n.cfg.Report(Report{What: "lease not given up; it will expire", Node: n.ID(), Err: err})
	}
	return busErr
}

// Abort makes Run end without a goodbye, as if the process had died.
func (n *Node) Abort() { n.aborted.Store(true) }

// Peers returns the live nodes as last listed, by id.
func (n *Node) Peers() map[string]registry.Node { return maps.Clone(*n.peers.Load()) }

// lookup returns a local stream with a reference taken, or nil.
func (n *Node) lookup(id sse.StreamID) *Stream {
	n.mu.Lock()
	defer n.mu.Unlock()
	s := n.streams[id]
	if s != nil && !s.acquire() {
		return nil
	}
	return s
}

// local returns a local stream without a reference, or nil.
func (n *Node) local(id sse.StreamID) *Stream {
	n.mu.Lock()
	defer n.mu.Unlock()
	return n.streams[id]
}

// all returns the local streams that ok accepts.
func (n *Node) all(ok func(*Stream) bool) []*Stream {
	n.mu.Lock()
	defer n.mu.Unlock()
	var out []*Stream
	for _, s := range n.streams {
		if ok(s) {
			out = append(out, s)
		}
	}
	return out
}

// Streams returns how many streams the node owns that still run, and how many
// it replicates.
func (n *Node) Streams() (owned, replicas int) {
	n.mu.Lock()
	defer n.mu.Unlock()
	for _, s := range n.streams {
		switch {
		case s.owned.Load() && !s.over.Load():
			owned++
		case !s.owned.Load():
			replicas++
		}
	}
	return owned, replicas
}

// Running reports whether a stream that this node owns still runs.
func (n *Node) Running() bool {
	owned, _ := n.Streams()
	return owned > 0
}

// newEpoch is the term that begins now, newer than old.
func newEpoch(old uint64) uint64 { return max(uint64(time.Now().UnixMilli()), old+1) }

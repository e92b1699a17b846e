package cluster

import (
	"context"
	"encoding/json"
	"sync"
	"sync/atomic"
	"time"

	"ssegate/hub"
	"ssegate/reconnect"
	"ssegate/registry"
	"ssegate/sse"
)

// Spec is what a stream needs to know from the request that starts it.
type Spec struct {
	Route     string
	Principal []byte
	Request   []byte // what a takeover sends upstream; nil: no takeover
	Limits    reconnect.Limits
	Local     Local
	// DetachFor is how long the upstream goes on when nobody follows; 0:
	// it is cancelled at once.
	DetachFor time.Duration
	// JoinFor is how long after its end a key still leads to the stream.
	JoinFor time.Duration
	// Quiet keeps the stream from the registry until Announce: one that may
	// yet lose an election.
	Quiet bool
	// Cancel ends the pump; its cause is one of this package's errors.
	Cancel context.CancelCauseFunc
}

// Local is how this node serves a stream's followers.
type Local struct {
	Heartbeat []byte // one heartbeat, whole lines
	Slow      hub.Policy
	CutGap    bool // a client whose position is gone is cut rather than told
	// RingEvents and RingBytes bound what is kept in memory for followers; 0:
	// the hub's own limits.
	RingEvents, RingBytes int
	// Limits of the log, should this node take the stream over.
	Limits reconnect.Limits
	// Left is called for each follower that was attached with Follow, after
	// it has gone.
	Left func(f *hub.Follower, why hub.Reason)
}

// capRing keeps the ring smaller than half the log. The pump reads no further
// ahead of the fastest client than the ring holds, so what a client elsewhere
// lacks is still in the log.
func (l *Local) capRing(log reconnect.Limits) {
	if half := log.Length / 2; half > 0 && l.RingEvents > half {
		l.RingEvents = half
	}
}

// Stream is a stream that this node owns or follows for clients of its own.
// Append, Note, SetHead, Refuse and End are the pump's, one goroutine at a
// time; everything else may be called concurrently.
type Stream struct {
	ID    sse.StreamID
	node  *Node
	hub   *hub.Stream
	local Local

	eol   atomic.Uint32
	owned atomic.Bool
	over  atomic.Bool // an end frame was appended
	quiet atomic.Bool // the registry is not to hear of it yet
	begun chan struct{}
	term  atomic.Pointer[term] // where it was taken over

	// In the hands of whoever appends: the pump, or under feed the bus.
	feed   sync.Mutex
	tail   sse.Pos
	logged atomic.Uint64 // the log has everything up to here; 0 when it has to be written anew

	// The pump's.
	heritable bool  // another node may take the stream over
	lapse     lapse // as of when it was last asked whether one did

	queued atomic.Bool // stands in the outbox's list
	wanted atomic.Bool // other nodes follow
	probe  atomic.Bool // the log may have been emptied: the outbox is to look

	eolKnown bool          // replica: the hub knows the stream's line end; under feed
	told     atomic.Uint64 // replica: Seq of the fastest follower as the owner knows it
	thinking atomic.Bool   // replica: somebody reconsiders who owns it

	mu      sync.Mutex
	rec     registry.Record
	spec    Spec
	minter  *reconnect.Minter
	refs    int // local followers and requests that are about to become one
	gone    bool
	nodes   map[string]*interest
	alone   *time.Timer
	aloneAt atomic.Uint64 // Seq at which the last follower left; 0: there is company
	waiting []question    // asked before the upstream answered
	key     string        // attach key that it holds
	print   string        // fingerprint that leads to it
	printed time.Time     // when the registry was last told of print
	dirty   bool          // the registry does not have rec yet
	endedAt time.Time
}

// interest is a node that follows a stream which we own.
type interest struct {
	sent    uint64 // frames up to here were sent
	fastest uint64 // Seq that its fastest client had
	clients int
	seen    time.Time
}

// Begin registers a new stream of this node's, with one reference taken for
// the client that started it. Nothing waits: the registry hears of it soon.
func (n *Node) Begin(spec Spec) *Stream {
	spec.Local.capRing(spec.Limits)
	s := &Stream{
		ID:    sse.NewStreamID(),
		node:  n,
		local: spec.Local,
		begun: make(chan struct{}),
		spec:  spec,
		refs:  1,
	}
	s.owned.Store(true)
	s.heritable, s.lapse = len(spec.Request) > 0, n.lapse()
	s.tail = sse.Pos{Epoch: newEpoch(0)}
	s.rec = registry.Record{
		Stream: s.ID, Owner: n.ID(), Epoch: s.tail.Epoch, State: registry.StateStarting,
		Route: spec.Route, Principal: spec.Principal, Request: spec.Request, Started: time.Now(),
		Tail: s.tail,
	}
	s.minter = reconnect.NewMinter(s.ID, n.tag, s.tail.Epoch)
	s.hub = n.cfg.Hub.Open(hub.StreamOptions{
		First:      sse.Pos{Epoch: s.tail.Epoch, Seq: 1},
		Heartbeat:  spec.Local.Heartbeat,
		Slow:       spec.Local.Slow,
		RingEvents: spec.Local.RingEvents, RingBytes: spec.Local.RingBytes,
		Hold:   spec.Limits.Length,
		Source: s.source(),
		Left:   s.left,
	})
	n.mu.Lock()
	n.streams[s.ID] = s
	n.mu.Unlock()
	s.quiet.Store(spec.Quiet)
	s.announce()
	return s
}

// Announce tells the registry of a stream that was begun Quiet.
func (s *Stream) Announce() {
	s.quiet.Store(false)
	s.announce()
}

// KeepRequest keeps what a takeover sends upstream. To be called before
// SetHead.
func (s *Stream) KeepRequest(req []byte) {
	s.mu.Lock()
	s.rec.Request = req
	s.mu.Unlock()
	s.heritable = len(req) > 0
}

// Adopt says how the pump of a stream that was taken over is cancelled, and
// how long it goes on without followers.
func (s *Stream) Adopt(detach, join time.Duration, cancel context.CancelCauseFunc) {
	s.mu.Lock()
	s.spec.DetachFor, s.spec.JoinFor, s.spec.Cancel = detach, join, cancel
	s.settle()
	s.mu.Unlock()
}

// Abandon leaves a running stream for another node to go on with: it is not
// ended, only no longer ours.
func (s *Stream) Abandon() {
	if s.over.Swap(true) {
		return
	}
	s.begin()
}

func (s *Stream) left(f *hub.Follower, why hub.Reason) {
	if s.local.Left != nil {
		s.local.Left(f, why)
	}
	s.Release()
}

// Record is what is known of the stream now.
func (s *Stream) Record() registry.Record {
	s.mu.Lock()
	defer s.mu.Unlock()
	rec := s.rec
	if t := s.hub.Tail(); rec.Tail.Before(t) {
		rec.Tail = t
	}
	if end, ok := s.hub.Ended(); ok && rec.State < registry.StateEnded {
		rec.State, rec.End = registry.StateEnded, end // a client that saw the end may be faster than finish
	}
	return rec
}

// Owned reports whether this node runs the stream's upstream.
func (s *Stream) Owned() bool { return s.owned.Load() }

// Begun is closed when the upstream has answered (or never will).
func (s *Stream) Begun() <-chan struct{} { return s.begun }

// Minter makes the ids of the stream's events in the owner's present term.
func (s *Stream) Minter() *reconnect.Minter {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.minter
}

// Next is the position of the frame that the pump appends next.
func (s *Stream) Next() sse.Pos { return sse.Pos{Epoch: s.tail.Epoch, Seq: s.tail.Seq + 1} }

// epoch is the newest epoch that is known of the stream.
func (s *Stream) epoch() uint64 {
	s.feed.Lock()
	defer s.feed.Unlock()
	return s.tail.Epoch
}

// SetHead says that the upstream has begun an event stream with this head.
func (s *Stream) SetHead(head []byte) {
	s.mu.Lock()
	s.rec.Head = head
	s.rec.State = registry.StateLive
	s.mu.Unlock()
	s.begin()
}

// Refuse says that the upstream's answer is no event stream: the stream is
// forgotten, and whoever waits for it must ask for itself.
func (s *Stream) Refuse() {
	s.mu.Lock()
	s.rec.State = registry.StateRefused
	s.rec.Ended = time.Now()
	key := s.key
	s.mu.Unlock()
	s.over.Store(true)
	s.begin()
	if key != "" {
		s.node.free(key, s)
	}
	s.node.forget(s)
}

func (s *Stream) begin() {
	s.mu.Lock()
	waiting := s.waiting
	s.waiting = nil
	s.open()
	s.mu.Unlock()
	s.announce()
	for _, q := range waiting {
		s.node.answer(q, s)
	}
}

// SetUpstreamIDs says that the backend gives ids of its own, and under which
// fingerprint a client with one is found.
func (s *Stream) SetUpstreamIDs(print string) {
	s.mu.Lock()
	s.rec.UpstreamIDs = true
	s.mu.Unlock()
	s.announce()
	if print != "" {
		s.node.addPrint(print, s)
	}
}

// SetUpstreamID says which of the backend's ids was its last, for a feed that
// is asked again.
func (s *Stream) SetUpstreamID(id []byte) {
	s.mu.Lock()
	s.rec.UpstreamID = id
	s.mu.Unlock()
}

// SetUpstreamRetry says that the backend gives retry hints itself.
func (s *Stream) SetUpstreamRetry() {
	s.mu.Lock()
	s.rec.UpstreamRetry = true
	s.mu.Unlock()
	s.announce()
}

// Append gives frames that the pump has numbered from Next on to the local
// followers and, later, to the log and the other nodes. Blocks are copied. It
// waits, within askOwner, only when this node has been taken for dead since
// the last call and another may have the stream now.
func (s *Stream) Append(frames []sse.Frame) {
	if len(frames) == 0 || s.doubtful() && !s.stillOurs(s.node.ctx) {
		return
	}
	s.feed.Lock()
	if !s.owned.Load() {
		s.feed.Unlock()
		return
	}
	for i := len(frames) - 1; i >= 0; i-- {
		if frames[i].Kind != sse.KindNote {
			s.tail = frames[i].Pos
			break
		}
	}
	s.hub.Append(frames)
	s.feed.Unlock()
	s.hub.Flush()
	s.node.out.add(s)
	if at := s.aloneAt.Load(); at > 0 && s.spec.Limits.Length > 0 && s.tail.Seq-at >= uint64(s.spec.Limits.Length) {
		s.spec.Cancel(ErrDetached) // the log has no more room for who may come back
	}
}

// SetEOL says which line end the stream is written in.
func (s *Stream) SetEOL(eol sse.EOL) {
	s.eol.Store(uint32(eol))
	s.hub.SetEOL(eol)
}

// Fail ends the stream, and tells the clients why by an event `ssegate.error`.
// It bears no id, so that who comes back asks from the last real event on.
func (s *Stream) Fail(end sse.End, reason, detail string) {
	data, _ := json.Marshal(struct { // strings always marshal
		Reason string `json:"reason"`
		Detail string `json:"detail"`
	}{reason, detail})
	block, err := sse.AppendMessage(nil, &sse.Message{Name: "ssegate.error", Data: data}, sse.EOL(s.eol.Load()))
	if err != nil {
		panic(err) // the name is our own, and data may be anything
	}
	s.End(end, block)
}

// Wait keeps pace: it returns when the fastest follower is near enough for
// the pump to read on, or with the context's error.
func (s *Stream) Wait(ctx context.Context) error { return s.hub.Wait(ctx) }

// Ready is Wait for a pump that must not block; see hub.Stream.Ready.
func (s *Stream) Ready(again func()) bool { return s.hub.Ready(again) }

// End appends the end frame; block, if any, is said before the end. Only the
// first End counts.
func (s *Stream) End(end sse.End, block []byte) {
	if s.over.Swap(true) {
		return
	}
	s.Append([]sse.Frame{{Pos: s.Next(), Kind: sse.KindEnd, End: end, Block: block}})
	s.finish(end)
}

// finish books the end of an owned stream.
func (s *Stream) finish(end sse.End) {
	now := time.Now()
	s.mu.Lock()
	s.rec.State, s.rec.End, s.rec.Ended = registry.StateEnded, end, now
	s.rec.Tail = s.tail
	s.endedAt = now
	if s.alone != nil {
		s.alone.Stop()
	}
	key, join := s.key, s.spec.JoinFor
	s.mu.Unlock()
	s.begin()
	n := s.node
	if key != "" {
		n.mu.Lock()
		if b := n.keys[key]; b != nil {
			b.until = now.Add(join)
		}
		n.mu.Unlock()
		n.regs.do(func(ctx context.Context) error { return n.cfg.Registry.Extend(ctx, key, s.ID, join) })
	}
	n.mu.Lock()
	n.ended = append(n.ended, s)
	n.mu.Unlock()
}

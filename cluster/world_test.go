package cluster

import (
	"bytes"
	"context"
	"fmt"
	"io"
	"strconv"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"ssegate/bus"
	"ssegate/hub"
	"ssegate/reconnect"
	"ssegate/registry"
	"ssegate/sse"
)

// Times of the nodes in these tests; the bubble's time costs nothing.
const (
	heartbeat  = time.Second
	deadAfter  = 3 * time.Second
	checkEvery = 500 * time.Millisecond
	tailCheck  = 2 * time.Second
)

// world is a cluster in one process and in fake time: nodes with a hub each,
// on one log, registry and bus in memory, all of which can be made to fail.
type world struct {
	*testing.T
	log   *shakyLog
	reg   *shakyRegistry
	bus   *bus.Memory
	nodes []*node
	// limits of the log that a node goes on with which takes a stream over.
	limits reconnect.Limits
}

// inWorld runs a test in a bubble. Every goroutine that a node has started
// must be gone when the nodes have been stopped, else the bubble panics.
func inWorld(t *testing.T, f func(w *world)) {
	t.Helper()
	synctest.Test(t, func(t *testing.T) {
		w := &world{T: t, bus: bus.NewMemory(), reg: &shakyRegistry{now: registry.NewMemory(nil)}}
		w.log = newShakyLog(w.reg)
		defer func() {
			w.log.set(nil)
			w.reg.set(nil)
			time.Sleep(outboxWait + time.Second) // what hung has been given up
			for _, n := range w.nodes {
				n.leave()
			}
		}()
		f(w)
	})
}

// node is one node of the world.
type node struct {
	*Node
	w      *world
	hub    *hub.Hub
	resume chan resumed // what Config.Resume was called with
	cancel context.CancelFunc
	done   chan struct{}
	end    context.CancelFunc // of the hub
	hubEnd chan struct{}

	mu      sync.Mutex
	reports []Report
}

type resumed struct {
	s    *Stream
	rec  registry.Record
	from sse.Frame
}

// join starts nodes and waits until all know each other. change may be nil.
func (w *world) join(change func(*Config), names ...string) []*node {
	w.Helper()
	for _, name := range names {
		w.nodes = append(w.nodes, w.start(name, change))
	}
	time.Sleep(checkEvery + checkEvery/2)
	synctest.Wait()
	for _, n := range w.nodes {
		if n.gone() {
			continue
		}
		for _, name := range names {
			if _, ok := n.Peers()[name]; !ok {
				w.Fatalf("%s does not know %s, only %v", n.ID(), name, n.Peers())
			}
		}
	}
	return w.nodes[len(w.nodes)-len(names):]
}

func (w *world) start(name string, change func(*Config)) *node {
	w.Helper()
	h, err := hub.New(hub.Config{Tick: 10 * time.Millisecond})
	if err != nil {
		w.Fatal(err)
	}
	n := &node{w: w, hub: h, resume: make(chan resumed, 64), done: make(chan struct{}), hubEnd: make(chan struct{})}
	cfg := Config{
		Self: registry.Node{ID: name}, Hub: h, Log: w.log, Journal: w.log, Registry: w.reg, Bus: w.bus.Node(name),
		Heartbeat: heartbeat, DeadAfter: deadAfter, CheckEvery: checkEvery, TailCheck: tailCheck,
		Report: func(r Report) {
			n.mu.Lock()
			n.reports = append(n.reports, r)
			n.mu.Unlock()
		},
	}
	if change != nil {
		change(&cfg)
	}
	n.Node = New(cfg)
	ctx, cancel := context.WithCancel(context.Background())
	hubCtx, end := context.WithCancel(context.Background())
	n.cancel, n.end = cancel, end
	go func() { defer close(n.hubEnd); h.Run(hubCtx) }()
	go func() {
		defer close(n.done)
		if err := n.Run(ctx); err != nil {
			w.Errorf("%s: Run: %v", name, err)
		}
	}()
	return n
}

// takesOver makes a node one that goes on with the streams of the dead.
func takesOver(w *world) func(*Config) {
	return func(c *Config) {
		id := c.Self.ID
		c.Resume = func(s *Stream, rec registry.Record, from sse.Frame) {
			for _, n := range w.nodes {
				if n.ID() == id {
					n.resume <- resumed{s, rec, from}
				}
			}
		}
	}
}

func (n *node) gone() bool {
	select {
	case <-n.done:
		return true
	default:
		return false
	}
}

// leave ends the node as a SIGTERM does, kill as a kill -9. Both wait for it.
func (n *node) leave() {
	n.cancel()
	<-n.done
	n.end()
	<-n.hubEnd
}

func (n *node) kill() {
	n.Abort()
	n.leave()
}

// reported counts the reports with this text.
func (n *node) reported(what string) (times int) {
	n.mu.Lock()
	defer n.mu.Unlock()
	for _, r := range n.reports {
		if r.What == what {
			times++
		}
	}
	return times
}

// feed is a stream and the pump that a test is in place of.
type feed struct {
	*Stream
	n     *node
	count uint64 // events sent
	cause error  // with which the upstream was cancelled
	mu    sync.Mutex
}

// begin starts a stream whose upstream has answered. The reference of who
// started it is given up unless somebody follows.
func (n *node) begin(change func(*Spec)) *feed {
	f := &feed{n: n}
	spec := Spec{
		Route: "r", Principal: []byte("me"), Limits: reconnect.Limits{Length: 10_000, TTL: 10 * time.Minute},
		DetachFor: 30 * time.Second, JoinFor: 10 * time.Second, Local: n.w.local(registry.Record{}), Cancel: f.cancelled,
	}
	if change != nil {
		change(&spec)
	}
	f.Stream = n.Begin(spec)
	f.SetHead([]byte("head"))
	return f
}

func (f *feed) cancelled(cause error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	if f.cause == nil {
		f.cause = cause
	}
}

// why is the cause with which the upstream was cancelled, nil if it was not.
func (f *feed) why() error {
	f.mu.Lock()
	defer f.mu.Unlock()
	return f.cause
}

// send appends so many events, `data: 1`, `data: 2` and so on, each with an id
// of the backend's.
func (f *feed) send(events int) {
	frames := make([]sse.Frame, events)
	pos := f.Next()
	for i := range frames {
		f.count++
		frames[i] = sse.Frame{
			Pos: pos, Kind: sse.KindEvent, ID: fmt.Appendf(nil, "u%d", f.count),
			Block: fmt.Appendf(nil, "data: %d\n\n", f.count),
		}
		pos.Seq++
	}
	f.Append(frames)
}

// client is a client's connection in memory. It takes all that comes, unless it
// is idle.
type client struct {
	w    *world
	mu   sync.Mutex
	peer hub.Peer
	idle bool
	got  bytes.Buffer
	how  *hub.Closing
	why  hub.Reason
	f    *hub.Follower
}

func (c *client) Start(p hub.Peer, _ time.Duration) error { c.peer = p; return nil }

func (c *client) TryWrite(p []byte) (int, error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	switch {
	case c.how != nil:
		return 0, io.ErrClosedPipe
	case c.idle:
		return 0, nil
	}
	return c.got.Write(p)
}

// reads makes the client read again, or not.
func (c *client) reads(yes bool) {
	c.mu.Lock()
	c.idle = !yes
	c.mu.Unlock()
	if yes {
		c.peer.Writable()
	}
}

func (c *client) Close(how hub.Closing) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.how == nil {
		c.how = &how
	}
}

// leave goes away, as a client does whose network drops.
func (c *client) leave() { c.peer.Gone(nil) }

// local tells clients why they left.
func (w *world) local(registry.Record) Local {
	return Local{Slow: hub.SlowLog, Limits: w.limits, Left: left}
}

func left(f *hub.Follower, why hub.Reason) {
	c := f.Tag().(*client)
	c.mu.Lock()
	defer c.mu.Unlock()
	c.why = why
}

// follow attaches a client of n's behind after.
func (n *node) follow(s *Stream, after uint64) *client {
	c := &client{w: n.w}
	c.f = s.Follow(c, hub.FollowOptions{After: sse.Pos{Epoch: s.Record().Epoch, Seq: after}, Tag: c})
	return c
}

// open finds a stream as a client with an id of its owner's does, and follows
// it.
func (n *node) open(id sse.StreamID, owner string, after uint64) *client {
	n.w.Helper()
	c, err := n.try(id, owner, after)
	if err != nil {
		n.w.Fatalf("%s opens %v: %v", n.ID(), id, err)
	}
	return c
}

func (n *node) try(id sse.StreamID, owner string, after uint64) (*client, error) {
	s, err := n.Open(context.Background(), id, reconnect.OwnerTag(owner), sse.Pos{Epoch: 1, Seq: after}, n.w.local)
	if err != nil {
		return nil, err
	}
	return n.follow(s, after), nil
}

// text is what the client got so far.
func (c *client) text() string {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.got.String()
}

// events are the numbers that the client got so far, and whatever else.
func (c *client) events() (numbers []uint64, rest []string) {
	for block := range strings.SplitAfterSeq(c.text(), "\n\n") {
		if block == "" {
			continue
		}
		data, ok := strings.CutPrefix(strings.TrimSuffix(block, "\n\n"), "data: ")
		n, err := strconv.ParseUint(data, 10, 64)
		if ok && err == nil {
			numbers = append(numbers, n)
		} else {
			rest = append(rest, block)
		}
	}
	return numbers, rest
}

// has checks that the client got exactly from..to so far.
func (c *client) has(from, to uint64) {
	c.w.Helper()
	numbers, rest := c.events()
	for i, n := range numbers {
		if n != from+uint64(i) {
			c.w.Fatalf("event %d stands where %d should", n, from+uint64(i))
		}
	}
	if got := from + uint64(len(numbers)) - 1; got != to || len(rest) > 0 {
		c.w.Fatalf("events %d to %d arrived, want up to %d; besides %q", from, got, to, rest)
	}
}

// ended is how the client's connection was closed, and why.
func (c *client) ended() (closed bool, how hub.Closing, why hub.Reason) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.how == nil {
		return false, 0, ""
	}
	return true, *c.how, c.why
}

// leftFor checks that the client was let go for this reason.
func (c *client) leftFor(why hub.Reason) {
	c.w.Helper()
	if closed, _, got := c.ended(); !closed || got != why {
		c.w.Fatalf("the client left: %v, for %q, want for %q", closed, got, why)
	}
}

// wait lets time pass until nothing moves any more at its end.
func wait(d time.Duration) {
	time.Sleep(d)
	synctest.Wait()
}

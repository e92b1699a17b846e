package demo

import (
	"context"
	"errors"
	"fmt"
	"net"
	"strconv"
	"sync"
	"time"

	"ssegate/gate"
)

var (
	errNoNode = errors.New("demo: no such node")
	errUp     = errors.New("demo: the node is up already")
	errDown   = errors.New("demo: the node is down already")
)

const upstream = "model" // its name in the configuration

// nodes is the cluster: nodes that share a memory and nothing else.
type nodes struct {
	cfg     Config
	model   string // URL
	changed func()
	memory  *gate.Memory

	mu   sync.Mutex
	list [Nodes]node
	ctx  context.Context // of all nodes; when it is done they leave at once
	stop context.CancelFunc
	wg   sync.WaitGroup
}

// node is one seat of the cluster. Its address outlives the gate in it.
type node struct {
	addr string
	gate *gate.Gate    // nil while the node is down
	gone chan struct{} // closed when the last gate has left the address
}

// newNodes binds the addresses of all nodes; none serves before run.
func newNodes(cfg Config, page, model string, changed func()) (*nodes, error) {
	ns := &nodes{cfg: cfg, model: model, changed: changed, memory: gate.NewMemory(64 << 20)}
	ns.ctx, ns.stop = context.WithCancel(context.Background())
	for i := range ns.list {
		n := &ns.list[i]
		n.addr = near(page, i+1)
		g, err := ns.make(i)
		if err != nil { // that port is somebody else's
			host, _, _ := net.SplitHostPort(page)
			n.addr = net.JoinHostPort(host, "0")
			g, err = ns.make(i)
		}
		if err != nil {
			ns.close()
			return nil, fmt.Errorf("node %d: %w", i+1, err)
		}
		n.gate, n.addr = g, g.Public()
	}
	return ns, nil
}

// make prepares a node; its id tells it from the one that had its seat before.
func (ns *nodes) make(i int) (*gate.Gate, error) {
	c := gate.Default()
	c.Node.ID = "node-" + strconv.Itoa(i+1)
	c.Listen.Public = ns.list[i].addr
	c.Listen.Internal = ""
	// A dead node is to be missed while a person watches.
	c.Cluster.Heartbeat = 300 * time.Millisecond
	c.Cluster.DeadAfter = time.Second
	c.Cluster.CheckEvery = 250 * time.Millisecond
	c.Cluster.TailCheck = 500 * time.Millisecond

	up := gate.DefaultUpstream()
	up.Name = upstream
	up.Targets = []string{ns.model}
	c.Upstream = []gate.Upstream{up}

	c.Route = []gate.Route{
		route("asked with GET", "GET", "query:run"),
		route("asked with POST", "POST", "json:run"),
		route("else", "", ""),
	}
	return gate.New(c, gate.Options{Logging: ns.cfg.Logging, Version: ns.cfg.Version, Shared: ns.memory})
}

// route is how requests of a method are served. key tells where they name
// their answer, so that who loses the connection before the first event and
// asks again joins the answer that is being written.
func route(name, method, key string) gate.Route {
	r := gate.DefaultRoute()
	r.Name = name
	r.Upstream = upstream
	if method != "" {
		r.Methods = []string{method}
		r.Attach, r.AttachKey = "key", key
	}
	r.Takeover = "last-event-id"
	r.DetachFor = 3 * time.Minute // longer than the longest answer
	r.Retry = 500 * time.Millisecond
	r.Heartbeat = 5 * time.Second
	return r
}

// run lets all nodes serve.
func (ns *nodes) run() {
	ns.mu.Lock()
	defer ns.mu.Unlock()
	for i := range ns.list {
		ns.serve(&ns.list[i])
	}
}

// serve lets n's gate serve until it is killed or all are to leave.
func (ns *nodes) serve(n *node) {
	g, gone := n.gate, make(chan struct{})
	n.gone = gone
	ns.wg.Go(func() {
		g.Run(ns.ctx, ns.ctx) // what it returns it has logged
		ns.mu.Lock()
		if n.gate == g {
			n.gate = nil
		}
		ns.mu.Unlock()
		close(gone)
		ns.changed()
	})
}

// kill ends a node (1, 2, 3) as abruptly as it can be ended. It waits until
// nothing is left of it, or ctx is done.
func (ns *nodes) kill(ctx context.Context, number int) error {
	n, err := ns.node(number)
	if err != nil {
		return err
	}
	ns.mu.Lock()
	g, gone := n.gate, n.gone
	n.gate = nil
	ns.mu.Unlock()
	if g == nil {
		return errDown
	}
	g.Kill()
	ns.changed()
	return wait(ctx, gone)
}

func wait(ctx context.Context, done <-chan struct{}) error {
	select {
	case <-done:
		return nil
	case <-ctx.Done():
		return ctx.Err()
	}
}

// start puts a new node into the seat of one that is down. It waits until the
// old one has left, or ctx is done.
func (ns *nodes) start(ctx context.Context, number int) error {
	n, err := ns.node(number)
	if err != nil {
		return err
	}
	ns.mu.Lock()
	gone, up := n.gone, n.gate != nil
	ns.mu.Unlock()
	if up {
		return errUp
	}
	if err := wait(ctx, gone); err != nil {
		return err
	}
	ns.mu.Lock()
	defer ns.mu.Unlock()
	switch {
	case ns.ctx.Err() != nil:
		return ns.ctx.Err()
	case n.gate != nil:
		return errUp
	}
	g, err := ns.make(number - 1)
	if err != nil {
		return err
	}
	n.gate = g
	ns.serve(n)
	ns.changed()
	return nil
}

func (ns *nodes) node(number int) (*node, error) {
	if number < 1 || number > Nodes {
		return nil, errNoNode
	}
	return &ns.list[number-1], nil
}

// close lets all nodes leave at once and waits for them. It may be called
// twice.
func (ns *nodes) close() {
	ns.mu.Lock()
	ns.stop()
	for i := range ns.list {
		if n := &ns.list[i]; n.gate != nil && n.gone == nil {
			n.gate.Close() // never ran
			n.gate = nil
		}
	}
	ns.mu.Unlock()
	ns.wg.Wait()
}

// nodeState is what the page is told of a node.
type nodeState struct {
	Number int    `json:"number"`
	ID     string `json:"id"`   // "" while it is down
	Port   string `json:"port"` // the host is the page's
}

func (ns *nodes) state() []nodeState {
	ns.mu.Lock()
	defer ns.mu.Unlock()
	out := make([]nodeState, Nodes)
	for i := range ns.list {
		n := &ns.list[i]
		_, port, _ := net.SplitHostPort(n.addr)
		out[i] = nodeState{Number: i + 1, Port: port}
		if n.gate != nil {
			out[i].ID = n.gate.ID()
		}
	}
	return out
}

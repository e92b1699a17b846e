package cluster

import (
	"context"
	"errors"
	"maps"
	"sync"
	"time"

	"ssegate/reconnect"
	"ssegate/registry"
)

const (
	registrarWait  = 2 * time.Second
	registrarPause = time.Second // at most, between two tries: whoever hops is looked for in the registry
	registrarOps   = 10_000      // operations that may wait for a registry that is away
)

// registrar tells the registry what changed on this node: records of owned
// streams, connections, keys. Nobody waits for it. A record or connection
// stands in it once, as it is when its turn comes.
type registrar struct {
	n     *Node
	mu    sync.Mutex
	recs  []*Stream
	conns map[string]*registry.Connection // nil: dropped
	ops   []func(context.Context) error
	held  map[string]*registry.Connection // all connections of this node
	wake  chan struct{}
	busy  sync.Mutex
}

func (r *registrar) init(n *Node) {
	r.n = n
	r.conns = map[string]*registry.Connection{}
	r.held = map[string]*registry.Connection{}
	r.wake = make(chan struct{}, 1)
}

func (r *registrar) kick() {
	select {
	case r.wake <- struct{}{}:
	default:
	}
}

// mark says that a stream's record has changed.
func (r *registrar) mark(s *Stream) {
	s.mu.Lock()
	was := s.dirty
	s.dirty = true
	s.mu.Unlock()
	if was {
		return
	}
	r.mu.Lock()
	r.recs = append(r.recs, s)
	r.mu.Unlock()
	r.kick()
}

// do queues an operation, to be tried until it succeeds or too many wait.
func (r *registrar) do(op func(context.Context) error) {
	r.mu.Lock()
	if len(r.ops) < registrarOps {
		r.ops = append(r.ops, op)
	} else {
		r.n.count.registryDropped.Add(1)
	}
	r.mu.Unlock()
	r.kick()
}

// Connected and Disconnected tell the registry which clients this node holds.
func (n *Node) Connected(c registry.Connection) {
	r := &n.regs
	c.Node = n.ID()
	r.mu.Lock()
	r.held[c.ID] = &c
	r.conns[c.ID] = &c
	r.mu.Unlock()
	r.kick()
}

// Disconnected is the other end of Connected.
func (n *Node) Disconnected(id string) {
	r := &n.regs
	r.mu.Lock()
	delete(r.held, id)
	if c, ok := r.conns[id]; ok && c != nil {
		delete(r.conns, id) // the registry never heard of it, or will not miss it
	}
	r.conns[id] = nil
	r.mu.Unlock()
	r.kick()
}

// Connections is how many clients this node holds.
func (n *Node) Connections() int {
	n.regs.mu.Lock()
	defer n.regs.mu.Unlock()
	return len(n.regs.held)
}

// again marks everything as news, for a registry that has forgotten us.
func (r *registrar) again() {
	r.n.topics.again()
	r.mu.Lock()
	maps.Copy(r.conns, r.held)
	r.mu.Unlock()
	for _, s := range r.n.all(func(s *Stream) bool { return s.owned.Load() }) {
		r.mark(s)
		s.mu.Lock()
		key, b := s.key, registry.Bid{Stream: s.ID, Owner: r.n.ID()}
		print := s.print
		s.mu.Unlock()
		if print != "" {
			r.n.addPrint(print, s)
		}
		if key != "" {
			if kept := r.n.bidOf(key); kept != nil {
				b = *kept
			}
			r.do(func(ctx context.Context) error {
				_, _, err := r.n.cfg.Registry.Elect(ctx, key, b, r.n.cfg.DeadAfter)
				return err
			})
		}
	}
	for _, s := range r.n.all(func(s *Stream) bool { return !s.owned.Load() }) {
		r.do(func(ctx context.Context) error {
			return r.n.cfg.Registry.Follow(ctx, s.ID, r.n.ID(), r.n.keeps())
		})
	}
	r.kick()
}

func (r *registrar) run(ctx context.Context) {
	wait := reconnect.Backoff{Max: registrarPause}
	for {
		select {
		case <-ctx.Done():
			return
		case <-r.wake:
		}
		if err := r.round(ctx); err != nil {
			r.n.count.registryErrors.Add(1)
			r.n.cfg.Report(Report{What: "registry not written; will be told again", Err: err})
			sleep(ctx, wait.Next(time.Now()))
			r.kick()
		} else {
			wait.Good(time.Now())
		}
	}
}

// drain tells what is due once more, within ctx, at the end of Run.
func (r *registrar) drain(ctx context.Context) { _ = r.round(ctx) }

// round writes what is due and puts back what could not be written.
func (r *registrar) round(ctx context.Context) error {
	r.busy.Lock()
	defer r.busy.Unlock()
	r.mu.Lock()
	streams, conns, ops := r.recs, r.conns, r.ops
	r.recs, r.conns, r.ops = nil, map[string]*registry.Connection{}, nil
	r.mu.Unlock()

	ctx, cancel := context.WithTimeout(ctx, registrarWait)
	defer cancel()
	var failed error
	if err := r.putRecords(ctx, streams); err != nil {
		failed = err
	}
	if err := r.putConns(ctx, conns); err != nil {
		failed = err
	}
	for i, op := range ops {
		if err := op(ctx); err != nil && !errors.Is(err, registry.ErrUnknown) && !errors.Is(err, registry.ErrFenced) {
			r.mu.Lock()
			r.ops = append(ops[i:len(ops):len(ops)], r.ops...)
			r.mu.Unlock()
			failed = err
			break
		}
	}
	return failed
}

func (r *registrar) putRecords(ctx context.Context, streams []*Stream) error {
	if len(streams) == 0 {
		return nil
	}
	put := streams[:0:0]
	recs := make([]registry.Record, 0, len(streams))
	for _, s := range streams {
		s.mu.Lock()
		s.dirty = false
		s.mu.Unlock()
		if s.owned.Load() {
			put = append(put, s)
			recs = append(recs, s.Record())
		}
	}
	var failed error
	for i, err := range r.n.cfg.Registry.Put(ctx, recs, r.n.keeps()) {
		switch {
		case err == nil:
		case errors.Is(err, registry.ErrFenced):
			put[i].fenced()
		default:
			failed = err
			r.mark(put[i])
		}
	}
	return failed
}

func (r *registrar) putConns(ctx context.Context, changed map[string]*registry.Connection) error {
	var put []*registry.Connection
	var drop []string
	for id, c := range changed {
		if c != nil {
			put = append(put, c)
		} else {
			drop = append(drop, id)
		}
	}
	var errs [2]error
	if len(put) > 0 {
		errs[0] = r.n.cfg.Registry.PutConns(ctx, r.n.ID(), put)
	}
	if len(drop) > 0 {
		errs[1] = r.n.cfg.Registry.DropConns(ctx, r.n.ID(), drop)
	}
	err := errors.Join(errs[:]...)
	if err != nil {
		r.mu.Lock()
		for id, c := range changed {
			if _, newer := r.conns[id]; !newer {
				r.conns[id] = c
			}
		}
		r.mu.Unlock()
	}
	return err
}

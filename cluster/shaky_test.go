package cluster

import (
	"bytes"
	"context"
	"errors"
	"math/rand/v2"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"ssegate/bus"
	"ssegate/reconnect"
	"ssegate/registry"
	"ssegate/sse"
)

var errAway = errors.New("test: away")

// shakyLog is a log that can be made to fail: ask is asked before each call,
// nil lets all pass.
type shakyLog struct {
	mu  sync.Mutex
	now *reconnect.Memory
	ask func(ctx context.Context, op string) error
	reg *shakyRegistry // knows who follows

	unanswered atomic.Bool // what is published is taken, and nobody is told
}

func newShakyLog(reg *shakyRegistry) *shakyLog {
	l := &shakyLog{reg: reg}
	l.forget()
	return l
}

func (l *shakyLog) set(ask func(ctx context.Context, op string) error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.ask = ask
}

// forget empties it.
func (l *shakyLog) forget() {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.now = reconnect.NewMemory(reconnect.MemoryConfig{Followers: l.followers})
}

func (l *shakyLog) followers(ids []sse.StreamID) [][]string {
	l.reg.mu.Lock()
	now := l.reg.now
	l.reg.mu.Unlock()
	nodes, _ := now.Followers(context.Background(), ids)
	return nodes
}

func (l *shakyLog) use(ctx context.Context, op string) (*reconnect.Memory, error) {
	l.mu.Lock()
	now, ask := l.now, l.ask
	l.mu.Unlock()
	if ask == nil {
		return now, nil
	}
	return now, ask(ctx, op)
}

// away makes every call fail, or those of one operation.
func away(ops ...string) func(context.Context, string) error {
	return func(_ context.Context, op string) error {
		if len(ops) == 0 || slices.Contains(ops, op) {
			return errAway
		}
		return nil
	}
}

// hung makes every call wait for its context, as a service does that was
// stopped where it stood.
func hung(ctx context.Context, _ string) error { <-ctx.Done(); return ctx.Err() }

func (l *shakyLog) Append(ctx context.Context, batches []reconnect.Batch) []error {
	m, err := l.use(ctx, "append")
	if err != nil {
		errs := make([]error, len(batches))
		for i := range errs {
			errs[i] = err
		}
		return errs
	}
	return m.Append(ctx, batches)
}

func (l *shakyLog) Read(ctx context.Context, id sse.StreamID, after sse.Pos, max int) ([]sse.Frame, error) {
	m, err := l.use(ctx, "read")
	if err != nil {
		return nil, err
	}
	return m.Read(ctx, id, after, max)
}

func (l *shakyLog) Tails(ctx context.Context, ids []sse.StreamID) ([]reconnect.Tail, error) {
	m, err := l.use(ctx, "tails")
	if err != nil {
		return nil, err
	}
	return m.Tails(ctx, ids)
}

func (l *shakyLog) Find(ctx context.Context, id sse.StreamID, want []byte) (sse.Pos, error) {
	m, err := l.use(ctx, "find")
	if err != nil {
		return sse.Pos{}, err
	}
	return m.Find(ctx, id, want)
}

func (l *shakyLog) Fence(ctx context.Context, id sse.StreamID, epoch uint64, limits reconnect.Limits) (sse.Frame, error) {
	m, err := l.use(ctx, "fence")
	if err != nil {
		return sse.Frame{}, err
	}
	return m.Fence(ctx, id, epoch, limits)
}

func (l *shakyLog) Touch(ctx context.Context, ids []sse.StreamID, ttl time.Duration) error {
	m, err := l.use(ctx, "touch")
	if err != nil {
		return err
	}
	return m.Touch(ctx, ids, ttl)
}

// logged are all frames that the log has of a stream.
func (w *world) logged(id sse.StreamID) []sse.Frame {
	w.Helper()
	var out []sse.Frame
	for after := (sse.Pos{}); ; {
		frames, err := w.log.now.Read(context.Background(), id, after, 1000)
		if err != nil {
			w.Fatalf("the log: %v", err)
		}
		if len(frames) == 0 {
			return out
		}
		out = append(out, frames...)
		after = frames[len(frames)-1].Pos
	}
}

// shakyRegistry is a registry that can be made to fail and to forget.
type shakyRegistry struct {
	mu  sync.Mutex
	now *registry.Memory
	ask func(ctx context.Context, op string) error
}

func (r *shakyRegistry) set(ask func(ctx context.Context, op string) error) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.ask = ask
}

// forget empties it, as a Redis that was restarted without its data.
func (r *shakyRegistry) forget() {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.now = registry.NewMemory(nil)
}

func (r *shakyRegistry) use(ctx context.Context, op string) (*registry.Memory, error) {
	r.mu.Lock()
	now, ask := r.now, r.ask
	r.mu.Unlock()
	if ask != nil {
		if err := ask(ctx, op); err != nil {
			return nil, err
		}
	}
	return now, nil
}

func (r *shakyRegistry) Beat(ctx context.Context, n registry.Node, ttl time.Duration) (bool, error) {
	m, err := r.use(ctx, "beat")
	if err != nil {
		return false, err
	}
	return m.Beat(ctx, n, ttl)
}

func (r *shakyRegistry) List(ctx context.Context) ([]registry.Node, error) {
	m, err := r.use(ctx, "list")
	if err != nil {
		return nil, err
	}
	return m.List(ctx)
}

func (r *shakyRegistry) Leave(ctx context.Context, id string) error {
	m, err := r.use(ctx, "leave")
	if err != nil {
		return err
	}
	return m.Leave(ctx, id)
}

func (r *shakyRegistry) Sweep(ctx context.Context) ([]string, error) {
	m, err := r.use(ctx, "sweep")
	if err != nil {
		return nil, err
	}
	return m.Sweep(ctx)
}

func (r *shakyRegistry) Lead(ctx context.Context, node string, ttl time.Duration) (bool, error) {
	m, err := r.use(ctx, "lead")
	if err != nil {
		return false, err
	}
	return m.Lead(ctx, node, ttl)
}

func (r *shakyRegistry) Put(ctx context.Context, recs []registry.Record, ttl time.Duration) []error {
	m, err := r.use(ctx, "put")
	if err != nil {
		errs := make([]error, len(recs))
		for i := range errs {
			errs[i] = err
		}
		return errs
	}
	return m.Put(ctx, recs, ttl)
}

func (r *shakyRegistry) Get(ctx context.Context, id sse.StreamID) (registry.Record, error) {
	m, err := r.use(ctx, "get")
	if err != nil {
		return registry.Record{}, err
	}
	return m.Get(ctx, id)
}

func (r *shakyRegistry) Claim(ctx context.Context, rec registry.Record, old uint64, ttl time.Duration) error {
	m, err := r.use(ctx, "claim")
	if err != nil {
		return err
	}
	return m.Claim(ctx, rec, old, ttl)
}

func (r *shakyRegistry) Touch(ctx context.Context, ids []sse.StreamID, ttl time.Duration) error {
	m, err := r.use(ctx, "touch")
	if err != nil {
		return err
	}
	return m.Touch(ctx, ids, ttl)
}

func (r *shakyRegistry) Follow(ctx context.Context, id sse.StreamID, node string, ttl time.Duration) error {
	m, err := r.use(ctx, "follow")
	if err != nil {
		return err
	}
	return m.Follow(ctx, id, node, ttl)
}

func (r *shakyRegistry) Unfollow(ctx context.Context, id sse.StreamID, node string) error {
	m, err := r.use(ctx, "unfollow")
	if err != nil {
		return err
	}
	return m.Unfollow(ctx, id, node)
}

func (r *shakyRegistry) Followers(ctx context.Context, ids []sse.StreamID) ([][]string, error) {
	m, err := r.use(ctx, "followers")
	if err != nil {
		return nil, err
	}
	return m.Followers(ctx, ids)
}

func (r *shakyRegistry) Elect(ctx context.Context, key string, bid registry.Bid, ttl time.Duration) (registry.Bid, bool, error) {
	m, err := r.use(ctx, "elect")
	if err != nil {
		return registry.Bid{}, false, err
	}
	return m.Elect(ctx, key, bid, ttl)
}

func (r *shakyRegistry) Extend(ctx context.Context, key string, id sse.StreamID, ttl time.Duration) error {
	m, err := r.use(ctx, "extend")
	if err != nil {
		return err
	}
	return m.Extend(ctx, key, id, ttl)
}

func (r *shakyRegistry) Release(ctx context.Context, key string, id sse.StreamID) error {
	m, err := r.use(ctx, "release")
	if err != nil {
		return err
	}
	return m.Release(ctx, key, id)
}

func (r *shakyRegistry) AddPrint(ctx context.Context, print string, id sse.StreamID, ttl time.Duration) error {
	m, err := r.use(ctx, "addprint")
	if err != nil {
		return err
	}
	return m.AddPrint(ctx, print, id, ttl)
}

func (r *shakyRegistry) ByPrint(ctx context.Context, print string) ([]sse.StreamID, error) {
	m, err := r.use(ctx, "byprint")
	if err != nil {
		return nil, err
	}
	return m.ByPrint(ctx, print)
}

func (r *shakyRegistry) PutConns(ctx context.Context, node string, conns []*registry.Connection) error {
	m, err := r.use(ctx, "putconns")
	if err != nil {
		return err
	}
	return m.PutConns(ctx, node, conns)
}

func (r *shakyRegistry) DropConns(ctx context.Context, node string, ids []string) error {
	m, err := r.use(ctx, "dropconns")
	if err != nil {
		return err
	}
	return m.DropConns(ctx, node, ids)
}

func (r *shakyRegistry) Conns(ctx context.Context) ([]registry.Connection, error) {
	m, err := r.use(ctx, "conns")
	if err != nil {
		return nil, err
	}
	return m.Conns(ctx)
}

// shuffled is a bus that hands messages with frames over late, in another
// order, or twice, which none of ours does.
type shuffled struct {
	bus.Bus
	rng *rand.Rand
}

func (b *shuffled) Run(ctx context.Context, h bus.Handler) error {
	return b.Bus.Run(ctx, &shuffler{Handler: h, rng: b.rng})
}

type shuffler struct {
	bus.Handler
	rng  *rand.Rand
	kept []bus.Message
}

func (s *shuffler) Receive(msgs []bus.Message) {
	var now []bus.Message
	for _, m := range msgs {
		if m.Kind != kindFrames {
			now = append(now, m)
			continue
		}
		switch s.rng.IntN(4) {
		case 0: // later
			s.kept = append(s.kept, m)
		case 1: // twice
			s.kept = append(s.kept, copied(m))
			now = append(now, m)
		default:
			now = append(now, m)
		}
	}
	if s.rng.IntN(3) == 0 {
		now = append(now, s.kept...)
		s.kept = nil
		s.rng.Shuffle(len(now), func(i, j int) { now[i], now[j] = now[j], now[i] })
	}
	if len(now) > 0 {
		s.Handler.Receive(now)
	}
}

// copied is m with a body of its own.
func copied(m bus.Message) bus.Message {
	m.Body = bytes.Clone(m.Body)
	return m
}

func (r *shakyRegistry) PutNote(ctx context.Context, name string, value []byte, ttl time.Duration) error {
	m, err := r.use(ctx, "putnote")
	if err != nil {
		return err
	}
	return m.PutNote(ctx, name, value, ttl)
}

func (r *shakyRegistry) GetNote(ctx context.Context, name string) ([]byte, error) {
	m, err := r.use(ctx, "getnote")
	if err != nil {
		return nil, err
	}
	return m.GetNote(ctx, name)
}

func (r *shakyRegistry) TakeNote(ctx context.Context, name string) ([]byte, error) {
	m, err := r.use(ctx, "takenote")
	if err != nil {
		return nil, err
	}
	return m.TakeNote(ctx, name)
}

func (r *shakyRegistry) Gather(ctx context.Context, name string, value []byte, ttl time.Duration) error {
	m, err := r.use(ctx, "gather")
	if err != nil {
		return err
	}
	return m.Gather(ctx, name, value, ttl)
}

func (r *shakyRegistry) Gathered(ctx context.Context, name string) ([][]byte, error) {
	m, err := r.use(ctx, "gathered")
	if err != nil {
		return nil, err
	}
	return m.Gathered(ctx, name)
}

func (r *shakyRegistry) PutDue(ctx context.Context, at time.Time, items [][]byte) error {
	m, err := r.use(ctx, "putdue")
	if err != nil {
		return err
	}
	return m.PutDue(ctx, at, items)
}

func (r *shakyRegistry) TakeDue(ctx context.Context, now, back time.Time, most int) ([][]byte, error) {
	m, err := r.use(ctx, "takedue")
	if err != nil {
		return nil, err
	}
	return m.TakeDue(ctx, now, back, most)
}

func (r *shakyRegistry) DropDue(ctx context.Context, items [][]byte) error {
	m, err := r.use(ctx, "dropdue")
	if err != nil {
		return err
	}
	return m.DropDue(ctx, items)
}

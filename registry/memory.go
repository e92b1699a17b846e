package registry

import (
	"cmp"
	"context"
	"slices"
	"sync"
	"time"

	"ssegate/sse"
)

// Memory is the registry of one process: of a node that stands alone, or of
// several nodes that run side by side in a test. It starts no goroutine; what
// has ended is passed over at once and removed by the writes that follow. No
// method blocks, and the only error besides the sentinels is that of a ctx
// which is done.
type Memory struct {
	now func() time.Time

	mu       sync.Mutex
	nodes    expiring[string, *member]
	cleaner  string
	until    time.Time // of the cleaner's office
	records  expiring[sse.StreamID, Record]
	interest expiring[sse.StreamID, *expiring[string, struct{}]]
	bids     expiring[string, Bid]
	prints   expiring[string, *[]noted]
	notes    expiring[string, []byte]
	gathered expiring[string, *[][]byte]
	due      due
}

var _ Registry = (*Memory)(nil)

// member is a node with what goes when its lease does.
type member struct {
	node  Node
	conns map[string]*Connection
}

// noted is one stream under a fingerprint.
type noted struct {
	stream sse.StreamID
	until  time.Time
}

// NewMemory returns an empty registry whose clock is now; nil means time.Now.
func NewMemory(now func() time.Time) *Memory {
	if now == nil {
		now = time.Now
	}
	return &Memory{now: now}
}

// enter locks m and reads the clock; the caller unlocks if there was no error.
func (m *Memory) enter(ctx context.Context) (now time.Time, err error) {
	if err := ctx.Err(); err != nil {
		return now, err
	}
	m.mu.Lock()
	return m.now(), nil
}

// Beat implements [Nodes].
func (m *Memory) Beat(ctx context.Context, n Node, ttl time.Duration) (lapsed bool, err error) {
	now, err := m.enter(ctx)
	if err != nil {
		return false, err
	}
	defer m.mu.Unlock()
	mem, ok := m.nodes.get(n.ID, now)
	if !ok {
		mem = &member{conns: map[string]*Connection{}}
	}
	n.Seen = now
	mem.node = n
	m.nodes.set(n.ID, mem, now.Add(ttl)) // no walk: Sweep tells of the dead
	return !ok, nil
}

// List implements [Nodes].
func (m *Memory) List(ctx context.Context) ([]Node, error) {
	now, err := m.enter(ctx)
	if err != nil {
		return nil, err
	}
	defer m.mu.Unlock()
	var list []Node
	m.nodes.live(now, func(_ string, mem *member) { list = append(list, mem.node) })
	slices.SortFunc(list, func(a, b Node) int { return cmp.Compare(a.ID, b.ID) })
	return list, nil
}

// Leave implements [Nodes].
func (m *Memory) Leave(ctx context.Context, id string) error {
	if _, err := m.enter(ctx); err != nil {
		return err
	}
	defer m.mu.Unlock()
	m.nodes.drop(id)
	if m.cleaner == id {
		m.cleaner = ""
	}
	return nil
}

// Sweep implements [Nodes].
func (m *Memory) Sweep(ctx context.Context) (dead []string, err error) {
	now, err := m.enter(ctx)
	if err != nil {
		return nil, err
	}
	defer m.mu.Unlock()
	m.records.clear(now)
	m.interest.clear(now)
	m.bids.clear(now)
	m.prints.clear(now)
	m.notes.clear(now)
	m.gathered.clear(now)
	dead = m.nodes.clear(now)
	slices.Sort(dead)
	return dead, nil
}

// Lead implements [Nodes].
func (m *Memory) Lead(ctx context.Context, node string, ttl time.Duration) (bool, error) {
	now, err := m.enter(ctx)
	if err != nil {
		return false, err
	}
	defer m.mu.Unlock()
	if m.cleaner != "" && m.cleaner != node && now.Before(m.until) {
		return false, nil
	}
	m.cleaner, m.until = node, now.Add(ttl)
	return true, nil
}

// Put implements [Streams].
func (m *Memory) Put(ctx context.Context, recs []Record, ttl time.Duration) []error {
	errs := make([]error, len(recs))
	now, err := m.enter(ctx)
	if err != nil {
		for i := range errs {
			errs[i] = err
		}
		return errs
	}
	defer m.mu.Unlock()
	failed := false
	for i, rec := range recs {
		if old, ok := m.records.get(rec.Stream, now); ok && old.Epoch > rec.Epoch {
			errs[i], failed = ErrFenced, true
			continue
		}
		m.records.put(rec.Stream, rec, now, now.Add(ttl))
	}
	if !failed {
		return nil
	}
	return errs
}

// Get implements [Streams].
func (m *Memory) Get(ctx context.Context, id sse.StreamID) (Record, error) {
	now, err := m.enter(ctx)
	if err != nil {
		return Record{}, err
	}
	defer m.mu.Unlock()
	rec, ok := m.records.get(id, now)
	if !ok {
		return Record{}, ErrUnknown
	}
	return rec, nil
}

// Claim implements [Streams].
func (m *Memory) Claim(ctx context.Context, rec Record, old uint64, ttl time.Duration) error {
	now, err := m.enter(ctx)
	if err != nil {
		return err
	}
	defer m.mu.Unlock()
	stored, ok := m.records.get(rec.Stream, now)
	again := stored.Epoch == rec.Epoch && stored.Owner == rec.Owner
	if !ok || !again && (stored.Epoch != old || rec.Epoch <= old) {
		return ErrFenced
	}
	m.records.put(rec.Stream, rec, now, now.Add(ttl))
	return nil
}

// Touch implements [Streams].
func (m *Memory) Touch(ctx context.Context, ids []sse.StreamID, ttl time.Duration) error {
	now, err := m.enter(ctx)
	if err != nil {
		return err
	}
	defer m.mu.Unlock()
	until := now.Add(ttl)
	for _, id := range ids {
		m.records.extend(id, now, until)
		who, ok := m.interest.get(id, now)
		if !ok {
			continue
		}
		m.interest.extend(id, now, until)
		for node := range who.m {
			if _, ok := m.nodes.get(node, now); ok {
				who.extend(node, now, until)
			}
		}
	}
	return nil
}

// Follow implements [Interest].
func (m *Memory) Follow(ctx context.Context, id sse.StreamID, node string, ttl time.Duration) error {
	now, err := m.enter(ctx)
	if err != nil {
		return err
	}
	defer m.mu.Unlock()
	until := now.Add(ttl)
	who, ok := m.interest.get(id, now)
	if !ok {
		who = &expiring[string, struct{}]{}
		m.interest.put(id, who, now, until)
	}
	m.interest.extend(id, now, until)
	who.put(node, struct{}{}, now, until)
	return nil
}

// Unfollow implements [Interest].
func (m *Memory) Unfollow(ctx context.Context, id sse.StreamID, node string) error {
	now, err := m.enter(ctx)
	if err != nil {
		return err
	}
	defer m.mu.Unlock()
	if who, ok := m.interest.get(id, now); ok {
		who.drop(node)
		if len(who.m) == 0 {
			m.interest.drop(id)
		}
	}
	return nil
}

// Followers implements [Interest].
func (m *Memory) Followers(ctx context.Context, ids []sse.StreamID) ([][]string, error) {
	now, err := m.enter(ctx)
	if err != nil {
		return nil, err
	}
	defer m.mu.Unlock()
	all := make([][]string, len(ids))
	for i, id := range ids {
		who, ok := m.interest.get(id, now)
		if !ok {
			continue
		}
		who.live(now, func(node string, _ struct{}) {
			if _, ok := m.nodes.get(node, now); ok {
				all[i] = append(all[i], node)
			}
		})
	}
	return all, nil
}

// Elect implements [Keys].
func (m *Memory) Elect(ctx context.Context, key string, bid Bid, ttl time.Duration) (Bid, bool, error) {
	now, err := m.enter(ctx)
	if err != nil {
		return Bid{}, false, err
	}
	defer m.mu.Unlock()
	if stands, ok := m.bids.get(key, now); ok {
		if stands.Same(bid) {
			return stands, true, nil
		}
		if _, ok := m.nodes.get(stands.Owner, now); ok {
			return stands, false, nil
		}
	}
	m.bids.put(key, bid, now, now.Add(ttl))
	return bid, true, nil
}

// Extend implements [Keys].
func (m *Memory) Extend(ctx context.Context, key string, stream sse.StreamID, ttl time.Duration) error {
	now, err := m.enter(ctx)
	if err != nil {
		return err
	}
	defer m.mu.Unlock()
	if bid, ok := m.bids.get(key, now); !ok || bid.Stream != stream {
		return ErrUnknown
	}
	m.bids.extend(key, now, now.Add(ttl))
	return nil
}

// Release implements [Keys].
func (m *Memory) Release(ctx context.Context, key string, stream sse.StreamID) error {
	now, err := m.enter(ctx)
	if err != nil {
		return err
	}
	defer m.mu.Unlock()
	if bid, ok := m.bids.get(key, now); ok && bid.Stream == stream {
		m.bids.drop(key)
	}
	return nil
}

// AddPrint implements [Keys].
func (m *Memory) AddPrint(ctx context.Context, print string, stream sse.StreamID, ttl time.Duration) error {
	now, err := m.enter(ctx)
	if err != nil {
		return err
	}
	defer m.mu.Unlock()
	until := now.Add(ttl)
	list, ok := m.prints.get(print, now)
	if !ok {
		list = new([]noted)
		m.prints.put(print, list, now, until)
	}
	m.prints.extend(print, now, until)
	kept := slices.DeleteFunc(*list, func(n noted) bool { return n.stream == stream || !now.Before(n.until) })
	kept = slices.Insert(kept, 0, noted{stream, until})
	*list = kept[:min(len(kept), MaxPrints)]
	return nil
}

// ByPrint implements [Keys].
func (m *Memory) ByPrint(ctx context.Context, print string) ([]sse.StreamID, error) {
	now, err := m.enter(ctx)
	if err != nil {
		return nil, err
	}
	defer m.mu.Unlock()
	list, ok := m.prints.get(print, now)
	if !ok {
		return nil, nil
	}
	var ids []sse.StreamID
	for _, n := range *list {
		if now.Before(n.until) {
			ids = append(ids, n.stream)
		}
	}
	return ids, nil
}

// PutConns implements [Connections].
func (m *Memory) PutConns(ctx context.Context, node string, conns []*Connection) error {
	now, err := m.enter(ctx)
	if err != nil {
		return err
	}
	defer m.mu.Unlock()
	mem, ok := m.nodes.get(node, now)
	if !ok {
		return ErrUnknown
	}
	for _, c := range conns {
		mem.conns[c.ID] = c
	}
	return nil
}

// DropConns implements [Connections].
func (m *Memory) DropConns(ctx context.Context, node string, ids []string) error {
	now, err := m.enter(ctx)
	if err != nil {
		return err
	}
	defer m.mu.Unlock()
	if mem, ok := m.nodes.get(node, now); ok {
		for _, id := range ids {
			delete(mem.conns, id)
		}
	}
	return nil
}

// Conns implements [Connections].
func (m *Memory) Conns(ctx context.Context) ([]Connection, error) {
	now, err := m.enter(ctx)
	if err != nil {
		return nil, err
	}
	defer m.mu.Unlock()
	var all []Connection
	m.nodes.live(now, func(_ string, mem *member) {
		for _, c := range mem.conns {
			all = append(all, *c)
		}
	})
	return all, nil
}

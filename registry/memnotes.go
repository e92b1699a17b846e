package registry

import (
	"bytes"
	"container/heap"
	"context"
	"slices"
	"time"
)

// PutNote implements [Notes].
func (m *Memory) PutNote(ctx context.Context, name string, value []byte, ttl time.Duration) error {
	now, err := m.enter(ctx)
	if err != nil {
		return err
	}
	defer m.mu.Unlock()
	m.notes.put(name, value, now, now.Add(ttl))
	return nil
}

// GetNote implements [Notes].
func (m *Memory) GetNote(ctx context.Context, name string) ([]byte, error) {
	return m.note(ctx, name, false)
}

// TakeNote implements [Notes].
func (m *Memory) TakeNote(ctx context.Context, name string) ([]byte, error) {
	return m.note(ctx, name, true)
}

func (m *Memory) note(ctx context.Context, name string, take bool) ([]byte, error) {
	now, err := m.enter(ctx)
	if err != nil {
		return nil, err
	}
	defer m.mu.Unlock()
	value, ok := m.notes.get(name, now)
	if !ok {
		return nil, ErrUnknown
	}
	if take {
		m.notes.drop(name)
	}
	return value, nil
}

// Gather implements [Gathering].
func (m *Memory) Gather(ctx context.Context, name string, value []byte, ttl time.Duration) error {
	now, err := m.enter(ctx)
	if err != nil {
		return err
	}
	defer m.mu.Unlock()
	list, ok := m.gathered.get(name, now)
	if !ok {
		list = new([][]byte)
		m.gathered.put(name, list, now, now.Add(ttl))
	}
	m.gathered.extend(name, now, now.Add(ttl))
	kept := slices.DeleteFunc(slices.Clone(*list), func(v []byte) bool { return bytes.Equal(v, value) })
	kept = slices.Insert(kept, 0, value)
	*list = kept[:min(len(kept), MaxGathered)]
	return nil
}

// Gathered implements [Gathering].
func (m *Memory) Gathered(ctx context.Context, name string) ([][]byte, error) {
	now, err := m.enter(ctx)
	if err != nil {
		return nil, err
	}
	defer m.mu.Unlock()
	if list, ok := m.gathered.get(name, now); ok {
		return *list, nil
	}
	return nil, nil
}

// PutDue implements [Due].
func (m *Memory) PutDue(ctx context.Context, at time.Time, items [][]byte) error {
	if _, err := m.enter(ctx); err != nil {
		return err
	}
	defer m.mu.Unlock()
	for _, item := range items {
		m.due.put(at, string(item))
	}
	return nil
}

// TakeDue implements [Due].
func (m *Memory) TakeDue(ctx context.Context, now, back time.Time, most int) ([][]byte, error) {
	if _, err := m.enter(ctx); err != nil {
		return nil, err
	}
	defer m.mu.Unlock()
	var items [][]byte
	for len(items) < most {
		item, ok := m.due.take(now)
		if !ok {
			break
		}
		items = append(items, []byte(item))
	}
	for _, item := range items {
		m.due.put(back, string(item))
	}
	return items, nil
}

// DropDue implements [Due].
func (m *Memory) DropDue(ctx context.Context, items [][]byte) error {
	if _, err := m.enter(ctx); err != nil {
		return err
	}
	defer m.mu.Unlock()
	for _, item := range items {
		m.due.drop(string(item))
	}
	return nil
}

// due is a set of items by the time each waits for.
type due struct {
	at    map[string]time.Time // what counts
	queue waits                // an item that was put again is in it twice, one that was dropped still
}

type wait struct {
	at   time.Time
	item string
}

func (d *due) put(at time.Time, item string) {
	if was, ok := d.at[item]; ok && was.Equal(at) {
		return
	}
	if d.at == nil {
		d.at = map[string]time.Time{}
	}
	d.at[item] = at
	heap.Push(&d.queue, wait{at, item})
	d.tidy()
}

func (d *due) drop(item string) {
	delete(d.at, item)
	d.tidy()
}

// tidy makes the queue anew once most of it counts no more.
func (d *due) tidy() {
	if len(d.queue) <= 2*len(d.at)+16 {
		return
	}
	d.queue = make(waits, 0, len(d.at))
	for item, at := range d.at {
		d.queue = append(d.queue, wait{at, item})
	}
	heap.Init(&d.queue)
}

// take removes the item that has waited longest at now, if there is one.
func (d *due) take(now time.Time) (item string, ok bool) {
	for len(d.queue) > 0 && !d.queue[0].at.After(now) {
		first := heap.Pop(&d.queue).(wait)
		if at, ok := d.at[first.item]; ok && at.Equal(first.at) {
			delete(d.at, first.item)
			return first.item, true
		}
	}
	return "", false
}

// waits is a heap, the earliest on top.
type waits []wait

func (w waits) Len() int           { return len(w) }
func (w waits) Less(i, j int) bool { return w[i].at.Before(w[j].at) }
func (w waits) Swap(i, j int)      { w[i], w[j] = w[j], w[i] }
func (w *waits) Push(x any)        { *w = append(*w, x.(wait)) }

func (w *waits) Pop() any {
	old := *w
	last := len(old) - 1
	x := old[last]
	old[last] = wait{}
	*w = old[:last]
	return x
}

package push

import (
	"cmp"
	"context"
	"slices"
	"sync"
	"time"

	"ssegate/registry"
)

// How old what is known of the connections may be. The registry hears of a
// change within a moment; together that is well under a second.
const (
	freshList = 200 * time.Millisecond // for lists and counts
	freshHit  = time.Second            // for a connection that is found in it
	freshMiss = 50 * time.Millisecond  // for one that is not
)

// directory is what the registry last said of the whole cluster's connections.
// Many ask, one reads: a list of all of them is dear.
type directory struct {
	reg Registry

	mu     sync.Mutex
	last   *listing
	asking chan struct{} // closed when whoever asks is done; nil when nobody does
}

// listing is one answer of the registry. It is not changed.
type listing struct {
	at   time.Time // when it was asked for
	list []registry.Connection
	byID map[string]*registry.Connection
}

// get returns a listing no older than age.
func (d *directory) get(ctx context.Context, age time.Duration) (*listing, error) {
	since := time.Now().Add(-age)
	for {
		d.mu.Lock()
		if d.last != nil && !d.last.at.Before(since) {
			defer d.mu.Unlock()
			return d.last, nil
		}
		if wait := d.asking; wait != nil {
			d.mu.Unlock()
			select {
			case <-wait:
				continue
			case <-ctx.Done():
				return nil, ctx.Err()
			}
		}
		done := make(chan struct{})
		d.asking = done
		d.mu.Unlock()
		l, err := d.ask(ctx)
		d.mu.Lock()
		if err == nil {
			d.last = l
		}
		d.asking = nil
		close(done)
		d.mu.Unlock()
		return l, err
	}
}

func (d *directory) ask(ctx context.Context) (*listing, error) {
	l := &listing{at: time.Now()}
	list, err := d.reg.Conns(ctx)
	if err != nil {
		return nil, err
	}
	slices.SortFunc(list, func(a, b registry.Connection) int { return cmp.Compare(a.ID, b.ID) })
	l.list, l.byID = list, make(map[string]*registry.Connection, len(list))
	for i := range list {
		l.byID[list[i].ID] = &list[i]
	}
	return l, nil
}

// find returns a connection by its id, nil when there is none.
func (d *directory) find(ctx context.Context, id string) (*registry.Connection, error) {
	for _, age := range []time.Duration{freshHit, freshMiss} {
		l, err := d.get(ctx, age)
		if err != nil {
			return nil, err
		}
		if c := l.byID[id]; c != nil {
			return c, nil
		}
	}
	return nil, nil
}

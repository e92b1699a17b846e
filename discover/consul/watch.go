package consul

import (
	"cmp"
	"context"
	"slices"
	"time"

	"github.com/hashicorp/consul/api"
)

// minPeriod is the shortest time between two answers: a service that flaps
// makes no storm of queries.
const minPeriod = 100 * time.Millisecond

// watch follows the passing instances of one service by blocking queries.
type watch[T comparable] struct {
	c       *Consul
	service string
	read    func(*api.ServiceEntry) (T, bool)
	id      func(T) string
	update  func([]T)

	index uint64 // of the last answer; 0 asks for one at once
	list  []T    // as it was told last, sorted by id
	told  bool
	away  uint64    // Consul.away, as of the last answer
	doubt time.Time // until then, what is missing is kept
	kept  bool      // list has something that is missing
}

// run follows until ctx is done.
func (w *watch[T]) run(ctx context.Context) {
	wait := backoff()
	failed := false
	w.away = w.c.away.Load()
	for ctx.Err() == nil {
		entries, index, err := w.ask(ctx)
		if ctx.Err() != nil {
			return
		}
		now := time.Now()
		if w.c.note(ctx, "watch "+w.service, err) != nil {
			// It may come back with a memory of its own, in which our index
			// lies in the future.
			w.index, failed = 0, true
			sleep(ctx, wait.Next(now))
			continue
		}
		wait.Good(now)
		// Another call may have found that Consul was away between two of ours.
		if away := w.c.away.Load(); away != w.away {
			w.away, failed = away, true
		}
		// That it went back is news once: of a service without instances Consul
		// tells a higher index when it is asked for one at once than when it is
		// waited for.
		if failed || index < w.index && !w.kept {
			w.doubt, failed = now.Add(w.c.cfg.Grace), false
		}
		if index < w.index {
			index = 0 // it went back: ask anew
		}
		w.index = index
		w.take(entries, now)
		sleep(ctx, minPeriod)
	}
}

// ask returns the instances once their index is past w.index, or after a while.
func (w *watch[T]) ask(ctx context.Context) ([]*api.ServiceEntry, uint64, error) {
	wait, index := w.c.cfg.Wait, w.index
	if w.kept { // it wants the plain list as soon as the doubt is over
		if left := time.Until(w.doubt); left > 0 {
			wait = min(wait, left+time.Millisecond)
		} else {
			index = 0
		}
	}
	// Consul adds up to a sixteenth, so that not all come back at once.
	ctx, cancel := context.WithTimeout(ctx, wait+wait/16+callTimeout)
	defer cancel()
	q := (&api.QueryOptions{WaitIndex: index, WaitTime: wait}).WithContext(ctx)
	// Not AllowStale: a server that has just started would tell of an empty
	// catalog before it has read its log.
	entries, meta, err := w.c.api.Health().Service(w.service, "", true, q)
	if err != nil {
		return nil, 0, err
	}
	return entries, max(1, meta.LastIndex), nil // 0 would not block
}

// take tells of the list if it is another.
func (w *watch[T]) take(entries []*api.ServiceEntry, now time.Time) {
	list := make([]T, 0, len(entries))
	for _, e := range entries {
		if t, ok := w.read(e); ok {
			list = append(list, t)
		}
	}
	w.kept = false
	if now.Before(w.doubt) {
		for _, old := range w.list {
			if !slices.ContainsFunc(list, func(t T) bool { return w.id(t) == w.id(old) }) {
				list, w.kept = append(list, old), true
			}
		}
	}
	slices.SortFunc(list, func(a, b T) int { return cmp.Compare(w.id(a), w.id(b)) })
	if w.told && slices.Equal(list, w.list) {
		return
	}
	w.list, w.told = list, true
	w.update(slices.Clone(list))
}

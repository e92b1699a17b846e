package registry

import "time"

// expiring is a map whose entries end at a time. There is no goroutine that
// clears it: reads pass over what has ended, and every so many writes pay for
// one walk that removes it, so that a write costs O(1) on average and the map
// is at most about twice as big as what is alive.
type expiring[K comparable, V any] struct {
	m      map[K]entry[V]
	writes int // since the last walk
	kept   int // entries that the last walk kept
}

type entry[V any] struct {
	v     V
	until time.Time
}

// get returns the value of k unless it has ended.
func (e *expiring[K, V]) get(k K, now time.Time) (v V, ok bool) {
	if it, ok := e.m[k]; ok && now.Before(it.until) {
		return it.v, true
	}
	return v, false
}

// put sets the value of k and its end, and pays for the walk.
func (e *expiring[K, V]) put(k K, v V, now, until time.Time) {
	if e.writes++; e.writes > e.kept {
		e.clear(now)
	}
	e.set(k, v, until)
}

// set sets the value of k and its end.
func (e *expiring[K, V]) set(k K, v V, until time.Time) {
	if e.m == nil {
		e.m = map[K]entry[V]{}
	}
	e.m[k] = entry[V]{v, until}
}

// extend moves the end of k to until if it has not ended and ends earlier.
func (e *expiring[K, V]) extend(k K, now, until time.Time) (ok bool) {
	it, ok := e.m[k]
	if !ok || !now.Before(it.until) {
		return false
	}
	if it.until.Before(until) {
		it.until = until
		e.m[k] = it
	}
	return true
}

func (e *expiring[K, V]) drop(k K) { delete(e.m, k) }

// live calls f with each entry that has not ended.
func (e *expiring[K, V]) live(now time.Time, f func(K, V)) {
	for k, it := range e.m {
		if now.Before(it.until) {
			f(k, it.v)
		}
	}
}

// clear removes what has ended and returns its keys.
func (e *expiring[K, V]) clear(now time.Time) (ended []K) {
	for k, it := range e.m {
		if !now.Before(it.until) {
			ended = append(ended, k)
			delete(e.m, k)
		}
	}
	e.writes, e.kept = 0, len(e.m)
	return ended
}

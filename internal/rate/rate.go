// Package rate bounds how often each of many may do something. It owns the
// count; who they are, what they may and what a refusal looks like it does not
// know.
package rate

import (
	"sync"
	"time"
)

// A Limiter bounds each key by itself. Its methods may be called concurrently;
// the zero value is ready for use.
//
// Of each key it keeps one time, that at which its bucket will be full again
// (GCRA). Whose bucket is full is forgotten, so what is kept is bounded by what
// was let pass in the last second and in the time that a burst takes to come
// back.
type Limiter struct {
	mu    sync.Mutex
	full  map[string]time.Time
	swept time.Time
}

// Take takes n for key, which may have so many a second and burst at once, and
// returns 0; or it takes nothing and returns after how long they may be taken.
// n is at most burst, and perSecond is more than 0: both may be others in each
// call.
func (l *Limiter) Take(key string, n, perSecond, burst int, now time.Time) (wait time.Duration) {
	each := time.Second / time.Duration(perSecond)
	most := each * time.Duration(burst)
	l.mu.Lock()
	defer l.mu.Unlock()
	if now.Sub(l.swept) >= time.Second {
		l.swept = now
		for k, t := range l.full {
			if !t.After(now) {
				delete(l.full, k)
			}
		}
	}
	t := l.full[key]
	if t.Before(now) {
		t = now
	}
	if t = t.Add(each * time.Duration(n)); t.Sub(now) > most {
		return t.Sub(now) - most
	}
	if l.full == nil {
		l.full = make(map[string]time.Time)
	}
	l.full[key] = t
	return 0
}

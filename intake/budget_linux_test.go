package intake

import (
	"os"
	"runtime"
	"runtime/debug"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

// TestReadAllocs: reading allocates nothing, be it of a service that brings more
// all the time or of one that is silent for longer than a rest.
func TestReadAllocs(t *testing.T) {
	for name, silence := range map[string]time.Duration{"steady": 0, "in bursts": 4 * pause} {
		t.Run(name, func(t *testing.T) {
			m := &meter{all: make(chan struct{}, 1), goal: 20 * 64}
			service := upstream(t, newSet(t), m)
			defer unix.Close(service)
			raw := chunked(20, 64)
			bound := time.NewTimer(time.Minute)
			defer bound.Stop()
			round := func() {
				if _, err := unix.Write(service, raw); err != nil {
					t.Fatal(err)
				}
				select {
				case <-m.all:
				case <-bound.C:
					t.Fatal("not read")
				}
				time.Sleep(silence)
			}
			defer debug.SetGCPercent(debug.SetGCPercent(-1))
			const n = 60
			for range n {
				round()
			}
			var before, after runtime.MemStats
			runtime.ReadMemStats(&before)
			for range n {
				round()
			}
			runtime.ReadMemStats(&after)
			// The runtime may allocate meanwhile, for a thread, say.
			if got, most := after.Mallocs-before.Mallocs, uint64(n/5); got > most {
				t.Errorf("%d allocations in %d reads, the budget is %d", got, n, most)
			}
		})
	}
}

// idleBytes is the budget of a connection that has nothing to say, heap and
// stacks together, what the sink needs not included. Measured: 166.
const idleBytes = 260

// TestIdle: upstreams that have nothing to say cost no goroutine, no buffer
// and no descriptor but their own.
func TestIdle(t *testing.T) {
	const n = 1000
	s, services := newSet(t), make([]int, 0, n+1)
	defer func() {
		for _, fd := range services {
			unix.Close(fd)
		}
	}()
	m := &meter{all: make(chan struct{}, 1), goal: 1 << 60}
	services = append(services, upstream(t, s, m)) // with it come the goroutines that read for all
	use := func() (bytes int64) {
		runtime.GC()
		runtime.GC()
		var m runtime.MemStats
		runtime.ReadMemStats(&m)
		return int64(m.HeapAlloc + m.StackInuse)
	}
	open := func() int {
		names, err := os.ReadDir("/proc/self/fd")
		if err != nil {
			t.Fatal(err)
		}
		return len(names)
	}
	goroutines, bytes, files := runtime.NumGoroutine(), use(), open()
	for range n {
		services = append(services, upstream(t, s, m))
	}
	if got := runtime.NumGoroutine(); got > goroutines {
		t.Errorf("%d goroutines, %d before", got, goroutines)
	}
	if got := open(); got > files+2*n { // the other end is ours as well
		t.Errorf("%d files for %d connections", got-files, n)
	}
	each := (use() - bytes) / n
	t.Logf("%d bytes a connection", each)
	if each > idleBytes {
		t.Errorf("%d bytes a connection, the budget is %d", each, idleBytes)
	}
	if m.ended.Load() {
		t.Error("a connection did not hold")
	}
}

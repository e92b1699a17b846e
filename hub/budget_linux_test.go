package hub

import (
	"fmt"
	"net"
	"os"
	"runtime"
	"runtime/debug"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

// TestDeliveryAllocs: an event on its way to followers with real connections
// allocates nothing but the ring's segments, three things each.
func TestDeliveryAllocs(t *testing.T) {
	for _, followers := range []int{1, 10} {
		for _, events := range []int{1, 20} {
			t.Run(fmt.Sprintf("%d followers, %d events", followers, events), func(t *testing.T) {
				h := running(t, Config{})
				s := h.Open(StreamOptions{})
				ends := make([]int, followers)
				for i := range ends {
					var server net.Conn
					server, ends[i] = socketPair(t)
					s.Follow(h.Hold(server), FollowOptions{Chunked: true})
				}
				frames := sized(events, 64)
				size := events * len(appendChunk(nil, frames[0].Block))
				buf := make([]byte, size)
				seq, last, segments := uint64(0), s.last, 0
				round := func() {
					seq = number(frames, seq)
					s.Append(frames)
					s.Flush()
					if s.last != last {
						last = s.last
						segments++
					}
					for _, fd := range ends {
						readFull(t, fd, buf)
					}
				}
				got := mallocs(t, 4000/events, round, &segments)
				if most := 3*segments + strays; got > most {
					t.Errorf("%d allocations for %d events, of them %d for segments", got, 4000, most)
				}
				if segments == 0 {
					t.Error("no segment: the ring was not used")
				}
			})
		}
	}
}

// strays is what the runtime may allocate meanwhile, for a thread, say. One
// allocation a round would be ten times as many.
const strays = 20

// mallocs is how many allocations n rounds make in the whole process. started
// is set to 0 before those that count.
func mallocs(t *testing.T, n int, round func(), started *int) int {
	t.Helper()
	defer runtime.GOMAXPROCS(runtime.GOMAXPROCS(1))
	defer debug.SetGCPercent(debug.SetGCPercent(-1))
	for range 2000 {
		round() // the ring is full
	}
	var before, after runtime.MemStats
	*started = 0
	runtime.ReadMemStats(&before)
	for range n {
		round()
	}
	runtime.ReadMemStats(&after)
	return int(after.Mallocs - before.Mallocs)
}

// socketPair is a connection whose client side is a descriptor alone, which
// reading costs nothing of Go's.
func socketPair(t *testing.T) (server net.Conn, client int) {
	t.Helper()
	fds, err := unix.Socketpair(unix.AF_UNIX, unix.SOCK_STREAM|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { unix.Close(fds[1]) })
	patience := unix.NsecToTimeval(testTime.Nanoseconds())
	if err := unix.SetsockoptTimeval(fds[1], unix.SOL_SOCKET, unix.SO_RCVTIMEO, &patience); err != nil {
		t.Fatal(err)
	}
	f := os.NewFile(uintptr(fds[0]), "pair")
	defer f.Close()
	if server, err = net.FileConn(f); err != nil {
		t.Fatal(err)
	}
	return server, fds[1]
}

func readFull(t *testing.T, fd int, buf []byte) {
	for len(buf) > 0 {
		n, err := unix.Read(fd, buf)
		if err == unix.EINTR {
			continue // the scheduler's signals
		}
		if err != nil || n == 0 {
			t.Fatalf("read: %d, %v", n, err)
		}
		buf = buf[n:]
	}
}

// TestHeldGoroutines: followers that have nothing to read cost no goroutine.
func TestHeldGoroutines(t *testing.T) {
	h := running(t, Config{})
	s := h.Open(StreamOptions{Heartbeat: []byte(":\n")})
	hold := func(n int) {
		for range n {
			server, _ := socketPair(t)
			s.Follow(h.Hold(server), FollowOptions{Chunked: true, Heartbeat: 15 * time.Second})
		}
	}
	hold(1) // with it comes the one that waits for all
	before := runtime.NumGoroutine()
	hold(500)
	if n := h.Stats().Followers; n != 501 {
		t.Fatalf("%d followers", n)
	}
	if got := runtime.NumGoroutine(); got > before {
		t.Errorf("%d goroutines, %d before 500 followers", got, before)
	}
}

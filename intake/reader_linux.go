package intake

import (
	"errors"
	"os"
	"sync"
	"sync/atomic"
	"time"
	"unsafe"

	"golang.org/x/sys/unix"
)

// A reader reads what is ready.
type reader struct {
	s      *Set
	events []unix.EpollEvent
	buf    []byte
	again  []*Conn // to be read once more, the others first
	once   []*Conn // those of them that are being read
	watch  bool    // sees to it that rests end
}

// batch is how many connections a reader takes on at once; who waits behind
// them is for a helper.
const batch = 64

func (s *Set) reader() *reader {
	return &reader{s: s, events: make([]unix.EpollEvent, batch), buf: make([]byte, readSize)}
}

// watch reads whenever something is ready, until the set is closed.
func (s *Set) watch() {
	r := s.reader()
	r.watch = true
	run := r.run // made once: it escapes
	for {
		// All is done within Read, which parks the goroutine when the function
		// says false unless something came meanwhile: so epoll need not be
		// asked once more only to say that nothing is there.
		if err := s.raw.Read(run); !errors.Is(err, os.ErrDeadlineExceeded) {
			return
		}
		r.rested(time.Since(s.begun))
	}
}

// help reads while there is more than others take on, until the set is closed.
func (s *Set) help() {
	r := s.reader()
	run := func(fd uintptr) { r.run(fd) }
	for {
		select {
		case <-s.busy:
		case <-s.quit:
			return
		}
		if s.raw.Control(run) != nil {
			return
		}
	}
}

// run reads until nothing is ready, and returns false.
func (r *reader) run(fd uintptr) bool {
	for {
		got, _, err := unix.RawSyscall6(unix.SYS_EPOLL_PWAIT, fd, uintptr(unsafe.Pointer(&r.events[0])), uintptr(len(r.events)), 0, 0, 0)
		n := int(got)
		if err != 0 {
			n = 0 // interrupted
		}
		if n == len(r.events) || len(r.again) > 0 {
			select {
			case r.s.busy <- struct{}{}:
			default: // all do what they can
			}
		}
		at := time.Since(r.s.begun)
		r.once, r.again = r.again, r.once[:0]
		for _, ev := range r.events[:n] {
			if c := r.s.find(ev.Fd, ev.Pad); c != nil {
				r.read(c, at, ev.Events, false)
			}
		}
		for _, c := range r.once {
			r.read(c, at, 0, false)
		}
		clear(r.once)
		if r.watch && r.s.rest.over(at) {
			r.rested(at)
		}
		if n < len(r.events) && len(r.again) == 0 && err != unix.EINTR {
			return false
		}
	}
}

func (r *reader) read(c *Conn, at time.Duration, events uint32, due bool) {
	switch c.ready(r.buf, at, events, due) {
	case again:
		r.again = append(r.again, c)
	case rests:
		r.s.rest.add(r.s, c, at)
	}
}

// rested reads those whose rest is over.
func (r *reader) rested(at time.Duration) {
	for _, c := range r.s.rest.take(r.s) {
		r.read(c, at, 0, true)
	}
}

// rest are the connections that rest, all until the same time.
type rest struct {
	until atomic.Int64 // since the set's beginning; 0: nobody rests

	mu    sync.Mutex
	conns []*Conn
	due   []*Conn
}

// over reports whether it is.
func (r *rest) over(at time.Duration) bool {
	until := r.until.Load()
	return until > 0 && int64(at) >= until
}

// add has c rest from now on.
func (r *rest) add(s *Set, c *Conn, at time.Duration) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.conns = append(r.conns, c)
	if r.until.Load() == 0 {
		r.set(s, at+pause)
	}
}

// take returns who has rested; they are the caller's, who is the set's watch,
// until the next call.
func (r *rest) take(s *Set) []*Conn {
	r.mu.Lock()
	defer r.mu.Unlock()
	clear(r.due)
	r.due, r.conns = r.conns, r.due[:0]
	r.set(s, 0)
	return r.due
}

func (r *rest) set(s *Set, until time.Duration) {
	r.until.Store(int64(until))
	var at time.Time
	if until > 0 {
		at = s.begun.Add(until)
	}
	s.file.SetReadDeadline(at)
}

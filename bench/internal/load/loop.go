//go:build linux

package load

import (
	"errors"
	"fmt"
	"runtime"
	"sync"
	"time"

	"golang.org/x/sys/unix"
)

// clock tells µs since it began. It is what marks bear.
type clock time.Time

func (c clock) now() int64 { return time.Since(time.Time(c)).Microseconds() }

// handler is told what epoll says of its descriptor, in the loop's thread.
type handler interface {
	ready(events uint32)
}

// loop is an epoll set and the thread that serves it. Whatever belongs to it
// is touched in that thread alone; others get in with [loop.call].
type loop struct {
	clock
	ep, wake int
	known    []registration // by descriptor
	buf      []byte         // for one read
	rounds   []func() bool  // called each round; true: there is more to do at once
	gone     chan struct{}

	mu      sync.Mutex
	waiting []func()
	closed  bool
}

// registration has a number, so that an event for a descriptor that was closed
// and given out again in the same round is not taken for its successor's.
type registration struct {
	h   handler
	gen int32
}

// readSize is more than most programs write at once, so that one read takes
// what is there.
const readSize = 256 << 10

func newLoop(c clock) (*loop, error) {
	ep, err := unix.EpollCreate1(unix.EPOLL_CLOEXEC)
	if err != nil {
		return nil, err
	}
	wake, err := unix.Eventfd(0, unix.EFD_CLOEXEC|unix.EFD_NONBLOCK)
	if err != nil {
		return nil, errors.Join(err, unix.Close(ep))
	}
	l := &loop{clock: c, ep: ep, wake: wake, buf: make([]byte, readSize), gone: make(chan struct{})}
	if err := l.add(wake, unix.EPOLLIN, wakeUp{wake}); err != nil {
		return nil, errors.Join(err, unix.Close(ep), unix.Close(wake))
	}
	go l.run()
	return l, nil
}

type wakeUp struct{ fd int }

func (w wakeUp) ready(uint32) {
	var b [8]byte
	_, _ = unix.Read(w.fd, b[:]) // what counts is that epoll returned
}

// add watches a descriptor.
func (l *loop) add(fd int, events uint32, h handler) error {
	for fd >= len(l.known) {
		l.known = append(l.known, registration{})
	}
	r := &l.known[fd]
	r.h = h
	r.gen++
	return unix.EpollCtl(l.ep, unix.EPOLL_CTL_ADD, fd, &unix.EpollEvent{Events: events, Fd: int32(fd), Pad: r.gen})
}

// watch changes what a descriptor is watched for.
func (l *loop) watch(fd int, events uint32) error {
	return unix.EpollCtl(l.ep, unix.EPOLL_CTL_MOD, fd, &unix.EpollEvent{Events: events, Fd: int32(fd), Pad: l.known[fd].gen})
}

// drop closes a descriptor, and with that it leaves the set.
func (l *loop) drop(fd int) {
	l.known[fd].h = nil
	_ = unix.Close(fd) // nothing to learn: what was written is checked at the other end
}

// call runs f in the loop's thread and waits for it. After close it does
// nothing.
func (l *loop) call(f func()) {
	done := make(chan struct{})
	l.mu.Lock()
	if l.closed {
		l.mu.Unlock()
		return
	}
	l.waiting = append(l.waiting, func() { defer close(done); f() })
	l.mu.Unlock()
	l.poke()
	<-done
}

func (l *loop) poke() {
	one := [8]byte{1}
	_, _ = unix.Write(l.wake, one[:]) // full means that it is awake already
}

// each has f called in every round, and at once again while it says true.
func (l *loop) each(f func() bool) { l.rounds = append(l.rounds, f) }

// every has f called each d, as exactly as the machine can, until the loop
// closes.
func (l *loop) every(d time.Duration, f func()) error {
	fd, err := unix.TimerfdCreate(unix.CLOCK_MONOTONIC, unix.TFD_CLOEXEC|unix.TFD_NONBLOCK)
	if err != nil {
		return err
	}
	spec := unix.NsecToTimespec(d.Nanoseconds())
	if err := unix.TimerfdSettime(fd, 0, &unix.ItimerSpec{Interval: spec, Value: spec}, nil); err != nil {
		return errors.Join(err, unix.Close(fd))
	}
	return l.add(fd, unix.EPOLLIN, ticker{fd, f})
}

type ticker struct {
	fd int
	f  func()
}

func (t ticker) ready(uint32) {
	var b [8]byte
	_, _ = unix.Read(t.fd, b[:])
	t.f()
}

func (l *loop) run() {
	runtime.LockOSThread()
	defer close(l.gone)
	events := make([]unix.EpollEvent, 512)
	more := false
	for {
		wait := -1
		if more {
			wait = 0
		}
		n, err := unix.EpollWait(l.ep, events, wait)
		if err != nil && !errors.Is(err, unix.EINTR) {
			panic(fmt.Sprintf("epoll_wait: %v", err)) // the set is ours alone: a mistake in here
		}
		for _, e := range events[:max(n, 0)] {
			if r := l.known[e.Fd]; r.h != nil && r.gen == e.Pad {
				r.h.ready(e.Events)
			}
		}
		l.mu.Lock()
		waiting, closed := l.waiting, l.closed
		l.waiting = nil
		l.mu.Unlock()
		for _, f := range waiting {
			f()
		}
		if closed {
			return
		}
		more = false
		for _, f := range l.rounds {
			more = f() || more
		}
	}
}

// close ends the thread and closes every descriptor that is watched.
func (l *loop) close() {
	l.mu.Lock()
	already := l.closed
	l.closed = true
	l.mu.Unlock()
	if already {
		return
	}
	l.poke()
	<-l.gone
	for fd, r := range l.known {
		if r.h != nil {
			_ = unix.Close(fd)
		}
	}
	_ = unix.Close(l.ep)
}

// read reads once. more is false when the connection is at its end.
func (l *loop) read(fd int) (b []byte, more bool) {
	for {
		n, err := unix.Read(fd, l.buf)
		switch {
		case n > 0:
			return l.buf[:n], true
		case errors.Is(err, unix.EINTR):
		case errors.Is(err, unix.EAGAIN):
			return nil, true
		default:
			return nil, false
		}
	}
}

// write writes once and says how much was taken. ok is false when the
// connection is broken.
func write(fd int, b []byte) (n int, ok bool) {
	for {
		n, err := unix.Write(fd, b)
		switch {
		case err == nil:
			return n, true
		case errors.Is(err, unix.EINTR):
		case errors.Is(err, unix.EAGAIN):
			return 0, true
		default:
			return 0, false
		}
	}
}

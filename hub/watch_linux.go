package hub

import (
	"net"
	"sync/atomic"

	"golang.org/x/sys/unix"
)

// A watch tells once that a client left.
type watch struct {
	gone func()
	over atomic.Bool
}

func (w *watch) event(events uint32) {
	if events&leaveEvents != 0 && w.over.CompareAndSwap(false, true) {
		w.gone()
	}
}

// Watch calls gone once, from another goroutine, when the client closes its
// side of c or the connection breaks, until stop is called; gone does not
// begin after stop has returned, and must not block. Nothing is read from c,
// and it still belongs to the caller, who calls stop before c is closed or
// held. For a connection that cannot be polled (TLS, a pipe) gone is never
// called.
func (h *Hub) Watch(c net.Conn, gone func()) (stop func()) {
	sc := pollable(c)
	if sc == nil {
		return func() {}
	}
	raw, err := sc.SyscallConn()
	if err != nil {
		return func() {}
	}
	w := &watch{gone: gone}
	var at, gen int32
	if cerr := raw.Control(func(fd uintptr) { at, gen, err = h.poller.add(int(fd), w) }); cerr != nil || err != nil {
		return func() {}
	}
	return func() {
		w.over.Store(true)
		raw.Control(func(fd uintptr) { h.poller.control(int(fd), unix.EPOLL_CTL_DEL, 0, at, gen) })
		h.poller.release(at, gen)
	}
}

package hub

import (
	"cmp"
	"net"
	"os"
	"sync"
	"sync/atomic"
	"syscall"
	"time"

	"golang.org/x/sys/unix"
)

// TakesOver says that Hold takes the descriptor of a TCP or Unix connection
// away from it: whoever has the connection may close it then, to no effect.
const TakesOver = true

// A poller is an epoll set and the goroutine that waits for it. The set's own
// descriptor is watched by the Go runtime's poller, so that waiting costs no
// thread. An event names a slot and the slot's generation, never a
// descriptor: what comes late for a connection that is gone finds nobody, even
// if its descriptor has a new owner.
type poller struct {
	h    *Hub
	file *os.File
	raw  syscall.RawConn
	once sync.Once

	mu     sync.Mutex
	slots  []slot
	free   int32 // the first free slot, or -1
	closed bool
}

type slot struct {
	target target
	gen    int32
	free   int32 // the next free slot
}

// A target is what an event is for.
type target interface{ event(events uint32) }

const (
	watchEvents = unix.EPOLLRDHUP | unix.EPOLLET // HUP and ERR come unasked
	leaveEvents = unix.EPOLLRDHUP | unix.EPOLLHUP | unix.EPOLLERR
)

func newPoller(h *Hub) (*poller, error) {
	fd, err := unix.EpollCreate1(unix.EPOLL_CLOEXEC)
	if err != nil {
		return nil, os.NewSyscallError("epoll_create1", err)
	}
	if err := unix.SetNonblock(fd, true); err != nil {
		unix.Close(fd)
		return nil, os.NewSyscallError("fcntl", err)
	}
	p := &poller{h: h, file: os.NewFile(uintptr(fd), "epoll"), free: -1}
	if p.raw, err = p.file.SyscallConn(); err == nil {
		err = p.file.SetReadDeadline(time.Time{}) // refused if the runtime cannot wait for it
	}
	if err != nil {
		p.file.Close()
		return nil, err
	}
	return p, nil
}

// add registers a descriptor. Events begin to come before add returns.
func (p *poller) add(fd int, t target) (at, gen int32, err error) {
	p.once.Do(func() { p.h.spawn(p.run) })
	p.mu.Lock()
	if p.closed {
		p.mu.Unlock()
		return 0, 0, net.ErrClosed
	}
	if at = p.free; at >= 0 {
		p.free = p.slots[at].free
	} else {
		at = int32(len(p.slots))
		p.slots = append(p.slots, slot{})
	}
	s := &p.slots[at]
	s.target = t
	gen = s.gen
	p.mu.Unlock()
	if err = p.control(fd, unix.EPOLL_CTL_ADD, watchEvents, at, gen); err != nil {
		p.release(at, gen)
	}
	return at, gen, err
}

// release gives a slot back; what still comes for it is for nobody.
func (p *poller) release(at, gen int32) {
	p.mu.Lock()
	defer p.mu.Unlock()
	s := &p.slots[at]
	if s.gen != gen {
		return
	}
	s.target = nil
	s.gen++
	s.free, p.free = p.free, at
}

func (p *poller) control(fd, op int, events uint32, at, gen int32) error {
	var ctl error
	err := p.raw.Control(func(set uintptr) {
		ctl = unix.EpollCtl(int(set), op, fd, &unix.EpollEvent{Events: events, Fd: at, Pad: gen})
	})
	return cmp.Or(err, os.NewSyscallError("epoll_ctl", ctl))
}

// run takes events until the set is closed.
func (p *poller) run() {
	events := make([]unix.EpollEvent, 256)
	targets := make([]target, len(events))
	for {
		var n int
		var failed error
		err := p.raw.Read(func(fd uintptr) bool {
			n, failed = unix.EpollWait(int(fd), events, 0)
			return n != 0 // also -1; at 0 the runtime waits for more
		})
		if err != nil || failed != nil && failed != unix.EINTR {
			return
		}
		n = max(n, 0)
		p.find(events[:n], targets)
		for i, t := range targets[:n] {
			if t != nil {
				t.event(events[i].Events)
				targets[i] = nil
			}
		}
	}
}

// find names whom the events are for; nobody where the slot has a new owner.
func (p *poller) find(events []unix.EpollEvent, targets []target) {
	p.mu.Lock()
	defer p.mu.Unlock()
	for i, ev := range events {
		targets[i] = nil
		if s := &p.slots[ev.Fd]; s.gen == ev.Pad {
			targets[i] = s.target
		}
	}
}

// close ends run and refuses whatever is added from now on.
func (p *poller) close() {
	p.mu.Lock()
	p.closed = true
	p.mu.Unlock()
	p.file.Close()
}

// A polledConn is a Conn in the epoll set.
type polledConn struct {
	socket
	p       *poller
	peer    Peer
	at, gen int32
	state   atomic.Uint32
	stall   uint32 // milliseconds
	armed   bool   // EPOLLOUT is asked for; TryWrite's own
	tcp     bool
}

// A streamConn is a TCP or a Unix connection.
type streamConn interface {
	net.Conn
	syscall.Conn
	CloseWrite() error
}

// The states of a polledConn.
const (
	connOpen      = iota // not started
	connStarted          // in the set
	connFlushing         // everything is sent; waits for the client to close too
	connResetting        // everything is written; waits for it to have arrived
	connClosed
)

// pollable returns the TCP or Unix connection that c is or wraps, or nil.
func pollable(c net.Conn) streamConn {
	switch c := unwrap(c).(type) {
	case *net.TCPConn:
		return c
	case *net.UnixConn:
		return c
	}
	return nil
}

// holdPolled takes c over, unless it is none for the epoll set.
func (h *Hub) holdPolled(c net.Conn) Conn {
	sc := pollable(c)
	if sc == nil {
		return nil
	}
	held := &polledConn{p: h.poller}
	_, held.tcp = sc.(*net.TCPConn)
	if held.take(sc) != nil {
		held.state.Store(connClosed) // there is nothing to hold any more
		held.uses.Store(closing)
	}
	return held
}

// unsent is how many bytes the kernel takes beyond what it may send now. Its
// own idea is several megabytes, for every client that does not read: memory,
// and a follower's place in the stream that is that far from what its client
// has.
const unsent = 256 << 10

func (c *polledConn) Start(p Peer, stall time.Duration) error {
	c.peer, c.stall = p, uint32(stall.Milliseconds())
	if c.tcp {
		c.set(unix.IPPROTO_TCP, unix.TCP_NOTSENT_LOWAT, unsent)
		if stall > 0 {
			c.set(unix.IPPROTO_TCP, unix.TCP_USER_TIMEOUT, int(c.stall))
		}
	}
	if !c.state.CompareAndSwap(connOpen, connStarted) || !c.use() {
		return net.ErrClosed
	}
	defer c.done()
	var err error
	if c.at, c.gen, err = c.p.add(int(c.fd), c); err != nil {
		c.state.CompareAndSwap(connStarted, connOpen)
	}
	return err
}

func (c *polledConn) TryWrite(b []byte) (int, error) {
	n, err := c.write(b)
	if err != unix.EAGAIN {
		return n, err
	}
	if c.armed {
		return n, nil
	}
	if !c.use() {
		return n, net.ErrClosed
	}
	defer c.done()
	// Most connections are never full and never need the event.
	c.armed = true
	return n, c.p.control(int(c.fd), unix.EPOLL_CTL_MOD, watchEvents|unix.EPOLLOUT, c.at, c.gen)
}

func (c *polledConn) event(events uint32) {
	left := events&leaveEvents != 0
	switch c.state.Load() {
	case connStarted:
		if left {
			var why error
			if events&unix.EPOLLERR != 0 {
				why = c.failure()
			}
			c.peer.Gone(why)
		} else {
			c.peer.Writable()
		}
	case connFlushing:
		if left {
			c.finish(false)
		}
	case connResetting:
		if left {
			c.finish(true)
		}
	}
}

func (c *polledConn) Close(how Closing) {
	switch {
	case how == CloseNow:
		c.finish(true)
	case how == CloseFlush && c.state.CompareAndSwap(connStarted, connFlushing):
		// What the client has sent and nobody read would make the close a
		// reset that overtakes the last bytes; so would what it sends later.
		if !c.shut() || c.drain() || !c.p.h.lingering.add(c, linger) {
			c.finish(false)
		}
	case how == CloseReset && c.state.CompareAndSwap(connStarted, connResetting):
		// The kernel would go on delivering after a close, but not after a reset.
		patience := max(linger, time.Duration(c.stall)*time.Millisecond)
		if c.arrived() || !c.p.h.lingering.add(c, patience) {
			c.finish(true)
		}
	case c.state.CompareAndSwap(connOpen, connClosed):
		c.close()
	}
}

// settle closes a lingering connection when nothing is left to wait for, or
// when the time is up.
func (c *polledConn) settle(last bool) {
	switch c.state.Load() {
	case connFlushing:
		if last {
			c.finish(false)
		}
	case connResetting:
		if last || c.arrived() {
			c.finish(true)
		}
	}
}

// finish closes the connection for good, with a reset or without.
func (c *polledConn) finish(abort bool) {
	old := c.state.Swap(connClosed)
	if old == connClosed {
		return
	}
	if c.tcp && abort && c.use() {
		unix.SetsockoptLinger(int(c.fd), unix.SOL_SOCKET, unix.SO_LINGER, &unix.Linger{Onoff: 1})
		c.done()
	}
	if old == connFlushing && !abort {
		c.drain()
	}
	if old != connOpen {
		c.p.h.lingering.remove(c)
		c.p.release(c.at, c.gen)
	}
	c.close() // which takes it out of the epoll set
}

package intake

import (
	"net"
	"os"
	"runtime"
	"sync"
	"sync/atomic"
	"syscall"
	"time"
	"unsafe"

	"golang.org/x/sys/unix"
)

// readSize is how much one read takes in: of one connection, before the next
// has its turn.
const readSize = 64 << 10

// A Set reads connections. Its methods may be called concurrently.
//
// It is an epoll set. One goroutine waits for it and reads; others help as long
// as more is ready than that one takes in at once. The set's own descriptor is
// watched by the Go runtime's poller, so that waiting costs no thread. An event
// names a slot and the slot's generation, never a descriptor.
type Set struct {
	fd    int
	file  *os.File // the same
	raw   syscall.RawConn
	begun time.Time

	helpers int
	busy    chan struct{} // a helper waits here to be needed
	once    sync.Once
	quit    chan struct{}
	wg      sync.WaitGroup

	mu     sync.Mutex
	slots  []place
	free   int32
	closed bool

	rest rest
}

type place struct {
	conn *Conn
	gen  int32
	free int32
}

// New returns a set that reads with at most so many goroutines; 0: as many as
// the process may run at a time, but no more than four. They start with the
// first connection.
func New(readers int) (*Set, error) {
	if readers <= 0 {
		readers = min(runtime.GOMAXPROCS(0), 4)
	}
	fd, err := unix.EpollCreate1(unix.EPOLL_CLOEXEC)
	if err != nil {
		return nil, os.NewSyscallError("epoll_create1", err)
	}
	if err := unix.SetNonblock(fd, true); err != nil {
		unix.Close(fd)
		return nil, os.NewSyscallError("fcntl", err)
	}
	s := &Set{
		fd: fd, file: os.NewFile(uintptr(fd), "epoll"), begun: time.Now(), free: -1,
		helpers: readers - 1, busy: make(chan struct{}), quit: make(chan struct{}),
	}
	if s.raw, err = s.file.SyscallConn(); err == nil {
		err = s.file.SetReadDeadline(time.Time{}) // refused if the runtime cannot wait for it
	}
	if err != nil {
		s.file.Close()
		return nil, err
	}
	return s, nil
}

// Close ends all reading, with net.ErrClosed where it had not ended, and
// waits for the goroutines.
func (s *Set) Close() {
	s.once.Do(func() {}) // nothing begins any more
	s.mu.Lock()
	was := s.closed
	s.closed = true
	s.mu.Unlock()
	if !was {
		close(s.quit)
	}
	for _, c := range s.all(func(*Conn) bool { return true }) {
		c.Close(net.ErrClosed)
	}
	s.file.Close()
	s.wg.Wait()
}

// begin starts the goroutines.
func (s *Set) begin() {
	s.wg.Go(s.watch)
	for range s.helpers {
		s.wg.Go(s.help)
	}
	s.wg.Go(s.sweep)
}

// Add begins to read the body that comes on c, which belongs to the set from
// now on, also where Add fails. ok is false for a connection that cannot be
// read this way (one that is encrypted, say); it is then untouched.
func (s *Set) Add(c net.Conn, o Options, sink Sink) (conn *Conn, ok bool, err error) {
	tcp := unwrap(c)
	if tcp == nil || tcp != c {
		return nil, false, nil
	}
	fd, err := release(tcp)
	if err != nil {
		return nil, true, err
	}
	s.once.Do(s.begin)
	conn = &Conn{s: s, fd: fd, sink: sink, body: body{framing: o.Framing}, idle: ticks(o.Idle), pace: pace{gap: seldom}}
	conn.mu.Lock()
	defer conn.unlock()
	if err := s.register(conn); err != nil {
		unix.Close(fd)
		return nil, true, err
	}
	conn.touch()
	more := true
	if len(o.First) > 0 || o.Framing.Sized && o.Framing.Length == 0 {
		more = conn.take(append([]byte(nil), o.First...))
	}
	if more && conn.fd >= 0 {
		if err := conn.listen(); err != nil {
			conn.end(err)
		}
	}
	return conn, true, nil
}

// release takes the descriptor of c away from the Go runtime, whose poller
// would otherwise be woken with ours for all that comes.
func release(c *net.TCPConn) (fd int, err error) {
	defer c.Close()
	raw, err := c.SyscallConn()
	if err != nil {
		return -1, err
	}
	if cerr := raw.Control(func(old uintptr) { fd, err = unix.FcntlInt(old, unix.F_DUPFD_CLOEXEC, 0) }); cerr != nil {
		return -1, cerr
	}
	return fd, os.NewSyscallError("dup", err)
}

// A Conn is a connection that is being read.
type Conn struct {
	s    *Set
	sink Sink
	at   int32 // in the set's slots
	gen  int32
	idle uint32        // ticks; 0: no limit
	last atomic.Uint32 // tick of the last byte
	pace pace          // under mu

	resumed atomic.Bool

	mu     sync.Mutex
	fd     int // -1: closed
	paused bool
	hup    bool // the service will send no more than what is there
	body   body
}

// Resume goes on reading after a Take that said no more. It does not block and
// may be called at any time, under any lock: once too often does no harm.
func (c *Conn) Resume() {
	c.resumed.Store(true)
	c.heed()
}

// heed does what Resume asks for, unless somebody holds the lock, who does it
// then.
func (c *Conn) heed() {
	for c.resumed.Load() && c.mu.TryLock() {
		if c.resumed.Swap(false) && c.fd >= 0 && c.paused {
			c.paused = false
			c.touch()
			if err := c.listen(); err != nil {
				go c.Close(err) // the caller may hold what End wants
			}
		}
		c.mu.Unlock()
	}
}

func (c *Conn) unlock() {
	c.mu.Unlock()
	c.heed()
}

// Close ends the reading; the sink's End gets err unless it has been called.
// It must not be called from the sink.
func (c *Conn) Close(err error) {
	c.mu.Lock()
	defer c.unlock()
	c.end(err)
}

// listen has the set told of what comes, and of what is there. c.mu is held.
func (c *Conn) listen() error { return c.s.control(unix.EPOLL_CTL_ADD, c, wakes) }

// wakes are the events that a connection is read on: once each, for epoll would
// else look at every connection a second time to find nothing.
const wakes = unix.EPOLLIN | unix.EPOLLRDHUP | unix.EPOLLET

// leaves are the events that nothing new comes behind.
const leaves = unix.EPOLLRDHUP | unix.EPOLLHUP | unix.EPOLLERR

// end closes the connection, once. c.mu is held.
func (c *Conn) end(err error) {
	if c.fd < 0 {
		return
	}
	unix.Close(c.fd) // which takes it out of the epoll set
	c.fd = -1
	c.s.forget(c)
	c.sink.End(err)
}

func (c *Conn) touch() { c.last.Store(c.s.now()) }

// ready reads once, into buf, at a time since the set's beginning, because of
// such events; due says that a rest is over.
func (c *Conn) ready(buf []byte, at time.Duration, events uint32, due bool) next {
	c.mu.Lock()
	defer c.unlock()
	if due {
		c.pace.listed = false
	}
	if c.fd < 0 || c.paused {
		return told
	}
	c.hup = c.hup || events&leaves != 0
	more := false
	if due || c.hup || !c.pace.hasty() {
		more = c.read(buf, at)
	} else {
		c.mute(true)
	}
	switch {
	case c.fd < 0:
		return told
	case c.pace.list():
		return rests
	case more && !c.pace.resting:
		return again
	}
	return told
}

// read reads once, and reports whether more may be there. c.mu is held.
func (c *Conn) read(buf []byte, at time.Duration) (more bool) {
	// Raw, for it never blocks: the scheduler need not look after it.
	got, _, err := unix.RawSyscall(unix.SYS_READ, uintptr(c.fd), uintptr(unsafe.Pointer(&buf[0])), uintptr(len(buf)))
	n := int(got)
	switch {
	case err == unix.EINTR:
		return true
	case err == unix.EAGAIN:
		c.mute(c.pace.patient())
	case err != 0:
		c.end(&net.OpError{Op: "read", Net: "tcp", Err: os.NewSyscallError("read", err)})
	case n == 0:
		c.end(c.body.eof())
	default:
		c.last.Store(uint32(at / tick))
		begun := c.body.chunks.begun
		more := c.take(buf[:n])
		c.pace.read(n, max(1, c.body.chunks.begun-begun), at)
		switch {
		case more:
			c.mute(c.pace.hasty() && !c.hup)
			return n == len(buf) || c.hup // or all was read, and what comes will be told
		case c.fd >= 0:
			c.pace.resting = false
			c.s.control(unix.EPOLL_CTL_DEL, c, 0)
		}
	}
	return false
}

// next is when a connection is to be read again.
type next uint8

const (
	told  next = iota // when epoll says so, or somebody else
	again             // at once, when others have had their turn
	rests             // after a pause
)

// mute has epoll tell nothing of what comes, or again. c.mu is held.
func (c *Conn) mute(wanted bool) {
	if wanted == c.pace.resting {
		return
	}
	events := uint32(wakes)
	if wanted {
		events = unix.EPOLLET
	}
	if err := c.s.control(unix.EPOLL_CTL_MOD, c, events); err != nil {
		c.end(err)
	}
	c.pace.resting = wanted
}

// take gives the sink what p holds of the body, and reports whether more is to
// be read. c.mu is held.
func (c *Conn) take(p []byte) (more bool) {
	n, ended, err := c.body.decode(p)
	more = true
	if n > 0 {
		var bad error
		if more, bad = c.sink.Take(p[:n]); bad != nil {
			err = bad
		}
	}
	switch {
	case err != nil:
		c.end(err)
	case ended:
		c.end(nil)
	default:
		c.paused = !more
		return more
	}
	return false
}

// tick is how exactly silence is measured.
const tick = 100 * time.Millisecond

func (s *Set) now() uint32 { return uint32(time.Since(s.begun) / tick) }

func ticks(d time.Duration) uint32 { return uint32((d + tick - 1) / tick) }

// register gives c a slot.
func (s *Set) register(c *Conn) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.closed {
		return net.ErrClosed
	}
	if c.at = s.free; c.at >= 0 {
		s.free = s.slots[c.at].free
	} else {
		c.at = int32(len(s.slots))
		s.slots = append(s.slots, place{})
	}
	p := &s.slots[c.at]
	p.conn, c.gen = c, p.gen
	return nil
}

// forget gives c's slot back; what still comes for it is for nobody.
func (s *Set) forget(c *Conn) {
	s.mu.Lock()
	defer s.mu.Unlock()
	p := &s.slots[c.at]
	p.conn = nil
	p.gen++
	p.free, s.free = s.free, c.at
}

// control tells epoll of c. c.mu is held, and c is open: so the set's descriptor
// is, which Close closes behind all connections.
func (s *Set) control(op int, c *Conn, events uint32) error {
	return os.NewSyscallError("epoll_ctl", unix.EpollCtl(s.fd, op, c.fd, &unix.EpollEvent{Events: events, Fd: c.at, Pad: c.gen}))
}

func (s *Set) find(at, gen int32) *Conn {
	s.mu.Lock()
	defer s.mu.Unlock()
	if p := &s.slots[at]; p.gen == gen {
		return p.conn
	}
	return nil
}

// sweep ends what was silent for too long.
func (s *Set) sweep() {
	clock := time.NewTicker(tick)
	defer clock.Stop()
	for {
		select {
		case <-s.quit:
			return
		case <-clock.C:
		}
		now := s.now()
		for _, c := range s.all(func(c *Conn) bool { return c.idle > 0 && now-c.last.Load() > c.idle }) {
			c.mu.Lock()
			if !c.paused {
				c.end(ErrSilent)
			}
			c.unlock()
		}
	}
}

// all lists the connections of the moment that satisfy ok.
func (s *Set) all(ok func(*Conn) bool) (out []*Conn) {
	s.mu.Lock()
	defer s.mu.Unlock()
	for i := range s.slots {
		if c := s.slots[i].conn; c != nil && ok(c) {
			out = append(out, c)
		}
	}
	return out
}

package intake

import (
	"errors"
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
type Set struct {
	loops []*loop
	next  atomic.Uint32
	once  sync.Once
	quit  chan struct{}
	wg    sync.WaitGroup
}

// New returns a set that reads with so many goroutines; 0: as many as the
// process may run at a time, but no more than four. They start with the first
// connection.
func New(readers int) (*Set, error) {
	if readers <= 0 {
		readers = min(runtime.GOMAXPROCS(0), 4)
	}
	s := &Set{quit: make(chan struct{})}
	for range readers {
		l, err := newLoop()
		if err != nil {
			s.Close()
			return nil, err
		}
		s.loops = append(s.loops, l)
	}
	return s, nil
}

// Close ends all reading, with net.ErrClosed where it had not ended, and
// waits for the goroutines.
func (s *Set) Close() {
	s.once.Do(func() {}) // nothing begins any more
	for _, l := range s.loops {
		l.close()
	}
	select {
	case <-s.quit:
	default:
		close(s.quit)
	}
	s.wg.Wait()
}

// begin starts the goroutines.
func (s *Set) begin() {
	for _, l := range s.loops {
		s.wg.Go(l.run)
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
	l := s.loops[s.next.Add(1)%uint32(len(s.loops))]
	s.once.Do(s.begin)
	conn = &Conn{l: l, fd: fd, sink: sink, body: body{framing: o.Framing}, idle: ticks(o.Idle), pace: pace{gap: seldom}}
	conn.mu.Lock()
	defer conn.unlock()
	if err := l.register(conn); err != nil {
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
	l    *loop
	sink Sink
	at   int32 // in the loop's slots
	gen  int32
	idle uint32        // ticks; 0: no limit
	last atomic.Uint32 // tick of the last byte
	pace pace          // under mu

	resumed atomic.Bool

	mu     sync.Mutex
	fd     int // -1: closed
	paused bool
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

// listen has the loop told of what comes. c.mu is held.
func (c *Conn) listen() error { return c.l.control(unix.EPOLL_CTL_ADD, c, wakes) }

// wakes are the events that a connection is read on.
const wakes = unix.EPOLLIN | unix.EPOLLRDHUP

// end closes the connection, once. c.mu is held.
func (c *Conn) end(err error) {
	if c.fd < 0 {
		return
	}
	unix.Close(c.fd) // which takes it out of the epoll set
	c.fd = -1
	c.l.forget(c)
	c.sink.End(err)
}

func (c *Conn) touch() { c.last.Store(c.l.now()) }

// ready reads once, into buf, at a time since the loop's beginning. More that is
// there makes the loop come again: when epoll says so, or, if list is true, after
// a pause. due says that such a pause is over.
func (c *Conn) ready(buf []byte, at time.Duration, due bool) (list bool) {
	c.mu.Lock()
	defer c.unlock()
	if due {
		c.pace.listed = false
	}
	if c.fd < 0 || c.paused {
		return false
	}
	// Raw, for it never blocks: the scheduler need not look after it.
	got, _, err := unix.RawSyscall(unix.SYS_READ, uintptr(c.fd), uintptr(unsafe.Pointer(&buf[0])), uintptr(len(buf)))
	n := int(got)
	switch {
	case err == unix.EINTR:
	case err == unix.EAGAIN:
		c.rest(false)
	case err != 0:
		c.end(&net.OpError{Op: "read", Net: "tcp", Err: os.NewSyscallError("read", err)})
	case n == 0:
		c.end(c.body.eof())
	default:
		c.last.Store(uint32(at / tick))
		switch {
		case c.take(buf[:n]):
			c.rest(c.pace.read(n, at))
		case c.fd >= 0:
			c.pace.resting = false
			c.l.control(unix.EPOLL_CTL_DEL, c, 0)
		}
	}
	return c.fd >= 0 && c.pace.list()
}

// rest has epoll tell nothing of what comes, or again. c.mu is held.
func (c *Conn) rest(wanted bool) {
	if wanted == c.pace.resting {
		return
	}
	events := uint32(wakes)
	if wanted {
		events = 0
	}
	if err := c.l.control(unix.EPOLL_CTL_MOD, c, events); err != nil {
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

// A loop is an epoll set and the goroutine that waits for it. The set's own
// descriptor is watched by the Go runtime's poller, so that waiting costs no
// thread. An event names a slot and the slot's generation, never a descriptor.
type loop struct {
	file  *os.File
	raw   syscall.RawConn
	begun time.Time

	mu     sync.Mutex
	slots  []place
	free   int32
	closed bool
}

type place struct {
	conn *Conn
	gen  int32
	free int32
}

func newLoop() (*loop, error) {
	fd, err := unix.EpollCreate1(unix.EPOLL_CLOEXEC)
	if err != nil {
		return nil, os.NewSyscallError("epoll_create1", err)
	}
	if err := unix.SetNonblock(fd, true); err != nil {
		unix.Close(fd)
		return nil, os.NewSyscallError("fcntl", err)
	}
	l := &loop{file: os.NewFile(uintptr(fd), "epoll"), begun: time.Now(), free: -1}
	if l.raw, err = l.file.SyscallConn(); err == nil {
		err = l.file.SetReadDeadline(time.Time{}) // refused if the runtime cannot wait for it
	}
	if err != nil {
		l.file.Close()
		return nil, err
	}
	return l, nil
}

// tick is how exactly silence is measured.
const tick = 100 * time.Millisecond

func (l *loop) now() uint32 { return uint32(time.Since(l.begun) / tick) }

func ticks(d time.Duration) uint32 { return uint32((d + tick - 1) / tick) }

// register gives c a slot.
func (l *loop) register(c *Conn) error {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.closed {
		return net.ErrClosed
	}
	if c.at = l.free; c.at >= 0 {
		l.free = l.slots[c.at].free
	} else {
		c.at = int32(len(l.slots))
		l.slots = append(l.slots, place{})
	}
	p := &l.slots[c.at]
	p.conn, c.gen = c, p.gen
	return nil
}

// forget gives c's slot back; what still comes for it is for nobody.
func (l *loop) forget(c *Conn) {
	l.mu.Lock()
	defer l.mu.Unlock()
	p := &l.slots[c.at]
	p.conn = nil
	p.gen++
	p.free, l.free = l.free, c.at
}

func (l *loop) control(op int, c *Conn, events uint32) (err error) {
	cerr := l.raw.Control(func(set uintptr) {
		err = unix.EpollCtl(int(set), op, c.fd, &unix.EpollEvent{Events: events, Fd: c.at, Pad: c.gen})
	})
	return errors.Join(cerr, os.NewSyscallError("epoll_ctl", err))
}

// run reads what is ready until the set is closed.
func (l *loop) run() {
	wait := l.waiter(make([]unix.EpollEvent, 128))
	buf := make([]byte, readSize)
	var resting, due []*Conn
	var until time.Duration // of their rest; 0: nobody rests
	for {
		ready, err := wait()
		if err != nil {
			return
		}
		at := time.Since(l.begun)
		had := len(resting)
		for _, ev := range ready {
			if c := l.find(ev.Fd, ev.Pad); c != nil && c.ready(buf, at, false) {
				resting = append(resting, c)
			}
		}
		if had > 0 {
			if at < until {
				continue
			}
			due, resting = append(due[:0], resting[:had]...), append(resting[:0], resting[had:]...)
			for _, c := range due {
				if c.ready(buf, at, true) {
					resting = append(resting, c)
				}
			}
			clear(due)
		}
		switch {
		case len(resting) > 0:
			until = at + pause
			l.file.SetReadDeadline(l.begun.Add(until))
		case until > 0:
			until = 0
			l.file.SetReadDeadline(time.Time{})
		}
	}
}

// waiter returns a function that waits for events, or until the read deadline.
// It is made once: what the runtime is given to call escapes.
func (l *loop) waiter(events []unix.EpollEvent) func() ([]unix.EpollEvent, error) {
	var n int
	var failed syscall.Errno
	look := func(fd uintptr) bool {
		got, _, errno := unix.RawSyscall6(unix.SYS_EPOLL_PWAIT, fd, uintptr(unsafe.Pointer(&events[0])), uintptr(len(events)), 0, 0, 0)
		n, failed = int(got), errno
		return n != 0 // also -1; at 0 the runtime waits for more
	}
	return func() ([]unix.EpollEvent, error) {
		err := l.raw.Read(look)
		switch {
		case errors.Is(err, os.ErrDeadlineExceeded), err == nil && failed == unix.EINTR:
			return nil, nil
		case err != nil:
			return nil, err
		case failed != 0:
			return nil, failed
		}
		return events[:n], nil
	}
}

func (l *loop) find(at, gen int32) *Conn {
	l.mu.Lock()
	defer l.mu.Unlock()
	if p := &l.slots[at]; p.gen == gen {
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
		for _, l := range s.loops {
			now := l.now()
			for _, c := range l.all(func(c *Conn) bool { return c.idle > 0 && now-c.last.Load() > c.idle }) {
				c.mu.Lock()
				if !c.paused {
					c.end(ErrSilent)
				}
				c.unlock()
			}
		}
	}
}

// all lists the connections of the moment that satisfy ok.
func (l *loop) all(ok func(*Conn) bool) (out []*Conn) {
	l.mu.Lock()
	defer l.mu.Unlock()
	for i := range l.slots {
		if c := l.slots[i].conn; c != nil && ok(c) {
			out = append(out, c)
		}
	}
	return out
}

func (l *loop) close() {
	l.mu.Lock()
	l.closed = true
	l.mu.Unlock()
	for _, c := range l.all(func(*Conn) bool { return true }) {
		c.Close(net.ErrClosed)
	}
	l.file.Close()
}

package hub

import (
	"math"
	"net"
	"os"
	"sync/atomic"
	"syscall"
	"unsafe"

	"golang.org/x/sys/unix"
)

// A socket is the descriptor of a client's connection, of which the Go runtime
// knows nothing: its poller would be woken with ours for all that comes, and
// what it keeps of a connection is as much as we do. It is closed once nobody
// uses it any more, so that no number is used that means another connection.
type socket struct {
	fd   int32
	uses atomic.Int32 // those under way; closing is added when it is to be closed
}

const closing = math.MinInt32

// take takes the descriptor of c, which is closed, away from the runtime.
func (s *socket) take(c streamConn) error {
	defer c.Close()
	raw, err := c.SyscallConn()
	if err != nil {
		return err
	}
	var fd int
	if cerr := raw.Control(func(old uintptr) { fd, err = unix.FcntlInt(old, unix.F_DUPFD_CLOEXEC, 0) }); cerr != nil {
		return cerr
	}
	s.fd = int32(fd)
	return os.NewSyscallError("dup", err)
}

// use keeps the descriptor open until done; false when it is closed.
func (s *socket) use() bool {
	for n := s.uses.Load(); n >= 0; n = s.uses.Load() {
		if s.uses.CompareAndSwap(n, n+1) {
			return true
		}
	}
	return false
}

func (s *socket) done() {
	if s.uses.Add(-1) == closing {
		unix.Close(int(s.fd))
	}
}

// close closes the descriptor, or has the last who uses it do so. It is called
// once.
func (s *socket) close() {
	if s.uses.Add(closing) == closing {
		unix.Close(int(s.fd))
	}
}

// set sets an option; what the kernel does not know changes nothing.
func (s *socket) set(level, name, value int) {
	if s.use() {
		unix.SetsockoptInt(int(s.fd), level, name, value)
		s.done()
	}
}

// write takes as much of p as it can without blocking. On to EAGAIN, which is
// the error then: only behind that comes the edge of the next EPOLLOUT.
func (s *socket) write(p []byte) (n int, err error) {
	if !s.use() {
		return 0, net.ErrClosed
	}
	defer s.done()
	for n < len(p) {
		// Raw, for it never blocks: the scheduler need not look after it.
		got, _, err := unix.RawSyscall(unix.SYS_WRITE, uintptr(s.fd), uintptr(unsafe.Pointer(&p[n])), uintptr(len(p)-n))
		switch err {
		case 0:
			n += int(got)
		case unix.EINTR:
		default:
			return n, err
		}
	}
	return n, nil
}

// shut ends the bytes to the client; false when that is not possible.
func (s *socket) shut() bool {
	if !s.use() {
		return false
	}
	defer s.done()
	return unix.Shutdown(int(s.fd), unix.SHUT_WR) == nil
}

// drain throws away what the client has sent, within limits, and reports
// whether it will send no more.
func (s *socket) drain() (ended bool) {
	if !s.use() {
		return true
	}
	defer s.done()
	var scrap [2048]byte
	for range 32 {
		n, err := unix.Read(int(s.fd), scrap[:])
		if n > 0 || err == unix.EINTR {
			continue
		}
		return err != unix.EAGAIN
	}
	return false
}

// arrived reports whether the peer has acknowledged everything, as far as the
// system tells.
func (s *socket) arrived() bool {
	if !s.use() {
		return true
	}
	defer s.done()
	return acknowledged(int(s.fd))
}

func acknowledged(fd int) bool {
	queued, err := unix.IoctlGetInt(fd, unix.SIOCOUTQ)
	return err != nil || queued == 0
}

// failure is what broke the connection, nil for nothing.
func (s *socket) failure() error {
	if !s.use() {
		return nil
	}
	defer s.done()
	n, err := unix.GetsockoptInt(int(s.fd), unix.SOL_SOCKET, unix.SO_ERROR)
	if err != nil || n == 0 {
		return nil
	}
	return unix.Errno(n)
}

// arrived is the same of a connection that the runtime has.
func arrived(c net.Conn) bool {
	sc, ok := c.(syscall.Conn)
	if !ok {
		return true
	}
	raw, err := sc.SyscallConn()
	if err != nil {
		return true
	}
	done := true
	if raw.Control(func(fd uintptr) { done = acknowledged(int(fd)) }) != nil {
		return true
	}
	return done
}

package proxy

import (
	"net"
	"syscall"

	"golang.org/x/sys/unix"
)

// closedAt reports whether the other side of a TCP connection has closed it in
// order, and how many of our bytes it had taken in by then.
func closedAt(c net.Conn) (taken int64, closed bool) {
	sc, ok := c.(syscall.Conn)
	if !ok {
		return 0, false
	}
	raw, err := sc.SyscallConn()
	if err != nil {
		return 0, false
	}
	raw.Control(func(fd uintptr) {
		var one [1]byte
		n, _, err := unix.Recvfrom(int(fd), one[:], unix.MSG_PEEK|unix.MSG_DONTWAIT)
		if n != 0 || err != nil {
			return // open, reset, or not read to its end
		}
		info, err := unix.GetsockoptTCPInfo(int(fd), unix.IPPROTO_TCP, unix.TCP_INFO)
		if err == nil && info.Bytes_acked > 0 {
			taken, closed = int64(info.Bytes_acked)-1, true // the SYN counts as one
		}
	})
	return taken, closed
}

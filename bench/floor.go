//go:build linux

package main

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"os"
	"runtime"
	"runtime/debug"
	"unsafe"

	"golang.org/x/sys/unix"

	"ssegate/bench/internal/load"
)

// floorVerb makes this program the floor, which has two addresses for
// arguments: its own and the service's.
const floorVerb = "floor"

// startFloor starts it. It is what a proxy's cost is made of before it does
// anything of its own: for each piece that a service writes, epoll, a read and
// a write, by one thread that looks at nothing.
func startFloor(ctx context.Context, s *stage, _ *workload, upstream string) (*play, error) {
	addr, err := freeAddr()
	if err != nil {
		return nil, err
	}
	proc, err := startProcess("floor", s.self, floorVerb, addr, upstream)
	if err != nil {
		return nil, err
	}
	return answering(ctx, proc, load.Front{Clients: []string{addr}})
}

// runFloor copies between whoever comes to one address and the other, until it
// is killed.
func runFloor(listen, upstream string) error {
	// It never lets the runtime know that it waits: so nobody else may want to run.
	runtime.LockOSThread()
	debug.SetGCPercent(-1)
	from, err := sockaddr(listen)
	if err != nil {
		return err
	}
	to, err := sockaddr(upstream)
	if err != nil {
		return err
	}
	front, err := unix.Socket(unix.AF_INET, unix.SOCK_STREAM|unix.SOCK_CLOEXEC, 0)
	if err == nil {
		err = errors.Join(unix.Bind(front, from), unix.Listen(front, 4096))
	}
	set, serr := unix.EpollCreate1(unix.EPOLL_CLOEXEC)
	if err = errors.Join(err, serr); err != nil {
		return err
	}
	if err := watch(set, front); err != nil {
		return err
	}
	var peers [20000]int
	events, buf := make([]unix.EpollEvent, 64), make([]byte, 64<<10)
	for {
		n, _, _ := unix.RawSyscall6(unix.SYS_EPOLL_PWAIT, uintptr(set), uintptr(unsafe.Pointer(&events[0])), uintptr(len(events)), ^uintptr(0), 0, 0)
		for _, ev := range events[:max(int(n), 0)] { // -1: interrupted
			fd := int(ev.Fd)
			if fd == front {
				client, service, err := meet(front, to)
				if err = errors.Join(err, watch(set, client), watch(set, service)); err != nil {
					return err
				}
				peers[client], peers[service] = service, client
				continue
			}
			got, _, errno := unix.RawSyscall6(unix.SYS_RECVFROM, uintptr(fd), uintptr(unsafe.Pointer(&buf[0])), uintptr(len(buf)), unix.MSG_DONTWAIT, 0, 0)
			switch {
			case errno == unix.EAGAIN, errno == unix.EBADF: // the event was for who had the descriptor before
				continue
			case errno != 0, got == 0:
				unix.Close(fd)
				unix.Close(peers[fd])
				continue
			}
			for p := buf[:got]; len(p) > 0; {
				put, _, errno := unix.RawSyscall(unix.SYS_WRITE, uintptr(peers[fd]), uintptr(unsafe.Pointer(&p[0])), uintptr(len(p)))
				if errno != 0 {
					break // the next read of it fails as well
				}
				p = p[put:]
			}
		}
	}
}

// meet takes a client and finds it a connection to the service.
func meet(front int, to unix.Sockaddr) (client, service int, err error) {
	if client, _, err = unix.Accept4(front, unix.SOCK_CLOEXEC); err != nil {
		return 0, 0, fmt.Errorf("accept: %w", err)
	}
	if service, err = unix.Socket(unix.AF_INET, unix.SOCK_STREAM|unix.SOCK_CLOEXEC, 0); err == nil {
		err = unix.Connect(service, to)
	}
	for _, fd := range []int{client, service} {
		err = errors.Join(err, unix.SetsockoptInt(fd, unix.IPPROTO_TCP, unix.TCP_NODELAY, 1))
	}
	return client, service, err
}

func watch(set, fd int) error {
	return os.NewSyscallError("epoll_ctl", unix.EpollCtl(set, unix.EPOLL_CTL_ADD, fd, &unix.EpollEvent{Events: unix.EPOLLIN, Fd: int32(fd)}))
}

func sockaddr(addr string) (*unix.SockaddrInet4, error) {
	a, err := netip.ParseAddrPort(addr)
	if err != nil || !a.Addr().Is4() {
		return nil, errors.Join(err, &net.AddrError{Err: "not an IPv4 address and port", Addr: addr})
	}
	return &unix.SockaddrInet4{Port: int(a.Port()), Addr: a.Addr().As4()}, nil
}

package proxy

import (
	"fmt"
	"net"
	"syscall"
	"testing"
	"time"
)

func TestConnectTimeout(t *testing.T) {
	full, err := fullBacklog(t)
	if err != nil {
		t.Fatal(err)
	}
	newWorld(t, []string{full}, func(_ *Config, r *Route) {
		r.Upstream.Transport = NewTransport(TransportOptions{ConnectTimeout: 200 * time.Millisecond})
	}).fails(504, "upstream_connect_timeout")
}

// fullBacklog is an address where connection attempts are neither taken nor
// refused: the queue of the listener is full.
func fullBacklog(t *testing.T) (string, error) {
	t.Helper()
	fd, err := syscall.Socket(syscall.AF_INET, syscall.SOCK_STREAM|syscall.SOCK_CLOEXEC, 0)
	if err != nil {
		return "", err
	}
	t.Cleanup(func() { syscall.Close(fd) })
	if err := syscall.Bind(fd, &syscall.SockaddrInet4{Addr: [4]byte{127, 0, 0, 1}}); err != nil {
		return "", err
	}
	if err := syscall.Listen(fd, 0); err != nil {
		return "", err
	}
	at, err := syscall.Getsockname(fd)
	if err != nil {
		return "", err
	}
	addr := fmt.Sprintf("127.0.0.1:%d", at.(*syscall.SockaddrInet4).Port)
	for {
		c, err := net.DialTimeout("tcp", addr, 100*time.Millisecond)
		if err != nil {
			return addr, nil // full
		}
		t.Cleanup(func() { c.Close() })
	}
}

package proxy

import (
	"bufio"
	"context"
	"fmt"
	"io"
	"net"
	"strings"
	"sync/atomic"
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

// A request that is in the backend's socket, unread, when the backend closes
// it: all that is to be seen is a reset, as of one that was read. A safe one is
// sent again, another is not.
func TestClosedUnread(t *testing.T) {
	for method, want := range map[string]int{"GET": 200, "HEAD": 200, "OPTIONS": 200, "POST": 502, "DELETE": 502} {
		var conns, runs atomic.Int64
		addr := rawBackend(t, func(c net.Conn, r *bufio.Reader) {
			conns.Add(1)
			if _, err := readRequest(r); err != nil {
				return
			}
			runs.Add(1)
			io.WriteString(c, "HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n")
			raw, err := c.(*net.TCPConn).SyscallConn()
			if err != nil {
				t.Error(err)
				return
			}
			raw.Read(func(fd uintptr) bool { // waits until something is there
				_, _, err := syscall.Recvfrom(int(fd), make([]byte, 1), syscall.MSG_PEEK)
				return err != syscall.EAGAIN
			})
		})
		w := newWorld(t, []string{addr})
		c := w.dial()
		request := method + " / HTTP/1.1\r\nHost: h\r\nContent-Length: 0\r\n\r\n"
		c.send(request)
		if resp, _ := c.response(method); resp.StatusCode != 200 {
			t.Fatal(resp.StatusCode)
		}
		c.send(request)
		if resp, body := c.response(method); resp.StatusCode != want {
			t.Errorf("%s: %d %s, want %d", method, resp.StatusCode, body, want)
		}
		more := int64(0)
		if want == 200 {
			more = 1
		}
		if conns, runs := conns.Load(), runs.Load(); conns != 1+more || runs != 1+more {
			t.Errorf("%s: %d requests were read on %d connections", method, runs, conns)
		}
	}
}

// A connection that was closed before the request came, where the gate had not
// noticed: nothing was read for sure, so that anything is sent again.
func TestClosedBefore(t *testing.T) {
	for _, request := range []string{
		"GET / HTTP/1.1\r\nHost: h\r\n\r\n",
		"DELETE / HTTP/1.1\r\nHost: h\r\n\r\n",
		"POST / HTTP/1.1\r\nHost: h\r\nContent-Length: 3\r\n\r\nabc",
	} {
		var runs atomic.Int64
		closed := make(chan bool, 2)
		addr := rawBackend(t, func(c net.Conn, r *bufio.Reader) {
			if _, err := readRequest(r); err == nil {
				runs.Add(1)
				io.WriteString(c, "HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n")
			}
			c.Close()
			closed <- true
		})
		// The gate hears of the end only once it has sent the next request.
		slow := &deafConn{}
		w := newWorld(t, []string{addr}, func(_ *Config, r *Route) {
			tr := r.Upstream.Transport
			dial := tr.DialContext
			tr.DialContext = func(ctx context.Context, network, addr string) (net.Conn, error) {
				c, err := dial(ctx, network, addr)
				if err == nil && slow.Conn == nil {
					up := c.(*upstreamConn)
					slow.Conn, slow.wrote = up.Conn, make(chan bool, 16)
					up.Conn = slow
				}
				return c, err
			}
		})
		c := w.dial()
		method, _, _ := strings.Cut(request, " ")
		for i := range 2 {
			c.send(request)
			if resp, body := c.response(method); resp.StatusCode != 200 {
				t.Errorf("%q: request %d: %d %s", request, i, resp.StatusCode, body)
			}
			wait(t, "the end of the connection", closed)
		}
		if n := runs.Load(); n != 2 {
			t.Errorf("%q: two requests ran %d times", request, n)
		}
	}
}

// deafConn tells of its end only when something was written after it.
type deafConn struct {
	net.Conn
	wrote chan bool
}

func (c *deafConn) Write(b []byte) (int, error) {
	n, err := c.Conn.Write(b)
	select {
	case c.wrote <- true:
	default:
	}
	return n, err
}

func (c *deafConn) Read(b []byte) (int, error) {
	n, err := c.Conn.Read(b)
	if err == nil {
		for len(c.wrote) > 0 {
			<-c.wrote // what was answered
		}
	} else {
		<-c.wrote
	}
	return n, err
}

func (c *deafConn) SyscallConn() (syscall.RawConn, error) {
	return c.Conn.(syscall.Conn).SyscallConn()
}

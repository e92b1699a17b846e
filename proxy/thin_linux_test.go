package proxy

import (
	"bytes"
	"context"
	"fmt"
	"net/netip"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"ssegate/bus"
	"ssegate/cluster"
	"ssegate/reconnect"
	"ssegate/registry"
)

// wires are sockets with nothing of Go's around them: what the process holds
// and allocates is the gate's alone. Each end waits, no longer than patience.
type wires struct {
	t    testing.TB
	open []int
}

func newWires(t testing.TB) *wires {
	w := &wires{t: t, open: make([]int, 0, 8<<10)}
	t.Cleanup(func() {
		for _, fd := range w.open {
			unix.Close(fd)
		}
	})
	return w
}

// socket is a new one, which waits for ever until bound.
func (w *wires) socket() (fd int) {
	w.t.Helper()
	fd, err := unix.Socket(unix.AF_INET, unix.SOCK_STREAM|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		w.t.Fatal(err)
	}
	w.open = append(w.open, fd)
	return fd
}

// bound sees to it that no call waits longer than patience. What is bound so
// may be interrupted by a signal.
func (w *wires) bound(fd int) (same int) {
	w.t.Helper()
	tv := unix.NsecToTimeval(patience.Nanoseconds())
	for _, o := range []int{unix.SO_RCVTIMEO, unix.SO_SNDTIMEO} {
		if err := unix.SetsockoptTimeval(fd, unix.SOL_SOCKET, o, &tv); err != nil {
			w.t.Fatal(err)
		}
	}
	return fd
}

// listen is a socket that others can be connected to, and its address.
func (w *wires) listen() (fd int, addr string) {
	w.t.Helper()
	fd = w.socket()
	if err := unix.Bind(fd, &unix.SockaddrInet4{Addr: [4]byte{127, 0, 0, 1}}); err != nil {
		w.t.Fatal(err)
	}
	if err := unix.Listen(fd, 64); err != nil {
		w.t.Fatal(err)
	}
	at, err := unix.Getsockname(fd)
	if err != nil {
		w.t.Fatal(err)
	}
	return w.bound(fd), fmt.Sprintf("127.0.0.1:%d", at.(*unix.SockaddrInet4).Port)
}

func (w *wires) accept(from int) int {
	w.t.Helper()
	for {
		fd, _, err := unix.Accept4(from, unix.SOCK_CLOEXEC)
		if err == unix.EINTR {
			continue
		}
		if err != nil {
			w.t.Fatal("accept:", err)
		}
		w.open = append(w.open, fd)
		return w.bound(fd)
	}
}

func (w *wires) dial(addr string) int {
	w.t.Helper()
	at, err := netip.ParseAddrPort(addr)
	if err != nil {
		w.t.Fatal(err)
	}
	fd := w.socket()
	if err := unix.Connect(fd, &unix.SockaddrInet4{Port: int(at.Port()), Addr: at.Addr().As4()}); err != nil {
		w.t.Fatal("connect:", err)
	}
	return w.bound(fd)
}

func (w *wires) write(fd int, b []byte) {
	for len(b) > 0 {
		n, err := unix.Write(fd, b)
		if err == unix.EINTR {
			continue
		}
		if err != nil {
			w.t.Fatal("write:", err)
		}
		b = b[n:]
	}
}

// until reads into buf until mark came n times.
func (w *wires) until(fd int, buf, mark []byte, n int) []byte {
	for had := 0; ; {
		got, err := unix.Read(fd, buf[had:])
		if err == unix.EINTR {
			continue
		}
		if err != nil || got == 0 {
			w.t.Fatalf("read: %v after %q", err, buf[:had])
		}
		had += got
		if bytes.Count(buf[:had], mark) >= n {
			return buf[:had]
		}
	}
}

// thinWorld is a gate with event streams and topics on a node with everything
// in memory, before a service that is a wire.
type thinWorld struct {
	*world
	*wires
	service int
	buf     []byte
}

func newThinWorld(t testing.TB) *thinWorld {
	t.Helper()
	wires := newWires(t)
	service, addr := wires.listen()
	h := newHub(t)
	log := reconnect.NewMemory(reconnect.MemoryConfig{MaxBytes: 64 << 20})
	node := cluster.New(cluster.Config{
		Self: registry.Node{ID: "n1"}, Hub: h, Log: log, Journal: log, Registry: registry.NewMemory(nil), Bus: bus.NewMemory().Node("n1"),
		Linger: 100 * time.Millisecond,
	})
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan error, 1)
	go func() { done <- node.Run(ctx) }()
	t.Cleanup(func() {
		cancel()
		if err := <-done; err != nil {
			t.Error("cluster:", err)
		}
	})
	route := Route{
		Heartbeat: 15 * time.Second, Retry: 2 * time.Second, WriteTimeout: patience, DetachFor: time.Minute,
		LogLength: 5000, LogTTL: time.Minute, EventSize: 1 << 20, Done: []string{"[DONE]"},
	}
	w := &thinWorld{wires: wires, service: service, buf: make([]byte, 256<<10)}
	w.world = newWorld(t, []string{addr}, func(c *Config, r *Route) {
		c.Cluster, c.Hub, c.Watch = node, h, nil
		name, path, up := r.Name, r.Path, r.Upstream
		*r = route
		r.Name, r.Path, r.Upstream = name, path, up
	})
	w.p.SetPush(&PushConfig{Route: route})
	t.Cleanup(func() {
		ctx, cancel := context.WithTimeout(context.Background(), patience)
		defer cancel()
		w.p.CloseStreams(ctx)
	})
	return w
}

// ask sends a client's request.
func (w *thinWorld) ask(target string) (client int) {
	w.world.t.Helper()
	client = w.wires.dial(w.addr)
	w.write(client, []byte("GET "+target+" HTTP/1.1\r\nHost: h\r\nAccept: text/event-stream\r\n\r\n"))
	return client
}

// stream begins a proxied stream: its service's side and its client's. path is
// where others may follow it.
func (w *thinWorld) stream() (up, client int, path string) {
	w.world.t.Helper()
	client = w.ask("/chat")
	up = w.accept(w.service)
	w.until(up, w.buf, headEnd, 1)
	w.write(up, []byte("HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\nTransfer-Encoding: chunked\r\n\r\n"))
	_, id, _ := strings.Cut(string(w.until(client, w.buf, headEnd, 1)), "Ssegate-Stream: ")
	id, _, _ = strings.Cut(id, "\r\n")
	return up, client, "/_ssegate/streams/" + id
}

// blocks are so many events of so many bytes, each a chunk of its own as
// services write them.
func blocks(n, size int) []byte {
	data := fmt.Sprintf("data: %0*d\n\n", size-len("data: \n\n"), 0)
	return bytes.Repeat(fmt.Appendf(nil, "%x\r\n%s\r\n", len(data), data), n)
}

var headEnd, blockEnd = []byte("\r\n\r\n"), []byte("\n\n\r\n")

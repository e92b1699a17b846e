package hub

import (
	"net"
	"sync"
	"sync/atomic"
	"time"
)

// A goConn is a Conn for whatever has only blocking calls. One goroutine
// reads, to learn when the client leaves; another one writes, while there is
// something to write.
type goConn struct {
	h     *Hub
	c     net.Conn
	peer  Peer
	stall time.Duration

	resetting atomic.Bool // everything is written; waits for it to have arrived

	mu      sync.Mutex
	slot    []byte // handed over, being written
	writing bool   // the writer runs
	refused bool   // a TryWrite could not take everything
	closed  bool
	how     Closing
	err     error // of a write
}

// maxHandOff is the most that a goConn takes at once, so that what it has
// taken is not far ahead of what the client got.
const maxHandOff = 64 << 10

func (g *goConn) Start(p Peer, stall time.Duration) error {
	g.peer, g.stall = p, stall
	if !g.h.spawn(g.read) {
		return net.ErrClosed
	}
	return nil
}

func (g *goConn) TryWrite(p []byte) (int, error) {
	g.mu.Lock()
	defer g.mu.Unlock()
	switch {
	case g.closed:
		return 0, net.ErrClosed
	case g.err != nil:
		return 0, g.err
	case g.slot != nil:
		g.refused = true
		return 0, nil
	}
	if !g.writing && !g.h.spawn(g.write) {
		return 0, net.ErrClosed
	}
	g.writing = true
	g.slot = p[:min(len(p), maxHandOff)]
	g.refused = len(g.slot) < len(p)
	return len(g.slot), nil
}

// write writes what the slot holds until there is nothing more.
func (g *goConn) write() {
	g.mu.Lock()
	for g.slot != nil && g.err == nil {
		p := g.slot
		g.mu.Unlock()
		_, err := g.c.Write(p)
		g.mu.Lock()
		g.slot, g.err = nil, err
		if g.refused && !g.closed {
			g.refused = false
			g.mu.Unlock()
			g.peer.Writable()
			g.mu.Lock()
		}
	}
	g.writing = false
	closed := g.closed
	g.mu.Unlock()
	if closed {
		g.hangUp()
	}
}

// read throws away what the client sends until it leaves.
func (g *goConn) read() {
	scrap := make([]byte, 64)
	var err error
	for err == nil {
		_, err = g.c.Read(scrap)
	}
	g.mu.Lock()
	closed, how := g.closed, g.how
	g.mu.Unlock()
	switch {
	case !closed:
		g.peer.Gone(err)
		return
	case how == CloseFlush:
		g.c.Close()
	default:
		reset(g.c)
	}
	g.h.lingering.remove(g)
}

func (g *goConn) Close(how Closing) {
	g.mu.Lock()
	again, idle := g.closed, !g.writing
	g.closed = true
	if !again {
		g.how = how
	}
	// Saying goodbye may block, so the writer does it.
	if !again && how != CloseNow && idle && g.peer != nil {
		g.writing = g.h.spawn(g.write)
		idle = !g.writing
	}
	stall := g.stall
	g.mu.Unlock()
	switch {
	case again && how != CloseNow:
	case how == CloseNow || idle || !g.h.lingering.add(g, max(stall, linger)):
		reset(g.c)
	}
}

func (g *goConn) settle(last bool) {
	if last || g.resetting.Load() && arrived(inside(g.c)) {
		reset(g.c)
	}
}

// hangUp ends what a closed goConn sends, once all of it is written. The
// reader closes the connection when the client has closed its side too.
func (g *goConn) hangUp() {
	if g.how == CloseFlush {
		half, ok := g.c.(interface{ CloseWrite() error })
		if !ok || half.CloseWrite() != nil || !g.h.lingering.add(g, linger) {
			g.c.Close()
		}
		return
	}
	// TLS that just ends is not enough: many clients take it for clean.
	g.resetting.Store(true)
	if arrived(inside(g.c)) || !g.h.lingering.add(g, max(g.stall, linger)) {
		reset(g.c)
	}
}

// inside is the connection below TLS.
func inside(c net.Conn) net.Conn {
	for {
		t, ok := c.(interface{ NetConn() net.Conn })
		if !ok {
			return c
		}
		c = t.NetConn()
	}
}

// reset closes a connection in such a way that the peer sees a broken one,
// without waiting for anything.
func reset(c net.Conn) {
	inner := inside(c)
	if t, ok := inner.(*net.TCPConn); ok {
		t.SetLinger(0)
	}
	inner.Close()
	if inner != c {
		c.Close()
	}
}

package hub

import (
	"maps"
	"net"
	"sync"
	"time"
)

// A Conn is one client connection as a follower needs it: [Hub.Hold] makes
// one of a net.Conn, tests bring their own. One follower uses it at a time;
// its methods may be called from any goroutine, never two TryWrites at once.
type Conn interface {
	// Start is called once, before all else, and names whom to tell what
	// becomes of the connection. stall is how long the peer may leave what
	// was sent unacknowledged before it counts as gone; a Conn that cannot
	// know ignores it.
	Start(p Peer, stall time.Duration) error
	// TryWrite takes as much of p as it can without blocking, and returns
	// how much. If that is not all and there is no error, Writable is called
	// when it is worth trying again. Nobody changes p afterwards.
	TryWrite(p []byte) (int, error)
	// Close ends the connection and does not wait for it to end. It may be
	// called more than once; the first call counts, but CloseNow always
	// does.
	Close(how Closing)
}

// A Peer is told about its connection. The calls come from any goroutine,
// never from inside a method of the Conn.
type Peer interface {
	// Writable tells that TryWrite may take something again. It may be told
	// once too often.
	Writable()
	// Gone tells that the client left or the connection broke; err is nil
	// when it just left.
	Gone(err error)
}

// Closing says how a connection is closed.
type Closing uint8

const (
	// CloseFlush lets everything written arrive, then ends the byte stream.
	CloseFlush Closing = iota
	// CloseReset lets what was written arrive if the peer takes it soon, then
	// resets the connection, so that the end cannot be taken for a clean one.
	CloseReset
	// CloseNow resets the connection at once.
	CloseNow
)

// linger is how long a closed connection may take to hand over its last bytes
// and to be closed by the client as well.
const linger = 2 * time.Second

// Hold returns a Conn for a client connection that from now on belongs to the
// hub: nobody else reads, writes or closes it. A TCP or Unix connection, also
// one hijacked from fasthttp, is held in the hub's epoll set where there is
// one; every other costs a goroutine. A Conn that nobody follows with must be
// closed by the caller.
func (h *Hub) Hold(c net.Conn) Conn {
	c.SetDeadline(time.Time{})
	if held := h.holdPolled(c); held != nil {
		return held
	}
	return &goConn{h: h, c: c}
}

// unwrap returns what lies below a server's own wrapping of a connection.
func unwrap(c net.Conn) net.Conn {
	for {
		u, ok := c.(interface{ UnsafeConn() net.Conn })
		if !ok {
			return c
		}
		c = u.UnsafeConn()
	}
}

// A lingerer is a connection that was closed and still has something to hand
// over.
type lingerer interface {
	// settle ends it if it is done, or in any case when last is true. It
	// removes itself from the set then.
	settle(last bool)
}

// lingering are the connections that are being closed, with the tick until
// which each may take.
type lingering struct {
	h      *Hub
	mu     sync.Mutex
	until  map[lingerer]uint32
	closed bool
}

// add lets a connection take its time, and returns false when there is none.
func (l *lingering) add(c lingerer, d time.Duration) bool {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.closed {
		return false
	}
	if l.until == nil {
		l.until = make(map[lingerer]uint32)
	}
	l.until[c] = l.h.now() + l.h.ticks(d)
	return true
}

func (l *lingering) remove(c lingerer) {
	l.mu.Lock()
	delete(l.until, c)
	l.mu.Unlock()
}

// tick settles what can be settled; with last all of it, and for ever.
func (l *lingering) tick(now uint32, last bool) {
	l.mu.Lock()
	l.closed = l.closed || last
	due := maps.Clone(l.until)
	l.mu.Unlock()
	for c, until := range due {
		c.settle(last || int32(now-until) >= 0)
	}
}

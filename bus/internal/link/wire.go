package link

import (
	"context"
	"net"
	"sync"
	"time"
)

// Wire owns the sockets of one session, so that they can be cut all at once,
// whatever a client library is doing with them. All methods may be called
// concurrently.
type Wire struct {
	patience time.Duration
	ctx      context.Context
	cancel   context.CancelFunc

	mu    sync.Mutex
	conns map[*wireConn]struct{}
}

// Dialer opens a connection, as (*net.Dialer).DialContext does.
type Dialer func(ctx context.Context, network, addr string) (net.Conn, error)

// newWire returns a Wire without sockets, for a session that ends with ctx.
// Each 128 KiB written must be taken by the other side (or by the kernel)
// within patience.
func newWire(ctx context.Context, patience time.Duration) *Wire {
	w := &Wire{patience: patience, conns: map[*wireConn]struct{}{}}
	w.ctx, w.cancel = context.WithCancel(ctx)
	return w
}

// Dial opens a connection that ends with the session at the latest.
func (w *Wire) Dial(ctx context.Context, dial Dialer, network, addr string) (net.Conn, error) {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	defer context.AfterFunc(w.ctx, cancel)()
	c, err := dial(ctx, network, addr)
	if err != nil {
		return nil, err
	}
	w.mu.Lock()
	defer w.mu.Unlock()
	if w.ctx.Err() != nil {
		c.Close()
		return nil, net.ErrClosed
	}
	wc := &wireConn{Conn: c, wire: w}
	w.conns[wc] = struct{}{}
	return wc, nil
}

// cut closes all connections and lets no new one begin.
func (w *Wire) cut() {
	w.cancel()
	w.mu.Lock()
	conns := w.conns
	w.conns = nil
	w.mu.Unlock()
	for c := range conns {
		c.Conn.Close()
	}
}

// wireConn is a connection of a Wire.
type wireConn struct {
	net.Conn
	wire *Wire
}

// wireChunk is how much is written under one deadline, in bytes.
const wireChunk = 128 << 10

func (c *wireConn) Write(b []byte) (n int, err error) {
	for {
		if err := c.Conn.SetWriteDeadline(time.Now().Add(c.wire.patience)); err != nil {
			return n, err
		}
		m, err := c.Conn.Write(b[n:min(len(b), n+wireChunk)])
		if n += m; err != nil || n == len(b) {
			return n, err
		}
	}
}

func (c *wireConn) Close() error {
	c.wire.mu.Lock()
	delete(c.wire.conns, c)
	c.wire.mu.Unlock()
	return c.Conn.Close()
}

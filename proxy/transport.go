package proxy

import (
	"context"
	"crypto/tls"
	"errors"
	"io"
	"net"
	"net/http"
	"sync"
	"sync/atomic"
	"syscall"
	"time"
)

// TransportOptions say how an upstream is reached. The zero value of a field
// means its default.
type TransportOptions struct {
	ConnectTimeout time.Duration // TCP and TLS, each; 5 s
	WriteTimeout   time.Duration // how long the upstream may leave a piece of a request unread; 1 min
	KeepIdle       time.Duration // how long a connection is kept for the next request; 1.5 s
	MaxHeader      int64         // bytes of a response's head; 256 KiB
	MaxIdle        int           // connections kept to one endpoint; 256
	TLS            *tls.Config   // nil: the system's roots
}

// NewTransport makes the Transport of an Upstream. It speaks HTTP/1.1 only, as
// upgrades need, and changes nothing of what it carries. Connections are kept
// for a shorter time than the servers that are met most often do (gunicorn 2 s,
// uvicorn and Node 5 s), so that a request is seldom sent into one that is just
// being closed.
func NewTransport(o TransportOptions) *http.Transport {
	connect := orDefault(o.ConnectTimeout, 5*time.Second)
	dialer := &net.Dialer{Timeout: connect, KeepAlive: 15 * time.Second}
	write := orDefault(o.WriteTimeout, time.Minute)
	uploads := &sync.Pool{New: func() any { return new([32 << 10]byte) }}
	t := &http.Transport{
		DialContext: func(ctx context.Context, network, addr string) (net.Conn, error) {
			c, err := dialer.DialContext(ctx, network, addr)
			if err != nil {
				return nil, err
			}
			return &upstreamConn{Conn: c, patience: write, uploads: uploads}, nil
		},
		TLSClientConfig:        o.TLS,
		TLSHandshakeTimeout:    connect,
		DisableCompression:     true,
		MaxIdleConnsPerHost:    orDefault(o.MaxIdle, 256),
		IdleConnTimeout:        orDefault(o.KeepIdle, 1500*time.Millisecond),
		ExpectContinueTimeout:  time.Second,
		MaxResponseHeaderBytes: orDefault(o.MaxHeader, 256<<10),
		Protocols:              new(http.Protocols),
	}
	t.Protocols.SetHTTP1(true)
	return t
}

// unpooled is t without kept connections: what is sent by it goes out on one of
// its own.
func unpooled(t *http.Transport) *http.Transport {
	t = t.Clone()
	t.MaxIdleConnsPerHost = -1 // unlike DisableKeepAlives this is not told to the upstream
	return t
}

// connectError marks an error from before there was a connection.
type connectError struct{ error }

func (e *connectError) Unwrap() error { return e.error }

// upstreamConn knows what has become of the bytes that were sent on it, which
// decides whether a request may be sent again.
type upstreamConn struct {
	net.Conn
	patience time.Duration // of a write
	uploads  *sync.Pool    // buffers for request bodies, which net/http would make anew

	sent   atomic.Int64                // bytes given to the system
	closed atomic.Bool                 // the other side had closed in order, and
	taken  atomic.Int64                // so much of sent had arrived there by then
	reset  atomic.Bool                 // it did not
	upload atomic.Pointer[requestBody] // of the last request
}

func (c *upstreamConn) Write(b []byte) (int, error) {
	c.Conn.SetWriteDeadline(time.Now().Add(c.patience))
	n, err := c.Conn.Write(b)
	c.sent.Add(int64(n))
	if err != nil {
		c.broke(err)
	}
	return n, err
}

// ReadFrom is what the transport sends a body with.
func (c *upstreamConn) ReadFrom(r io.Reader) (total int64, err error) {
	buf := c.uploads.Get().(*[32 << 10]byte)
	defer c.uploads.Put(buf)
	for {
		n, rerr := r.Read(buf[:])
		if n > 0 {
			m, werr := c.Write(buf[:n])
			if total += int64(m); werr != nil {
				return total, werr
			}
		}
		if rerr == io.EOF {
			return total, nil
		}
		if rerr != nil {
			return total, rerr
		}
	}
}

func (c *upstreamConn) Read(b []byte) (int, error) {
	n, err := c.Conn.Read(b)
	if err == io.EOF {
		c.look()
	} else if err != nil {
		c.broke(err)
	}
	return n, err
}

// broke notes a reset. The system tells of it once only, to whoever reads or
// writes first; to everybody else it looks as if the other side had closed.
func (c *upstreamConn) broke(err error) {
	if errors.Is(err, syscall.ECONNRESET) {
		c.reset.Store(true)
	}
}

// look notes how much the other side had taken in, if it has closed.
func (c *upstreamConn) look() {
	if taken, closed := closedAt(c.Conn); closed && !c.closed.Load() {
		c.taken.Store(taken)
		c.closed.Store(true)
	}
}

// deaf reports whether the other side cannot have read anything that was sent
// behind the first before bytes: nothing was, or it had closed the connection
// before anything arrived. The end of a connection tells how much had arrived
// when it was closed; a reset does not.
func (c *upstreamConn) deaf(before int64) bool {
	return c.sent.Load() == before || c.closed.Load() && !c.reset.Load() && c.taken.Load() <= before
}

// Close ends the reading of an upload, which the transport would wait for.
func (c *upstreamConn) Close() error {
	c.look()
	err := c.Conn.Close()
	if b := c.upload.Load(); b != nil {
		b.interrupt()
	}
	return err
}

// CloseWrite ends the sending half, for upgraded connections.
func (c *upstreamConn) CloseWrite() error {
	if half, ok := c.Conn.(interface{ CloseWrite() error }); ok {
		return half.CloseWrite()
	}
	return errors.ErrUnsupported
}

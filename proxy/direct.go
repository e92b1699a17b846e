package proxy

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"hash/maphash"
	"io"
	"math"
	"net"
	"net/http"
	"net/http/httptrace"
	"net/textproto"
	"sync"
	"sync/atomic"
	"syscall"
	"time"

	"ssegate/intake"
)

// direct sends requests on connections of their own, outside of the
// transport's pool. It serves those that are likely to be answered by an event
// stream: the answer's connection can be handed on to be read without a
// goroutine, and has not been closed just before by a service that was tired
// of it.
type direct struct {
	mode    directMode
	readers sync.Pool // of *bufio.Reader
	writers sync.Pool // of *bufio.Writer

	seed  maphash.Seed
	known [1024]atomic.Uint64 // by hash: requests that were answered by a stream last time
}

// directMode says which requests are sent directly, of those that can be.
type directMode uint8

const (
	directNever  directMode = iota // there is nobody who would take the connection over
	directLikely                   // those that look like a stream's
	directAlways                   // for tests
)

func newDirect() *direct {
	return &direct{
		readers: sync.Pool{New: func() any { return bufio.NewReaderSize(nil, 4<<10) }},
		writers: sync.Pool{New: func() any { return bufio.NewWriterSize(nil, 4<<10) }},
		seed:    maphash.MakeSeed(),
	}
}

// place is where it is remembered how a request like x was answered.
func (d *direct) place(x *exchange) (*atomic.Uint64, uint64) {
	var h maphash.Hash
	h.SetSeed(d.seed)
	h.WriteString(x.method)
	h.WriteByte(' ')
	h.WriteString(x.host)
	h.WriteString(x.path)
	sum := h.Sum64()
	return &d.known[sum%uint64(len(d.known))], sum
}

// learn remembers whether a request like x is answered by an event stream.
func (d *direct) learn(x *exchange, stream bool) {
	at, sum := d.place(x)
	switch known := at.Load() == sum; {
	case stream && !known:
		at.Store(sum)
	case !stream && known:
		at.Store(0)
	}
}

// suits reports whether a request is to be sent directly.
func (d *direct) suits(x *exchange) bool {
	if d.mode == directNever || x.upgrade != "" || x.method == http.MethodHead || x.method == http.MethodConnect {
		return false
	}
	if d.mode == directLikely && !accepts([]byte(x.header("Accept")), "text/event-stream") {
		if at, sum := d.place(x); at.Load() != sum {
			return false
		}
	}
	return x.header("Expect") == "" || x.bodyRead
}

// roundTrip sends req on a new connection made by dial, and waits for the head
// of the answer. It notes in try what became of the connection.
func (d *direct) roundTrip(ctx context.Context, req *http.Request, body *outBody, t *http.Transport, try *attempt, interim func(int, textproto.MIMEHeader) error) (*http.Response, error) {
	host := req.URL.Host
	if req.URL.Port() == "" {
		host = net.JoinHostPort(req.URL.Hostname(), "80")
	}
	c, err := t.DialContext(ctx, "tcp", host)
	if err != nil {
		if req.Body != nil {
			req.Body.Close()
		}
		return nil, err
	}
	raw := &directConn{d: d, conn: c}
	try.on(httptrace.GotConnInfo{Conn: c}, body)
	raw.stop = context.AfterFunc(ctx, func() { c.Close() })
	resp, err := raw.exchange(req, body, t.MaxResponseHeaderBytes, try, interim)
	if err != nil {
		raw.Close()
		return nil, err
	}
	resp.Body = raw
	return resp, nil
}

// directConn is a connection with one request on it. It is the answer's body
// until take.
type directConn struct {
	d    *direct
	conn net.Conn
	br   *bufio.Reader
	head limited
	stop func() bool
	body io.Reader
	once sync.Once
}

// limited reads a head, which must not be too long, and then all the rest.
type limited struct {
	r    io.Reader
	left int64
}

var errLongHead = errors.New("proxy: the head of the upstream's answer is too long")

func (l *limited) Read(p []byte) (int, error) {
	if l.left <= 0 {
		return 0, errLongHead
	}
	n, err := l.r.Read(p[:min(int64(len(p)), l.left)])
	l.left -= int64(n)
	return n, err
}

func (c *directConn) exchange(req *http.Request, body *outBody, maxHead int64, try *attempt, interim func(int, textproto.MIMEHeader) error) (*http.Response, error) {
	sent := make(chan error, 1)
	if body.lend {
		go func() { sent <- c.send(req) }() // an answer may come before the body is whole
	} else {
		sent <- c.send(req)
	}
	c.br = c.d.readers.Get().(*bufio.Reader)
	c.head = limited{c.conn, maxHead}
	c.br.Reset(&c.head)
	if _, rerr := c.br.Peek(1); rerr != nil {
		c.conn.Close()
		return nil, errors.Join(<-sent, rerr)
	}
	try.replied.Store(true)
	for {
		resp, err := http.ReadResponse(c.br, req)
		if err != nil {
			return nil, err
		}
		switch {
		case resp.StatusCode == http.StatusSwitchingProtocols:
			return nil, fmt.Errorf("%w: 101 to a request without Upgrade", errBadAnswer)
		case resp.StatusCode < 200:
			if interim != nil {
				if err := interim(resp.StatusCode, textproto.MIMEHeader(resp.Header)); err != nil {
					return nil, err
				}
			}
		default:
			c.head.left = math.MaxInt64
			c.body = resp.Body
			return resp, nil
		}
	}
}

// send writes the request, and closes its body.
func (c *directConn) send(req *http.Request) error {
	bw := c.d.writers.Get().(*bufio.Writer)
	out := &outlet{conn: c.conn}
	bw.Reset(out)
	err := req.Write(bw)
	if err == nil {
		err = bw.Flush()
	}
	if out.err != nil {
		err = out.err
	}
	bw.Reset(nil)
	c.d.writers.Put(bw)
	switch {
	case errors.Is(err, syscall.EPIPE), errors.Is(err, syscall.ECONNRESET):
		// A service may have answered without reading everything: its answer
		// counts for more than that.
		c.conn.SetReadDeadline(time.Now().Add(answeredEarly))
	case err != nil:
		c.conn.Close()
	}
	return err
}

// outlet remembers why a write failed, which net/http wraps beyond recognition.
type outlet struct {
	conn net.Conn
	err  error
}

func (o *outlet) Write(p []byte) (n int, err error) {
	if n, err = o.conn.Write(p); err != nil {
		o.err = err
	}
	return n, err
}

func (o *outlet) ReadFrom(r io.Reader) (n int64, err error) {
	if n, err = io.Copy(o.conn, r); err != nil {
		o.err = err
	}
	return n, err
}

// answeredEarly is how long is waited for the answer of a service that takes
// no more of the request.
const answeredEarly = 100 * time.Millisecond

func (c *directConn) Read(p []byte) (int, error) { return c.body.Read(p) }

// Close ends the connection, whether the body was read to its end or not.
func (c *directConn) Close() error {
	c.once.Do(func() {
		c.stop()
		c.conn.Close()
	})
	return nil
}

// take hands the connection over, with what was read of the body already. It
// fails when the connection was closed, or is not of the kind that can be
// handed over; then nothing has changed. Close does nothing afterwards.
func (c *directConn) take(resp *http.Response) (conn *net.TCPConn, o intake.Options, ok bool) {
	up, _ := c.conn.(*upstreamConn)
	if up == nil {
		return nil, o, false
	}
	if conn, ok = up.Conn.(*net.TCPConn); !ok {
		return nil, o, false
	}
	ok = false
	c.once.Do(func() { ok = c.stop() })
	if !ok {
		c.conn.Close()
		return nil, o, false
	}
	switch {
	case len(resp.TransferEncoding) > 0:
		o.Framing.Chunked = true
	case resp.ContentLength >= 0:
		o.Framing.Sized, o.Framing.Length = true, resp.ContentLength
	}
	rest, _ := c.br.Peek(c.br.Buffered())
	o.First = append([]byte(nil), rest...)
	c.br.Reset(nil)
	c.d.readers.Put(c.br)
	c.br = nil
	return conn, o, true
}

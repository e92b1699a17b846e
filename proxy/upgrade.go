package proxy

import (
	"context"
	"errors"
	"io"
	"net"
	"net/http"
	"sync"
	"time"
)

// halfOpen is how long an upgraded connection may go on in one direction once
// the other has ended.
const halfOpen = time.Minute

// switchProtocols makes client and upstream one connection, after a 101.
func (p *Proxy) switchProtocols(x *exchange, a *answer) {
	a.unwatch()
	back, ok := a.resp.Body.(io.ReadWriteCloser)
	if x.upgrade == "" || !ok || !wellFormed(a.resp.Header) || x.upload != nil && !x.upload.settle() {
		err := errors.Join(errBadAnswer, errors.New("the upstream switched protocols unasked"))
		a.Close(err)
		p.failUpstream(x, err, nil)
		return
	}
	s := x.sender()
	b := appendStatus(s.room(), http.StatusSwitchingProtocols, a.resp.Status)
	for name, values := range a.resp.Header {
		if isHop(name) && name != "Upgrade" || name == "Content-Length" {
			continue
		}
		for _, v := range values {
			b = appendField(b, name, v)
		}
	}
	if _, ok := a.resp.Header["X-Request-Id"]; !ok {
		b = appendField(b, "X-Request-Id", x.reqID)
	}
	s.put(append(b, "Connection: Upgrade\r\n\r\n"...))
	s.push()
	p.counters.answered(http.StatusSwitchingProtocols)
	if s.done() != nil {
		x.broken = true
		a.Close(context.Canceled)
		return
	}
	raw := x.ctx.Conn()
	t := &tunnel{client: raw, upstream: back}
	if !p.tunnels.add(t) {
		x.broken = true
		a.Close(context.Canceled)
		return
	}
	x.ctx.HijackSetNoResponse(true)
	x.ctx.Hijack(func(c net.Conn) { // c has what fasthttp has read ahead
		defer p.tunnels.remove(t)
		t.run(c)
		a.Close(nil)
	})
}

// tunnel carries bytes both ways, and knows nothing of what they mean.
type tunnel struct {
	client   net.Conn
	upstream io.ReadWriteCloser
}

// run returns once both directions have ended and both connections are closed.
func (t *tunnel) run(client io.Reader) {
	defer t.close()
	var both sync.WaitGroup
	late := time.AfterFunc(time.Hour, t.close)
	late.Stop()
	ended := func(err error, half any) {
		late.Reset(halfOpen)
		if err != nil || closeWrite(half) != nil {
			t.close() // broken, or cannot be half open
		}
	}
	both.Go(func() { ended(pipe(t.client, t.upstream), t.client) })
	ended(pipe(t.upstream, client), t.upstream)
	both.Wait()
	late.Stop()
}

func (t *tunnel) close() {
	t.client.Close()
	t.upstream.Close()
}

func closeWrite(c any) error {
	if half, ok := c.(interface{ CloseWrite() error }); ok {
		return half.CloseWrite()
	}
	return errors.ErrUnsupported
}

// pipe copies until from ends (nil) or either side breaks. Its buffer is
// small, since most tunnels are quiet and there may be many.
func pipe(to io.Writer, from io.Reader) error {
	buf := make([]byte, 8<<10)
	for {
		n, err := from.Read(buf)
		if n > 0 {
			if _, werr := to.Write(buf[:n]); werr != nil {
				return werr
			}
		}
		if err == io.EOF {
			return nil
		}
		if err != nil {
			return err
		}
	}
}

// tunnels are the upgraded connections of a proxy.
type tunnels struct {
	mu     sync.Mutex
	open   map[*tunnel]struct{}
	closed bool
	none   chan struct{} // closed when closed and none is open
}

func (ts *tunnels) add(t *tunnel) bool {
	ts.mu.Lock()
	defer ts.mu.Unlock()
	if ts.closed {
		return false
	}
	if ts.open == nil {
		ts.open = make(map[*tunnel]struct{})
	}
	ts.open[t] = struct{}{}
	return true
}

// count is how many are open.
func (ts *tunnels) count() int {
	ts.mu.Lock()
	defer ts.mu.Unlock()
	return len(ts.open)
}

func (ts *tunnels) remove(t *tunnel) {
	ts.mu.Lock()
	defer ts.mu.Unlock()
	delete(ts.open, t)
	if ts.closed && len(ts.open) == 0 && ts.none != nil {
		close(ts.none)
		ts.none = nil
	}
}

func (ts *tunnels) closeAll(ctx context.Context) error {
	ts.mu.Lock()
	ts.closed = true
	if len(ts.open) == 0 {
		ts.mu.Unlock()
		return nil
	}
	if ts.none == nil {
		ts.none = make(chan struct{})
	}
	none := ts.none
	for t := range ts.open {
		t.close()
	}
	ts.mu.Unlock()
	select {
	case <-none:
		return nil
	case <-ctx.Done():
		return ctx.Err()
	}
}

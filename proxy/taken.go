package proxy

import (
	"context"
	"errors"
	"io"
	"sync/atomic"

	"ssegate/intake"
	"ssegate/sse"
)

// taken is a pump that the intake feeds.
type taken struct {
	st  *streams
	run *started
	p   *pump
	up  *answer

	conn    atomic.Pointer[intake.Conn]
	again   func()
	bad     error // what take said
	counted bool  // in the crew
}

// take has the intake read an upstream's stream, where it can: from a
// connection of its own that is neither encrypted nor compressed. The streams
// of a route with takeover keep their goroutines: they may have to wait for
// the log, before they go on, when this node was taken for dead.
func (st *streams) take(run *started, p *pump, up *answer) bool {
	d, ok := up.resp.Body.(*directConn)
	if !ok || p.route.Takeover || len(up.resp.Header["Content-Encoding"]) > 0 {
		return false
	}
	conn, o, ok := d.take(up.resp)
	if !ok {
		return false
	}
	o.Idle = p.route.Upstream.IdleTimeout
	t := &taken{st: st, run: run, p: p, up: up}
	t.again = t.resume
	t.counted = st.pumps.join()
	up.forget()
	c, _, err := st.intake.Add(conn, o, t)
	if err != nil {
		t.End(err)
		return true
	}
	t.conn.Store(c)
	c.Resume() // it may have been asked for already
	context.AfterFunc(run.ctx, func() { c.Close(context.Cause(run.ctx)) })
	return true
}

func (t *taken) resume() {
	if c := t.conn.Load(); c != nil {
		c.Resume()
	}
}

// Take implements intake.Sink.
func (t *taken) Take(b []byte) (more bool, err error) {
	if t.bad = t.p.take(b); t.bad != nil {
		return false, t.bad
	}
	return t.run.s.Ready(t.again), nil
}

// End implements intake.Sink.
func (t *taken) End(err error) {
	defer t.st.pumps.leave(t.counted)
	if t.bad != nil {
		t.st.ended(t.run, t.p, t.up, sse.EndCut, nil, t.bad)
		return
	}
	switch {
	case err == nil:
		err = io.EOF
	case errors.Is(err, intake.ErrSilent):
		err = errIdle
	}
	rest := t.p.finish()
	t.st.ended(t.run, t.p, t.up, t.p.ended(t.run.ctx, err), rest, nil)
}

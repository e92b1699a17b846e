package push

import (
	"context"
	"errors"
	"net/http"
	"time"
)

// tokenEnded is the cause of a stream's end at the end of its token.
var tokenEnded = &refusal{status: http.StatusUnauthorized, reason: "token_expired", detail: "the token has expired; what came before was published"}

// start begins to watch over the stream: who is silent when it has to end is
// told as well. finish ends that, and may be called more than once.
func (p *pipe) start() (finish func()) {
	p.live, p.halt = context.WithCancelCause(p.c.r.Context())
	release := context.CancelFunc(func() {})
	if end := p.c.who.Expires; !end.IsZero() {
		p.live, release = context.WithDeadlineCause(p.live, end, tokenEnded)
	}
	unhook := context.AfterFunc(p.live, func() {
		p.reading.Lock()
		defer p.reading.Unlock()
		if !p.done {
			p.deadline(time.Unix(1, 0))
		}
	})
	p.conns.watch(p)
	return func() {
		unhook()
		p.reading.Lock()
		p.done = true
		p.reading.Unlock()
		release()
		p.halt(nil)
		p.conns.wg.Wait()
	}
}

// halted is why the stream has to end early, nil while it has not.
func (p *pipe) halted() *refusal {
	why, _ := errors.AsType[*refusal](context.Cause(p.live))
	return why
}

// read reads on, and no longer than a stream may be silent.
func (p *pipe) read(buf []byte) (int, error) {
	p.reading.Lock()
	if err := p.live.Err(); err != nil {
		p.reading.Unlock()
		return 0, err
	}
	var until time.Time
	if d := p.c.opt.Idle; d > 0 {
		until = time.Now().Add(d)
	}
	p.deadline(until)
	p.reading.Unlock()
	return p.c.r.Body.Read(buf)
}

// deadline bounds reads of the body, where the server can: also one that is
// under way.
func (p *pipe) deadline(t time.Time) {
	_ = http.NewResponseController(p.c.w).SetReadDeadline(t)
}

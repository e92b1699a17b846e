package push

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"sync"
	"time"
)

// bodyWait bounds how long a body that is no stream may take to arrive.
const bodyWait = time.Minute

// work is what reading one request takes, kept for the next.
type work struct {
	body bytes.Buffer
	scan scanner
}

var works = sync.Pool{New: func() any { return new(work) }}

// free gives w back. What was read from it must not be used any more.
func (w *work) free() {
	const most = 1 << 20 // one large body in a while is not worth its memory
	if w.body.Cap() > most || cap(w.scan.out) > most {
		return
	}
	works.Put(w)
}

// json reads a body of JSON and returns it ready to be scanned. Unless it was
// refused, the caller frees the work.
func (c *call) json() (*work, *refusal) {
	if bad := c.wantJSON(); bad != nil {
		return nil, bad
	}
	if e := c.r.Header.Get("Content-Encoding"); e != "" && e != "identity" {
		return nil, &refusal{status: http.StatusUnsupportedMediaType, reason: "unsupported_encoding", detail: "send the body as it is, without Content-Encoding"}
	}
	limit := int64(c.opt.BodySize)
	_ = http.NewResponseController(c.w).SetReadDeadline(time.Now().Add(bodyWait)) // where it is supported
	if c.r.ContentLength > limit {
		return nil, c.tooLarge()
	}
	w := works.Get().(*work)
	w.body.Reset()
	if n := c.r.ContentLength; n > 0 {
		w.body.Grow(int(n) + bytes.MinRead)
	}
	n, err := w.body.ReadFrom(io.LimitReader(c.r.Body, limit+1))
	switch {
	case err != nil:
		w.free()
		return nil, cut(err)
	case n > limit:
		w.free()
		return nil, c.tooLarge()
	}
	c.all = true
	w.scan = scanner{in: w.body.Bytes(), out: w.scan.out[:0]}
	return w, nil
}

// tooLarge is the answer to a body that is larger than allowed. Some more of it
// is read and thrown away first: many clients that are still sending when they
// are answered tell their callers of a broken connection and not of the answer.
func (c *call) tooLarge() *refusal {
	if _, err := io.CopyN(io.Discard, c.r.Body, max(4*int64(c.opt.BodySize), 32<<20)); err == nil {
		c.w.Header().Set("Connection", "close") // there is more still
	}
	return &refusal{status: http.StatusRequestEntityTooLarge, reason: "too_large", fields: []Problem{{"body", "is too large"}},
		detail: fmt.Sprintf("the body is larger than the %d bytes that are allowed", c.opt.BodySize)}
}

// cut is the answer to a body that did not arrive whole.
func cut(err error) *refusal {
	if timeout, ok := errors.AsType[net.Error](err); ok && timeout.Timeout() || errors.Is(err, os.ErrDeadlineExceeded) {
		return &refusal{status: http.StatusRequestTimeout, reason: "body_timeout", detail: "the body did not arrive in time"}
	}
	return badRequest("body_cut", "the body did not arrive whole")
}

// syntax is the answer to what is no JSON, nil if it is.
func (w *work) syntax() *refusal {
	w.scan.end()
	if w.scan.err == nil {
		return nil
	}
	return &refusal{status: http.StatusBadRequest, reason: "invalid_json", detail: "the body is not JSON: " + w.scan.err.Error(),
		fields: []Problem{{"body", w.scan.err.Error()}}}
}

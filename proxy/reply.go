package proxy

import (
	"bytes"
	"context"
	"errors"
	"io"
	"net"
	"net/http"
	"slices"
	"strconv"
	"sync"
	"time"

	"github.com/valyala/fasthttp"
)

// errCut ends a connection whose answer could not be ended. Its text is one
// that fasthttp does not think worth a log line.
var errCut = errors.New("proxy: an answer was cut: unexpected EOF")

const (
	relayBuffer = 32 << 10
	// gather is how long the first bytes of an answer wait for more of it, so
	// that a small answer leaves in one write. What comes later never waits.
	gather = 500 * time.Microsecond
	// chunkFront is the room for a chunk's size line of four digits, which are
	// enough for relayBuffer.
	chunkFront = len("7fff\r\n")
	chunkBack  = len("\r\n")
)

// sender writes one answer to a client. Its buffer holds what was not sent
// yet, and behind that what is being read.
type sender struct {
	pool    *sync.Pool
	conn    net.Conn
	timeout time.Duration

	mu    sync.Mutex // over what follows; buf beyond its length belongs to the reader
	buf   []byte
	sent  int  // buf up to here is on its way
	eager bool // write at once; false while the first bytes are gathered
	err   error
	timer *time.Timer
}

func newSender() any {
	s := &sender{buf: make([]byte, 0, relayBuffer)}
	s.timer = time.AfterFunc(time.Hour, s.gathered)
	s.timer.Stop()
	return s
}

// sender begins an answer: from here on the client gets no interim one.
func (x *exchange) sender() *sender {
	if x.upload != nil && !x.upload.settle() {
		x.keep = false // what is left of the request would be taken for the next one
	}
	x.final.Lock()
	x.wrote = true
	x.final.Unlock()
	timeout := x.p.cfg.WriteTimeout
	if x.route != nil && x.route.WriteTimeout > 0 {
		timeout = x.route.WriteTimeout
	}
	s := x.p.senders.Get().(*sender)
	s.mu.Lock() // a late call of the timer may look in
	s.conn, s.timeout, s.pool = x.ctx.Conn(), timeout, &x.p.senders
	s.mu.Unlock()
	return s
}

// room is where a head is written, to be put.
func (s *sender) room() []byte {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.buf[:0]
}

// put makes b what is to be sent first.
func (s *sender) put(b []byte) {
	s.mu.Lock()
	s.buf = b
	s.mu.Unlock()
}

// push writes what waits.
func (s *sender) push() {
	s.mu.Lock()
	s.flush()
	s.mu.Unlock()
}

// done gives the sender back.
func (s *sender) done() error {
	s.timer.Stop() // if it fires all the same, there is nothing to send, or no harm in it
	s.mu.Lock()
	defer s.mu.Unlock()
	err := s.err
	s.conn, s.err, s.sent, s.eager = nil, nil, 0, false
	if cap(s.buf) > 2*relayBuffer {
		s.buf = make([]byte, 0, relayBuffer) // a huge head was in it
	}
	s.buf = s.buf[:0]
	s.pool.Put(s)
	return err
}

// gathered is what the timer calls.
func (s *sender) gathered() {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.flush()
}

// flush writes what waits. The caller holds mu.
func (s *sender) flush() {
	s.eager = true
	if s.err != nil || s.sent == len(s.buf) {
		return
	}
	s.conn.SetWriteDeadline(time.Now().Add(s.timeout))
	_, s.err = s.conn.Write(s.buf[s.sent:])
	s.sent = len(s.buf)
}

// copy sends a body of unknown or known length behind the head that is in buf
// already. It returns how much there was of it, and why it ended: io.EOF, or
// what went wrong on either side.
func (s *sender) copy(body io.Reader, chunked bool) (n int64, err error) {
	front, back := 0, 0
	if chunked {
		front, back = chunkFront, chunkBack
	}
	s.timer.Reset(gather)
	for {
		s.mu.Lock()
		if s.sent == len(s.buf) {
			s.buf, s.sent = s.buf[:0], 0
		} else if cap(s.buf)-len(s.buf) < relayBuffer/4 {
			s.flush()
			s.buf, s.sent = s.buf[:0], 0
		}
		at := len(s.buf) + front
		room := s.buf[at:min(cap(s.buf)-back, at+relayBuffer)]
		s.mu.Unlock()

		got, rerr := body.Read(room) // the timer may send what stands before it meanwhile
		n += int64(got)

		s.mu.Lock()
		if got > 0 {
			s.add(at, got, chunked)
		}
		if s.eager && rerr == nil {
			s.flush()
		}
		if s.err != nil {
			rerr = s.err
		}
		s.mu.Unlock()
		if rerr != nil {
			return n, rerr
		}
	}
}

// add makes the bytes that were read to buf[at:] part of what is to be sent.
// The caller holds mu.
func (s *sender) add(at, got int, chunked bool) {
	start, end := at, at+got
	if chunked {
		start -= chunkFront
		const digits = "0123456789abcdef"
		all := s.buf[:cap(s.buf)]
		for i := range 4 {
			all[start+i] = digits[got>>(12-4*i)&15]
		}
		all[start+4], all[start+5] = '\r', '\n'
		all[end], all[end+1] = '\r', '\n'
		end += chunkBack
	}
	s.buf = s.buf[:end] // start is where the old end was
}

// relay sends an upstream's answer to the client as it comes. The error is
// nil when all of it was sent.
func (p *Proxy) relay(x *exchange, a *answer) error {
	resp := a.resp
	if !wellFormed(resp.Header) {
		p.failUpstream(x, errBadAnswer, nil)
		return errBadAnswer
	}
	bodiless := x.method == http.MethodHead || resp.StatusCode == http.StatusNoContent || resp.StatusCode == http.StatusNotModified
	chunked := !bodiless && resp.ContentLength < 0 && !x.http10
	s := x.sender()
	if !bodiless && resp.ContentLength < 0 && x.http10 {
		x.keep = false // the end of the connection is the end of the answer
	}
	s.put(x.appendHead(s.room(), resp, bodiless, chunked))
	if bodiless || resp.ContentLength == 0 {
		s.push()
		p.counters.answered(resp.StatusCode)
		return x.ended(s.done(), nil)
	}
	n, rerr := s.copy(resp.Body, chunked)
	s.mu.Lock()
	switch {
	case rerr != io.EOF:
		s.flush() // what came before the cut is the client's
	case chunked:
		s.buf = append(s.buf, "0\r\n"...)
		for name, values := range resp.Trailer {
			for _, v := range values {
				if mayTrail(name) && isFieldValue(v) {
					s.buf = appendField(s.buf, name, v)
				}
			}
		}
		s.buf = append(s.buf, "\r\n"...)
		s.flush()
	case resp.ContentLength >= 0 && n != resp.ContentLength:
		rerr = io.ErrUnexpectedEOF
		s.flush()
	default:
		s.flush()
	}
	s.mu.Unlock()
	werr := s.done()
	if rerr == io.EOF {
		rerr = nil
	}
	p.counters.answered(resp.StatusCode)
	return x.ended(werr, rerr)
}

// ended notes how an answer ended: the client's side first, then the
// upstream's. An answer that was cut upstream is cut here.
func (x *exchange) ended(werr, rerr error) error {
	switch {
	case werr != nil:
		x.broken = true
		x.p.counters.refused("client_gone")
		return context.Canceled // the upstream did nothing wrong
	case rerr != nil:
		x.broken = true
		if x.http10 {
			// Without chunks, only a reset tells a cut from an end.
			if t, ok := x.ctx.Conn().(*net.TCPConn); ok {
				t.SetLinger(0)
			}
		}
		if errors.Is(rerr, errClientGone) || errors.Is(rerr, context.Canceled) {
			x.p.counters.refused("client_gone")
			return context.Canceled
		}
		x.p.counters.refused("upstream_cut")
		return rerr
	}
	return nil
}

// appendHead writes status line and header lines of an upstream's answer.
func (x *exchange) appendHead(b []byte, resp *http.Response, bodiless, chunked bool) []byte {
	b = appendStatus(b, resp.StatusCode, resp.Status)
	named := connectionNamed(resp.Header)
	for name, values := range resp.Header {
		switch {
		case isHop(name), name == "Content-Length" && !bodiless:
			continue
		case len(named) > 0 && slices.Contains(named, name):
			continue
		}
		for _, v := range values {
			b = appendField(b, name, v)
		}
	}
	if _, ok := resp.Header["X-Request-Id"]; !ok {
		b = appendField(b, "X-Request-Id", x.reqID)
	}
	if _, ok := resp.Header["Date"]; !ok {
		b = appendDate(b)
	}
	switch {
	case bodiless:
	case chunked:
		b = append(b, "Transfer-Encoding: chunked\r\n"...)
		sep := "Trailer: "
		for name := range resp.Trailer {
			if mayTrail(name) {
				b = append(b, sep...)
				b = append(b, name...)
				sep = ", "
			}
		}
		if sep == ", " {
			b = append(b, "\r\n"...)
		}
	case resp.ContentLength >= 0:
		b = append(b, "Content-Length: "...)
		b = strconv.AppendInt(b, resp.ContentLength, 10)
		b = append(b, "\r\n"...)
	}
	if chunked && !x.keep && !x.closes {
		return append(appendLast(b, x.header("Connection") != ""), "\r\n"...)
	}
	return x.appendConnection(b)
}

// appendConnection ends a head.
func (x *exchange) appendConnection(b []byte) []byte {
	switch {
	case !x.keep:
		b = append(b, "Connection: close\r\n"...)
	case x.http10:
		b = append(b, "Connection: keep-alive\r\n"...)
	}
	return append(b, "\r\n"...)
}

// appendStatus writes a status line. text is as net/http gives it, "200 OK",
// so that the upstream's own words stay; "" for the usual ones.
func appendStatus(b []byte, status int, text string) []byte {
	b = append(b, "HTTP/1.1 "...)
	if text != "" && isFieldValue(text) {
		b = append(b, text...)
	} else {
		b = strconv.AppendInt(b, int64(status), 10)
		b = append(b, ' ')
		b = append(b, http.StatusText(status)...)
	}
	return append(b, "\r\n"...)
}

func appendField(b []byte, name, value string) []byte {
	b = append(b, name...)
	b = append(b, ": "...)
	b = append(b, value...)
	return append(b, "\r\n"...)
}

func appendDate(b []byte) []byte {
	b = append(b, "Date: "...)
	b = fasthttp.AppendHTTPDate(b, time.Now())
	return append(b, "\r\n"...)
}

// wellFormed reports whether header lines can be written as they are.
func wellFormed(h http.Header) bool {
	for name, values := range h {
		if !isToken(name) {
			return false
		}
		for _, v := range values {
			if !isFieldValue(v) {
				return false
			}
		}
	}
	return true
}

// reply sends an answer of our own: its fields, and a body of known length.
func (x *exchange) reply(status int, fields []field, body []byte) {
	s := x.sender()
	b := appendStatus(s.room(), status, "")
	for _, f := range fields {
		b = appendField(b, f.name, f.value)
	}
	b = appendField(b, "X-Request-Id", x.reqID)
	b = appendDate(b)
	if status != http.StatusNoContent && status != http.StatusNotModified {
		b = append(b, "Content-Length: "...)
		b = strconv.AppendInt(b, int64(len(body)), 10)
		b = append(b, "\r\n"...)
	}
	b = x.appendConnection(b)
	if x.method != http.MethodHead {
		b = append(b, body...)
	}
	s.put(b)
	s.push()
	x.p.counters.answered(status)
	if s.done() != nil {
		x.broken = true
	}
}

// replyHead answers HEAD for an answer whose length nobody knows.
func (x *exchange) replyHead(status int, fields []field) {
	s := x.sender()
	b := appendStatus(s.room(), status, "")
	for _, f := range fields {
		b = appendField(b, f.name, f.value)
	}
	b = appendField(b, "X-Request-Id", x.reqID)
	s.put(x.appendConnection(appendDate(b)))
	s.push()
	x.p.counters.answered(status)
	if s.done() != nil {
		x.broken = true
	}
}

// replyAs sends what was put into a fasthttp response.
func (x *exchange) replyAs(resp *fasthttp.Response) {
	var fields []field
	for k, v := range resp.Header.All() {
		name := string(k)
		switch name {
		case "Content-Length", "Connection", "Date", "X-Request-Id", "Transfer-Encoding":
			continue
		}
		if value := string(v); isToken(name) && isFieldValue(value) {
			fields = append(fields, field{name, value})
		}
	}
	x.reply(resp.StatusCode(), fields, bytes.Clone(resp.Body()))
}

// interim passes a 1xx answer on. It is called while roundTrip waits.
func (x *exchange) interim(code int, h http.Header) error {
	if code == http.StatusContinue {
		return nil // the client gets its own when its body is read
	}
	x.final.Lock()
	defer x.final.Unlock()
	if x.interims++; x.interims > maxInterims || !wellFormed(h) {
		return errBadAnswer
	}
	if x.wrote {
		return nil
	}
	b := appendStatus(nil, code, "")
	for name, values := range h {
		for _, v := range values {
			if !isHop(name) {
				b = appendField(b, name, v)
			}
		}
	}
	conn := x.ctx.Conn()
	conn.SetWriteDeadline(time.Now().Add(x.p.cfg.WriteTimeout))
	_, err := conn.Write(append(b, "\r\n"...))
	return err
}

// maxInterims is how many 1xx answers an upstream may send.
const maxInterims = 32

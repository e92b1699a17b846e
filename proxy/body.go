package proxy

import (
	"crypto/sha256"
	"errors"
	"fmt"
	"hash"
	"io"
	"net"
	"net/http"
	"os"
	"strings"
	"sync"
	"sync/atomic"
	"time"
)

var (
	// errBodySyntax says that a client's chunked body is not well-formed.
	errBodySyntax = errors.New("proxy: the request body is not well-formed")
	// errBodyTooLarge says that a request body exceeds its route's limit.
	errBodyTooLarge = errors.New("proxy: the request body is too large")
	// errBodyStalled says that a client stopped in the middle of its body.
	errBodyStalled = fmt.Errorf("proxy: the client stopped in the middle of its request body: %w", os.ErrDeadlineExceeded)
	// errBodyCut says that a client left in the middle of its body.
	errBodyCut = errors.New("proxy: the client left in the middle of its request body")
	// errBodyUnwanted is what a reader of the body gets once nobody wants it.
	errBodyUnwanted = errors.New("proxy: the request was answered before its body was read")
)

const (
	maxChunkLine = 1 << 10         // bytes of a chunk's size line, extensions included
	lingerFor    = 5 * time.Second // how long a client that was answered early may go on sending
	lingerQuiet  = time.Second     // and how long it may be silent
	continueLine = "HTTP/1.1 100 Continue\r\n\r\n"
)

// requestBody is a request's body as it arrives. fasthttp reads up to 8 KiB of
// a body before it calls the handler, unless it takes the body for chunked:
// hence headReceived says so of all of them. The bytes are taken from its
// buffer raw and decoded here, more strictly than fasthttp would.
//
// One goroutine reads it at a time: the handler, or the transport between
// lend and Close.
type requestBody struct {
	conn net.Conn
	raw  io.Reader // the connection behind fasthttp's buffer
	idle time.Duration

	chunked bool
	size    int64 // Content-Length, unless chunked
	left    int64 // of the body, or of the chunk at hand
	between bool  // the CRLF behind a chunk's data is still to come
	room    int64 // bytes that may still come; -1: no limit
	one     [1]byte

	maxTrailer int
	trailer    http.Header // what stood behind the last chunk; nil: nobody wants it
	trailed    bool        // something stood there

	sum     hash.Hash // of what was read; nil: nobody asked, or it is too much
	sumLeft int64

	mu      sync.Mutex // over what follows
	expect  bool       // the client waits for a 100
	timed   bool       // its reader sets the deadlines
	whole   bool       // read to its end
	dropped bool       // nobody reads on
	over    bool       // the connection is somebody else's by now
	err     error      // why it will never be whole
	onWhole []func()   // called once it is
	lent    *lentBody
}

func (x *exchange) newRequestBody(f framing) *requestBody {
	return &requestBody{
		conn: x.ctx.Conn(), raw: x.ctx.RequestBodyStream(), idle: x.p.cfg.BodyTimeout,
		chunked: f.chunked, size: f.length, left: f.length, room: -1,
		maxTrailer: x.p.cfg.MaxHeader, expect: f.expect,
	}
}

// limit bounds the body. It returns false when the body says itself that it
// is larger.
func (b *requestBody) limit(n int64) bool {
	b.room = n
	return b.chunked || b.left <= n
}

// Read hands out what has arrived, and waits only when nothing has.
func (b *requestBody) Read(p []byte) (int, error) {
	if err := b.begin(); err != nil {
		return 0, err
	}
	n, err := b.read(p)
	b.tee(p[:n])
	if err != nil {
		err = b.ended(err)
	}
	return n, err
}

// sumUpTo has the body hashed on its way, as long as it has no more than n
// bytes.
func (b *requestBody) sumUpTo(n int64) { b.sum, b.sumLeft = sha256.New(), n }

func (b *requestBody) tee(p []byte) {
	if b.sum == nil {
		return
	}
	if b.sumLeft -= int64(len(p)); b.sumLeft < 0 {
		b.sum = nil
		return
	}
	b.sum.Write(p)
}

// bodySum is the hash of a whole body that was asked for with sumUpTo. The
// body must be whole.
func (b *requestBody) bodySum() (sum [sha256.Size]byte, ok bool) {
	b.mu.Lock()
	whole := b.whole
	b.mu.Unlock()
	if !whole || b.sum == nil {
		return sum, false
	}
	b.sum.Sum(sum[:0])
	return sum, true
}

// begin lets the client send, if it waits for that.
func (b *requestBody) begin() error {
	b.mu.Lock()
	defer b.mu.Unlock()
	switch {
	case b.err != nil:
		return b.err
	case b.whole:
		return io.EOF
	case b.dropped:
		return errBodyUnwanted
	}
	if b.expect {
		b.expect = false
		b.conn.SetWriteDeadline(time.Now().Add(b.idle))
		io.WriteString(b.conn, continueLine) // if it fails, so will the read
	}
	if b.timed {
		return nil
	}
	// Under the lock, so that the past deadline of drop is never overwritten.
	return b.conn.SetReadDeadline(time.Now().Add(b.idle))
}

// setDeadline bounds the reads from here on, one under way included, in place
// of the silence that is allowed; the zero time: nothing does.
func (b *requestBody) setDeadline(t time.Time) error {
	b.mu.Lock()
	defer b.mu.Unlock()
	if b.whole || b.dropped || b.over {
		return nil
	}
	b.timed = true
	return b.conn.SetReadDeadline(t)
}

// ended notes how the body ended and gives the error its name.
func (b *requestBody) ended(err error) error {
	b.mu.Lock()
	var calls []func()
	switch {
	case err == io.EOF:
		b.whole = true
		calls, b.onWhole = b.onWhole, nil
	case b.dropped:
		err = errBodyUnwanted
	case errors.Is(err, os.ErrDeadlineExceeded):
		err = errBodyStalled
	case !errors.Is(err, errBodySyntax) && !errors.Is(err, errBodyTooLarge):
		err = errBodyCut
	}
	if err != io.EOF && err != errBodyUnwanted && b.err == nil {
		b.err = err
	}
	b.mu.Unlock()
	for _, f := range calls {
		f()
	}
	return err
}

// read returns io.EOF for the end of the body only; the connection's own end
// is io.ErrUnexpectedEOF.
func (b *requestBody) read(p []byte) (int, error) {
	if b.chunked && b.left == 0 {
		if err := b.nextChunk(); err != nil {
			return 0, err
		}
	}
	if b.left > 0 && len(p) > 0 {
		if int64(len(p)) > b.left {
			p = p[:b.left]
		}
		n, err := b.raw.Read(p)
		b.left -= int64(n)
		if err == io.EOF {
			err = io.ErrUnexpectedEOF
		}
		if b.chunked {
			b.between = b.left == 0
			if b.room >= 0 {
				if b.room -= int64(n); b.room < 0 {
					return 0, errBodyTooLarge
				}
			}
		} else if b.left == 0 {
			err = io.EOF
		}
		return n, err
	}
	if b.left == 0 {
		return 0, io.EOF
	}
	return 0, nil
}

// nextChunk reads up to the data of the next chunk; io.EOF: that was the last.
func (b *requestBody) nextChunk() error {
	if b.between {
		if line, err := b.line(2); err != nil || line != "" {
			return orSyntax(err)
		}
		b.between = false
	}
	line, err := b.line(maxChunkLine)
	if err != nil {
		return err
	}
	size, rest := int64(0), line
	for rest != "" {
		d := hexDigit(rest[0])
		if d < 0 {
			break
		}
		if size>>56 != 0 {
			return errBodySyntax
		}
		size, rest = size<<4|d, rest[1:]
	}
	if len(rest) == len(line) {
		return errBodySyntax // no digit at all
	}
	if ext := trimSpace(rest); ext != "" && ext[0] != ';' || !isFieldValue(rest) {
		return errBodySyntax
	}
	if size > 0 {
		b.left = size
		return nil
	}
	for left := b.maxTrailer; ; {
		line, err := b.line(left)
		if err != nil {
			return err
		}
		if line == "" {
			return io.EOF
		}
		left -= len(line) + 2
		name, value, ok := strings.Cut(line, ":")
		value = trimSpace(value)
		if !ok || !isToken(name) || !isFieldValue(value) {
			return errBodySyntax
		}
		b.trailed = true
		if name = http.CanonicalHeaderKey(name); b.trailer != nil && mayTrail(name) {
			b.trailer[name] = append(b.trailer[name], value)
		}
	}
}

// line reads a line of at most max bytes, its CRLF included and not returned.
func (b *requestBody) line(max int) (string, error) {
	var room [64]byte
	line := room[:0]
	for len(line) < max {
		if _, err := io.ReadFull(b.raw, b.one[:]); err != nil {
			if err == io.EOF {
				err = io.ErrUnexpectedEOF
			}
			return "", err
		}
		if line = append(line, b.one[0]); b.one[0] == '\n' {
			n := len(line)
			if n < 2 || line[n-2] != '\r' {
				return "", errBodySyntax // a bare LF
			}
			return string(line[:n-2]), nil
		}
	}
	return "", errBodySyntax
}

func orSyntax(err error) error {
	if err == nil {
		return errBodySyntax
	}
	return err
}

func hexDigit(c byte) int64 {
	switch {
	case '0' <= c && c <= '9':
		return int64(c - '0')
	case 'a' <= c|0x20 && c|0x20 <= 'f':
		return int64(c|0x20-'a') + 10
	}
	return -1
}

// mayTrail reports whether a field (canonical) may stand behind a body: not
// those that say how to read, route or trust what came before them.
func mayTrail(name string) bool {
	switch name {
	case "Content-Length", "Content-Type", "Content-Encoding", "Content-Range", "Trailer", "Host", "Expect", "Range",
		"Te", "Authorization", "Cookie", "Set-Cookie", "Location", "Max-Forwards", "Cache-Control", "Forwarded", "X-Real-Ip":
		return false
	}
	return !isHop(name) && !strings.HasPrefix(name, "X-Forwarded-")
}

// lend hands the body to a transport, which gives it back with Close. Fields
// behind the body go to trailer, unless that is nil.
func (b *requestBody) lend(trailer http.Header) io.ReadCloser {
	l := &lentBody{b: b, back: make(chan struct{})}
	b.mu.Lock()
	b.lent, b.dropped = l, false
	b.mu.Unlock()
	b.trailer = trailer
	return l
}

// interrupt ends a transport's read: it would wait for the client although
// its own connection is closed.
func (b *requestBody) interrupt() {
	b.mu.Lock()
	defer b.mu.Unlock()
	if !b.over && !b.whole {
		b.dropped = true
		b.conn.SetReadDeadline(time.Unix(1, 0))
	}
}

// lentBody is a body in the hands of a transport. While keep is set it keeps a
// copy of the first bytes, in case they must be sent again.
type lentBody struct {
	b    *requestBody
	keep atomic.Bool
	kept []byte
	lost bool // more was read than kept
	once sync.Once
	back chan struct{}
}

func (l *lentBody) Read(p []byte) (int, error) {
	n, err := l.b.Read(p)
	if n > 0 && !l.lost {
		if l.keep.Load() && len(l.kept)+n <= replayable {
			l.kept = append(l.kept, p[:n]...)
		} else {
			l.kept, l.lost = nil, true
		}
	}
	return n, err
}

// Close tells that the transport will not read again.
func (l *lentBody) Close() error {
	l.once.Do(func() { close(l.back) })
	return nil
}

// failed is why the body never will be whole, nil while it may be.
func (b *requestBody) failed() error {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.err
}

// settle is called when an answer is there. It reports whether the body is
// whole. A client that still waits for a 100 will not get one any more.
func (b *requestBody) settle() bool {
	b.mu.Lock()
	defer b.mu.Unlock()
	if b.expect {
		b.expect, b.dropped = false, true
	}
	return b.whole
}

// whenWhole calls f once the body has been read to its end, at once if it has
// been already.
func (b *requestBody) whenWhole(f func()) {
	b.mu.Lock()
	if !b.whole {
		b.onWhole = append(b.onWhole, f)
		b.mu.Unlock()
		return
	}
	b.mu.Unlock()
	f()
}

// release ends the reading. When it returns nobody else reads from the
// connection. If linger is true, the client is let finish what it is sending
// (bounded), since closing a connection with unread bytes resets it, and the
// client might lose the answer.
func (b *requestBody) release(linger bool) {
	b.mu.Lock()
	b.dropped, b.over = true, true
	b.onWhole = nil
	lent, whole := b.lent, b.whole
	b.conn.SetReadDeadline(time.Unix(1, 0))
	b.mu.Unlock()
	if lent != nil {
		<-lent.back // the transport was cancelled or has finished, and its read just ended
	}
	if whole || !linger {
		return
	}
	lingerOn(b.conn, b.raw)
}

// lingerOn tells the client that nothing more comes and reads on until it
// has understood.
func lingerOn(conn net.Conn, raw io.Reader) {
	half, ok := conn.(interface{ CloseWrite() error })
	if !ok || half.CloseWrite() != nil {
		return
	}
	var scrap [4 << 10]byte
	for end := time.Now().Add(lingerFor); ; {
		until := time.Now().Add(lingerQuiet)
		if until.After(end) {
			until = end
		}
		conn.SetReadDeadline(until)
		if _, err := raw.Read(scrap[:]); err != nil {
			return
		}
	}
}

// readBody reads the request's body into x.body if it is no longer than limit,
// and reports whether it did. What was read of a longer or broken one still
// goes upstream first.
func (x *exchange) readBody(limit int64) bool {
	if x.bodyRead {
		return x.bodyWhole
	}
	x.bodyRead = true
	if x.upload == nil {
		x.bodyWhole = true
		return true
	}
	buf := make([]byte, 0, 2<<10)
	for int64(len(buf)) <= limit {
		if len(buf) == cap(buf) {
			buf = append(buf, 0)[:len(buf)]
		}
		n, err := x.upload.Read(buf[len(buf):min(int64(cap(buf)), limit+1)])
		buf = buf[:len(buf)+n]
		if err != nil {
			x.bodyWhole = err == io.EOF && int64(len(buf)) <= limit
			break
		}
	}
	x.body = buf
	return x.bodyWhole
}

package proxy

import (
	"bytes"
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/http/httptrace"
	"net/textproto"
	"net/url"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"ssegate/discover"
)

var (
	// errHeaderTimeout is the cause with which a request is cancelled whose
	// upstream took longer than HeaderTimeout for the head of its answer.
	errHeaderTimeout = errors.New("proxy: the upstream did not answer in time")
	// errNoAnswer says that an upstream closed the connection, or broke it,
	// without a byte of an answer.
	errNoAnswer = errors.New("proxy: the upstream did not answer")
	// errBadAnswer says that an upstream's answer cannot be passed on.
	errBadAnswer = errors.New("proxy: the upstream's answer is not well-formed")
)

const (
	maxTries = 3 // endpoints that are asked for one request

	// staleTries is how many kept connections may turn out to be closed.
	staleTries = 4

	// staleFor is how soon a kept connection must break that a request was sent
	// on, so that its end is taken for one that was due anyway.
	staleFor = 500 * time.Millisecond

	// replayable is how much of a request body is kept for the case that its
	// connection was closed already.
	replayable = 16 << 10
)

// sendOptions say how a request is sent. The zero value is the usual way.
type sendOptions struct {
	watch bool // cancel the request when the client leaves before it is answered whole
}

// answer is an upstream's answer, of which the head is there. Whoever has it
// must Close it.
type answer struct {
	resp   *http.Response // nil: somebody else reads the body
	pick   *discover.Pick
	cancel context.CancelCauseFunc // ends the upstream request
	stop   func()                  // ends the watch over the client, if there is one
	once   sync.Once
}

// unwatch ends the watch over the client, so that its connection can be handed
// over.
func (a *answer) unwatch() {
	if a.stop != nil {
		a.stop()
	}
}

// forget lets go of everything that led to the answer, once somebody else
// reads its body. Close then only tells the balancer.
func (a *answer) forget() {
	a.unwatch()
	a.stop, a.resp = nil, nil
	a.cancel(nil)
}

// Close ends the upstream request, whether its body was read to the end or
// not, and tells the balancer that it is over. err is why it was not. Only the
// first call counts.
func (a *answer) Close(err error) {
	a.once.Do(func() {
		a.unwatch()
		if err != nil {
			a.cancel(err)
		}
		if a.resp != nil {
			a.resp.Body.Close()
		}
		a.cancel(nil)
		a.pick.Done(err)
	})
}

// attempt is what one try to send a request leaves behind.
type attempt struct {
	conn    *upstreamConn // nil: there never was a connection
	before  int64         // bytes that conn had sent before
	replied atomic.Bool   // a first byte came back
	kept    time.Time     // when a connection that was kept was taken; zero: it is a new one
}

// on notes the connection that the request goes out on.
func (t *attempt) on(info httptrace.GotConnInfo, body *outBody) {
	c := info.Conn
	if secure, ok := c.(*tls.Conn); ok {
		c = secure.NetConn()
	}
	if t.conn, _ = c.(*upstreamConn); t.conn == nil {
		return
	}
	t.before = t.conn.sent.Load()
	if info.Reused {
		t.kept = time.Now()
	}
	if body.lend {
		body.x.upload.lent.keep.Store(info.Reused)
		t.conn.upload.Store(body.x.upload)
	} else {
		t.conn.upload.Store(nil)
	}
}

// unseen reports whether the upstream cannot have seen anything of the
// request.
func (t *attempt) unseen() bool { return t.conn == nil || t.conn.deaf(t.before) }

// stale reports whether the request met a kept connection that was just being
// closed, as far as can be told: there was no byte of an answer, and the end
// came soon. Whether the upstream had read the request is not known. A reset
// does not tell either: it comes of bytes that were not read, but also of an
// abort, and both look alike from here.
func (t *attempt) stale() bool {
	return !t.kept.IsZero() && !t.replied.Load() && time.Since(t.kept) <= staleFor
}

// safe reports whether a method asks for nothing to be done, so that a request
// may be sent again though it has perhaps been read.
func safe(method string) bool {
	return method == http.MethodGet || method == http.MethodHead || method == http.MethodOptions
}

// roundTrip sends a request upstream and waits for the head of the answer. It
// sends a request again, or to another endpoint, only when the backend cannot
// have seen anything of it; and once, on a new connection, when a safe one met
// a kept connection that was just being closed. The error says why there is no
// answer; ctx being done is one of the reasons.
func (p *Proxy) roundTrip(ctx context.Context, x *exchange, o sendOptions) (*answer, error) {
	up := x.route.Upstream
	ctx, cancel := context.WithCancelCause(ctx)
	stop := func() {}
	if o.watch {
		stop = p.watch(x, func() { cancel(errClientGone) })
	}
	a, err := p.send(ctx, x, up, cancel)
	if err != nil {
		stop()
		cancel(nil)
		return nil, err
	}
	a.stop = stop
	return a, nil
}

// send is roundTrip without what surrounds it.
func (p *Proxy) send(ctx context.Context, x *exchange, up *Upstream, cancel context.CancelCauseFunc) (*answer, error) {
	direct := p.direct.suits(x)
	body := bodyOf(x)
	try := &attempt{}
	trace := &httptrace.ClientTrace{
		GotConn:              func(info httptrace.GotConnInfo) { try.on(info, body) },
		GotFirstResponseByte: func() { try.replied.Store(true) },
	}
	if !x.http10 && x.ctx != nil {
		trace.Got1xxResponse = func(code int, h textproto.MIMEHeader) error { return x.interim(code, http.Header(h)) }
	}
	req := (&http.Request{
		Method: x.method, Proto: "HTTP/1.1", ProtoMajor: 1, ProtoMinor: 1,
		URL: new(url.URL), Header: x.outgoing(),
	}).WithContext(httptrace.WithClientTrace(ctx, trace))
	if err := setTarget(req.URL, x.uri); err != nil {
		return nil, err
	}
	if up.HeaderTimeout > 0 {
		limit := lateTimer{after: up.HeaderTimeout, f: func() { cancel(errHeaderTimeout) }}
		defer limit.stop()
		if body.lend {
			x.upload.whenWhole(limit.start) // an upload takes as long as it takes
		} else {
			limit.start()
		}
	}
	var tried []string
	stale, repeated := 0, false
	transport := up.Transport
	for {
		pick, err := up.Balancer.Pick(tried...)
		if err != nil {
			return nil, err
		}
		scheme, host, _ := strings.Cut(pick.URL, "://")
		req.URL.Scheme, req.URL.Host = scheme, strings.TrimSuffix(host, "/")
		req.Host = x.hostFor(req.URL.Host)
		body.attach(req)
		*try = attempt{}
		var resp *http.Response
		if direct && scheme == "http" {
			resp, err = p.direct.roundTrip(ctx, req, body, up.Transport, try, trace.Got1xxResponse)
		} else {
			resp, err = transport.RoundTrip(req)
		}
		if err == nil {
			p.direct.learn(x, isEventStream(resp))
			pick.Answered()
			return &answer{resp: resp, pick: pick, cancel: cancel}, nil
		}
		switch cause := context.Cause(ctx); {
		case cause != nil:
			err = cause
		case try.conn == nil:
			err = &connectError{err}
		case !try.replied.Load():
			err = fmt.Errorf("%w: %w", errNoAnswer, err)
		}
		again := ctx.Err() == nil && try.unseen()
		if !again && !repeated && ctx.Err() == nil && safe(x.method) && try.stale() {
			again, repeated, transport = true, true, unpooled(up.Transport)
		}
		again = again && body.rewind()
		switch {
		case errors.Is(err, errHeaderTimeout):
			pick.Done(err)
		case ctx.Err() != nil, body.failed() != nil, again && try.conn != nil:
			pick.Done(context.Canceled) // nobody's fault, or the client's
		default:
			pick.Done(err)
		}
		if again && try.conn != nil {
			if stale++; stale < staleTries {
				continue // the next kept connection, or a new one
			}
		} else if tried = append(tried, pick.ID); again && len(tried) < maxTries && p.another(up, tried) {
			continue
		}
		if bad := body.failed(); bad != nil {
			err = bad
		}
		return nil, err
	}
}

// another reports whether there is an endpoint left to try, so that the error
// is the endpoint's and not that there is none.
func (p *Proxy) another(up *Upstream, tried []string) bool {
	pick, err := up.Balancer.Pick(tried...)
	if err != nil {
		return false
	}
	pick.Done(context.Canceled)
	return true
}

// hostFor is the Host that an endpoint is to see.
func (x *exchange) hostFor(endpoint string) string {
	host := x.route.HostHeader
	if host == "" {
		host = x.route.Upstream.Host
	}
	switch {
	case host == "upstream", (host == "" || host == "client") && x.host == "":
		return endpoint
	case host == "" || host == "client":
		return x.host
	}
	return host
}

// setTarget makes u's request target exactly that of the client. A URL has no
// place for one: its Opaque is written as it is, but for a leading "//", where
// the parsed path serves.
func setTarget(u *url.URL, target string) error {
	path, query, asked := strings.Cut(target, "?")
	u.RawQuery, u.ForceQuery = query, asked && query == ""
	if !strings.HasPrefix(path, "//") {
		u.Opaque = path
		return nil
	}
	decoded, err := url.PathUnescape(path)
	if err != nil {
		return errTarget
	}
	u.Path, u.RawPath = decoded, path
	return nil
}

// errTarget says that a request target is neither a path nor can be made one.
var errTarget = errors.New("proxy: the request target has an invalid escape")

// outBody is the body of one upstream request, over all attempts.
type outBody struct {
	x     *exchange
	bytes []byte // all of it, unless lend
	lend  bool   // the client's, as it arrives, behind bytes
}

func bodyOf(x *exchange) *outBody {
	b := &outBody{x: x}
	switch {
	case x.bodyRead && x.bodyWhole:
		b.bytes = x.body
	case x.upload != nil:
		b.bytes, b.lend = x.body, true
	}
	return b
}

// attach gives req its body anew. A request without one gets an empty one that
// the transport does not know to be empty: it would otherwise send a GET
// again whose connection died, and so run it twice.
func (b *outBody) attach(req *http.Request) {
	req.Body, req.ContentLength, req.TransferEncoding, req.Trailer = nil, 0, nil, nil
	var rest io.ReadCloser
	switch {
	case b.lend && b.x.upload.chunked:
		req.ContentLength, req.TransferEncoding = -1, chunkedCoding
		req.Trailer = b.x.trailers()
		rest = b.x.upload.lend(req.Trailer)
	case b.lend:
		req.ContentLength = b.x.upload.size
		rest = b.x.upload.lend(nil)
	case len(b.bytes) > 0:
		req.ContentLength = int64(len(b.bytes))
	case req.Method == http.MethodPost || req.Method == http.MethodPut || req.Method == http.MethodPatch:
		return // these are never sent twice, and are to say Content-Length: 0
	default:
		req.Body, req.TransferEncoding = noBody{}, identityCoding
		return
	}
	switch {
	case len(b.bytes) == 0:
		req.Body = rest
	case rest == nil:
		req.Body = io.NopCloser(bytes.NewReader(b.bytes))
	default:
		req.Body = &prefixed{ReadCloser: rest, before: b.bytes}
	}
}

var (
	chunkedCoding  = []string{"chunked"}
	identityCoding = []string{"identity"} // writes no header; nothing then probes the body
)

// rewind makes the body ready to be sent again from its start, and reports
// whether it could. The transport must have failed before.
func (b *outBody) rewind() bool {
	if !b.lend {
		return true
	}
	lent := b.x.upload.lent
	<-lent.back
	if b.x.upload.failed() != nil || lent.lost || b.x.upload.trailed {
		return false
	}
	b.bytes = append(b.bytes, lent.kept...)
	return true
}

// failed is why the client's body did not come, nil when that is not so.
func (b *outBody) failed() error {
	if !b.lend {
		return nil
	}
	return b.x.upload.failed()
}

// noBody is empty, like http.NoBody.
type noBody struct{}

func (noBody) Read([]byte) (int, error)         { return 0, io.EOF }
func (noBody) Close() error                     { return nil }
func (noBody) WriteTo(io.Writer) (int64, error) { return 0, nil } // or io.Copy makes a buffer

// prefixed is a body of which a part was read already.
type prefixed struct {
	io.ReadCloser
	before []byte
}

func (b *prefixed) Read(p []byte) (int, error) {
	if len(b.before) > 0 {
		n := copy(p, b.before)
		b.before = b.before[n:]
		return n, nil
	}
	return b.ReadCloser.Read(p)
}

// trailers are the fields that the client announced to send behind its body.
// They are filled in when they come.
func (x *exchange) trailers() http.Header {
	t := http.Header{}
	for v := range x.headers("Trailer") {
		for name := range strings.SplitSeq(v, ",") {
			if name = http.CanonicalHeaderKey(trimSpace(name)); isToken(name) && mayTrail(name) {
				t[name] = nil
			}
		}
	}
	return t
}

// why gives an error of roundTrip its status and its reason.
func why(err error) refusal {
	_, connecting := errors.AsType[*connectError](err)
	switch {
	case errors.Is(err, errTarget):
		return refusal{http.StatusBadRequest, "bad_target", "the request target has an invalid escape"}
	case errors.Is(err, errBodySyntax):
		return refusal{http.StatusBadRequest, "bad_body", "the request body is not well-formed"}
	case errors.Is(err, errBodyTooLarge):
		return refusal{http.StatusRequestEntityTooLarge, "body_too_large", "the request body is larger than this route takes"}
	case errors.Is(err, errBodyStalled):
		return refusal{http.StatusRequestTimeout, "body_timeout", "the request body stopped coming"}
	case errors.Is(err, discover.ErrNoEndpoint):
		return refusal{http.StatusServiceUnavailable, "no_endpoint", "the upstream has no endpoint"}
	case errors.Is(err, errHeaderTimeout):
		return refusal{http.StatusGatewayTimeout, "upstream_timeout", "the upstream did not answer in time"}
	case connecting:
		switch {
		case isTimeout(err):
			return refusal{http.StatusGatewayTimeout, "upstream_connect_timeout", "the upstream could not be reached in time"}
		case isTLS(err):
			return refusal{http.StatusBadGateway, "upstream_tls", "no secure connection to the upstream came about"}
		}
		return refusal{http.StatusBadGateway, "upstream_unreachable", "the upstream could not be reached"}
	case isTimeout(err):
		return refusal{http.StatusGatewayTimeout, "upstream_timeout", "the upstream did not answer in time"}
	case errors.Is(err, errNoAnswer):
		return refusal{http.StatusBadGateway, "upstream_closed", "the upstream closed the connection without an answer"}
	}
	return refusal{http.StatusBadGateway, "upstream_bad_answer", "the upstream's answer is not well-formed"}
}

func isTimeout(err error) bool {
	network, ok := errors.AsType[net.Error](err)
	return ok && network.Timeout()
}

func isTLS(err error) bool {
	_, record := errors.AsType[tls.RecordHeaderError](err)
	_, verify := errors.AsType[*tls.CertificateVerificationError](err)
	_, alert := errors.AsType[tls.AlertError](err)
	return record || verify || alert
}

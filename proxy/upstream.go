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
	"os"
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

	// staleRetries is how often a kept connection may turn out to be dead
	// before one is dialled for this request.
	staleRetries = 3
)

// TransportOptions say how an upstream is reached. The zero value of a field
// means its default.
type TransportOptions struct {
	ConnectTimeout time.Duration // TCP and TLS, each; 5 s
	KeepIdle       time.Duration // how long a connection is kept for the next request; 4 s
	MaxHeader      int64         // bytes of a response's head; 256 KiB
	MaxIdle        int           // connections kept to one endpoint; 256
	TLS            *tls.Config   // nil: the system's roots
}

// NewTransport makes the Transport of an Upstream. It speaks HTTP/1.1 only, as
// upgrades need, and changes nothing of what it carries. Connections are kept
// for a shorter time than the servers that are met most often do (5 s), so
// that a request is seldom sent into one that is just being closed.
func NewTransport(o TransportOptions) *http.Transport {
	connect := orDefault(o.ConnectTimeout, 5*time.Second)
	dialer := &net.Dialer{Timeout: connect, KeepAlive: 15 * time.Second}
	idle := orDefault(o.MaxIdle, 256)
	t := &http.Transport{
		DialContext: func(ctx context.Context, network, addr string) (net.Conn, error) {
			c, err := dialer.DialContext(ctx, network, addr)
			if err != nil {
				return nil, &dialError{err}
			}
			return &countedConn{Conn: c}, nil
		},
		TLSClientConfig:        o.TLS,
		TLSHandshakeTimeout:    connect,
		DisableCompression:     true,
		MaxIdleConns:           0,
		MaxIdleConnsPerHost:    idle,
		IdleConnTimeout:        orDefault(o.KeepIdle, 4*time.Second),
		ExpectContinueTimeout:  time.Second,
		MaxResponseHeaderBytes: orDefault(o.MaxHeader, 256<<10),
		ReadBufferSize:         8 << 10,
		Protocols:              new(http.Protocols),
	}
	t.Protocols.SetHTTP1(true)
	return t
}

// dialError marks an error from before there was a connection.
type dialError struct{ error }

func (e *dialError) Unwrap() error { return e.error }

// countedConn knows whether anything was ever sent on it, which decides
// whether a request may be sent again.
type countedConn struct {
	net.Conn
	sent   atomic.Int64
	upload atomic.Pointer[requestBody] // of the last request
}

// Close ends the reading of an upload, which the transport would wait for.
func (c *countedConn) Close() error {
	err := c.Conn.Close()
	if b := c.upload.Load(); b != nil {
		b.interrupt()
	}
	return err
}

func (c *countedConn) Write(b []byte) (int, error) {
	c.sent.Add(1) // before: a write that fails may have sent something
	return c.Conn.Write(b)
}

// CloseWrite ends the sending half, for upgraded connections.
func (c *countedConn) CloseWrite() error {
	if half, ok := c.Conn.(interface{ CloseWrite() error }); ok {
		return half.CloseWrite()
	}
	return errors.ErrUnsupported
}

// sendOptions change what goes upstream. The zero value changes nothing.
type sendOptions struct {
	body        []byte // instead of the client's; nil: the client's
	lastEventID []byte // nil: as the client sent it; empty: none
}

// answer is an upstream's answer, of which the head is there. Whoever has it
// must Close it.
type answer struct {
	resp   *http.Response
	pick   *discover.Pick
	cancel context.CancelCauseFunc // ends the upstream request
	once   sync.Once
}

// Close ends the upstream request, whether its body was read to the end or
// not, and tells the balancer that it is over. err is why it was not. Only the
// first call counts.
func (a *answer) Close(err error) {
	a.once.Do(func() {
		if err != nil {
			a.cancel(err)
		}
		a.resp.Body.Close()
		a.cancel(nil)
		a.pick.Done(err)
	})
}

// cancelWith cancels the upstream request when ctx is done, with its cause,
// until stop is called.
func (a *answer) cancelWith(ctx context.Context) (stop func() bool) {
	return context.AfterFunc(ctx, func() { a.cancel(context.Cause(ctx)) })
}

// attempt is what one try to send a request leaves behind.
type attempt struct {
	conn    *countedConn // nil: there never was a connection
	sent    int64        // what conn had sent before
	replied atomic.Bool  // a first byte came back
}

// on notes the connection that the request goes out on.
func (t *attempt) on(c net.Conn, body *outBody) {
	if secure, ok := c.(*tls.Conn); ok {
		c = secure.NetConn()
	}
	if t.conn, _ = c.(*countedConn); t.conn == nil {
		return
	}
	t.sent = t.conn.sent.Load()
	if body.lend {
		t.conn.upload.Store(body.x.upload)
	} else {
		t.conn.upload.Store(nil)
	}
}

// nothingSent reports whether the upstream cannot have seen anything of the
// request.
func (t *attempt) nothingSent() bool { return t.conn == nil || t.conn.sent.Load() == t.sent }

// roundTrip sends a request upstream and waits for the head of the answer. It
// never sends a request again that may have reached a backend: another
// endpoint is asked only when nothing at all was sent. The error says why
// there is no answer; ctx being done is one of the reasons.
func (p *Proxy) roundTrip(ctx context.Context, x *exchange, o sendOptions) (*answer, error) {
	ctx, cancel := context.WithCancelCause(ctx)
	up := x.route.Upstream
	body := p.bodyOf(x, &o)
	try := &attempt{}
	trace := &httptrace.ClientTrace{
		GotConn:              func(info httptrace.GotConnInfo) { try.on(info.Conn, body) },
		GotFirstResponseByte: func() { try.replied.Store(true) },
	}
	if !x.http10 && x.ctx != nil {
		trace.Got1xxResponse = func(code int, h textproto.MIMEHeader) error { return x.interim(code, http.Header(h)) }
	}
	req := (&http.Request{
		Method: x.method, Proto: "HTTP/1.1", ProtoMajor: 1, ProtoMinor: 1,
		URL: new(url.URL), Header: x.outgoing(&o),
	}).WithContext(httptrace.WithClientTrace(ctx, trace))
	if err := setTarget(req.URL, x.uri); err != nil {
		cancel(nil)
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
	stale := 0
	for {
		pick, err := up.Balancer.Pick(tried...)
		if err != nil {
			cancel(nil)
			return nil, err
		}
		scheme, host, _ := strings.Cut(pick.URL, "://")
		req.URL.Scheme, req.URL.Host = scheme, strings.TrimSuffix(host, "/")
		req.Host = x.hostFor(req.URL.Host)
		body.attach(req)
		*try = attempt{}
		resp, err := up.Transport.RoundTrip(req)
		if err == nil {
			pick.Answered()
			return &answer{resp: resp, pick: pick, cancel: cancel}, nil
		}
		switch cause := context.Cause(ctx); {
		case cause != nil:
			err = cause
		case try.conn != nil && !try.replied.Load():
			err = fmt.Errorf("%w: %w", errNoAnswer, err)
		}
		again := ctx.Err() == nil && try.nothingSent() && body.unread()
		switch {
		case errors.Is(err, errHeaderTimeout):
			pick.Done(err)
		case ctx.Err() != nil, body.failed() != nil, again && try.conn != nil:
			pick.Done(context.Canceled) // nobody's fault but ours or the client's
		default:
			pick.Done(err)
		}
		if again && try.conn != nil && stale < staleRetries {
			stale++ // a kept connection that was dead
			continue
		}
		if tried = append(tried, pick.ID); again && try.conn == nil && len(tried) < maxTries && p.another(up, tried) {
			continue
		}
		if bad := body.failed(); bad != nil {
			err = bad
		}
		cancel(nil)
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

func (p *Proxy) bodyOf(x *exchange, o *sendOptions) *outBody {
	b := &outBody{x: x}
	switch {
	case o.body != nil:
		b.bytes = o.body
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
	switch {
	case b.lend:
		up := b.x.upload
		req.Body = up.lend()
		if up.chunked {
			req.ContentLength, req.TransferEncoding = -1, chunkedCoding
			req.Trailer = b.x.trailers()
			up.trailer = req.Trailer
		} else {
			req.ContentLength = up.size
		}
		if len(b.bytes) > 0 {
			req.Body = &prefixed{ReadCloser: req.Body, before: b.bytes}
		}
	case len(b.bytes) > 0:
		req.Body = io.NopCloser(bytes.NewReader(b.bytes))
		req.ContentLength = int64(len(b.bytes))
	case req.Method == http.MethodPost || req.Method == http.MethodPut || req.Method == http.MethodPatch:
		// These are never sent twice, and are to say Content-Length: 0.
	default:
		req.Body, req.TransferEncoding = noBody{}, identityCoding
	}
}

var (
	chunkedCoding  = []string{"chunked"}
	identityCoding = []string{"identity"} // writes no header; nothing then probes the body
)

// unread reports whether the whole body can still be sent. The transport must
// have failed before.
func (b *outBody) unread() bool {
	if !b.lend {
		return true
	}
	lent := b.x.upload.lent
	<-lent.back
	return !lent.used.Load()
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

func (noBody) Read([]byte) (int, error) { return 0, io.EOF }
func (noBody) Close() error             { return nil }

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
	var dial *dialError
	var record tls.RecordHeaderError
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
	case errors.As(err, &dial):
		if errors.Is(err, os.ErrDeadlineExceeded) || isTimeout(err) {
			return refusal{http.StatusGatewayTimeout, "upstream_connect_timeout", "the upstream could not be reached in time"}
		}
		return refusal{http.StatusBadGateway, "upstream_unreachable", "the upstream could not be reached"}
	case errors.As(err, &record), isTLS(err):
		return refusal{http.StatusBadGateway, "upstream_tls", "no secure connection to the upstream came about"}
	case isTimeout(err):
		return refusal{http.StatusGatewayTimeout, "upstream_timeout", "the upstream did not answer in time"}
	case errors.Is(err, errNoAnswer):
		return refusal{http.StatusBadGateway, "upstream_closed", "the upstream closed the connection without an answer"}
	}
	return refusal{http.StatusBadGateway, "upstream_bad_answer", "the upstream's answer is not well-formed"}
}

func isTimeout(err error) bool {
	var t net.Error
	return errors.As(err, &t) && t.Timeout()
}

func isTLS(err error) bool {
	var verify *tls.CertificateVerificationError
	var alert tls.AlertError
	return errors.As(err, &verify) || errors.As(err, &alert)
}

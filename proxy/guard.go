package proxy

import (
	"math"
	"math/rand/v2"
	"net"
	"net/http"
	"net/netip"
	"strconv"
	"strings"

	"github.com/valyala/fasthttp"
)

// refusal says why a request goes no further.
type refusal struct {
	status         int
	reason, detail string
}

func badRequest(reason, detail string) *refusal {
	return &refusal{http.StatusBadRequest, reason, detail}
}

// newExchange takes from fasthttp what cannot fail. The head is read in
// guard.
func (p *Proxy) newExchange(ctx *fasthttp.RequestCtx) *exchange {
	x := &exchange{p: p, ctx: ctx, proto: "http", method: string(ctx.Method())}
	if ctx.IsTLS() {
		x.proto = "https"
	}
	if a, ok := ctx.RemoteAddr().(*net.TCPAddr); ok {
		x.peer, _ = netip.AddrFromSlice(a.IP)
		x.peer = x.peer.Unmap()
	}
	x.remote = x.peer
	if ctx.Request.IsBodyStream() {
		// Server has every body pass for chunked; from here on it passes for
		// endless, so that fasthttp hands out the bytes as they are.
		ctx.Request.Header.SetContentLength(math.MaxInt)
	}
	return x
}

// guard reads the raw head, as the client sent it, and refuses what two HTTP
// implementations could understand differently: whatever stands behind us
// must see the same request that we saw. fasthttp is more lenient, and has
// forgotten the details by the time it calls the handler.
func (x *exchange) guard() *refusal {
	h := &x.ctx.Request.Header
	bad := x.parseHead(string(h.RawHeaders()))
	x.reqID = x.requestID()
	if bad != nil {
		return bad
	}
	switch string(h.Protocol()) {
	case "HTTP/1.1":
	case "HTTP/1.0":
		x.http10 = true
	default:
		return &refusal{http.StatusHTTPVersionNotSupported, "bad_version", "only HTTP/1.1 and HTTP/1.0 are spoken here"}
	}
	framing, bad := x.framing()
	if bad != nil {
		return bad
	}
	if bad := x.takeTarget(string(h.RequestURI()), framing.hosts); bad != nil {
		return bad
	}
	x.keep, x.closes = framing.keepAlive(x.http10) && !x.p.draining.Load(), framing.close
	if framing.upgrades && !x.http10 {
		x.upgrade = upgradeOf(x.header("Upgrade"))
	}
	if framing.chunked || framing.length > 0 {
		x.upload = x.newRequestBody(framing)
	}
	if x.p.trusted(x.peer) {
		x.remote = x.forwardedFor()
	}
	return nil
}

// maxFields bounds the header lines of a request: an empty one costs its
// sender four bytes and us a hundred.
const maxFields = 512

// parseHead cuts the header lines into fields.
func (x *exchange) parseHead(head string) *refusal {
	x.fields = x.room[:0]
	for head != "" {
		line, rest, whole := strings.Cut(head, "\n")
		if !whole || !strings.HasSuffix(line, "\r") {
			return badRequest("bad_head", "a header line does not end in CRLF")
		}
		line, head = line[:len(line)-1], rest
		if line == "" {
			if head != "" {
				return badRequest("bad_head", "something stands behind the end of the head")
			}
			break
		}
		name, value, ok := strings.Cut(line, ":")
		switch {
		case line[0] == ' ' || line[0] == '\t':
			return badRequest("bad_head", "a header line is folded")
		case !ok:
			return badRequest("bad_head", "a header line has no colon")
		case !isToken(name):
			return badRequest("bad_head", "a header name has characters that no name may have")
		}
		value = trimSpace(value)
		if !isFieldValue(value) {
			return badRequest("bad_head", "a header value has control characters")
		}
		if len(x.fields) == maxFields {
			return &refusal{http.StatusRequestHeaderFieldsTooLarge, "head_too_large", "the head of the request has too many lines"}
		}
		x.fields = append(x.fields, field{name, value})
	}
	return nil
}

// framing is where a request ends, and what becomes of its connection.
type framing struct {
	length   int64
	chunked  bool
	expect   bool // the client waits for a 100 before it sends its body
	hosts    int
	close    bool
	keep     bool
	upgrades bool
}

func (f *framing) keepAlive(http10 bool) bool {
	if http10 {
		return f.keep && !f.close
	}
	return !f.close
}

// framing reads the fields that say how the message is framed.
func (x *exchange) framing() (f framing, bad *refusal) {
	lengths, codings := 0, 0
	for i := range x.fields {
		name, value := x.fields[i].name, x.fields[i].value
		switch len(name) {
		case len("Host"):
			if strings.EqualFold(name, "Host") {
				f.hosts++
				x.host = value
			}
		case len("Expect"):
			if strings.EqualFold(name, "Expect") && strings.EqualFold(value, "100-continue") {
				f.expect = !x.http10
			}
		case len("Connection"):
			if strings.EqualFold(name, "Connection") {
				f.close = f.close || hasToken(value, "close")
				f.keep = f.keep || hasToken(value, "keep-alive")
				f.upgrades = f.upgrades || hasToken(value, "upgrade")
			}
		case len("Content-Length"):
			if !strings.EqualFold(name, "Content-Length") {
				continue
			}
			lengths++
			n, err := strconv.ParseUint(value, 10, 62)
			if err != nil {
				return f, badRequest("bad_framing", "Content-Length is no number")
			}
			f.length = int64(n)
		case len("Transfer-Encoding"):
			if !strings.EqualFold(name, "Transfer-Encoding") {
				continue
			}
			codings++
			if !strings.EqualFold(value, "chunked") {
				return f, badRequest("bad_framing", "the only transfer coding of a request is chunked")
			}
			f.chunked = true
		}
	}
	switch {
	case lengths > 1:
		return f, badRequest("bad_framing", "more than one Content-Length")
	case codings > 1:
		return f, badRequest("bad_framing", "more than one Transfer-Encoding")
	case lengths > 0 && codings > 0:
		return f, badRequest("bad_framing", "both Content-Length and Transfer-Encoding")
	case codings > 0 && x.http10:
		return f, badRequest("bad_framing", "HTTP/1.0 knows no Transfer-Encoding")
	}
	return f, nil
}

// takeTarget brings the request target into origin form and sees to it that
// it names one host only.
func (x *exchange) takeTarget(uri string, hosts int) *refusal {
	switch {
	case hosts > 1:
		return badRequest("bad_host", "more than one Host")
	case !x.http10 && x.host == "":
		return badRequest("bad_host", "HTTP/1.1 wants a Host")
	case !isHost(x.host):
		return badRequest("bad_host", "Host is no host")
	case x.method == http.MethodConnect:
		return &refusal{http.StatusNotImplemented, "connect_unsupported", "this is no forward proxy"}
	}
	if uri != "" && uri[0] != '/' && (uri != "*" || x.method != http.MethodOptions) {
		scheme, rest, ok := strings.Cut(uri, "://")
		if !ok || !strings.EqualFold(scheme, "http") && !strings.EqualFold(scheme, "https") {
			return badRequest("bad_target", "the request target is neither a path nor a URL")
		}
		end := strings.IndexAny(rest, "/?#")
		if end < 0 {
			end = len(rest)
		}
		if host := rest[:end]; x.host != "" && !strings.EqualFold(host, x.host) {
			return badRequest("bad_target", "the request target names another host than Host does")
		} else if !isHost(host) || host == "" {
			return badRequest("bad_target", "the request target names no host")
		} else {
			x.host = host
		}
		uri = rest[end:]
		if uri == "" || uri[0] != '/' {
			uri = "/" + uri
		}
	}
	x.uri = uri
	x.path, x.query, _ = strings.Cut(uri, "?")
	return nil
}

func (x *exchange) requestID() string { return requestID(x.header("X-Request-Id")) }

// requestID is the client's X-Request-Id if it is one that may stand in a log
// line and a header, else a new one.
func requestID(clients string) string {
	sane := clients != "" && len(clients) <= 128
	for i := 0; sane && i < len(clients); i++ {
		sane = isAlnum(clients[i]) || strings.IndexByte("._-:/+=@", clients[i]) >= 0
	}
	if sane {
		return clients
	}
	const digits = "0123456789abcdefghijklmnopqrstuv"
	var b [26]byte
	hi, lo := rand.Uint64(), rand.Uint64()
	for i := range b {
		if i == 13 {
			hi = lo
		}
		b[i] = digits[hi&31]
		hi >>= 5
	}
	return string(b[:])
}

// upgradeOf is the protocol that a client may switch to. Not h2c: it would let
// requests past the routes, inside a connection that we no longer look into.
func upgradeOf(value string) string {
	for proto := range strings.SplitSeq(value, ",") {
		if strings.EqualFold(trimSpace(proto), "h2c") {
			return ""
		}
	}
	return value
}

func trimSpace(s string) string {
	for s != "" && (s[0] == ' ' || s[0] == '\t') {
		s = s[1:]
	}
	for s != "" && (s[len(s)-1] == ' ' || s[len(s)-1] == '\t') {
		s = s[:len(s)-1]
	}
	return s
}

// hasToken reports whether a comma-separated list has a token, without regard
// to case.
func hasToken(list, token string) bool {
	for part := range strings.SplitSeq(list, ",") {
		if strings.EqualFold(trimSpace(part), token) {
			return true
		}
	}
	return false
}

func isAlnum(c byte) bool {
	return '0' <= c && c <= '9' || 'a' <= c && c <= 'z' || 'A' <= c && c <= 'Z'
}

func isToken(s string) bool {
	for i := range len(s) {
		if c := s[i]; !isAlnum(c) && c != '-' && strings.IndexByte("!#$%&'*+.^_`|~", c) < 0 {
			return false
		}
	}
	return s != ""
}

func isFieldValue(s string) bool {
	for i := range len(s) {
		if c := s[i]; c < ' ' && c != '\t' || c == 0x7f {
			return false
		}
	}
	return true
}

// isHost reports whether s may stand in Host; "" may.
func isHost(s string) bool {
	for i := range len(s) {
		if c := s[i]; !isAlnum(c) && strings.IndexByte("-._~:[]%!$&'()*+;=", c) < 0 {
			return false
		}
	}
	return true
}

package proxy

import (
	"bufio"
	"io"
	"iter"
	"net"
	"net/netip"
	"strings"
	"sync"

	"github.com/valyala/fasthttp"

	"ssegate/auth"
)

// field is one header line.
type field struct{ name, value string }

// exchange is one client request on its way through the gate. ctx and upload
// are valid only while its handler runs; everything else is a copy and may be
// kept. An exchange made by hand, without ctx, can go upstream too: roundTrip
// needs method, uri, host, fields, route, reqID, remote and proto.
type exchange struct {
	p      *Proxy
	ctx    *fasthttp.RequestCtx
	route  *Route
	reqID  string     // X-Request-Id: the client's if sane, else new; goes upstream and back
	remote netip.Addr // the client, as far as trusted proxies tell
	peer   netip.Addr // the other end of the connection
	proto  string     // "http" or "https", as the client spoke it

	method string
	uri    string  // request target as the client wrote it, in origin form: path, and query if any
	path   string  // uri up to the query, raw
	query  string  // what follows the first "?", raw
	host   string  // Host, as the client wrote it; may be empty with HTTP/1.0
	fields []field // all header lines in their order, names as written

	// upload is the request body as it arrives, nil where there is none.
	// Nothing else may read it: what fasthttp hands out is not decoded.
	upload    *requestBody
	body      []byte // what readBody has read of it
	bodyRead  bool   // readBody was called
	bodyWhole bool   // body is all there is

	http10  bool
	keep    bool   // the connection may serve another request
	closes  bool   // the client itself said that it may not
	upgrade string // the protocol asked for, "" for none

	final    sync.Mutex // over the next two; interim answers come from another goroutine
	wrote    bool       // a final answer was begun
	interims int        // 1xx answers passed on
	broken   bool       // the answer cannot be ended cleanly: cut the connection

	identity *auth.Identity // who sends it, verified; nil: nobody in particular
	ours     []field        // what every answer of our own says beside the rest, on our own paths

	streamPart

	room [20]field // fields, where these are enough
}

// header returns the first value of a header, "" where there is none. name is
// compared without regard to case.
func (x *exchange) header(name string) string {
	for i := range x.fields {
		if strings.EqualFold(x.fields[i].name, name) {
			return x.fields[i].value
		}
	}
	return ""
}

// headers returns all values of a header, in their order.
func (x *exchange) headers(name string) iter.Seq[string] {
	return func(yield func(string) bool) {
		for i := range x.fields {
			if strings.EqualFold(x.fields[i].name, name) && !yield(x.fields[i].value) {
				return
			}
		}
	}
}

// eventSource reports whether the client asks as EventSource does: GET and
// Accept: text/event-stream.
func (x *exchange) eventSource() bool {
	if x.method != "GET" {
		return false
	}
	for v := range x.headers("Accept") {
		if accepts([]byte(v), "text/event-stream") {
			return true
		}
	}
	return false
}

// end leaves the connection to fasthttp: for the next request, or to be
// closed. The handler calls it last.
//
// All answers are written by the handler itself, straight to the connection
// (see reply.go): one write where fasthttp needs up to four, header lines as
// the upstream wrote them, chunks and trailers under our control. fasthttp
// still insists on writing an answer of its own; WriteTo drops it before it
// leaves the buffer.
func (x *exchange) end() {
	ctx := x.ctx
	if ctx.Hijacked() {
		return
	}
	if !x.wrote && !x.broken {
		x.replyAs(&ctx.Response)
		ctx.Response.Reset() // what fasthttp writes must fit into its buffer
	}
	if x.upload != nil {
		x.upload.release(!x.broken)
	}
	ctx.Request.Header.SetMethod(fasthttp.MethodGet) // HEAD would skip WriteTo
	if !x.keep || x.broken {
		ctx.Response.SetConnectionClose()
	}
	ctx.Response.SetBodyStream(answered{ctx.Conn(), cutIf(x.broken)}, 0)
}

func cutIf(broken bool) error {
	if broken {
		return errCut
	}
	return nil
}

// answered is the body of the answer that fasthttp believes to send.
type answered struct {
	conn net.Conn
	err  error // makes fasthttp close the connection
}

var _ io.WriterTo = answered{}

func (answered) Read([]byte) (int, error) { return 0, io.EOF }

// WriteTo is called once fasthttp has put its own head into w and before w is
// flushed for the first time. Nothing else can be in w, since every answer
// before this one went past it.
func (a answered) WriteTo(w io.Writer) (int64, error) {
	w.(*bufio.Writer).Reset(a.conn)
	return 0, a.err
}

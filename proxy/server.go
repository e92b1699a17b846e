package proxy

import (
	"errors"
	"fmt"
	"net"
	"net/http"
	"regexp"
	"time"

	"github.com/valyala/fasthttp"
	"go.uber.org/zap"

	"ssegate/hub"
)

// Server returns the server of the public listener. Each setting is there for
// a reason:
//
//   - ReadTimeout bounds the head alone. The handler sets a deadline of its
//     own for every piece of a body, so an upload takes as long as it takes.
//   - The handler writes the answers itself (see exchange.end): what fasthttp
//     would put into them is off, and its write buffer holds no more than the
//     answer that is dropped.
//   - KeepHijackedConns leaves connections to who took them over, where that is
//     not their descriptor alone. It would cost a read buffer for each.
//   - MaxConnsPerIP, which wraps connections, is not used.
func (p *Proxy) Server() *fasthttp.Server {
	return &fasthttp.Server{
		Handler:                      p.Handler,
		HeaderReceived:               headReceived,
		ErrorHandler:                 p.badHead,
		Name:                         "",
		Concurrency:                  p.cfg.MaxConnections,
		ReadBufferSize:               p.cfg.MaxHeader,
		WriteBufferSize:              1 << 10,
		ReadTimeout:                  p.cfg.HeadTimeout,
		IdleTimeout:                  p.cfg.IdleTimeout,
		MaxRequestBodySize:           1, // no word on the body: see requestBody
		StreamRequestBody:            true,
		DisablePreParseMultipartForm: true,
		NoDefaultServerHeader:        true,
		NoDefaultDate:                true,
		NoDefaultContentType:         true,
		KeepHijackedConns:            !hub.TakesOver,
		CloseOnShutdown:              true,
		Logger:                       printer{p.log.Sugar()},
		SecureErrorLogMessage:        true, // else errors have the whole head
	}
}

// headReceived is called before fasthttp looks for a body. It says of every
// body that it is chunked, since fasthttp starts to read all others before it
// calls the handler, and takes Expect away, since the upstream is to say
// whether it wants the body. The handler reads both from the raw head.
func headReceived(h *fasthttp.RequestHeader) (none fasthttp.RequestConfig) {
	if n := h.ContentLength(); n > 0 {
		h.SetContentLength(-1)
	}
	if len(h.Peek(fasthttp.HeaderExpect)) > 0 {
		h.Del(fasthttp.HeaderExpect)
	}
	return none
}

// badHead answers a head that fasthttp could not read. fasthttp closes the
// connection afterwards.
func (p *Proxy) badHead(ctx *fasthttp.RequestCtx, err error) {
	ctx.Response.SetBodyStream(answered{ctx.Conn(), nil}, 0)
	status, reason, detail := http.StatusBadRequest, "bad_head", "the head of the request is not well-formed"
	if _, nothing := err.(net.Error); nothing {
		return // not a byte came: a connection that was made in advance
	}
	_, small := errors.AsType[*fasthttp.ErrSmallBuffer](err)
	network, broken := errors.AsType[net.Error](err)
	switch {
	case small:
		status, reason, detail = http.StatusRequestHeaderFieldsTooLarge, "head_too_large", "the head of the request is too large"
	case broken && network.Timeout():
		status, reason, detail = http.StatusRequestTimeout, "head_timeout", "the head of the request did not come in time"
	case broken:
		p.counters.refused("client_gone")
		return
	}
	p.counters.refused(reason)
	p.counters.answered(status)
	body := errorBody(reason, detail, "")
	b := appendStatus(nil, status, "")
	b = appendField(b, "Content-Type", "application/json")
	b = appendField(b, "Cache-Control", "no-store")
	b = appendDate(b)
	b = fmt.Appendf(b, "Content-Length: %d\r\nConnection: close\r\n\r\n%s", len(body), body)
	conn := ctx.Conn()
	conn.SetWriteDeadline(time.Now().Add(p.cfg.WriteTimeout))
	if _, err := conn.Write(b); err == nil {
		lingerOn(conn, conn)
	}
}

// printer takes fasthttp's few log lines. Its errors quote what clients sent.
type printer struct{ log *zap.SugaredLogger }

func (p printer) Printf(format string, args ...any) {
	for i, a := range args {
		if err, ok := a.(error); ok {
			args[i] = CutQuotes(err.Error())
		}
	}
	p.log.Debugf(format, args...)
}

// quotedText is one as %q writes it.
var quotedText = regexp.MustCompile(`(?s)"(?:[^"\\]|\\.)*(?:"|\\?$)`)

// CutQuotes shortens what is quoted in an error's text, for a log: enough to
// know what it is, too little to use. Errors of what was read quote it, be it a
// header with a key or a line of an answer.
func CutQuotes(text string) string {
	return quotedText.ReplaceAllStringFunc(text, func(quoted string) string {
		const most = 8
		if r := []rune(quoted[1:]); len(r) > most+1 {
			return `"` + string(r[:most]) + `…"`
		}
		return quoted
	})
}

package proxy

import (
	"bytes"
	"context"
	"errors"
	"io"
	"maps"
	"net"
	"net/http"
	"net/url"
	"slices"
	"strings"
	"time"
)

// maxAPIAnswer is how long an answer of an API handler may be. Answers are
// pages of lists at most; what is longer is a mistake of ours.
const maxAPIAnswer = 8 << 20

// serveHTTP answers a request of the public listener by a handler of net/http:
// the push API, which the internal listener serves as well. The body is read
// as it arrives, so a publisher's stream is piped; the answer is gathered and
// sent as a whole. The context ends when the client leaves.
func (p *Proxy) serveHTTP(x *exchange, h http.Handler, with func(context.Context) context.Context) {
	r, err := x.request()
	if err != nil {
		p.fail(x, http.StatusBadRequest, "bad_target", "the request target cannot be read")
		return
	}
	ctx, cancel := context.WithCancelCause(p.ctx)
	defer cancel(nil)
	defer p.watch(x, func() { cancel(errClientGone) })()
	w := &apiWriter{head: http.Header{}, upload: x.upload}
	h.ServeHTTP(w, r.WithContext(with(ctx)))
	if x.upload != nil && errors.Is(x.upload.failed(), errBodyCut) {
		x.broken = true // nobody is there to be answered
		p.counters.refused("client_gone")
		return
	}
	if w.lost {
		p.fail(x, http.StatusInternalServerError, "internal", "the answer is too long")
		return
	}
	x.reply(w.code(), append(w.fields(), x.ours...), w.body.Bytes())
}

// request is the exchange as net/http knows requests. Its body is the
// client's connection, and valid only while the exchange is served.
func (x *exchange) request() (*http.Request, error) {
	u, err := url.ParseRequestURI(x.uri)
	if err != nil {
		return nil, err
	}
	r := &http.Request{
		Method: x.method, URL: u, RequestURI: x.uri, Host: x.host,
		Proto: "HTTP/1.1", ProtoMajor: 1, ProtoMinor: 1,
		Header: make(http.Header, len(x.fields)), Body: http.NoBody,
		RemoteAddr: net.JoinHostPort(x.remote.String(), "0"),
	}
	if x.http10 {
		r.Proto, r.ProtoMinor = "HTTP/1.0", 0
	}
	for _, f := range x.fields {
		if name := http.CanonicalHeaderKey(f.name); name != "Host" && name != "Transfer-Encoding" {
			r.Header[name] = append(r.Header[name], f.value)
		}
	}
	r.Header.Set("X-Request-Id", x.reqID)
	if x.upload != nil {
		r.Body = io.NopCloser(x.upload)
		r.ContentLength = -1
		if !x.upload.chunked {
			r.ContentLength = x.upload.size
		}
	}
	return r, nil
}

// apiWriter gathers what a handler answers.
type apiWriter struct {
	head   http.Header
	sent   http.Header // head as it was at WriteHeader
	status int
	body   bytes.Buffer
	lost   bool         // the body was too long
	upload *requestBody // nil: there is none
}

// SetReadDeadline is what http.ResponseController looks for: from here on the
// handler says how long the body may be silent, not the listener.
func (w *apiWriter) SetReadDeadline(t time.Time) error {
	if w.upload == nil {
		return nil
	}
	return w.upload.setDeadline(t)
}

func (w *apiWriter) Header() http.Header { return w.head }

func (w *apiWriter) WriteHeader(status int) {
	if w.status == 0 && status >= 200 {
		w.status, w.sent = status, w.head.Clone()
	}
}

func (w *apiWriter) Write(p []byte) (int, error) {
	w.WriteHeader(http.StatusOK)
	if w.body.Len()+len(p) > maxAPIAnswer {
		w.lost = true
		return 0, errors.New("proxy: the answer is too long")
	}
	return w.body.Write(p)
}

func (w *apiWriter) code() int {
	w.WriteHeader(http.StatusOK)
	return w.status
}

// fields are the answer's header lines but those that exchange.reply writes
// itself.
func (w *apiWriter) fields() (out []field) {
	for _, name := range slices.Sorted(maps.Keys(w.sent)) {
		switch name {
		case "Content-Length", "Connection", "Date", "X-Request-Id", "Transfer-Encoding", "Trailer":
			continue
		}
		for _, v := range w.sent[name] {
			if isToken(name) && isFieldValue(v) && !strings.HasPrefix(name, http.TrailerPrefix) {
				out = append(out, field{name, v})
			}
		}
	}
	return out
}

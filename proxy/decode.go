package proxy

import (
	"bufio"
	"compress/zlib"
	"errors"
	"fmt"
	"io"
	"net/http"
	"strings"

	"github.com/andybalholm/brotli"
	"github.com/klauspost/compress/flate"
	"github.com/klauspost/compress/gzip"
	"github.com/klauspost/compress/zstd"
)

// errCoding says that a content coding is not known here.
var errCoding = errors.New("proxy: unknown content coding")

// decodedBody is an answer's body without its content codings (RFC 9110
// §8.4.1): events can be told apart only then. Closing it does not close the
// answer.
func decodedBody(resp *http.Response) (io.ReadCloser, error) {
	var codings []string
	for _, v := range resp.Header["Content-Encoding"] {
		for c := range strings.SplitSeq(v, ",") {
			if c = strings.ToLower(strings.TrimSpace(c)); c != "" && c != "identity" {
				codings = append(codings, c)
			}
		}
	}
	if len(codings) > 2 {
		return nil, fmt.Errorf("%w: %d of them", errCoding, len(codings))
	}
	for _, c := range codings {
		switch c {
		case "gzip", "x-gzip", "deflate", "br", "zstd":
		default:
			return nil, fmt.Errorf("%w: %q", errCoding, c)
		}
	}
	body := io.NopCloser(io.Reader(resp.Body))
	for i := len(codings) - 1; i >= 0; i-- {
		body = &lazyDecoder{coding: codings[i], from: body}
	}
	return body, nil
}

// lazyDecoder opens its decoder when the first bytes are wanted: most of them
// read a header at once, and would wait for it.
type lazyDecoder struct {
	coding string
	from   io.ReadCloser
	r      io.Reader
	close  func() error
	err    error
}

func (d *lazyDecoder) Read(p []byte) (int, error) {
	if d.r == nil && d.err == nil {
		d.err = d.open()
	}
	if d.err != nil {
		return 0, d.err
	}
	return d.r.Read(p)
}

func (d *lazyDecoder) open() error {
	switch d.coding {
	case "gzip", "x-gzip":
		r, err := gzip.NewReader(d.from)
		if err != nil {
			return err
		}
		d.r, d.close = r, r.Close
	case "br":
		d.r = brotli.NewReader(d.from)
	case "zstd":
		r, err := zstd.NewReader(d.from, zstd.WithDecoderConcurrency(1), zstd.WithDecoderMaxWindow(8<<20))
		if err != nil {
			return err
		}
		d.r, d.close = r, func() error { r.Close(); return nil }
	case "deflate":
		// The name means zlib, but many send the bare deflate format.
		b := bufio.NewReader(d.from)
		head, err := b.Peek(2)
		if err != nil {
			return err
		}
		if head[0]&0x0f == 8 && (int(head[0])<<8|int(head[1]))%31 == 0 {
			r, err := zlib.NewReader(b)
			if err != nil {
				return err
			}
			d.r, d.close = r, r.Close
			break
		}
		r := flate.NewReader(b)
		d.r, d.close = r, r.Close
	}
	return nil
}

// Close frees the decoder.
func (d *lazyDecoder) Close() error {
	if d.close != nil {
		d.close() // what it thinks of an unfinished stream was told by Read
	}
	return d.from.Close()
}

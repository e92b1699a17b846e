// Package intake owns the reading of upstream event streams: a few goroutines
// read the bodies of any number of connections, so that a stream which has
// nothing to say costs no goroutine and no buffer, and one wake-up takes in
// what many services have sent.
//
// It knows connections and the framing of an HTTP/1.1 body (RFC 9112 §6, §7),
// and must not know what the bytes mean, whose they are or where they go.
package intake

import (
	"errors"
	"io"
	"net"
	"time"
)

// ErrSilent says that nothing came for longer than Options.Idle.
var ErrSilent = errors.New("intake: upstream silent for too long")

// ErrFraming says that a body's chunks are not well-formed.
var ErrFraming = errors.New("intake: malformed chunk")

// Framing says where a body ends. The zero Framing ends with the connection.
type Framing struct {
	Chunked bool
	Sized   bool
	Length  int64 // of a Sized body
}

// A Sink takes what is read. The calls for one Conn come one at a time.
type Sink interface {
	// Take gets bytes of the body, which are its own only until it returns;
	// it must not block, nor call the Conn's Close. more is false when
	// nothing further is to be read until Resume. An error ends the reading.
	Take(p []byte) (more bool, err error)
	// End is the last call, from any goroutine: nil when the body came to its
	// end, else why it did not: what Take or Close said, ErrSilent,
	// ErrFraming, io.ErrUnexpectedEOF or an error of the connection. It must
	// not block.
	End(err error)
}

// Options say how a body is read.
type Options struct {
	Framing Framing
	First   []byte        // what was read of the body already
	Idle    time.Duration // silence after which the reading ends with ErrSilent; 0: never. To a tenth of a second
}

// body is the state of one body's framing.
type body struct {
	framing Framing
	chunks  chunks
}

// decode takes the framing out of p, in place, and returns how much is left.
// ended says that the body is whole.
func (b *body) decode(p []byte) (n int, ended bool, err error) {
	switch {
	case b.framing.Chunked:
		return b.chunks.strip(p)
	case b.framing.Sized:
		n = int(min(int64(len(p)), b.framing.Length))
		b.framing.Length -= int64(n)
		return n, b.framing.Length == 0, nil
	}
	return len(p), false, nil
}

// eof is what the end of the connection means to the body.
func (b *body) eof() error {
	if b.framing.Chunked || b.framing.Sized {
		return io.ErrUnexpectedEOF
	}
	return nil
}

// unwrap finds the TCP connection that c is or wraps, nil where there is none.
func unwrap(c net.Conn) *net.TCPConn {
	for {
		switch t := c.(type) {
		case *net.TCPConn:
			return t
		case interface{ NetConn() net.Conn }:
			c = t.NetConn()
		default:
			return nil
		}
	}
}

package load

import (
	"bytes"
	"errors"
	"fmt"
)

// errResponse is what a response that cannot be read comes to.
var errResponse = errors.New("not a response that can be read")

// response takes HTTP/1.1 responses apart as they arrive, however they are cut.
// The zero value waits for a head. One that is over waits for the next head
// after [response.reset].
type response struct {
	state   uint8
	status  int
	chunked bool
	left    int    // bytes of this chunk or body
	carry   []byte // the begun head or line
}

const (
	inHead uint8 = iota
	inChunkSize
	inChunk
	inChunkEnd // the line end behind a chunk
	inTrailer  // behind the last chunk
	inBody     // with a known length
	inRest     // until the connection closes
	isOver
)

// maxHead is the longest head that is read.
const maxHead = 16 << 10

// liner gets the lines of a body without their ends. A line is its for the
// call alone.
type liner interface {
	line(b []byte)
}

func (r *response) reset() {
	*r = response{carry: r.carry[:0]}
}

// headed says whether the head is there.
func (r *response) headed() bool { return r.state != inHead }

func (r *response) over() bool { return r.state == isOver }

// feed takes what was read and hands the body's lines on; body may be nil. What
// comes after the end of the response is left alone: only one is asked for at
// a time.
func (r *response) feed(b []byte, body liner) error {
	for len(b) > 0 && r.state != isOver {
		switch r.state {
		case inHead:
			had := len(r.carry)
			r.carry = append(r.carry, b...)
			end := bytes.Index(r.carry[max(had-3, 0):], []byte("\r\n\r\n"))
			if end < 0 {
				if len(r.carry) > maxHead {
					return fmt.Errorf("%w: a head of more than %d bytes", errResponse, maxHead)
				}
				return nil
			}
			end += max(had-3, 0) + 4
			if err := r.head(r.carry[:end]); err != nil {
				return err
			}
			b = b[end-had:]
			r.carry = r.carry[:0]
		case inChunkSize:
			i := 0
			for ; i < len(b) && b[i] != '\n'; i++ {
				switch c := b[i]; {
				case c >= '0' && c <= '9':
					r.left = r.left<<4 | int(c-'0')
				case c >= 'a' && c <= 'f':
					r.left = r.left<<4 | int(c-'a'+10)
				case c >= 'A' && c <= 'F':
					r.left = r.left<<4 | int(c-'A'+10)
				case c != '\r':
					return fmt.Errorf("%w: chunk size %q", errResponse, b[:min(len(b), 20)])
				}
			}
			if i == len(b) {
				return nil
			}
			b = b[i+1:]
			r.state = inChunk
			if r.left == 0 {
				r.state = inTrailer
			}
		case inChunk, inBody:
			n := min(r.left, len(b))
			r.lines(b[:n], body)
			b = b[n:]
			if r.left -= n; r.left > 0 {
				continue
			}
			if r.state == inBody {
				r.state = isOver
			} else {
				r.state = inChunkEnd
			}
		case inChunkEnd:
			i := bytes.IndexByte(b, '\n')
			if i < 0 {
				return nil
			}
			b = b[i+1:]
			r.state = inChunkSize
		case inTrailer: // none of the programs sends any: this is the last line end
			i := bytes.IndexByte(b, '\n')
			if i < 0 {
				return nil
			}
			b = b[i+1:]
			r.state = isOver
		case inRest:
			r.lines(b, body)
			return nil
		}
	}
	return nil
}

// head reads the head and finds out what comes behind it.
func (r *response) head(h []byte) error {
	if len(h) < 13 || !bytes.HasPrefix(h, []byte("HTTP/1.")) {
		return fmt.Errorf("%w: %q", errResponse, h[:min(len(h), 40)])
	}
	n, ok := number(h[9:12])
	if !ok {
		return fmt.Errorf("%w: %q", errResponse, h[:13])
	}
	r.status = int(n)
	r.state = inRest
	for line := range bytes.Lines(h) {
		name, value, _ := bytes.Cut(line, []byte(":"))
		value = bytes.TrimSpace(value)
		switch {
		case bytes.EqualFold(name, []byte("Transfer-Encoding")) && bytes.EqualFold(value, []byte("chunked")):
			r.state, r.chunked = inChunkSize, true
		case bytes.EqualFold(name, []byte("Content-Length")) && !r.chunked:
			n, ok := number(value)
			if !ok {
				return fmt.Errorf("%w: %q", errResponse, line)
			}
			r.state, r.left = inBody, int(n)
		}
	}
	if r.status == 204 || r.status == 304 || r.state == inBody && r.left == 0 {
		r.state = isOver
	}
	return nil
}

// lines cuts a piece of the body into lines.
func (r *response) lines(b []byte, body liner) {
	if body == nil {
		return
	}
	for len(b) > 0 {
		i := bytes.IndexByte(b, '\n')
		if i < 0 {
			r.carry = append(r.carry, b...)
			return
		}
		line := b[:i]
		b = b[i+1:]
		if len(r.carry) > 0 {
			r.carry = append(r.carry, line...)
			line = r.carry
		}
		if n := len(line); n > 0 && line[n-1] == '\r' {
			line = line[:n-1]
		}
		body.line(line)
		r.carry = r.carry[:0]
	}
}

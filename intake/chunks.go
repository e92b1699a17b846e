package intake

// chunks takes apart the chunked transfer coding (RFC 9112 §7.1), whatever
// pieces it comes in. Like most clients it takes a bare LF for a line end, and
// it passes over extensions and trailers.
type chunks struct {
	state chunkState
	left  int64 // of the chunk's data
	line  int   // bytes of the line so far
	begun int   // chunks with data
}

type chunkState uint8

const (
	inSize  chunkState = iota // reading digits
	inExt                     // behind them, up to LF
	inData                    // left bytes to come
	behind                    // the line end behind the data
	inTrail                   // trailers, up to an empty line
)

// maxLine bounds a size line and its extensions, and all trailers together.
const maxLine = 4096

// strip moves the data of all chunks in p together, at its beginning, and
// returns how much that is. ended is true once the last chunk and the
// trailers were read; what follows is nobody's.
func (c *chunks) strip(p []byte) (n int, ended bool, err error) {
	at := 0
	for at < len(p) {
		if c.state == inData {
			m := int(min(c.left, int64(len(p)-at)))
			if n != at {
				copy(p[n:], p[at:at+m])
			}
			n, at = n+m, at+m
			if c.left -= int64(m); c.left == 0 {
				c.state, c.line = behind, 0
			}
			continue
		}
		b := p[at]
		at++
		if c.line++; c.line > maxLine {
			return n, false, ErrFraming
		}
		switch c.state {
		case inSize:
			d := digit(b)
			switch {
			case d < 16 && c.line > 15:
				return n, false, ErrFraming // longer than any chunk can be
			case d < 16:
				c.left = c.left<<4 | int64(d)
			case c.line == 1:
				return n, false, ErrFraming
			case b == '\n':
				c.data()
			case b == '\r', b == ';', b == ' ', b == '\t':
				c.state = inExt
			default:
				return n, false, ErrFraming
			}
		case inExt:
			if b == '\n' {
				c.data()
			}
		case behind:
			switch {
			case b == '\n':
				c.state, c.line, c.left = inSize, 0, 0
			case b != '\r' || c.line > 1:
				return n, false, ErrFraming
			}
		case inTrail:
			switch {
			case b == '\n' && c.left == 0:
				return n, true, nil
			case b == '\n':
				c.left = 0
			case b != '\r':
				c.left++ // bytes of this trailer line
			}
		}
	}
	return n, false, nil
}

// data is what a size line leads to.
func (c *chunks) data() {
	if c.left == 0 {
		c.state = inTrail
	} else {
		c.state = inData
		c.begun++
	}
	c.line = 0
}

func digit(b byte) byte {
	switch {
	case '0' <= b && b <= '9':
		return b - '0'
	case 'a' <= b && b <= 'f':
		return b - 'a' + 10
	case 'A' <= b && b <= 'F':
		return b - 'A' + 10
	}
	return 255
}

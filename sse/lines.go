package sse

import "bytes"

// EOL is one of the three line ends that the protocol knows. The zero EOL is
// LF.
type EOL uint8

const (
	LF   EOL = iota // "\n"
	CRLF            // "\r\n"
	CR              // "\r"
)

// String is the line end itself, one or two bytes, ready to be appended.
func (e EOL) String() string {
	switch e {
	case CRLF:
		return "\r\n"
	case CR:
		return "\r"
	}
	return "\n"
}

// Bytes is String as bytes of the caller's own.
func (e EOL) Bytes() []byte { return []byte(e.String()) }

// lines finds the line ends of a text, whatever their kind. It looks for LF and
// for CR apart and remembers what it found, so a text is searched for each of
// them only once: a stream without CR is searched for it once a feed and not
// once a line, and a long text with CR alone does not cost its length squared.
type lines struct {
	text   []byte
	lf, cr int // the next LF and CR, len(text) if there is none; stale when before the place asked for
}

func linesOf(text []byte) lines { return lines{text: text, lf: -1, cr: -1} }

// end finds where the line that begins at pos ends and the next one begins. The
// places asked for never go backwards. Without a line end in sight both are
// len(text). It is sure of the answer only when ok: a CR that is the last byte
// may yet be the first half of a CRLF, and is given as CR.
func (l *lines) end(pos int) (end, next int, eol EOL, ok bool) {
	if l.lf < pos {
		l.lf = indexFrom(l.text, pos, '\n')
	}
	if l.cr < pos {
		l.cr = indexFrom(l.text, pos, '\r')
	}
	switch n := len(l.text); {
	case l.lf < l.cr:
		return l.lf, l.lf + 1, LF, true
	case l.cr == n:
		return n, n, LF, false
	case l.cr+1 == n:
		return l.cr, n, CR, false
	case l.lf == l.cr+1:
		return l.cr, l.cr + 2, CRLF, true
	}
	return l.cr, l.cr + 1, CR, true
}

// indexFrom is the index of c in text at or after pos, len(text) if there is none.
func indexFrom(text []byte, pos int, c byte) int {
	if i := bytes.IndexByte(text[pos:], c); i >= 0 {
		return pos + i
	}
	return len(text)
}

// field tells whether line is the field called name and, if so, where its value
// begins: behind the colon and the one space that may follow it. A line without
// a colon is a field with an empty value.
func field(line []byte, name string) (value int, ok bool) {
	n := len(name)
	if len(line) < n || string(line[:n]) != name {
		return 0, false
	}
	switch {
	case len(line) == n:
		return n, true
	case line[n] != ':':
		return 0, false
	case len(line) > n+1 && line[n+1] == ' ':
		return n + 2, true
	}
	return n + 1, true
}

// badID tells whether line is an id field that the standard has clients ignore:
// one with a NUL in it.
func badID(line []byte) bool {
	at, ok := field(line, "id")
	return ok && bytes.IndexByte(line[at:], 0) >= 0
}

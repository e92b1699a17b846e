package push

import (
	"fmt"
	"strconv"
	"unicode/utf8"
)

// maxDepth bounds how deep JSON may be nested. What services send is a handful
// of levels deep; what attackers send is as deep as it goes.
const maxDepth = 100

// A scanner reads JSON text once: it checks it, writes it without the space
// between tokens into out, and lets its caller see the members that it asks
// for on the way. What is in out holds no CR and no LF, since a string of JSON
// cannot have them as they are, and so fits on one data line of an event.
//
// After an error every method does nothing, so that callers check err once.
type scanner struct {
	in    []byte
	at    int
	out   []byte // compact; earlier text of the same scanner stays before it
	depth int
	// begun has a bit for each open object or array that had a member.
	begun [(maxDepth + 64) / 64]uint64
	err   *syntaxError
}

// syntaxError says where a text ceases to be JSON.
type syntaxError struct {
	at   int // bytes before the mistake
	what string
}

func (e *syntaxError) Error() string { return fmt.Sprintf("%s at byte %d", e.what, e.at) }

func (s *scanner) fail(at int, what string) {
	if s.err == nil {
		s.err = &syntaxError{at, what}
	}
}

// span is a piece of a scanner's out. kind is the first byte of the value
// there, with '0' for every number; 0 where there is none.
type span struct {
	from, to int
	kind     byte
}

func (v span) there() bool { return v.kind != 0 }

// space skips to the next token and returns its first byte, 0 at the end.
func (s *scanner) space() byte {
	for s.at < len(s.in) {
		switch c := s.in[s.at]; c {
		case ' ', '\n', '\t', '\r':
			s.at++
		default:
			if c == 0 {
				s.fail(s.at, "unexpected NUL")
			}
			return c
		}
	}
	return 0
}

// end checks that nothing but space is left.
func (s *scanner) end() {
	if c := s.space(); s.err == nil && s.at < len(s.in) {
		s.fail(s.at, "unexpected "+quoteByte(c)+" after the end of the value")
	}
}

// value scans one value of any sort.
func (s *scanner) value() span {
	c := s.space()
	if s.err != nil {
		return span{}
	}
	v := span{from: len(s.out), kind: c}
	switch c {
	case '{':
		for s.open('{'); s.member(); {
			s.value()
		}
	case '[':
		for s.open('['); s.element(); {
			s.value()
		}
	case '"':
		s.text()
	case 't':
		s.literal("true")
	case 'f':
		s.literal("false")
	case 'n':
		s.literal("null")
	case '-', '0', '1', '2', '3', '4', '5', '6', '7', '8', '9':
		v.kind = '0'
		s.number()
	case 0:
		s.fail(s.at, "unexpected end, a value is missing")
	default:
		s.fail(s.at, "unexpected "+quoteByte(c)+", want a value")
	}
	v.to = len(s.out)
	return v
}

// open begins an object or an array whose bracket comes next. A loop with
// member or element, that reads one value each turn, takes it to its end.
func (s *scanner) open(bracket byte) {
	if s.space() != bracket {
		s.fail(s.at, "want "+quoteByte(bracket))
		return
	}
	if s.depth++; s.depth > maxDepth {
		s.fail(s.at, "nested deeper than "+strconv.Itoa(maxDepth)+" levels")
		return
	}
	s.begun[s.depth/64] &^= 1 << (s.depth % 64)
	s.at++
	s.out = append(s.out, bracket)
}

// more reports whether an object or array goes on, and passes the comma.
func (s *scanner) more(closing byte) bool {
	if s.err != nil {
		return false
	}
	c := s.space()
	switch {
	case s.err != nil:
		return false
	case s.at == len(s.in):
		s.fail(s.at, "unexpected end, "+quoteByte(closing)+" is missing")
		return false
	case c == closing:
		s.at++
		s.depth--
		s.out = append(s.out, closing)
		return false
	}
	word, bit := &s.begun[s.depth/64], uint64(1)<<(s.depth%64)
	if *word&bit == 0 {
		*word |= bit
		return true
	}
	if c != ',' {
		s.fail(s.at, "unexpected "+quoteByte(c)+", want , or "+string(closing))
		return false
	}
	s.at++
	// Members may have been taken out again by who reads.
	if last := s.out[len(s.out)-1]; last != '{' && last != '[' {
		s.out = append(s.out, ',')
	}
	return true
}

// member goes to the next member of an object, up to its value.
func (s *scanner) member() bool {
	_, ok := s.named()
	return ok
}

// named is member that tells the name as it stands in the text, with its
// quotes.
func (s *scanner) named() (name []byte, ok bool) {
	if !s.more('}') {
		return nil, false
	}
	if c := s.space(); c != '"' {
		if s.at == len(s.in) {
			s.fail(s.at, "unexpected end, a name is missing")
		} else {
			s.fail(s.at, "unexpected "+quoteByte(c)+", want a name in quotes")
		}
		return nil, false
	}
	from := len(s.out)
	s.text()
	to := len(s.out)
	if s.err != nil {
		return nil, false
	}
	if s.space() != ':' {
		s.fail(s.at, "want : after a name")
		return nil, false
	}
	s.at++
	s.out = append(s.out, ':')
	return s.out[from:to], true
}

// element goes to the next element of an array.
func (s *scanner) element() bool { return s.more(']') }

// text scans a string.
func (s *scanner) text() {
	in, from, ascii := s.in, s.at, true
	i := from + 1
	for i < len(in) {
		switch c := in[i]; {
		case c == '"':
			i++
			if !ascii && !utf8.Valid(in[from:i]) {
				s.fail(from, "a string that is not UTF-8 begins")
				return
			}
			s.out = append(s.out, in[from:i]...)
			s.at = i
			return
		case c == '\\':
			n := escape(in[i:])
			if n == 0 {
				s.fail(i, "bad escape in a string")
				return
			}
			i += n
		case c < ' ':
			s.fail(i, "control character in a string, write it as an escape,")
			return
		default:
			if c >= utf8.RuneSelf {
				ascii = false
			}
			i++
		}
	}
	s.fail(len(in), "unexpected end within a string")
}

// escape is the length of the escape that b begins with, 0 if it is none.
func escape(b []byte) int {
	if len(b) < 2 {
		return 0
	}
	switch b[1] {
	case '"', '\\', '/', 'b', 'f', 'n', 'r', 't':
		return 2
	case 'u':
		if len(b) < 6 {
			return 0
		}
		for _, c := range b[2:6] {
			if !('0' <= c && c <= '9' || 'a' <= c|0x20 && c|0x20 <= 'f') {
				return 0
			}
		}
		return 6
	}
	return 0
}

func (s *scanner) literal(want string) {
	if len(s.in)-s.at < len(want) || string(s.in[s.at:s.at+len(want)]) != want {
		s.fail(s.at, "unexpected text, want "+want)
		return
	}
	s.out = append(s.out, want...)
	s.at += len(want)
}

func (s *scanner) number() {
	in, i := s.in, s.at
	digits := func() bool {
		from := i
		for i < len(in) && '0' <= in[i] && in[i] <= '9' {
			i++
		}
		return i > from
	}
	if in[i] == '-' {
		i++
	}
	whole := i
	ok := digits() && (in[whole] != '0' || i == whole+1)
	if ok && i < len(in) && in[i] == '.' {
		i++
		ok = digits()
	}
	if ok && i < len(in) && in[i]|0x20 == 'e' {
		if i++; i < len(in) && (in[i] == '+' || in[i] == '-') {
			i++
		}
		ok = digits()
	}
	if !ok {
		s.fail(min(i, len(in)), "bad number")
		return
	}
	s.out = append(s.out, in[s.at:i]...)
	s.at = i
}

// sort names what a value is, for people.
func (v span) sort() string {
	switch v.kind {
	case '{':
		return "an object"
	case '[':
		return "an array"
	case '"':
		return "a string"
	case '0':
		return "a number"
	case 't', 'f':
		return "a boolean"
	case 'n':
		return "null"
	}
	return "nothing"
}

func quoteByte(c byte) string {
	if c >= utf8.RuneSelf {
		return "a byte that is no ASCII"
	}
	return strconv.QuoteRune(rune(c))
}

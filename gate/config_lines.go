package gate

import (
	"fmt"
	"regexp"
	"strconv"
	"strings"
)

// keyLines finds the line of every table, key and list item in a TOML text,
// which the decoder does not tell. Keys are written as Problem.Key has them:
// a list's items count from 1. The text must have passed the decoder; on any
// other the result is incomplete, but it ends.
func keyLines(text string) map[string]int {
	s := lineScanner{text: text, line: 1, lines: map[string]int{}, items: map[string]int{}}
	table := ""
	for s.skip(" \t\r\n"); s.pos < len(s.text); s.skip(" \t\r\n") {
		line := s.line
		switch {
		case s.take("#"):
			s.until("\n")
		case s.take("[["):
			parts := s.key("]")
			table = s.open(parts[:len(parts)-1]) // the tables around it
			table = join(table, parts[len(parts)-1])
			s.items[table]++
			if s.lines[table] == 0 {
				s.lines[table] = line
			}
			table = item(table, s.items[table])
			s.lines[table] = line
			s.take("]]")
		case s.take("["):
			table = s.open(s.key("]"))
			s.lines[table] = line
			s.take("]")
		default:
			s.pair(table, 0)
		}
	}
	return s.lines
}

// join adds a part to a key, in quotes where TOML would want them.
func join(key, part string) string {
	if !bareKey.MatchString(part) {
		part = strconv.Quote(part)
	}
	if key == "" {
		return part
	}
	return key + "." + part
}

var bareKey = regexp.MustCompile(`^[A-Za-z0-9_-]+$`)

// item is the key of the nth item of a list, the first being 1.
func item(key string, n int) string { return fmt.Sprintf("%s[%d]", key, n) }

type lineScanner struct {
	text  string
	pos   int
	line  int
	lines map[string]int
	items map[string]int // array of tables → how many so far
}

// open turns the parts of a header into a key: where a part is an array of
// tables, its last item is meant.
func (s *lineScanner) open(parts []string) string {
	key := ""
	for _, p := range parts {
		key = join(key, p)
		if n := s.items[key]; n > 0 {
			key = item(key, n)
		}
	}
	return key
}

// pair reads key = value. It always moves on.
func (s *lineScanner) pair(table string, depth int) {
	start, line := s.pos, s.line
	key := table
	for _, p := range s.key("=") {
		key = join(key, p)
		if s.lines[key] == 0 {
			s.lines[key] = line
		}
	}
	s.take("=")
	s.value(key, depth)
	if s.pos == start {
		s.next()
	}
}

// key reads the parts of a dotted key up to one of the bytes in end, which
// stays. There is at least one part, which may be empty.
func (s *lineScanner) key(end string) (parts []string) {
	for {
		s.skip(" \t")
		switch {
		case s.pos < len(s.text) && (s.text[s.pos] == '"' || s.text[s.pos] == '\''):
			start := s.pos + 1
			s.quoted()
			parts = append(parts, s.text[start:max(start, s.pos-1)])
		default:
			start := s.pos
			s.until(" \t\r\n." + end)
			parts = append(parts, s.text[start:s.pos])
		}
		s.skip(" \t")
		if !s.take(".") {
			return parts
		}
	}
}

// value skips a value and notes the lines of what is inside.
func (s *lineScanner) value(key string, depth int) {
	s.skip(" \t")
	switch {
	case depth > 64: // nobody's configuration
		s.pos = len(s.text)
	case s.take(`"""`):
		s.long(`"""`, true)
	case s.take(`'''`):
		s.long(`'''`, false)
	case s.pos < len(s.text) && (s.text[s.pos] == '"' || s.text[s.pos] == '\''):
		s.quoted()
	case s.take("["):
		for n := 1; s.inside("]"); n++ {
			s.lines[item(key, n)] = s.line
			s.value(item(key, n), depth+1)
		}
	case s.take("{"):
		for s.inside("}") {
			s.pair(key, depth+1)
		}
	default:
		start := s.pos
		if s.until(",]}#\n"); s.pos == start {
			s.next() // not TOML, but it must end
		}
	}
}

// inside goes to the next item of a list or an inline table; false when end
// was met and taken, or the text is over.
func (s *lineScanner) inside(end string) bool {
	for {
		s.skip(" \t\r\n,")
		if !s.take("#") {
			return !s.take(end) && s.pos < len(s.text)
		}
		s.until("\n")
	}
}

// quoted skips a text of one line in quotes, escapes included.
func (s *lineScanner) quoted() {
	quote := s.text[s.pos]
	for s.next(); s.pos < len(s.text) && s.text[s.pos] != '\n'; s.next() {
		switch {
		case s.text[s.pos] == quote:
			s.next()
			return
		case s.text[s.pos] == '\\' && quote == '"':
			s.next()
		}
	}
}

// long skips the rest of a text of several lines. Up to two quotes may stand
// right before the three that end it.
func (s *lineScanner) long(end string, escapes bool) {
	for s.pos < len(s.text) {
		if s.take(end) {
			for range 2 {
				s.take(end[:1])
			}
			return
		}
		if escapes && s.text[s.pos] == '\\' {
			s.next()
		}
		s.next()
	}
}

func (s *lineScanner) next() {
	if s.pos < len(s.text) {
		if s.text[s.pos] == '\n' {
			s.line++
		}
		s.pos++
	}
}

func (s *lineScanner) take(word string) bool {
	if !strings.HasPrefix(s.text[s.pos:], word) {
		return false
	}
	s.pos += len(word) // no word has a line end in it
	return true
}

func (s *lineScanner) skip(set string) {
	for s.pos < len(s.text) && strings.IndexByte(set, s.text[s.pos]) >= 0 {
		s.next()
	}
}

func (s *lineScanner) until(set string) {
	for s.pos < len(s.text) && strings.IndexByte(set, s.text[s.pos]) < 0 {
		s.next()
	}
}

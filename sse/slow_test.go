package sse

import (
	"errors"
	"fmt"
	"math"
	"strconv"
	"strings"
	"testing"
)

// said is an Event that keeps its text, and may be compared.
type said struct {
	raw     string
	eol     EOL
	mixed   bool
	id      string
	hasID   bool
	name    string
	data    string
	hasData bool
	retry   int
	comment bool
	cut     bool
}

func saidOf(ev *Event) said {
	return said{
		raw: string(ev.Raw), eol: ev.EOL, mixed: ev.Mixed,
		id: string(ev.ID), hasID: ev.HasID,
		name: string(ev.Name),
		data: string(ev.Data), hasData: ev.HasData,
		retry: ev.Retry, comment: ev.Comment, cut: ev.Partial,
	}
}

// String tells what a client would make of it, not how it was written.
func (s said) String() string {
	var words []string
	if s.hasID {
		words = append(words, fmt.Sprintf("id=%q", s.id))
	}
	if s.name != "" {
		words = append(words, fmt.Sprintf("event=%q", s.name))
	}
	if s.hasData {
		words = append(words, fmt.Sprintf("data=%q", s.data))
	}
	if s.retry >= 0 {
		words = append(words, fmt.Sprintf("retry=%d", s.retry))
	}
	if s.comment {
		words = append(words, "comment")
	}
	if s.cut {
		words = append(words, "partial")
	}
	return strings.Join(words, " ")
}

// slowLine is a line by the standard's grammar; only the last one of a stream may
// have no end.
type slowLine struct{ text, end string }

// slowDecode reads a stream as the standard tells it, step by step: it is slow,
// obvious, and has nothing in common with the Decoder.
func slowDecode(stream string, limit int) (events []said, tooLarge bool) {
	stream = strings.TrimPrefix(stream, "\uFEFF")
	var all []slowLine
	for stream != "" {
		n := strings.IndexAny(stream, "\r\n")
		if n < 0 {
			all = append(all, slowLine{stream, ""})
			break
		}
		end := stream[n : n+1]
		if strings.HasPrefix(stream[n:], "\r\n") {
			end = "\r\n"
		}
		all = append(all, slowLine{stream[:n], end})
		stream = stream[n+len(end):]
	}
	var block []slowLine
	size := 0
	for i, l := range all {
		if l.text != "" {
			block = append(block, l)
			if size += len(l.text) + len(l.end); size > limit {
				return events, true
			}
			if i < len(all)-1 {
				continue
			}
		}
		if s, ok := slowBlock(block); ok {
			s.cut = l.text != ""
			events = append(events, s)
		}
		block, size = nil, 0
	}
	return events, false
}

func slowBlock(block []slowLine) (s said, ok bool) {
	s.retry, s.comment = -1, true
	var ends, data []string
	for _, l := range block {
		name, value, _ := strings.Cut(l.text, ":")
		value = strings.TrimPrefix(value, " ")
		if name == "id" && strings.Contains(value, "\x00") {
			continue
		}
		s.raw += l.text + l.end
		if l.end != "" {
			ends = append(ends, l.end)
		}
		s.comment = s.comment && name == ""
		whole := l.end != ""
		switch {
		case name == "data":
			data = append(data, value)
		case name == "event":
			s.name = value
		case name == "id" && whole:
			s.id, s.hasID = value, true
		case name == "retry" && whole && value != "" && strings.Trim(value, "0123456789") == "":
			if n, err := strconv.Atoi(value); err == nil {
				s.retry = n
			}
		}
	}
	s.data, s.hasData = strings.Join(data, "\n"), data != nil
	for _, end := range ends {
		s.mixed = s.mixed || end != ends[0]
	}
	if len(ends) > 0 {
		s.eol = map[string]EOL{"\n": LF, "\r\n": CRLF, "\r": CR}[ends[0]]
	}
	return s, s.raw != ""
}

// decode runs stream through a Decoder in the given pieces (all of it in one piece
// if there are none). What was fed is overwritten as soon as the decoder may no
// longer look at it.
func decode(t *testing.T, stream string, limit int, pieces func() int) (events []said, tooLarge bool) {
	t.Helper()
	d := NewDecoder(limit)
	var ev Event
	fail := func(err error) bool {
		if err == nil {
			return false
		}
		var large *TooLargeError
		if !errors.Is(err, ErrTooLarge) || !errors.As(err, &large) || large.Limit != limit {
			t.Fatalf("error %v, want a TooLargeError with limit %d", err, limit)
		}
		return true
	}
	for rest := stream; rest != ""; {
		n := len(rest)
		if pieces != nil {
			n = min(n, pieces())
		}
		fed := []byte(rest[:n])
		rest = rest[n:]
		d.Feed(fed)
		for {
			ok, err := d.Next(&ev)
			if fail(err) {
				return events, true
			}
			if !ok {
				break
			}
			if string(fed) != stream[len(stream)-len(rest)-n:len(stream)-len(rest)] {
				t.Fatal("the decoder wrote to what was fed")
			}
			events = append(events, saidOf(&ev))
		}
		if d.in.text != nil {
			t.Fatal("the decoder holds on to what was fed")
		}
		for i := range fed {
			fed[i] = '#'
		}
		if c := cap(d.buf); c > limit {
			t.Fatalf("buffer of %d bytes with a limit of %d", c, limit)
		}
		if d.Buffered() == 0 && (cap(d.buf) > keepBytes || cap(d.join) > keepBytes) {
			t.Fatalf("%d and %d bytes kept for nothing", cap(d.buf), cap(d.join))
		}
	}
	ok, err := d.Finish(&ev)
	if fail(err) {
		return events, true
	}
	if ok {
		events = append(events, saidOf(&ev))
	}
	if ok, err := d.Finish(&ev); ok || err != nil {
		t.Fatalf("a second Finish gave %v, %v", ok, err)
	}
	return events, false
}

const noLimit = math.MaxInt

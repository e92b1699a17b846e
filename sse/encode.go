package sse

import (
	"bytes"
	"errors"
	"fmt"
	"slices"
	"strconv"
	"strings"
)

// Message is an event of our own making.
type Message struct {
	// ID goes into the id field: nil writes none, an empty one resets the
	// client's last id.
	ID []byte
	// Name goes into the event field, unless it is empty.
	Name string
	// Data may have any line ends and bytes. There is always a data field, so
	// that every client sees an event.
	Data []byte
	// Retry is the delay before a client comes back, in milliseconds; 0 or
	// less writes none.
	Retry int
}

// ErrBadField says that a field of a Message cannot be written, since it would
// end its line or be ignored.
var ErrBadField = errors.New("must not contain CR, LF or NUL")

// ValidID reports whether b can be an id: without CR, LF and NUL.
func ValidID(b []byte) bool { return !bytes.ContainsAny(b, "\r\n\x00") }

// ValidName reports whether b can be the name of an event: without CR, LF and
// NUL.
func ValidName(b []byte) bool { return ValidID(b) }

// AppendMessage appends the whole block of m, the blank line included. The error
// is an ErrBadField that names the field; dst is returned as it was then.
func AppendMessage(dst []byte, m *Message, eol EOL) ([]byte, error) {
	if !ValidID(m.ID) {
		return dst, fmt.Errorf("id: %w", ErrBadField)
	}
	if strings.ContainsAny(m.Name, "\r\n\x00") {
		return dst, fmt.Errorf("event: %w", ErrBadField)
	}
	end := eol.String()
	if m.ID != nil {
		dst = appendID(dst, m.ID, end)
	}
	if m.Name != "" {
		dst = append(dst, "event: "...)
		dst = append(dst, m.Name...)
		dst = append(dst, end...)
	}
	if m.Retry > 0 {
		dst = appendRetry(dst, m.Retry, end)
	}
	// Data that ends in a line end has one more line, an empty one: it is
	// what gives the line end back to the client.
	text, pos := linesOf(m.Data), 0
	for {
		to, next, _, _ := text.end(pos)
		dst = append(dst, "data: "...)
		dst = append(dst, m.Data[pos:to]...)
		dst = append(dst, end...)
		if next == to {
			break
		}
		pos = next
	}
	return append(dst, end...), nil
}

// AppendBlock appends ev as it goes to clients: an id line if id is not nil, the
// event's lines with the line end eol, and the blank line. The lines are copied
// byte for byte, for there are clients that count on `data:x` or on `data: x`.
// With an id given, id lines of the event's own are left out. The id must be
// valid.
//
// A Partial event is written without a blank line and without an end to a line
// that has none, so that a client that drops an unfinished last event still
// does, and one that dispatches it still does. It gets the id only when it has
// data: otherwise the id would make an event of what is none. What is to follow
// it must write a line end and a blank line first.
//
// A first line that begins with a byte order mark is left out unless an id goes
// before it. It is a field that no client knows, but at the head of a response
// the mark would be dropped, and the client know it.
func AppendBlock(dst []byte, ev *Event, id []byte, eol EOL) []byte {
	if ev.Partial && !ev.HasData {
		id = nil
	}
	end, raw := eol.String(), ev.Raw
	dst = slices.Grow(dst, len("id: ")+len(id)+len(raw)+2*len(end))
	switch {
	case id == nil:
		raw = withoutMark(raw)
	case ev.HasID || ev.Partial: // an id on a line that was cut is no HasID
		dst = appendLines(appendID(dst, id, end), raw, end, isID)
		raw = nil
	default:
		dst = appendID(dst, id, end)
	}
	if ev.EOL == eol && !ev.Mixed {
		dst = append(dst, raw...)
	} else {
		dst = appendLines(dst, raw, end, nil)
	}
	if ev.Partial {
		return dst
	}
	return append(dst, end...)
}

// AppendCommentLines appends the comments of ev as bare lines with the line end
// eol, every one of them ended, and without a blank line. Lines that are no
// comments are left out.
func AppendCommentLines(dst []byte, ev *Event, eol EOL) []byte {
	end, n := eol.String(), len(dst)
	dst = appendLines(slices.Grow(dst, len(ev.Raw)+len(end)), ev.Raw, end, isField)
	if n < len(dst) && !isEOL(dst[len(dst)-1]) {
		dst = append(dst, end...)
	}
	return dst
}

// AppendRetry appends an encoded block with a line `retry: ms` (milliseconds) put
// first, where a retry field of the block's own outdoes it. Without a block it
// appends the bare line.
func AppendRetry(dst, block []byte, ms int, eol EOL) []byte {
	return append(appendRetry(dst, ms, eol.String()), block...)
}

func appendRetry(dst []byte, ms int, end string) []byte {
	dst = append(dst, "retry: "...)
	dst = strconv.AppendInt(dst, int64(ms), 10)
	return append(dst, end...)
}

func appendID(dst, id []byte, end string) []byte {
	dst = append(dst, "id: "...)
	dst = append(dst, id...)
	return append(dst, end...)
}

// appendLines appends the lines of raw of which out is not true (all of them if
// out is nil), with end for each line end, or with the line's own if end is empty.
func appendLines(dst, raw []byte, end string, out func(line []byte) bool) []byte {
	text := linesOf(raw)
	for pos := 0; pos < len(raw); {
		to, next, _, _ := text.end(pos)
		switch {
		case out != nil && out(raw[pos:to]):
		case end == "" || to == next:
			dst = append(dst, raw[pos:next]...)
		default:
			dst = append(dst, raw[pos:to]...)
			dst = append(dst, end...)
		}
		pos = next
	}
	return dst
}

// withoutMark is raw from the first line on that does not begin with a byte
// order mark.
func withoutMark(raw []byte) []byte {
	text, pos := linesOf(raw), 0
	for len(raw)-pos >= len(bom) && string(raw[pos:pos+len(bom)]) == bom {
		_, pos, _, _ = text.end(pos)
	}
	return raw[pos:]
}

func isID(line []byte) bool {
	_, ok := field(line, "id")
	return ok
}

func isField(line []byte) bool { return line[0] != ':' }

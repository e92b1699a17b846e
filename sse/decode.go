package sse

import (
	"errors"
	"fmt"
	"math"
)

// Event is one block of a stream as it was received: its lines, and what they
// say. All its slices are valid only until the next call of Next, Feed or
// Finish, and none of them may be written to.
type Event struct {
	// Raw is the block's lines as received, each with its own line end,
	// without the blank line that ends the block. It has comments and unknown
	// fields too; only id lines with a NUL in them, which every client
	// ignores, are left out.
	Raw []byte
	// EOL is the line end of the block's first line.
	EOL EOL
	// Mixed says that the lines of the block have different line ends.
	Mixed bool
	// ID is the last valid id field of this block, if HasID. An empty one
	// resets the client's last id.
	ID    []byte
	HasID bool
	// Name is the last event field, empty if there was none.
	Name []byte
	// Data is the values of the data fields, joined by LF. A block of one
	// data line costs no copy. HasData tells an empty `data` from none, that
	// is, whether a client sees an event at all.
	Data    []byte
	HasData bool
	// Retry is the last valid retry field in milliseconds, -1 if there was
	// none. What is not all digits or does not fit an int is not valid.
	Retry int
	// Comment says that the block has comment lines only.
	Comment bool
	// Partial says that the input ended before the blank line, and perhaps
	// within a line. Such a line counts for Data and Name, as it does for
	// clients that dispatch what is left at the end, but not for ID and
	// Retry: half an id may name another event. Only Finish gives such a
	// block.
	Partial bool
}

// ErrTooLarge says that a block has more bytes than the decoder was told to
// take.
var ErrTooLarge = errors.New("event too large")

// TooLargeError is how a Decoder says ErrTooLarge: errors.Is matches it.
type TooLargeError struct {
	Limit int // bytes
}

func (e *TooLargeError) Error() string {
	return fmt.Sprintf("%v: more than %d bytes before the blank line that ends it", ErrTooLarge, e.Limit)
}

func (e *TooLargeError) Unwrap() error { return ErrTooLarge }

const (
	bom = "\xEF\xBB\xBF"
	// keepBytes is what a buffer may keep while nothing is in it. A larger
	// one is let go, for a stream may be silent for hours after one large
	// event.
	keepBytes = 4 << 10
	// firstBytes is the size a buffer begins with.
	firstBytes = 256
)

// A Decoder cuts the bytes of an event stream into blocks, as WHATWG HTML §9.2.6
// has it, and gives the same blocks however the bytes are cut on the way. Feed
// it what was read, then call Next until it says false, and so on; Finish
// gives what is left at the end.
//
// A block that lies whole in what was fed is given as slices of it, without a
// copy. The start of a block that was cut is kept in a buffer of the decoder's
// own, which never outgrows the limit; data of several lines is joined in a
// second one, no larger. Between events neither keeps more than 4 KiB.
//
// A Decoder is for one goroutine at a time.
type Decoder struct {
	max    int
	in     lines // what was fed
	pos    int   // in.text[:pos] is read
	mark   int   // bytes of a leading byte order mark that were seen; len(bom) once that question is settled
	buf    []byte
	line   int    // buf[line:] is a line whose end was not seen yet
	join   []byte // the data so far, once there is more than one line
	cur    block  // the block that is being read
	little bool   // buf was almost empty at the last rest
	given  bool   // buf belongs to the event given last
	err    error
}

// span is a part of a block, counted from the block's start, so that it holds
// true in the fed slice and in the buffer alike.
type span struct{ from, to int }

// block is what the finished lines of an unfinished block said.
type block struct {
	id, name, data span
	retry          int
	dataLines      int
	eol            EOL   // of the first line
	eols           uint8 // a bit for each kind of line end
	hasID          bool
	hasRetry       bool
	fields         bool // there is a line that is no comment
	badID          bool // there are lines to be left out
}

// NewDecoder returns a decoder that takes blocks of up to max bytes, the blank
// line that ends them not counted.
func NewDecoder(max int) *Decoder { return &Decoder{max: max} }

// Feed hands p to the decoder. Next reads it; until Next has returned false, p
// must not change, and Feed and Finish panic, since what is unread would be lost.
func (d *Decoder) Feed(p []byte) {
	if d.err != nil {
		return
	}
	d.mustBeRead()
	d.in, d.pos = linesOf(p), 0
}

// mustBeRead panics rather than let what is unread get lost.
func (d *Decoder) mustBeRead() {
	if d.pos < len(d.in.text) {
		panic("sse: Feed or Finish before Next returned false")
	}
}

// Next fills ev with the next block and returns true, or returns false when
// there is no whole block left in what was fed. The only error is a
// *TooLargeError, as soon as more bytes of a block were seen than allowed; it
// ends the decoder, and comes again on every later call.
func (d *Decoder) Next(ev *Event) (bool, error) {
	if d.err != nil {
		return false, d.err
	}
	if d.mark < len(bom) {
		if d.skipMark(); d.err != nil {
			return false, d.err
		}
	}
	for {
		if d.given {
			d.given, d.line, d.buf = false, 0, d.buf[:0]
		}
		var raw []byte
		var ok bool
		if len(d.buf) > 0 {
			raw, ok = d.resume()
		} else {
			raw, ok = d.whole()
		}
		if !ok {
			d.rest()
			return false, d.err
		}
		if d.fill(ev, raw) {
			return true, nil
		}
	}
}

// Finish is called once Next has returned false and no more input will come. It
// fills ev with what is left, a block that no blank line ended, and returns
// true; or it returns false when nothing is left. The error is that of Next.
func (d *Decoder) Finish(ev *Event) (bool, error) {
	if d.err == nil && 0 < d.mark && d.mark < len(bom) {
		d.hold([]byte(bom[:d.mark]))
	}
	if d.err != nil {
		return false, d.err
	}
	d.mustBeRead()
	d.mark = len(bom)
	if d.given || len(d.buf) == 0 {
		return false, nil
	}
	if n := len(d.buf); d.line < n {
		if d.buf[n-1] == '\r' {
			d.take(d.buf, d.line, n-1, CR)
		} else {
			d.takeCut()
		}
	}
	ok := d.fill(ev, d.buf)
	d.given = true
	ev.Partial = ok
	return ok, nil
}

// Buffered is the number of bytes of an unfinished block that are kept inside.
func (d *Decoder) Buffered() int {
	switch {
	case d.given:
		return 0
	case d.mark < len(bom):
		return d.mark
	}
	return len(d.buf)
}

// skipMark drops a byte order mark from the start of the stream. What turns out
// to be only the first bytes of one is the start of a line.
func (d *Decoder) skipMark() {
	for ; d.mark < len(bom) && d.pos < len(d.in.text); d.pos++ {
		if d.in.text[d.pos] != bom[d.mark] {
			d.hold([]byte(bom[:d.mark]))
			d.mark = len(bom)
			return
		}
		d.mark++
	}
}

// whole reads a block that begins in what was fed. When it does not end there,
// its start goes to the buffer.
func (d *Decoder) whole() (raw []byte, ok bool) {
	p, start := d.in.text, d.pos
	// Before a block every CR and LF is a blank line, or the LF of a CRLF
	// whose CR ended the block before.
	for start < len(p) && isEOL(p[start]) {
		start++
	}
	pos := start
	for pos < len(p) {
		if isEOL(p[pos]) {
			d.pos = pos + 1
			return p[start:pos], true
		}
		end, next, eol, ok := d.in.end(pos)
		if !ok {
			break
		}
		if next-start > d.max {
			d.fail()
			return nil, false
		}
		d.take(p[start:], pos-start, end-start, eol)
		pos = next
	}
	d.pos = len(p)
	d.line = pos - start
	d.hold(p[start:])
	return nil, false
}

// resume reads on in a block whose start is in the buffer.
func (d *Decoder) resume() (raw []byte, ok bool) {
	p := d.in.text
	if n := len(d.buf); d.pos < len(p) && d.line < n && d.buf[n-1] == '\r' {
		eol := CR
		if p[d.pos] == '\n' {
			d.pos++
			if !d.hold([]byte{'\n'}) {
				return nil, false
			}
			eol = CRLF
		}
		d.take(d.buf, d.line, n-1, eol)
		d.line = len(d.buf)
	}
	for d.pos < len(p) {
		if d.line == len(d.buf) && isEOL(p[d.pos]) {
			d.pos++
			d.given = true
			return d.buf, true
		}
		end, next, eol, ok := d.in.end(d.pos)
		if !d.hold(p[d.pos:next]) {
			return nil, false
		}
		d.pos = next
		if ok {
			d.take(d.buf, d.line, len(d.buf)-(next-end), eol)
			d.line = len(d.buf)
		}
	}
	return nil, false
}

func isEOL(c byte) bool { return c == '\n' || c == '\r' }

// take notes what the line b[from:to] of block b says. It is never empty.
func (d *Decoder) take(b []byte, from, to int, eol EOL) {
	k, line := &d.cur, b[from:to]
	switch line[0] {
	case ':':
	case 'd':
		k.fields = true
		if at, ok := field(line, "data"); ok {
			d.takeData(b, span{from + at, to})
		}
	case 'e':
		k.fields = true
		if at, ok := field(line, "event"); ok {
			k.name = span{from + at, to}
		}
	case 'i':
		if badID(line) {
			k.badID = true
			return
		}
		k.fields = true
		if at, ok := field(line, "id"); ok {
			k.id, k.hasID = span{from + at, to}, true
		}
	case 'r':
		k.fields = true
		if at, ok := field(line, "retry"); ok {
			if ms, ok := digits(line[at:]); ok {
				k.retry, k.hasRetry = ms, true
			}
		}
	default:
		k.fields = true
	}
	if k.eols == 0 {
		k.eol = eol
	}
	k.eols |= 1 << eol
}

// takeCut notes what the last line says, that the end of the input cut.
func (d *Decoder) takeCut() {
	was := d.cur
	d.take(d.buf, d.line, len(d.buf), LF)
	d.cur.id, d.cur.hasID = was.id, was.hasID
	d.cur.retry, d.cur.hasRetry = was.retry, was.hasRetry
	d.cur.eol, d.cur.eols = was.eol, was.eols
}

// takeData notes one more data line. The first is only pointed at; joining
// begins with the second.
func (d *Decoder) takeData(b []byte, v span) {
	k := &d.cur
	k.dataLines++
	switch k.dataLines {
	case 1:
		k.data = v
		return
	case 2:
		first := b[k.data.from:k.data.to]
		d.join = append(room(d.join[:0], len(first)+1, d.max), first...)
	}
	d.join = room(d.join, 1+v.to-v.from, d.max)
	d.join = append(d.join, '\n')
	d.join = append(d.join, b[v.from:v.to]...)
}

// digits reads a number of ASCII digits.
func digits(b []byte) (n int, ok bool) {
	for _, c := range b {
		if c < '0' || c > '9' {
			return 0, false
		}
		if n > (math.MaxInt-int(c-'0'))/10 {
			return 0, false
		}
		n = n*10 + int(c-'0')
	}
	return n, len(b) > 0
}

// fill makes ev of the block raw and forgets the block. It returns false when
// the block had nothing but lines that are left out.
func (d *Decoder) fill(ev *Event, raw []byte) bool {
	k := &d.cur
	ev.EOL = k.eol
	ev.Mixed = k.eols&(k.eols-1) != 0
	ev.HasID = k.hasID
	ev.ID = nil
	if k.hasID {
		ev.ID = raw[k.id.from:k.id.to:k.id.to]
	}
	ev.Name = nil
	if k.name.to > 0 {
		ev.Name = raw[k.name.from:k.name.to:k.name.to]
	}
	ev.HasData = k.dataLines > 0
	switch k.dataLines {
	case 0:
		ev.Data = nil
	case 1:
		ev.Data = raw[k.data.from:k.data.to:k.data.to]
	default:
		ev.Data = d.join[:len(d.join):len(d.join)]
	}
	ev.Retry = -1
	if k.hasRetry {
		ev.Retry = k.retry
	}
	ev.Comment = !k.fields
	ev.Partial = false
	ev.Raw = raw[:len(raw):len(raw)]
	if k.badID {
		// Rare enough to be worth its own memory: the other slices
		// stay as they are.
		ev.Raw = appendLines(make([]byte, 0, len(raw)), raw, "", badID)
	}
	*k = block{}
	return len(ev.Raw) > 0
}

// hold adds p to the buffer, if the limit allows it.
func (d *Decoder) hold(p []byte) bool {
	if len(d.buf)+len(p) > d.max {
		d.fail()
		return false
	}
	d.buf = append(room(d.buf, len(p), d.max), p...)
	return true
}

// fail ends the decoder.
func (d *Decoder) fail() { *d = Decoder{err: &TooLargeError{Limit: d.max}} }

// rest lets go of what is not needed until the next Feed. Buffers that grew are
// let go when nothing is in them, or when there was little in them twice in a
// row: the start of one more large event does not cost a new buffer, but bare
// comment lines, which never end a block, do not hold on to a large one.
func (d *Decoder) rest() {
	d.in, d.pos = lines{}, 0
	if d.cur.dataLines < 2 {
		d.join = d.join[:0]
	}
	little := len(d.buf) <= cap(d.buf)/16
	if len(d.buf) == 0 || little && d.little {
		d.buf, d.join = trim(d.buf), trim(d.join)
	}
	d.little = little
}

// room returns b with room for n bytes more. It doubles, as append does, but
// not past limit unless it must.
func room(b []byte, n, limit int) []byte {
	n += len(b)
	if n <= cap(b) {
		return b
	}
	size := max(n, min(limit, max(2*cap(b), firstBytes)))
	return append(make([]byte, 0, size), b...)
}

// trim lets go of a buffer that is large, and far too large for what is in it.
func trim(b []byte) []byte {
	switch {
	case cap(b) <= keepBytes || len(b) > cap(b)/16:
		return b
	case len(b) == 0:
		return nil
	}
	return append(make([]byte, 0, max(2*len(b), firstBytes)), b...)
}

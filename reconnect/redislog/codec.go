package redislog

import (
	"encoding/binary"
	"fmt"
	"slices"
	"strconv"
	"strings"

	"ssegate/reconnect"
	"ssegate/sse"
)

// An entry holds one frame, or several that were appended together. Its id is
// the position of the last of them. Its field is
//
//	1 <kind> <end>            one frame
//	1 <kind> <end> : <id>     one frame that has an upstream's id
//	1 <kind> <end> * <seq>    several frames, the first with this Seq
//	1 <kind> <end> + <n>      n frames, of which some may have a Meta
//	1 <kind> <end> + <n> @ <time>  n frames that the log took at that time
//
// version, kind and end one character each; kind and end are those of the last
// frame. The value of one frame is its block, so redis-cli shows
//
//  1. "1790000000123-7"
//  2. 1) "1e0:evt_9"
//  2. "id: evt_9\ndata: hello\n\n"
//
// Several frames are packed, each as one byte of flags, the id if the flags
// say so, the Meta if they do, and the block, each with its length before it as
// a uvarint. What is published is always packed, so that the scripts can number
// it, and cut out a frame that is there already.
const version = '1'

// kinds are the letters of the kinds that stand in a log, by sse.Kind: event,
// bare, end and fence. The scripts know a fence by its letter.
const kinds = "?ebzf"

// The flags of a packed frame.
const (
	kindBits  = 0b11    // sse.Kind
	idBits    = 0b11_00 // one of the following
	idNone    = 0b00_00 // no id
	idOwn     = 0b01_00 // its length and bytes follow
	idAsLast  = 0b10_00 // the id of the frame before
	endOffset = 4       // sse.End is above
	endBits   = 0b111   // of it, where there may be a Meta
	metaBit   = 1 << 7  // a Meta follows, where there may be one
)

// How much goes into one entry. Redis hands out whole entries only: to a reader
// that wants the last frame of one, and to who wants to know where a log ends.
const (
	entryFrames = 256
	entryBytes  = 32 << 10 // of ids and blocks, unless a single frame is bigger
)

// fit is how many of the frames go into one entry: at least one.
func fit(frames []sse.Frame) int {
	size := 0
	for n := range frames {
		f := &frames[n]
		size += len(f.ID) + len(f.Meta) + len(f.Block)
		if n == entryFrames || n > 0 && (size > entryBytes || f.Time != frames[0].Time) {
			return n
		}
	}
	return len(frames)
}

// appendPos appends a position as an entry id.
func appendPos(dst []byte, p sse.Pos) []byte {
	dst = strconv.AppendUint(dst, p.Epoch, 10)
	return strconv.AppendUint(append(dst, '-'), p.Seq, 10)
}

// encode makes the id, field and value of an entry.
func encode(frames []sse.Frame) (id, field, value []byte) {
	last := &frames[len(frames)-1]
	head := appendPos(make([]byte, 0, 64), last.Pos)
	id = head[:len(head):len(head)]
	head = appendField(head, last.Kind, last.End)
	if last.Time != 0 || slices.ContainsFunc(frames, hasMeta) {
		head = strconv.AppendInt(append(head, '+'), int64(len(frames)), 10)
		if last.Time != 0 {
			head = strconv.AppendInt(append(head, '@'), last.Time, 10)
		}
		value = pack(frames)
	} else if len(frames) > 1 {
		head = strconv.AppendUint(append(head, '*'), frames[0].Pos.Seq, 10)
		value = pack(frames)
	} else {
		if last.ID != nil {
			head = append(append(head, ':'), last.ID...)
		}
		value = last.Block
	}
	return id, head[len(id):], value
}

func hasMeta(f sse.Frame) bool { return f.Meta != nil }

func appendField(dst []byte, kind sse.Kind, end sse.End) []byte {
	return append(dst, version, kinds[kind], '0'+byte(end))
}

func pack(frames []sse.Frame) []byte {
	size := 0
	for i := range frames {
		f := &frames[i]
		size += 1 + 3*binary.MaxVarintLen32 + len(f.ID) + len(f.Meta) + len(f.Block)
	}
	dst := make([]byte, 0, size)
	var before []byte
	for i := range frames {
		f := &frames[i]
		flags := byte(f.Kind) | byte(f.End)<<endOffset
		if f.Meta != nil {
			flags |= metaBit
		}
		switch {
		case f.ID == nil:
			dst = append(dst, flags)
		case before != nil && string(before) == string(f.ID):
			dst = append(dst, flags|idAsLast)
		default:
			dst = appendChunk(append(dst, flags|idOwn), f.ID)
		}
		before = f.ID
		if f.Meta != nil {
			dst = appendChunk(dst, f.Meta)
		}
		dst = appendChunk(dst, f.Block)
	}
	return dst
}

// packPost packs one frame that leans on none before it.
func packPost(dst []byte, p *reconnect.Post) []byte {
	flags := byte(sse.KindEvent)
	if p.Meta != nil {
		flags |= metaBit
	}
	if p.ID != nil {
		dst = appendChunk(append(dst, flags|idOwn), p.ID)
	} else {
		dst = append(dst, flags)
	}
	if p.Meta != nil {
		dst = appendChunk(dst, p.Meta)
	}
	return appendChunk(dst, p.Block)
}

func appendChunk(dst, b []byte) []byte {
	return append(binary.AppendUvarint(dst, uint64(len(b))), b...)
}

// entry is an entry as Redis replies it.
type entry struct {
	pos    sse.Pos // of the last frame
	first  uint64  // Seq of the first frame
	kind   sse.Kind
	end    sse.End
	hasID  bool
	packed bool
	metas  bool  // some may have one
	time   int64 // of all frames
	id     string
	value  string
}

func parsePos(s string) (p sse.Pos, ok bool) {
	epoch, seq, found := strings.Cut(s, "-")
	var err1, err2 error
	p.Epoch, err1 = strconv.ParseUint(epoch, 10, 64)
	p.Seq, err2 = strconv.ParseUint(seq, 10, 64)
	return p, found && err1 == nil && err2 == nil
}

// parseHead reads an entry's id and field.
func (e *entry) parseHead(id, field string) (ok bool) {
	e.pos, ok = parsePos(id)
	if !ok || len(field) < 3 || field[0] != version || field[2] < '0' || field[2] > '9' {
		return false
	}
	e.kind = sse.Kind(strings.IndexByte(kinds[1:], field[1]) + 1)
	e.end = sse.End(field[2] - '0')
	e.first = e.pos.Seq
	if e.kind == 0 || e.pos.Seq == 0 && e.kind != sse.KindFence {
		return false
	}
	switch rest := field[3:]; {
	case rest == "":
	case rest[0] == ':':
		e.hasID, e.id = true, rest[1:]
	case rest[0] == '*':
		var err error
		e.first, err = strconv.ParseUint(rest[1:], 10, 64)
		e.packed = true
		return err == nil && e.first > 0 && e.first <= e.pos.Seq
	case rest[0] == '+':
		count, time, timed := strings.Cut(rest[1:], "@")
		n, err1 := strconv.ParseUint(count, 10, 64)
		var err2 error
		if timed {
			e.time, err2 = strconv.ParseInt(time, 10, 64)
		}
		e.packed, e.metas = true, true
		e.first = e.pos.Seq - n + 1
		return err1 == nil && err2 == nil && n > 0 && n <= e.pos.Seq && timed == (e.time != 0)
	default:
		return false
	}
	return true
}

// parseEntry reads one entry of a reply to XRANGE.
func parseEntry(reply any) (e entry, err error) {
	parts, _ := reply.([]any)
	if len(parts) != 2 {
		return e, broken("not an entry", reply)
	}
	id, _ := parts[0].(string)
	fields, _ := parts[1].([]any)
	if len(fields) != 2 {
		return e, broken("an entry that is none of ours", reply)
	}
	field, ok1 := fields[0].(string)
	value, ok2 := fields[1].(string)
	if !ok1 || !ok2 || !e.parseHead(id, field) {
		return e, broken("an entry that is none of ours", reply)
	}
	e.value = value
	return e, nil
}

// size is how many bytes the frames of the entry need.
func (e *entry) size() int { return len(e.id) + len(e.value) }

// appendFrames appends the frames of the entry whose Seq is from or above and
// to or below. Their bytes lie in buf, which has room for them; what is left
// of it is returned.
func (e *entry) appendFrames(dst []sse.Frame, buf []byte, from, to uint64) ([]sse.Frame, []byte, error) {
	value, buf := cut(buf, copy(buf, e.value))
	if e.packed {
		dst, ok := e.unpack(dst, value, from, to)
		if !ok {
			return dst, buf, broken("an entry that is cut or mangled", e.pos)
		}
		return dst, buf, nil
	}
	if e.first < from || e.first > to {
		return dst, buf, nil
	}
	f := sse.Frame{Pos: e.pos, Kind: e.kind, End: e.end, Block: value}
	if e.hasID {
		f.ID, buf = cut(buf, copy(buf, e.id))
	}
	return append(dst, f), buf, nil
}

// unpack is what undoes pack.
func (e *entry) unpack(dst []sse.Frame, value []byte, from, to uint64) (_ []sse.Frame, ok bool) {
	next := func() []byte { // what has its length before it
		n, used := binary.Uvarint(value)
		if ok = used > 0 && n <= uint64(len(value)-used); !ok {
			return nil
		}
		var b []byte
		b, value = cut(value[used:], int(n))
		return b
	}
	f := sse.Frame{Pos: sse.Pos{Epoch: e.pos.Epoch}, Time: e.time}
	for seq := e.first; seq <= to; seq++ {
		if len(value) == 0 {
			return dst, false
		}
		flags := value[0]
		value = value[1:]
		f.Pos.Seq = seq
		f.Kind, f.End = sse.Kind(flags&kindBits), sse.End(flags>>endOffset)
		switch flags & idBits {
		case idNone:
			f.ID = nil
		case idOwn:
			f.ID = next()
		}
		if e.metas {
			f.End &= endBits
			if f.Meta = nil; flags&metaBit != 0 {
				f.Meta = next()
			}
		}
		if f.Block = next(); !ok || f.Kind == 0 {
			return dst, false
		}
		if seq >= from {
			dst = append(dst, f)
		}
		if seq == e.pos.Seq {
			return dst, len(value) == 0
		}
	}
	return dst, true
}

// cut splits b behind its first n bytes, with no way from one part to the
// other.
func cut(b []byte, n int) (head, tail []byte) { return b[:n:n], b[n:] }

// broken says that a reply is not what a log of ours would give.
func broken(what string, reply any) error {
	return fmt.Errorf("%w: %s: %.200q", reconnect.ErrBroken, what, fmt.Sprint(reply))
}

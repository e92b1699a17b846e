package hub

import (
	"encoding/binary"
	"math/bits"
	"sync/atomic"

	"ssegate/sse"
)

// Sizes of a segment's buffer. The largest keeps one write near to what a
// socket takes at once.
const (
	minSegment = 512
	maxSegment = 64 << 10
)

// A segment is a piece of a ring. Frames are added at its end by one appender
// (under the stream's lock) and read by followers without any lock: what lies
// below the published count n never changes again. The garbage collector
// frees a segment when it was dropped from the ring and nobody reads it.
type segment struct {
	buf   []byte  // chunk-framed blocks from the front, what lies beside them from the back
	index []entry // one a frame; as long as its capacity from the start
	first uint64  // frames of the stream before this segment
	base  uint64  // and bytes
	epoch uint64  // of every frame in it
	old   uint64  // the epoch before, of which the stream has everything up to
	fork  uint64  // this Seq and nothing more; 0 where that is not known

	next    atomic.Pointer[segment] // set once, after the last publish here
	moved   atomic.Pointer[segment] // set once: the copy that is in the ring instead
	n       atomic.Int32            // published entries
	readers atomic.Int32            // followers whose cursor is here
	gone    atomic.Bool             // dropped from the ring
	asks    atomic.Bool             // has a frame that a follower may refuse

	// The appender's own.
	used uint32 // bytes of buf from the front
	back uint32 // where begins what is kept from the back
}

// An entry says where a frame lies in its segment.
type entry struct {
	seq        uint64 // of the frame; of the numbered frame before it where it has no number
	start, end uint32 // its bytes, chunk framing included; equal when the block is empty
	at         uint32 // where in buf lies what is beside the block; as before where there is nothing
	kind       sse.Kind
	how        sse.End
	head       uint8 // bytes of the chunk header
	has        uint8 // what is beside the block
}

const entrySize = 24

// What an entry may have beside its block: at its place stand the id (its
// length first; of a frame without one, a length of 0), and if it has more,
// the time and the meta (its length first).
const (
	hasID = 1 << iota
	hasMore
	hasMeta
	hasAsk // it bears meta and may be refused
)

// numbered reports whether the frame counts in the stream's sequence.
func (e *entry) numbered() bool { return e.kind != sse.KindNote && e.kind != sse.KindFence }

// block returns where the block lies without its chunk framing.
func (e *entry) block() (from, to uint32) {
	if e.start == e.end {
		return e.start, e.end
	}
	return e.start + uint32(e.head), e.end - 2
}

// newSegment returns an empty segment with room for size bytes and count
// frames; with none of both it is only a place to wait at.
func newSegment(size, count int, first, base, epoch uint64) *segment {
	seg := &segment{first: first, base: base, epoch: epoch, back: uint32(size)}
	if size > 0 {
		seg.buf = make([]byte, size)
	}
	if count > 0 {
		seg.index = make([]entry, count)
	}
	return seg
}

// vouches reports whether p is a place in the stream that this segment goes on
// with: it is of the same epoch, or of the one before and not beyond the last
// frame that counts of that. Of an unknown epoch only the Seq counts.
func (seg *segment) vouches(p sse.Pos) bool {
	return p.Seq == 0 || p.Epoch == 0 || p.Epoch >= seg.epoch || p.Epoch == seg.old && p.Seq <= seg.fork
}

// cost is what the segment holds of the memory budget, in bytes.
func (seg *segment) cost() int64 { return int64(len(seg.buf) + entrySize*len(seg.index)) }

// room is what a frame needs of a segment's buffer, at most.
func room(f *sse.Frame) int {
	n := 0
	if len(f.Block) > 0 {
		n = chunkHead(len(f.Block)) + len(f.Block) + 2
	}
	if f.ID != nil {
		n += binary.MaxVarintLen32 + len(f.ID)
	}
	if hasMoreThanID(f) {
		n += 2*binary.MaxVarintLen32 + binary.MaxVarintLen64 + len(f.Meta)
	}
	return n
}

// fits reports whether a frame that needs so much room can be added.
func (seg *segment) fits(need int) bool {
	return int(seg.n.Load()) < len(seg.index) && int(seg.used)+need <= int(seg.back)
}

// add copies a frame to the end and publishes it. The caller has made sure
// that it fits.
func (seg *segment) add(f *sse.Frame, seq uint64) {
	n := seg.n.Load()
	e := &seg.index[n]
	*e = entry{seq: seq, start: seg.used, at: seg.back, kind: f.Kind, how: f.End}
	if len(f.Block) > 0 {
		e.head = uint8(chunkHead(len(f.Block)))
		seg.used = uint32(len(appendChunk(seg.buf[:seg.used], f.Block)))
	}
	e.end = seg.used
	switch {
	case hasMoreThanID(f):
		seg.addMore(e, f)
	case f.ID != nil:
		e.has, e.at = hasID, seg.addID(f.ID)
	}
	seg.n.Store(n + 1)
}

func hasMoreThanID(f *sse.Frame) bool { return f.Time != 0 || f.Meta != nil }

// addMore keeps what a topic's frame bears.
func (seg *segment) addMore(e *entry, f *sse.Frame) {
	e.has = hasMore
	if f.ID != nil {
		e.has |= hasID
	}
	if f.Meta != nil {
		e.has |= hasMeta
		if asks(f) {
			e.has |= hasAsk
			seg.asks.Store(true)
		}
	}
	var b [2*binary.MaxVarintLen32 + binary.MaxVarintLen64]byte
	id := binary.PutUvarint(b[:], uint64(len(f.ID)))
	more := id + binary.PutUvarint(b[id:], uint64(f.Time))
	more += binary.PutUvarint(b[more:], uint64(len(f.Meta)))
	seg.back -= uint32(more + len(f.ID) + len(f.Meta))
	at := seg.back
	for _, part := range [...][]byte{b[:id], f.ID, b[id:more], f.Meta} {
		at += uint32(copy(seg.buf[at:], part))
	}
	e.at = seg.back
}

// addID keeps an id once for all frames in a row that bear it.
func (seg *segment) addID(id []byte) uint32 {
	if int(seg.back) < len(seg.buf) {
		if last, _ := seg.text(seg.back); string(last) == string(id) {
			return seg.back
		}
	}
	var length [binary.MaxVarintLen32]byte
	n := binary.PutUvarint(length[:], uint64(len(id)))
	seg.back -= uint32(n + len(id))
	copy(seg.buf[seg.back:], length[:n])
	copy(seg.buf[int(seg.back)+n:], id)
	return seg.back
}

// text returns the bytes that stand at a place with their length first, and
// where they end.
func (seg *segment) text(at uint32) (b []byte, end uint32) {
	size, n := binary.Uvarint(seg.buf[at:])
	from := at + uint32(n)
	end = from + uint32(size)
	return seg.buf[from:end:end], end
}

// beside returns what an entry has beside its block.
func (seg *segment) beside(e *entry) (id []byte, time int64, meta []byte) {
	if e.has == 0 {
		return nil, 0, nil
	}
	text, at := seg.text(e.at)
	if e.has&hasID != 0 {
		id = text
	}
	if e.has&hasMore != 0 {
		t, n := binary.Uvarint(seg.buf[at:])
		time = int64(t)
		text, _ = seg.text(at + uint32(n))
	}
	if e.has&hasMeta != 0 {
		meta = text
	}
	return id, time, meta
}

// spare is how much of cost it would not need if nothing more were added.
func (seg *segment) spare() int64 {
	return int64(seg.back-seg.used) + entrySize*int64(len(seg.index)-int(seg.n.Load()))
}

// tight returns a copy that has room for nothing more.
func (seg *segment) tight() *segment {
	n, spare := seg.n.Load(), seg.back-seg.used
	c := newSegment(len(seg.buf)-int(spare), int(n), seg.first, seg.base, seg.epoch)
	c.old, c.fork = seg.old, seg.fork
	c.used, c.back = seg.used, seg.used
	copy(c.buf, seg.buf[:seg.used])
	copy(c.buf[c.back:], seg.buf[seg.back:])
	for i, e := range seg.index[:n] {
		e.at -= spare
		c.index[i] = e
	}
	c.asks.Store(seg.asks.Load())
	c.n.Store(n)
	return c
}

// after returns the first of the n published entries that stands behind seq.
func (seg *segment) after(seq uint64, n int32) int32 {
	lo, hi := int32(0), n
	for lo < hi {
		mid := int32(uint32(lo+hi) >> 1)
		if seg.index[mid].seq <= seq {
			lo = mid + 1
		} else {
			hi = mid
		}
	}
	return lo
}

// chunkHead is the length of the header of a chunk of size bytes.
func chunkHead(size int) int { return (bits.Len(uint(size))+3)/4 + 2 }

// appendChunk appends data as one chunk of HTTP/1.1 framing. Empty data adds
// nothing: an empty chunk would end the body.
func appendChunk(dst, data []byte) []byte {
	if len(data) == 0 {
		return dst
	}
	const digits = "0123456789abcdef"
	for shift := (bits.Len(uint(len(data))) + 3) / 4 * 4; shift > 0; {
		shift -= 4
		dst = append(dst, digits[len(data)>>shift&15])
	}
	dst = append(dst, '\r', '\n')
	dst = append(dst, data...)
	return append(dst, '\r', '\n')
}

// lastChunk ends a chunked body.
const lastChunk = "0\r\n\r\n"

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
	buf   []byte  // chunk-framed blocks from the front, upstream ids from the back
	index []entry // one a frame; as long as its capacity from the start
	first uint64  // frames of the stream before this segment
	base  uint64  // and bytes
	epoch uint64  // of every frame in it
	old   uint64  // the epoch before, of which the stream has everything up to
	fork  uint64  // this Seq and nothing more; 0 where that is not known

	n       atomic.Int32            // published entries
	next    atomic.Pointer[segment] // set once, after the last publish here
	readers atomic.Int32            // followers whose cursor is here
	gone    atomic.Bool             // dropped from the ring

	// The appender's own.
	used int // bytes of buf from the front
	ids  int // where the ids begin, from the back
}

// An entry says where a frame lies in its segment.
type entry struct {
	seq        uint64 // of the frame; of the numbered frame before it where it has no number
	start, end uint32 // its bytes, chunk framing included; equal when the block is empty
	id         uint32 // where the id lies in buf (its length first), or noID
	kind       sse.Kind
	how        sse.End
	head       uint8 // bytes of the chunk header
}

const (
	noID      = ^uint32(0)
	entrySize = 24
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
	seg := &segment{first: first, base: base, epoch: epoch, ids: size}
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
	return n
}

// fits reports whether a frame that needs so much room can be added.
func (seg *segment) fits(need int) bool {
	return int(seg.n.Load()) < len(seg.index) && seg.used+need <= seg.ids
}

// add copies a frame to the end and publishes it. The caller has made sure
// that it fits.
func (seg *segment) add(f *sse.Frame, seq uint64) {
	n := seg.n.Load()
	e := &seg.index[n]
	*e = entry{seq: seq, start: uint32(seg.used), kind: f.Kind, how: f.End, id: noID}
	if len(f.Block) > 0 {
		e.head = uint8(chunkHead(len(f.Block)))
		seg.used = len(appendChunk(seg.buf[:seg.used], f.Block))
	}
	e.end = uint32(seg.used)
	if f.ID != nil {
		e.id = seg.addID(f.ID)
	}
	seg.n.Store(n + 1)
}

// addID keeps an id once for all frames in a row that bear it.
func (seg *segment) addID(id []byte) uint32 {
	if seg.ids < len(seg.buf) && string(seg.idAt(uint32(seg.ids))) == string(id) {
		return uint32(seg.ids)
	}
	var length [binary.MaxVarintLen32]byte
	n := binary.PutUvarint(length[:], uint64(len(id)))
	seg.ids -= n + len(id)
	copy(seg.buf[seg.ids:], length[:n])
	copy(seg.buf[seg.ids+n:], id)
	return uint32(seg.ids)
}

func (seg *segment) idAt(at uint32) []byte {
	if at == noID {
		return nil
	}
	size, n := binary.Uvarint(seg.buf[at:])
	from := int(at) + n
	to := from + int(size)
	return seg.buf[from:to:to]
}

// frame returns a frame as it was appended; it shares the segment's memory.
func (seg *segment) frame(i int32) sse.Frame {
	e := &seg.index[i]
	f := sse.Frame{Kind: e.kind, End: e.how, ID: seg.idAt(e.id)}
	if e.kind != sse.KindNote {
		f.Pos = sse.Pos{Epoch: seg.epoch, Seq: e.seq}
	}
	if from, to := e.block(); from < to {
		f.Block = seg.buf[from:to:to]
	}
	return f
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

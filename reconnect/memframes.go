package reconnect

import (
	"math"
	"sort"
	"unsafe"

	"ssegate/sse"
)

// chunkLen is how many frames a full chunk holds.
const chunkLen = 64

// frames is a queue of frames in ascending order of Seq. It is made of chunks,
// each bigger than the one before up to chunkLen, so that a short log is small
// and a long one is never copied.
type frames struct {
	chunks []*chunk // none of them empty
	head   int      // frames of chunks[0] that are dropped already
	n      int
	spare  *chunk // an empty one of full size
}

// A chunk holds frames of one epoch. Logs are most of what a busy node has in
// memory, so what all frames of a chunk have in common is kept once, and what
// few have is kept beside: an item is less than a third of an [sse.Frame].
type chunk struct {
	first sse.Pos // of items[0]
	items []item
	more  []more // nil, or one an item
}

type item struct {
	block, id         *byte // what they point to is kept alive by them
	blockSize, idSize uint32
	ahead             uint32 // of first.Seq
	kind              sse.Kind
	end               sse.End
}

// more is what only frames of topics have.
type more struct {
	time int64
	meta []byte
}

// takes reports whether a frame can be added.
func (c *chunk) takes(f *sse.Frame) bool {
	return len(c.items) < cap(c.items) && (len(c.items) == 0 || f.Pos.Epoch == c.first.Epoch && f.Pos.Seq-c.first.Seq <= math.MaxUint32)
}

func (c *chunk) push(f *sse.Frame) {
	if len(c.items) == 0 {
		c.first = f.Pos
	}
	if c.more != nil || hasMore(f) {
		if c.more == nil {
			c.more = make([]more, len(c.items), cap(c.items))
		}
		c.more = append(c.more, more{f.Time, f.Meta})
	}
	c.items = append(c.items, item{
		block: unsafe.SliceData(f.Block), blockSize: uint32(len(f.Block)),
		id: unsafe.SliceData(f.ID), idSize: uint32(len(f.ID)),
		ahead: uint32(f.Pos.Seq - c.first.Seq), kind: f.Kind, end: f.End,
	})
}

func hasMore(f *sse.Frame) bool { return f.Time != 0 || f.Meta != nil }

func (c *chunk) seq(i int) uint64 { return c.first.Seq + uint64(c.items[i].ahead) }

func (c *chunk) time(i int) int64 {
	if c.more == nil {
		return 0
	}
	return c.more[i].time
}

// frame is the frame that was pushed.
func (c *chunk) frame(i int) sse.Frame {
	it := &c.items[i]
	f := sse.Frame{
		Pos: sse.Pos{Epoch: c.first.Epoch, Seq: c.seq(i)}, Kind: it.kind, End: it.end,
		Block: unsafe.Slice(it.block, it.blockSize), ID: unsafe.Slice(it.id, it.idSize),
	}
	if c.more != nil {
		f.Time, f.Meta = c.more[i].time, c.more[i].meta
	}
	return f
}

// drop frees what a frame points to, and returns what it cost.
func (c *chunk) drop(i int) int64 {
	f := c.frame(i)
	c.items[i].block, c.items[i].id = nil, nil
	c.items[i].blockSize, c.items[i].idSize = 0, 0
	if c.more != nil {
		c.more[i].meta = nil
	}
	return cost(&f)
}

// cut takes the last frame away.
func (c *chunk) cut() {
	c.items = c.items[:len(c.items)-1]
	if c.more != nil {
		c.more = c.more[:len(c.items)]
	}
}

// push adds a frame behind the last.
func (q *frames) push(f *sse.Frame) {
	last := len(q.chunks) - 1
	if last < 0 || !q.chunks[last].takes(f) {
		c := q.spare
		q.spare = nil
		if c == nil {
			c = &chunk{items: make([]item, 0, max(2, min(q.n, chunkLen)))}
		}
		q.chunks = append(q.chunks, c)
		last++
	}
	q.chunks[last].push(f)
	q.n++
}

// shift drops the first frame and returns what it cost. There must be one.
func (q *frames) shift() int64 {
	c := q.chunks[0]
	freed := c.drop(q.head)
	q.head++
	q.n--
	if q.head == len(c.items) {
		q.chunks[0] = nil // for the collector: the array outlives the slice
		q.chunks = q.chunks[1:]
		q.head = 0
		if cap(c.items) == chunkLen {
			c.items, c.more = c.items[:0], c.more[:0]
			q.spare = c
		}
	}
	return freed
}

// pop drops the last frame and returns what it cost. There must be one.
func (q *frames) pop() int64 {
	last := len(q.chunks) - 1
	c := q.chunks[last]
	freed := c.drop(len(c.items) - 1)
	c.cut()
	q.n--
	if len(c.items) == 0 || last == 0 && len(c.items) == q.head {
		q.chunks[last] = nil
		q.chunks = q.chunks[:last]
		if last == 0 {
			q.head = 0
		}
	}
	return freed
}

// first is the first frame; there must be one.
func (q *frames) first() sse.Frame { return q.chunks[0].frame(q.head) }

// last is the last frame; there must be one.
func (q *frames) last() sse.Frame {
	c := q.chunks[len(q.chunks)-1]
	return c.frame(len(c.items) - 1)
}

// from yields the frames from the first one whose Seq is seq or above.
func (q *frames) from(seq uint64) func(yield func(sse.Frame) bool) {
	return func(yield func(sse.Frame) bool) {
		i, j := q.search(func(c *chunk, i int) bool { return c.seq(i) >= seq })
		for ; i < len(q.chunks); i, j = i+1, 0 {
			c := q.chunks[i]
			for ; j < len(c.items); j++ {
				if !yield(c.frame(j)) {
					return
				}
			}
		}
	}
}

// since is the first frame that is of at or later.
func (q *frames) since(at int64) (f sse.Frame, ok bool) {
	i, j := q.search(func(c *chunk, i int) bool { return c.time(i) >= at })
	if i == len(q.chunks) {
		return f, false
	}
	return q.chunks[i].frame(j), true
}

// search finds the chunk and the place in it of the first frame that is true
// for, as it is for all behind it; the chunk is len(q.chunks) if there is none.
func (q *frames) search(is func(c *chunk, i int) bool) (at, i int) {
	at = sort.Search(len(q.chunks), func(i int) bool {
		c := q.chunks[i]
		return is(c, len(c.items)-1)
	})
	if at == len(q.chunks) {
		return at, 0
	}
	c, head := q.chunks[at], 0
	if at == 0 {
		head = q.head
	}
	return at, head + sort.Search(len(c.items)-head, func(i int) bool { return is(c, head+i) })
}

// back is the frame that n-1 frames follow; 0 < n <= q.n.
func (q *frames) back(n int) sse.Frame {
	for i := len(q.chunks) - 1; ; i-- {
		if c := q.chunks[i]; n <= len(c.items) {
			return c.frame(len(c.items) - n)
		} else {
			n -= len(c.items)
		}
	}
}

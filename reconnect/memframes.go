package reconnect

import (
	"sort"

	"ssegate/sse"
)

// chunkLen is how many frames a full chunk holds.
const chunkLen = 64

// frames is a queue of frames in ascending order of Seq. It is made of chunks,
// each bigger than the one before up to chunkLen, so that a short log is small
// and a long one is never copied.
type frames struct {
	chunks [][]sse.Frame // none of them empty
	head   int           // frames of chunks[0] that are dropped already
	n      int
	spare  []sse.Frame // an empty full-size chunk
}

// push adds a frame behind the last.
func (q *frames) push(f *sse.Frame) {
	last := len(q.chunks) - 1
	if last < 0 || len(q.chunks[last]) == cap(q.chunks[last]) {
		c := q.spare
		q.spare = nil
		if c == nil {
			c = make([]sse.Frame, 0, max(2, min(q.n, chunkLen)))
		}
		q.chunks = append(q.chunks, c)
		last++
	}
	q.chunks[last] = append(q.chunks[last], *f)
	q.n++
}

// shift drops the first frame and returns what it cost. There must be one.
func (q *frames) shift() int64 {
	c := q.chunks[0]
	freed := cost(&c[q.head])
	c[q.head] = sse.Frame{}
	q.head++
	q.n--
	if q.head == len(c) {
		q.chunks[0] = nil // for the collector: the array outlives the slice
		q.chunks = q.chunks[1:]
		q.head = 0
		if cap(c) == chunkLen {
			q.spare = c[:0]
		}
	}
	return freed
}

// pop drops the last frame and returns what it cost. There must be one.
func (q *frames) pop() int64 {
	last := len(q.chunks) - 1
	c := q.chunks[last]
	freed := cost(&c[len(c)-1])
	c[len(c)-1] = sse.Frame{}
	c = c[:len(c)-1]
	q.chunks[last] = c
	q.n--
	if len(c) == 0 || last == 0 && len(c) == q.head {
		q.chunks[last] = nil
		q.chunks = q.chunks[:last]
		if last == 0 {
			q.head = 0
		}
	}
	return freed
}

// first is the first frame; there must be one.
func (q *frames) first() *sse.Frame { return &q.chunks[0][q.head] }

// last is the last frame, or nil.
func (q *frames) last() *sse.Frame {
	if q.n == 0 {
		return nil
	}
	c := q.chunks[len(q.chunks)-1]
	return &c[len(c)-1]
}

// from yields the frames from the first one whose Seq is seq or above.
func (q *frames) from(seq uint64) func(yield func(*sse.Frame) bool) {
	return func(yield func(*sse.Frame) bool) {
		i, j := q.search(func(f *sse.Frame) bool { return f.Pos.Seq >= seq })
		for ; i < len(q.chunks); i, j = i+1, 0 {
			c := q.chunks[i]
			for ; j < len(c); j++ {
				if !yield(&c[j]) {
					return
				}
			}
		}
	}
}

// search finds the chunk and the place in it of the first frame that is true
// for, as it is for all behind it; the chunk is len(q.chunks) if there is none.
func (q *frames) search(is func(*sse.Frame) bool) (chunk, at int) {
	chunk = sort.Search(len(q.chunks), func(i int) bool {
		c := q.chunks[i]
		return is(&c[len(c)-1])
	})
	if chunk == len(q.chunks) {
		return chunk, 0
	}
	c, head := q.chunks[chunk], 0
	if chunk == 0 {
		head = q.head
	}
	return chunk, head + sort.Search(len(c)-head, func(i int) bool { return is(&c[head+i]) })
}

// back is the frame that n-1 frames follow; 0 < n <= q.n.
func (q *frames) back(n int) *sse.Frame {
	for i := len(q.chunks) - 1; ; i-- {
		if c := q.chunks[i]; n <= len(c) {
			return &c[len(c)-n]
		} else {
			n -= len(c)
		}
	}
}

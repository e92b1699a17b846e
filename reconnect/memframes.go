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
		at := sort.Search(len(q.chunks), func(i int) bool {
			c := q.chunks[i]
			return c[len(c)-1].Pos.Seq >= seq
		})
		for i := at; i < len(q.chunks); i++ {
			c := q.chunks[i]
			if i == 0 {
				c = c[q.head:]
			}
			if i == at {
				c = c[sort.Search(len(c), func(i int) bool { return c[i].Pos.Seq >= seq }):]
			}
			for j := range c {
				if !yield(&c[j]) {
					return
				}
			}
		}
	}
}

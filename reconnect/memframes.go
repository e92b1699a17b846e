package reconnect

import (
	"sort"

	"ssegate/sse"
)

// frames is a queue of frames in ascending order of Seq. It is made of runs: of
// a stream they lie where its ring had them, of a topic in posts. So all that a
// busy node keeps for long is what its rings had, and is never copied.
type frames struct {
	runs  []sse.Run // none of them empty
	n     int
	posts *posts // where a topic's next frame goes, if it has room
	spare *posts // an empty one of full size
}

// add adds a run behind the last frame.
func (q *frames) add(r sse.Run) {
	if r.Len() == 0 {
		return
	}
	q.n += r.Len()
	q.settle()
	if last := len(q.runs) - 1; last < 0 || !q.runs[last].Join(&r) {
		q.runs = append(q.runs, r)
	}
}

// settle follows a ring that has put a smaller segment in the place of its last
// one.
func (q *frames) settle() {
	if last := len(q.runs) - 1; last >= 0 {
		q.runs[last].Settle()
	}
}

// push adds a frame of a topic behind the last, and returns what it costs.
func (q *frames) push(f *sse.Frame) int64 {
	if q.posts == nil || !q.posts.takes(f.Pos) {
		q.posts, q.spare = q.spare, nil
		if q.posts == nil {
			q.posts = newPosts(max(2, min(q.n, postsLen)))
		}
	}
	at := q.posts.push(f)
	q.add(sse.RunOf(q.posts, at, at+1))
	return q.posts.Size(at, at+1)
}

// shift drops frames from the front: as many of the first run as are no more
// than most and cost no more than room, or a single one. It returns the last of
// them, and what they cost. There must be one, and most not be 0.
func (q *frames) shift(most int, room int64) (last sse.Frame, freed int64) {
	r := &q.runs[0]
	n := min(r.Len(), most)
	gone := r.Part(0, n)
	if freed = gone.Size(); freed > room {
		n, gone = 1, r.Part(0, 1)
		freed = gone.Size()
	}
	last = gone.At(n - 1)
	q.n -= n
	*r = r.Part(n, r.Len())
	empty := r.Len() == 0
	if empty {
		q.runs = q.runs[1:]
	}
	page, from, to := gone.Page()
	q.free(page, from, to, empty)
	return last, freed
}

// pop drops the last frame of a stream and returns what it cost. There must be
// one.
func (q *frames) pop() int64 {
	end := len(q.runs) - 1
	r := &q.runs[end]
	gone := r.Part(r.Len()-1, r.Len())
	q.n--
	if *r = r.Part(0, r.Len()-1); r.Len() == 0 {
		q.runs = q.runs[:end]
	}
	return gone.Size()
}

// free gives back at once what a topic's frames point to; a page of full size
// that is done with is kept for what comes.
func (q *frames) free(page sse.Page, from, to int32, done bool) {
	p, ok := page.(*posts)
	if !ok {
		return
	}
	clear(p.all[from:to])
	if done && len(p.all) == postsLen {
		p.all = p.all[:0]
		q.spare = p
		if q.posts == p {
			q.posts = nil
		}
	}
}

// first is the first frame; there must be one.
func (q *frames) first() sse.Frame { return q.runs[0].At(0) }

// last is the last frame; there must be one.
func (q *frames) last() sse.Frame {
	r := &q.runs[len(q.runs)-1]
	return r.At(r.Len() - 1)
}

// from yields the frames from the first one whose Seq is seq or above.
func (q *frames) from(seq uint64) func(yield func(sse.Frame) bool) {
	return func(yield func(sse.Frame) bool) {
		at := sort.Search(len(q.runs), func(i int) bool { return q.runs[i].Last().Seq >= seq })
		for ; at < len(q.runs); at++ {
			r := &q.runs[at]
			for i := int(max(seq, r.First().Seq) - r.First().Seq); i < r.Len(); i++ {
				if !yield(r.At(i)) {
					return
				}
			}
		}
	}
}

// since is the first frame of a topic that is of at or later.
func (q *frames) since(at int64) (f sse.Frame, ok bool) {
	in := sort.Search(len(q.runs), func(i int) bool {
		r := &q.runs[i]
		return r.At(r.Len()-1).Time >= at
	})
	if in == len(q.runs) {
		return f, false
	}
	r := &q.runs[in]
	return r.At(sort.Search(r.Len(), func(i int) bool { return r.At(i).Time >= at })), true
}

// back is the frame that n-1 frames follow; 0 < n <= q.n.
func (q *frames) back(n int) sse.Frame {
	for i := len(q.runs) - 1; ; i-- {
		r := &q.runs[i]
		if n <= r.Len() {
			return r.At(r.Len() - n)
		}
		n -= r.Len()
	}
}

package sse

import (
	"errors"
	"fmt"
	"unsafe"
)

// ErrRun says that frames do not follow one another.
var ErrRun = errors.New("sse: not a run of frames")

// A Page is memory that frames lie in side by side. What a Run shows of it
// never changes, though more may be added behind. All may read it concurrently.
type Page interface {
	// Frame returns the frame at i. It shares the page's memory.
	Frame(i int32) Frame
	// Size is what the frames from one up to another, exclusive, take of the
	// page's memory, in bytes. Sizes of parts add up to that of the whole.
	Size(from, to int32) int64
	// Moved returns the page that was put in this one's place and has the same
	// frames at the same indexes, or nil.
	Moved() Page
}

// A Run is frames of one stream that follow one another: of one epoch, with
// consecutive Seq, no fences and no notes. It is a view of a Page, so that what
// a ring has goes into a log without being copied or even looked at. The zero
// Run is empty.
type Run struct {
	page     Page
	first    Pos
	from, to int32
}

// RunOf returns the frames of a page from one up to another, exclusive. That
// they are a run is for the caller to know.
func RunOf(page Page, from, to int32) Run {
	if from == to {
		return Run{}
	}
	return Run{page: page, first: page.Frame(from).Pos, from: from, to: to}
}

// NewRun returns frames as a run, which keeps the slice. ErrRun when they are
// none.
func NewRun(frames []Frame) (Run, error) {
	for i := range frames {
		f := &frames[i]
		switch {
		case f.Pos.Epoch != frames[0].Pos.Epoch || f.Pos.Seq != frames[0].Pos.Seq+uint64(i),
			f.Pos.Epoch == 0 || f.Pos.Seq == 0,
			f.Kind < KindEvent || f.Kind > KindEnd:
			return Run{}, fmt.Errorf("%w: frame %d at %v of kind %d", ErrRun, i, f.Pos, f.Kind)
		}
	}
	s := slice(frames)
	return RunOf(&s, 0, int32(len(frames))), nil
}

// slice is the page of frames that lie in a slice.
type slice []Frame

func (s *slice) Frame(i int32) Frame { return (*s)[i] }

func (s *slice) Size(from, to int32) int64 {
	size := int64(0)
	for _, f := range (*s)[from:to] {
		size += int64(unsafe.Sizeof(f)) + int64(len(f.ID)+len(f.Block)+len(f.Meta))
	}
	return size
}

func (s *slice) Moved() Page { return nil }

// Len is the number of frames.
func (r *Run) Len() int { return int(r.to - r.from) }

// Page is where the frames lie, and from which one up to which.
func (r *Run) Page() (page Page, from, to int32) { return r.page, r.from, r.to }

// First is the position of the first frame; of an empty run it is zero.
func (r *Run) First() Pos { return r.first }

// Last is the position of the last frame; there must be one.
func (r *Run) Last() Pos {
	return Pos{Epoch: r.first.Epoch, Seq: r.first.Seq + uint64(r.Len()) - 1}
}

// At returns a frame.
func (r *Run) At(i int) Frame { return r.page.Frame(r.from + int32(i)) }

// Append appends the frames to a slice.
func (r *Run) Append(dst []Frame) []Frame {
	for i := r.from; i < r.to; i++ {
		dst = append(dst, r.page.Frame(i))
	}
	return dst
}

// Size is what the frames take of memory, in bytes.
func (r *Run) Size() int64 {
	if r.Len() == 0 {
		return 0
	}
	return r.page.Size(r.from, r.to)
}

// Part returns the frames from i up to j, exclusive.
func (r *Run) Part(i, j int) Run {
	if i == j {
		return Run{}
	}
	return Run{
		page: r.page, first: Pos{Epoch: r.first.Epoch, Seq: r.first.Seq + uint64(i)},
		from: r.from + int32(i), to: r.from + int32(j),
	}
}

// Settle goes on in the page that was put in the place of this run's, so that
// the old one may be freed, and reports whether there was one.
func (r *Run) Settle() bool {
	if r.page != nil {
		if to := r.page.Moved(); to != nil {
			r.page = to
			return true
		}
	}
	return false
}

// Join adds the frames of next if they lie behind these.
func (r *Run) Join(next *Run) bool {
	if r.page != next.page || r.to != next.from {
		return false
	}
	r.to = next.to
	return true
}

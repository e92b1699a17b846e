package reconnect

import (
	"unsafe"

	"ssegate/sse"
)

// postsLen is how many frames a full page of a topic has.
const postsLen = 64

// posts is a page of a topic's frames, which are all events. It is read under the
// lock of its log only: a frame's place is cleared when it is dropped, so that
// what each points to is free at once, however long others of its page stay.
type posts struct {
	first sse.Pos
	all   []post
}

type post struct {
	time                        int64
	block, id, meta             *byte // what they point to is kept alive by them
	blockSize, idSize, metaSize uint32
}

const postCost = int64(unsafe.Sizeof(post{}))

func newPosts(size int) *posts { return &posts{all: make([]post, 0, size)} }

// takes reports whether a frame at that place can be added.
func (p *posts) takes(at sse.Pos) bool {
	n := len(p.all)
	return n < cap(p.all) && (n == 0 || at == sse.Pos{Epoch: p.first.Epoch, Seq: p.first.Seq + uint64(n)})
}

// push adds a frame and returns its index.
func (p *posts) push(f *sse.Frame) int32 {
	if len(p.all) == 0 {
		p.first = f.Pos
	}
	p.all = append(p.all, post{
		time:  f.Time,
		block: unsafe.SliceData(f.Block), blockSize: uint32(len(f.Block)),
		id: unsafe.SliceData(f.ID), idSize: uint32(len(f.ID)),
		meta: unsafe.SliceData(f.Meta), metaSize: uint32(len(f.Meta)),
	})
	return int32(len(p.all) - 1)
}

// Frame implements [sse.Page].
func (p *posts) Frame(i int32) sse.Frame {
	it := &p.all[i]
	return sse.Frame{
		Pos: sse.Pos{Epoch: p.first.Epoch, Seq: p.first.Seq + uint64(i)}, Kind: sse.KindEvent,
		Block: unsafe.Slice(it.block, it.blockSize), ID: unsafe.Slice(it.id, it.idSize), Meta: unsafe.Slice(it.meta, it.metaSize),
		Time: it.time,
	}
}

// Moved implements [sse.Page]: it is not.
func (p *posts) Moved() sse.Page { return nil }

// Size implements [sse.Page].
func (p *posts) Size(from, to int32) int64 {
	size := postCost * int64(to-from)
	for i := range p.all[from:to] {
		it := &p.all[int(from)+i]
		size += int64(it.blockSize) + int64(it.idSize) + int64(it.metaSize)
	}
	return size
}

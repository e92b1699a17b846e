package reconnect

import (
	"bytes"
	"math"
	"math/rand/v2"
	"sync/atomic"
	"testing"
	"unsafe"

	"ssegate/sse"
)

// TestFrames holds the queue against a slice: one of a stream, whose frames
// come in runs that may go on where the one before ended, and one of a topic.
func TestFrames(t *testing.T) {
	for seed := range uint64(40) {
		q := queueTest{t: t, r: rand.New(rand.NewPCG(seed, 0)), at: sse.Pos{Epoch: 1}, each: int64(unsafe.Sizeof(sse.Frame{}))}
		grow, ops := q.add, 20
		if seed%2 == 1 {
			grow, ops = q.push, 18 // nothing is popped of a topic
			q.each = postCost
		}
		for range 3000 {
			switch op := q.r.IntN(ops); {
			case op < 10 || len(q.want) == 0:
				grow()
			case op < 18:
				q.shift()
			default:
				q.pop()
			}
			q.check()
		}
	}
}

type queueTest struct {
	t    *testing.T
	r    *rand.Rand
	q    frames
	want []sse.Frame
	at   sse.Pos // of the last frame made
	page sse.Run // and more that lie behind what was added
	each int64   // what a frame costs besides its bytes
}

// frame is one that may follow the last.
func (q *queueTest) frame() sse.Frame {
	q.at.Seq++
	n := func() []byte { return bytes.Repeat([]byte{byte(q.at.Seq)}, q.r.IntN(3)*50) }
	f := sse.Frame{Pos: q.at, Kind: sse.KindEvent, Block: n(), Time: int64(q.at.Seq)}
	if q.r.IntN(2) == 0 {
		f.ID = n()
	}
	if q.r.IntN(2) == 0 {
		f.Meta = n()
	}
	return f
}

// jump leaves numbers out, or begins an epoch, now and then.
func (q *queueTest) jump(of int) bool {
	switch q.r.IntN(of) {
	case 0:
		q.at.Seq += 1 + uint64(q.r.IntN(4))
	case 1:
		q.at.Seq += 1 << 33
	case 2:
		q.at.Epoch++
	default:
		return false
	}
	return true
}

func (q *queueTest) push() {
	q.jump(200)
	f := q.frame()
	if got := q.q.push(&f); got != q.cost(f) {
		q.t.Fatal("cost", got)
	}
	q.want = append(q.want, f)
}

func (q *queueTest) add() {
	if q.jump(20) || q.page.Len() == 0 {
		frames := make([]sse.Frame, 1+q.r.IntN(100))
		for i := range frames {
			frames[i] = q.frame()
		}
		q.page = runs(frames...)[0]
	}
	n := 1 + q.r.IntN(q.page.Len())
	part := q.page.Part(0, n)
	q.page = q.page.Part(n, q.page.Len())
	q.q.add(part)
	q.want = part.Append(q.want)
}

func (q *queueTest) cost(frames ...sse.Frame) (cost int64) {
	for _, f := range frames {
		cost += q.each + int64(len(f.Block)+len(f.ID)+len(f.Meta))
	}
	return cost
}

func (q *queueTest) shift() {
	most, room := 1+q.r.IntN(30), int64(math.MaxInt64)
	if q.r.IntN(3) == 0 {
		room = int64(q.r.IntN(5000))
	}
	had := q.q.n
	last, freed := q.q.shift(most, room)
	n := had - q.q.n
	if n < 1 || n > most || n > 1 && freed > room || !same(last, q.want[n-1]) || freed != q.cost(q.want[:n]...) {
		q.t.Fatalf("%d frames of %d for room of %d: %d bytes, the last %v", n, most, room, freed, last.Pos)
	}
	q.want = q.want[n:]
}

func (q *queueTest) pop() {
	last := len(q.want) - 1
	if got := q.q.pop(); got != q.cost(q.want[last]) {
		q.t.Fatal("cost", got)
	}
	q.page = sse.Run{} // does not follow any more
	q.want = q.want[:last]
	if last > 0 {
		q.at = q.want[last-1].Pos
	}
}

// check reads the queue in all ways.
func (q *queueTest) check() {
	t, want := q.t, q.want
	t.Helper()
	if q.q.n != len(want) || len(want) > 0 && (!same(q.q.last(), want[len(want)-1]) || !same(q.q.first(), want[0])) {
		t.Fatalf("%d frames, want %d", q.q.n, len(want))
	}
	if n := q.r.IntN(30) + 1; n <= len(want) && !same(q.q.back(n), want[len(want)-n]) {
		t.Fatalf("%d from the end: %v, want %v", n, q.q.back(n), want[len(want)-n])
	}
	from := q.at.Seq + 2 - min(q.at.Seq, uint64(q.r.IntN(200)))
	i := 0
	for i < len(want) && want[i].Pos.Seq < from {
		i++
	}
	if f, ok := q.q.since(int64(from)); ok != (i < len(want)) || ok && !same(f, want[i]) {
		t.Fatalf("since %d: %v, %v", from, f.Pos, ok)
	}
	for f := range q.q.from(from) {
		if i == len(want) || !same(f, want[i]) {
			t.Fatalf("from %d: got %v at %d of %d", from, f.Pos, i, len(want))
		}
		if i++; q.r.IntN(50) == 0 {
			return
		}
	}
	if i != len(want) {
		t.Fatalf("from %d: ended at %d of %d", from, i, len(want))
	}
}

func same(a, b sse.Frame) bool {
	return a.Pos == b.Pos && a.Kind == b.Kind && a.End == b.End && a.Time == b.Time && bytes.Equal(a.Block, b.Block) &&
		bytes.Equal(a.ID, b.ID) && (a.ID == nil) == (b.ID == nil) && bytes.Equal(a.Meta, b.Meta) && (a.Meta == nil) == (b.Meta == nil)
}

// TestTopicSteady: a topic that has its length takes what comes without memory
// of its own.
func TestTopicSteady(t *testing.T) {
	var q frames
	f := sse.Frame{Pos: sse.Pos{Epoch: 1}, Kind: sse.KindEvent, Block: []byte("data: x\n\n")}
	next := func() {
		f.Pos.Seq++
		q.push(&f)
		if q.n > 1000 {
			q.shift(1, math.MaxInt64)
		}
	}
	for range 2000 {
		next()
	}
	// What is left is the list of pages, which moves on through its array.
	if n := testing.AllocsPerRun(10_000, next); n != 0 {
		t.Errorf("%v allocations a frame", n)
	}
}

// TestMemorySettles: where a ring has put a smaller page in the place of one,
// the log does so too: of a stream that is quiet when it is swept, of another
// with what comes next.
func TestMemorySettles(t *testing.T) {
	w := newWorld(t, 0)
	frames := func(from, to uint64) (all []sse.Frame) {
		for ; from <= to; from++ {
			all = append(all, sse.Frame{Pos: sse.Pos{Epoch: 1, Seq: from}, Kind: sse.KindEvent, Block: []byte("data: x\n\n")})
		}
		return all
	}
	in := func(name string) *movable {
		l := w.open(named(name), w.now.UnixNano())
		defer l.mu.Unlock()
		page, _, _ := l.frames.runs[len(l.frames.runs)-1].Page()
		return page.(*movable)
	}
	add := func(name string, page *movable, from, to int32) {
		t.Helper()
		if errs := w.Append(t.Context(), []Batch{{Stream: named(name), Runs: []sse.Run{sse.RunOf(page, from, to)}}}); errs != nil {
			t.Fatal(errs)
		}
	}
	old, small := &movable{Page: pageOf(frames(1, 10))}, &movable{Page: pageOf(frames(1, 10))}
	add("quiet", old, 0, 5)
	add("goes on", old, 0, 5)
	w.now = w.now.Add(settleAfter)
	w.Sweep() // too early for what comes now
	add("quiet", old, 5, 7)
	old.moved.Store(small)
	add("goes on", small, 5, 8)
	if got := in("goes on"); got != small {
		t.Error("what goes on is still in the old page")
	}
	w.now = w.now.Add(settleAfter - 1)
	if w.Sweep(); in("quiet") != old {
		t.Error("swept before it is quiet")
	}
	w.now = w.now.Add(1)
	if w.Sweep(); in("quiet") != small {
		t.Error("what is quiet is still in the old page")
	}
	w.want(w.kept("quiet", "goes on"), 7, 8)
	l := w.open(named("goes on"), w.now.UnixNano())
	defer l.mu.Unlock()
	if len(l.frames.runs) != 1 {
		t.Errorf("%d runs of one page", len(l.frames.runs))
	}
}

func pageOf(frames []sse.Frame) sse.Page {
	page, _, _ := runs(frames...)[0].Page()
	return page
}

// movable is a page that another can take the place of.
type movable struct {
	sse.Page
	moved atomic.Pointer[movable]
}

func (p *movable) Moved() sse.Page {
	if to := p.moved.Load(); to != nil {
		return to
	}
	return nil
}

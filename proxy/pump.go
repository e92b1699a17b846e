package proxy

import (
	"bytes"
	"context"
	"errors"
	"io"
	"slices"
	"sync"
	"time"

	"ssegate/cluster"
	"ssegate/sse"
)

const (
	pumpRead    = 32 << 10 // bytes of one read from an upstream
	pumpFlushAt = 64 << 10 // bytes of blocks after which followers are served within one read
)

// errIdle is the cause with which an upstream is cancelled that has been
// silent for longer than its idle_timeout.
var errIdle = errors.New("proxy: upstream silent for too long")

// pump reads one upstream's event stream to its end and hands what it reads
// to the stream. It is the only writer of its stream, in one goroutine.
type pump struct {
	s     *cluster.Stream
	route *Route
	print string // fingerprint under which a client with the backend's ids is found

	dec     *sse.Decoder
	ev      sse.Event
	eol     sse.EOL
	begun   bool // eol is known
	own     bool // the backend gives ids: it speaks for itself
	retries bool // the backend gives retry hints
	done    bool // the last event matched a done marker
	lastID  []byte
	mint    interface {
		Append(dst []byte, seq uint64) []byte
	}
	pos    sse.Pos // of the next frame
	*draft         // while there is something to take
	drafts *drafts
}

// A draft is what has been decoded and not been given to the stream yet.
type draft struct {
	id     []byte // scratch for an edge id
	arena  []byte // blocks of frames
	frames []sse.Frame
	cuts   []int // where each frame's block ends in arena
}

// drafts are shared by the pumps, which hold one only while they have
// something to write into it.
type drafts struct{ pool sync.Pool }

func (d *drafts) get() *draft {
	if w, ok := d.pool.Get().(*draft); ok {
		return w
	}
	return new(draft)
}

func (d *drafts) put(w *draft) { d.pool.Put(w) }

// readBuffers are shared by the pumps that have a goroutine.
type readBuffers struct{ pool sync.Pool }

func (b *readBuffers) get() *[]byte {
	if p, ok := b.pool.Get().(*[]byte); ok {
		return p
	}
	p := make([]byte, pumpRead)
	return &p
}

func (b *readBuffers) put(p *[]byte) { b.pool.Put(p) }

func newPump(s *cluster.Stream, route *Route, print string, shared *drafts) *pump {
	return &pump{
		s: s, route: route, print: print, drafts: shared,
		dec:  sse.NewDecoder(route.EventSize),
		own:  route.IDs == IDsUpstream,
		mint: s.Minter(),
		pos:  s.Next(),
	}
}

// run pumps body until it ends, and says how it ended and what was left over;
// why is not nil where clients are to be told, since it was our doing. cancel ends the upstream
// request; ctx is done when somebody called it.
func (p *pump) run(ctx context.Context, cancel context.CancelCauseFunc, body io.Reader, idle time.Duration, buffers *readBuffers) (end sse.End, rest []byte, why error) {
	buf := buffers.get()
	defer buffers.put(buf)
	var watchdog *time.Timer
	if idle > 0 {
		watchdog = time.AfterFunc(idle, func() { cancel(errIdle) })
		defer watchdog.Stop()
	}
	for {
		if watchdog != nil {
			watchdog.Stop() // while nothing is read, the silence is ours
		}
		if err := p.s.Wait(ctx); err != nil {
			return p.ended(ctx, err), nil, nil
		}
		if watchdog != nil {
			watchdog.Reset(idle)
		}
		n, err := body.Read(*buf)
		if n > 0 {
			if bad := p.take((*buf)[:n]); bad != nil {
				cancel(bad)
				return sse.EndCut, nil, bad
			}
		}
		if err != nil {
			rest = p.finish()
			return p.ended(ctx, err), rest, nil
		}
	}
}

// ended says what a read error means for the followers.
func (p *pump) ended(ctx context.Context, err error) sse.End {
	cause := context.Cause(ctx)
	switch {
	case p.done:
		return sse.EndFinished
	case errors.Is(err, io.EOF):
		return sse.EndClean
	case errors.Is(cause, cluster.ErrStopped):
		return sse.EndStopped
	case errors.Is(cause, cluster.ErrDetached):
		return sse.EndDetached
	}
	return sse.EndCut
}

// take decodes what was read and gives the events to the stream: all of them
// in one go, so that a follower gets them in one write.
func (p *pump) take(b []byte) error {
	p.draft = p.drafts.get()
	defer p.stow()
	p.dec.Feed(b)
	for {
		ok, err := p.dec.Next(&p.ev)
		if err != nil {
			p.flush()
			return err
		}
		if !ok {
			p.flush()
			return nil
		}
		p.event()
		if len(p.arena) >= pumpFlushAt {
			p.flush()
		}
	}
}

func (p *pump) stow() {
	p.drafts.put(p.draft)
	p.draft = nil
}

// finish returns what is left when the body ends within a block. It goes out
// with the end, for there are clients that take it for an event; to all others
// it is none, so it is not numbered and nobody comes back for it.
func (p *pump) finish() (rest []byte) {
	p.draft = p.drafts.get()
	defer p.stow()
	if ok, err := p.dec.Finish(&p.ev); ok && err == nil {
		rest = sse.AppendBlock(nil, &p.ev, nil, p.eol)
		if p.ev.HasData {
			p.done = p.isDone()
		}
	}
	p.flush()
	return rest
}

// event turns the decoded block into a frame: its lines as they came, with an
// id of ours inside where the backend gives none.
func (p *pump) event() {
	ev := &p.ev
	if !p.begun {
		p.begun = true
		p.eol = ev.EOL
		p.s.SetEOL(ev.EOL)
	}
	if ev.HasID && !p.own && p.route.IDs == IDsAuto {
		p.own = true
		p.s.SetUpstreamIDs(p.print)
	}
	ours := !p.own && (p.route.IDs == IDsAuto || p.route.IDs == IDsEdge)
	if ev.Comment {
		if ours {
			p.arena = sse.AppendCommentLines(p.arena, ev, p.eol)
		} else {
			p.arena = sse.AppendBlock(p.arena, ev, nil, p.eol)
		}
		p.add(sse.Frame{Kind: sse.KindNote})
		return
	}
	if ev.HasID && !bytes.Equal(p.lastID, ev.ID) {
		p.lastID = bytes.Clone(ev.ID)
	}
	if ev.Retry >= 0 && !p.retries {
		p.retries = true
		p.s.SetUpstreamRetry()
	}
	f := sse.Frame{Pos: p.pos, Kind: sse.KindBare, ID: p.lastID}
	var id []byte
	if ev.HasData {
		f.Kind = sse.KindEvent
		p.done = p.isDone()
	}
	if ours {
		switch {
		case ev.HasData || ev.Name != nil:
			p.id = p.mint.Append(p.id[:0], p.pos.Seq)
			id = p.id
		case ev.HasID && ev.Retry < 0:
			return // only the backend's id, which the route keeps to itself
		}
	}
	p.arena = sse.AppendBlock(p.arena, ev, id, p.eol)
	p.pos.Seq++
	p.add(f)
}

// isDone reports whether the event matches a done marker.
func (p *pump) isDone() bool {
	return slices.ContainsFunc(p.route.Done, func(d string) bool { return string(p.ev.Data) == d }) ||
		slices.ContainsFunc(p.route.DoneEvents, func(name string) bool { return string(p.ev.Name) == name })
}

func (p *pump) add(f sse.Frame) {
	p.frames = append(p.frames, f)
	p.cuts = append(p.cuts, len(p.arena))
}

// flush gives the frames to the stream, which copies their blocks.
func (p *pump) flush() {
	from := 0
	for i := range p.frames {
		p.frames[i].Block = p.arena[from:p.cuts[i]]
		from = p.cuts[i]
	}
	p.s.Append(p.frames)
	clear(p.frames)
	p.frames, p.cuts = p.frames[:0], p.cuts[:0]
	if cap(p.arena) > 4*pumpFlushAt {
		p.arena = nil // one large event must not be paid for all day
	}
	p.arena = p.arena[:0]
}

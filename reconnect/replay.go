package reconnect

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"strconv"
	"sync/atomic"

	"ssegate/sse"
)

// GapEvent is the name of the event that tells a client which of its stream's
// events it will never see. It has no id, and its data is
//
//	{"from":12,"to":40,"reason":"trimmed"}
//
// the first and last number that are missing (or, with GapReplaced, come again),
// and one of the Gap reasons. to is null where nobody knows it.
const GapEvent = "ssegate.gap"

// Why events are missing.
const (
	// GapTrimmed: they are older than what is kept, or never got there.
	GapTrimmed = "trimmed"
	// GapReplaced: the client has them, but nobody else ever will: a new owner
	// took the stream over before they were in the log. What follows bears
	// their numbers again.
	GapReplaced = "replaced"
	// GapUnknown: the id that the client came back with is one of ours, but
	// nothing is known of its stream any more.
	GapUnknown = "unknown"
)

// AppendGap appends a whole GapEvent block; to is 0 where nobody knows it.
func AppendGap(dst []byte, from, to uint64, reason string, eol sse.EOL) []byte {
	last := "null"
	if to > 0 {
		last = strconv.FormatUint(to, 10)
	}
	data := fmt.Appendf(nil, `{"from":%d,"to":%s,"reason":%q}`, from, last, reason)
	// The only error is a name with a line end.
	dst, _ = sse.AppendMessage(dst, &sse.Message{Name: GapEvent, Data: data}, eol)
	return dst
}

// Replayer reads one stream's log for followers whose place is no longer in
// memory. It may be used concurrently.
type Replayer struct {
	log    Log
	stream sse.StreamID
	gaps   *atomic.Uint64
	eol    atomic.Uint32
}

// NewReplayer returns a Replayer of a stream. Every gap that is told adds one
// to gaps, if that is not nil.
func NewReplayer(log Log, stream sse.StreamID, gaps *atomic.Uint64) *Replayer {
	return &Replayer{log: log, stream: stream, gaps: gaps}
}

// SetEOL says which line end the stream has; it is needed only for a gap that
// no event follows. Until then that is a line feed.
func (r *Replayer) SetEOL(eol sse.EOL) { r.eol.Store(uint32(eol)) }

// Read is [Log].Read, except that a *Gap is no error: a frame with a GapEvent
// goes before those behind the gap, and on top of max. It is a KindNote, but
// its Pos is where the gap ends, so that who has passed it on knows what to
// ask for next, even if no frame follows. Other errors are the log's.
func (r *Replayer) Read(ctx context.Context, after sse.Pos, max int) ([]sse.Frame, error) {
	frames, err := r.log.Read(ctx, r.stream, after, max)
	gap, ok := errors.AsType[*Gap](err)
	if !ok {
		return frames, err
	}
	if r.gaps != nil {
		r.gaps.Add(1)
	}
	note := sse.Frame{Kind: sse.KindNote, Pos: sse.Pos{Epoch: after.Epoch, Seq: gap.To}}
	eol := sse.EOL(r.eol.Load())
	if len(frames) > 0 {
		note.Pos.Epoch = frames[0].Pos.Epoch
		eol = eolOf(frames[0].Block, eol)
	}
	note.Block = AppendGap(nil, gap.From, gap.To, GapTrimmed, eol)
	return append([]sse.Frame{note}, frames...), nil
}

// Fork finds where a stream left the way that leads to a position: the first
// frame in the log of an epoch newer than after's, if its Seq is not above
// after.Seq. Who is at after then has frames that an owner gave it after it was
// succeeded, and goes on with that frame. The zero Frame when the log goes on
// behind after, or has not come so far. It takes some reads of the log; the
// errors are the log's.
func Fork(ctx context.Context, log Log, stream sse.StreamID, after sse.Pos) (sse.Frame, error) {
	// at is the first frame from seq on.
	at := func(seq uint64) (f sse.Frame, err error) {
		frames, err := log.Read(ctx, stream, sse.Pos{Epoch: after.Epoch, Seq: seq - 1}, 1)
		if len(frames) > 0 {
			return frames[0], nil
		}
		if errors.Is(err, ErrGap) || errors.Is(err, ErrUnknown) {
			err = nil
		}
		return f, err
	}
	if after.Seq == 0 {
		return sse.Frame{}, nil
	}
	first, err := at(after.Seq)
	if err == nil && first.Pos.IsZero() {
		var tails []Tail
		if tails, err = log.Tails(ctx, []sse.StreamID{stream}); err == nil && tails[0].Pos.Epoch > after.Epoch && tails[0].Pos.Seq > 0 {
			first, err = at(tails[0].Pos.Seq)
		}
	}
	if err != nil || first.Pos.Seq > after.Seq || first.Pos.Epoch <= after.Epoch {
		return sse.Frame{}, err
	}
	// Epochs ascend with the numbers.
	for low, high := uint64(1), first.Pos.Seq; low < high; {
		mid := low + (high-low)/2
		f, err := at(mid)
		switch {
		case err != nil:
			return sse.Frame{}, err
		case f.Pos.Epoch > after.Epoch:
			first, high = f, mid
		default:
			low = max(mid, f.Pos.Seq) + 1
		}
	}
	return first, nil
}

// eolOf is the line end of a block, or other if it has none.
func eolOf(block []byte, other sse.EOL) sse.EOL {
	i := bytes.IndexAny(block, "\r\n")
	switch {
	case i < 0:
		return other
	case block[i] == '\n':
		return sse.LF
	case i+1 < len(block) && block[i+1] == '\n':
		return sse.CRLF
	}
	return sse.CR
}

package reconnect

import (
	"context"
	"errors"
	"fmt"
	"sync/atomic"

	"ssegate/sse"
)

// Replayer reads one stream's log for followers whose place is no longer in
// memory. What the log does not keep any more is said in the stream itself:
// nothing is lost quietly. It may be used concurrently.
type Replayer struct {
	Log    Log
	Stream sse.StreamID
	EOL    func() sse.EOL // the stream's line end; nil: LF
	Gaps   *atomic.Uint64 // counts gaps that were told; nil: nobody counts
}

// Read is Log.Read, but a gap is told by a note that stands before the first
// frame that is still kept.
func (r *Replayer) Read(ctx context.Context, after sse.Pos, max int) ([]sse.Frame, error) {
	frames, err := r.Log.Read(ctx, r.Stream, after, max)
	gap, ok := errors.AsType[*Gap](err)
	if !ok || len(frames) == 0 {
		return frames, err
	}
	if r.Gaps != nil {
		r.Gaps.Add(1)
	}
	eol := sse.LF
	if r.EOL != nil {
		eol = r.EOL()
	}
	note := sse.Frame{Kind: sse.KindNote, Block: GapBlock(gap, "expired", eol)}
	return append([]sse.Frame{note}, frames...), nil
}

// GapBlock is the event that tells a client which frames it will never get,
// and why. It bears no id. A Gap without an end has To 0.
func GapBlock(gap *Gap, reason string, eol sse.EOL) []byte {
	to := "null"
	if gap.To > 0 {
		to = fmt.Sprint(gap.To)
	}
	block, err := sse.AppendMessage(nil, &sse.Message{
		Name: "ssegate.gap",
		Data: fmt.Appendf(nil, `{"from":%d,"to":%s,"reason":%q}`, gap.From, to, reason),
	}, eol)
	if err != nil {
		panic(err) // the name is our own, and data may be anything
	}
	return block
}

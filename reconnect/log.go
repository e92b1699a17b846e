package reconnect

import (
	"context"
	"errors"
	"fmt"
	"time"

	"ssegate/sse"
)

// Limits bound what a log keeps of one stream. The zero value of a field
// means no limit of that sort.
type Limits struct {
	Length int           // frames; the oldest go first
	TTL    time.Duration // how long after the last Append or Touch the log is kept
}

// Batch is what one stream adds to its log in one Append: frames of one
// epoch, in order, with consecutive Seq.
type Batch struct {
	Stream sse.StreamID
	Limits Limits
	Frames []sse.Frame
}

// Tail is where a log ends: the position and kind of its last frame.
type Tail struct {
	Pos  sse.Pos
	Kind sse.Kind
	End  sse.End
}

var (
	// ErrUnknown says that no log of that stream is kept (never written, or
	// past its TTL).
	ErrUnknown = errors.New("reconnect: no log of this stream")
	// ErrFenced says that a newer epoch has written to the log: who appends
	// is no longer the owner and must stop.
	ErrFenced = errors.New("reconnect: a newer owner has fenced this log")
	// ErrGap is matched by every *Gap.
	ErrGap = errors.New("reconnect: position no longer kept")
)

// Gap says which frames a reader asked for that the log no longer keeps: From
// is the first missing Seq, To the last.
type Gap struct {
	From, To uint64
}

func (g *Gap) Error() string {
	return fmt.Sprintf("reconnect: frames %d to %d are no longer kept", g.From, g.To)
}

// Is makes errors.Is(err, ErrGap) true for a *Gap.
func (g *Gap) Is(target error) bool { return target == ErrGap }

// Log keeps the frames of streams so that a follower can come back to any
// node. All methods may be called concurrently; frames handed in or out are
// shared, never changed. Every wait ends with ctx. An error that is none of
// the sentinels above means that the log could not be reached and nothing is
// known.
type Log interface {
	// Append adds each batch to its stream's log, all batches in one round
	// trip where the driver can. The result has one error a batch (nil
	// slice: all went well). It is idempotent: frames at or before the tail
	// that bear the tail's own epoch are taken as already written, so a
	// batch whose fate is not known may be sent again. A batch whose epoch
	// is older than the tail's gets ErrFenced and adds nothing.
	Append(ctx context.Context, batches []Batch) []error

	// Read returns up to max frames (events, bare blocks, the end; never
	// fences or notes) whose Seq is above after.Seq, in order, each Seq
	// once and the newest epoch's where two epochs wrote it. An empty result
	// means that after is the tail. When the frame after.Seq+1 is no longer
	// kept it returns a *Gap together with the frames from the first kept
	// one on; a log trimmed empty is a gap too. ErrUnknown when there is no
	// log.
	Read(ctx context.Context, stream sse.StreamID, after sse.Pos, max int) ([]sse.Frame, error)

	// Tails tells where each log ends, in one round trip where the driver
	// can; the zero Tail for a log that is not there. A fence counts: the
	// Tail then has KindFence and the fence's epoch.
	Tails(ctx context.Context, streams []sse.StreamID) ([]Tail, error)

	// Find returns the position of the first frame whose ID is id, or
	// ErrUnknown when none kept has it.
	Find(ctx context.Context, stream sse.StreamID, id []byte) (sse.Pos, error)

	// Fence closes the log to every epoch before this one and returns the
	// last frame written before the fence (its Seq is where numbering goes
	// on; its ID is where the upstream is asked on from). ErrFenced when the
	// log already bears this epoch or a newer one, ErrUnknown when there is
	// no log.
	Fence(ctx context.Context, stream sse.StreamID, epoch uint64, limits Limits) (sse.Frame, error)

	// Touch puts off the TTL of logs that are quiet but alive.
	Touch(ctx context.Context, streams []sse.StreamID, ttl time.Duration) error
}

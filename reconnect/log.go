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
	Length int           // frames, of which at least so many are kept; the oldest go first
	TTL    time.Duration // how long after the last Append or Touch the log is kept
}

// Batch is what one stream adds to its log in one Append: runs of frames of one
// epoch that follow one another, none of them empty. Limits hold for the whole
// log from this Append on.
type Batch struct {
	Stream sse.StreamID
	Limits Limits
	Runs   []sse.Run
	// Follows says that the log has been written before. Where it is not
	// there any more nothing is added, and the error is ErrUnknown: who has
	// what was in it can write it again first.
	Follows bool
}

// Check returns ErrBatch when b is not what a log can take.
func (b *Batch) Check() error {
	for i := range b.Runs {
		first := b.Runs[i].First()
		next := first
		if i > 0 {
			next = b.Runs[i-1].Last()
			next.Seq++
		}
		if first != next || first.Epoch == 0 || first.Seq == 0 {
			return fmt.Errorf("%w: run %d of %d begins at %v", ErrBatch, i+1, len(b.Runs), first)
		}
	}
	return nil
}

// Len is the number of frames.
func (b *Batch) Len() (n int) {
	for i := range b.Runs {
		n += b.Runs[i].Len()
	}
	return n
}

// First is the position of the first frame; there must be one.
func (b *Batch) First() sse.Pos { return b.Runs[0].First() }

// Last is the position of the last frame; there must be one.
func (b *Batch) Last() sse.Pos { return b.Runs[len(b.Runs)-1].Last() }

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
	// ErrBatch says that a batch breaks the rules of Batch. To send it again
	// is no use.
	ErrBatch = errors.New("reconnect: not a batch")
	// ErrBroken says that something is kept under the log's name that no log
	// has written.
	ErrBroken = errors.New("reconnect: log is broken")
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
	// batch whose fate is not known may be sent again (whether it then fills
	// a hole that is there is left open). A batch whose epoch
	// is older than the tail's gets ErrFenced and adds nothing. One with a
	// newer epoch needs no fence before it; frames of older epochs from its
	// first Seq on then count no more. A batch fails without leaving a hole:
	// what was added before the failure is its beginning. A stream may be in
	// batches once. A batch may begin anywhere behind the tail; Read tells of
	// the hole. Other errors: ErrUnknown (see Batch.Follows), ErrBatch,
	// ErrBroken.
	Append(ctx context.Context, batches []Batch) []error

	// Read returns up to max frames (events, bare blocks, the end; never
	// fences or notes) whose Seq is above after.Seq, in order, each Seq
	// once and the newest epoch's where two epochs wrote it. It stops before
	// a hole, and may stop earlier where frames are big: only an empty
	// result without an error means that after is the tail (or beyond it).
	// When the frame after.Seq+1 is not kept but a later one was written, it
	// returns a *Gap together with the frames from the first kept one on; a
	// log trimmed empty is a gap too. max below 1 counts as 1. ErrUnknown
	// when there is no log, ErrBroken.
	Read(ctx context.Context, stream sse.StreamID, after sse.Pos, max int) ([]sse.Frame, error)

	// Tails tells where each log ends, in one round trip where the driver
	// can; the zero Tail for a log that is not there. A fence counts: the
	// Tail then has KindFence and the fence's epoch. Of a log that was
	// trimmed empty the Pos is known, and Kind may be 0.
	Tails(ctx context.Context, streams []sse.StreamID) ([]Tail, error)

	// Find returns the position of the first frame whose ID is id, or
	// ErrUnknown when none kept has it (none has an empty one). It may take
	// time that grows with the log's length.
	Find(ctx context.Context, stream sse.StreamID, id []byte) (sse.Pos, error)

	// Fence closes the log to every epoch before this one and returns the
	// last frame written before the fence (its Seq is where numbering goes
	// on; its ID is where the upstream is asked on from; a frame that is no
	// longer kept has only its Pos). ErrFenced when the log already bears
	// this epoch or a newer one, ErrUnknown when there is no log. No Append
	// of an older epoch can come between that frame and the fence.
	Fence(ctx context.Context, stream sse.StreamID, epoch uint64, limits Limits) (sse.Frame, error)

	// Touch puts off the end of logs that are quiet but alive; it never
	// brings it nearer. Streams without a log are passed over.
	Touch(ctx context.Context, streams []sse.StreamID, ttl time.Duration) error
}

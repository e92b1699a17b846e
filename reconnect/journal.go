package reconnect

import (
	"context"
	"errors"
	"time"

	"ssegate/sse"
)

// ErrReplicas says that what was published is in the log, and its Pos known,
// but that too few replicas have it: it may be lost if the log's master is.
var ErrReplicas = errors.New("reconnect: not enough replicas have it")

// Post is one message for a topic. It becomes a KindEvent frame.
type Post struct {
	// ID is the message's id, nil for none; it becomes the frame's ID.
	ID []byte
	// Once, if above 0, is how long the log remembers the ID: until then a post
	// with this ID and a Once, however long or short, is not appended to this
	// topic again.
	Once time.Duration
	// Meta is the frame's Meta: nil is plain, an empty one is not.
	Meta []byte
	// Block is the whole encoded block, without an id line.
	Block []byte
}

// Posts is what one topic adds to its log in one Publish.
type Posts struct {
	Stream sse.StreamID
	After  sse.Pos // as of OpenTopic
	Limits Limits
	Posts  []Post
}

// Posted is what became of one topic's Posts.
type Posted struct {
	// Pos is where each post stands. The positions of those that are new
	// follow one another.
	Pos []sse.Pos
	// Dup tells of each post whether it was taken earlier, so that Pos is
	// that of the first; nil means that all are new. A driver that had to
	// send a post with Once again says so of its own first try, too.
	Dup []bool
	// Time is what the frames bear, in Unix milliseconds of the log's clock.
	// It never goes backwards in a topic.
	Time int64
	// Followers are the nodes that followed the stream when the log took the
	// posts, whether their leases are valid or not.
	Followers []string
	// Err is nil, or why none of the posts counts as taken. ErrReplicas: they
	// were taken all the same. ErrBroken: they were not. An error that is no
	// sentinel: nobody knows; posts with Once may be sent again.
	Err error
}

// OpenTopic is a topic that a node begins to follow, or goes on with.
type OpenTopic struct {
	Stream sse.StreamID
	// After is the last position that the caller knows to have been given out,
	// of this numbering or one before, or zero. Only its Seq matters. Never what
	// a client says: it would push the numbering ahead.
	After sse.Pos
	// TTL is the log's, see Limits.
	TTL time.Duration
}

// NumberingTTL is how long the numbering of a topic outlives its last use when
// its log has that TTL; 0 means for ever.
func NumberingTTL(ttl time.Duration) time.Duration {
	if ttl <= 0 {
		return 0
	}
	return max(24*time.Hour, 7*ttl)
}

// EpochSeqs is how far apart the numberings of a topic begin: the first frame
// of one that began in epoch e has the Seq e*EpochSeqs + 1. Epochs are
// milliseconds, so no topic overtakes the numbering that would come after its
// own as long as it takes less than a million posts a second.
const EpochSeqs = 1000

// Origin is the position before the first frame of the numbering that began
// in that epoch.
func Origin(epoch uint64) sse.Pos { return sse.Pos{Epoch: epoch, Seq: epoch * EpochSeqs} }

// Journal is a Log that numbers topics by itself, so that every node may
// publish. A numbering begins with the first Open or Publish, at Origin(now in
// Unix milliseconds of the log's clock), and each frame has the Seq of the one
// before plus one. Seq never goes back: a log that may have lost what it knew
// begins a new numbering above all that it may have given out.
//
// Whether frames are missing there is told by where it begins. At 1, and none
// is known to be: Read goes on with it without a [Gap] behind the last frame of
// the numbering before, as long as the log has that frame or still knows that it
// was the last. At 2, and that is a hole, which everybody behind it is told of:
// some caller's After was above what the log had. One that says so later, when
// the numbering has begun, has yet another begin, with a hole. Positions that
// the log does not know show as a Gap in any case.
//
// The numbering outlives the log's frames (see NumberingTTL): a topic whose
// frames are past their TTL still has a tail, and Read tells whether anything
// came behind a position. Read stops before a new numbering, and begins with it
// when it is asked on. It is empty, without a Gap, where a new numbering has
// begun behind a position and has no frames yet; the tail is then the Origin.
// A stream is either a topic or not: what is published to must not be appended
// to.
//
// All methods of Log's contract hold: concurrency, ctx, errors.
type Journal interface {
	Log

	// Open begins the numbering where there is none, puts off its end, and
	// returns each topic's tail; in one round trip where the driver can. A
	// tail below After means that the log has forgotten: the numbering then
	// begins anew above After, with a hole, and that is the tail.
	Open(ctx context.Context, topics []OpenTopic) ([]sse.Pos, error)

	// Publish adds each topic's posts to its log, all or none of a topic's,
	// all topics in one round trip where the driver can. Concurrent calls are
	// numbered in one order that every reader sees. After is as with Open. A
	// topic may be in batch once. It has one result for each. Nothing is sent a second time by the
	// driver without knowing that the first was not taken.
	Publish(ctx context.Context, batch []Posts) []Posted

	// Since returns the position that what was taken at t or later follows.
	// Where some of that may be lost, it is a position whose Read tells of
	// the gap. ErrUnknown when the topic has no numbering, ErrBroken.
	Since(ctx context.Context, stream sse.StreamID, t time.Time) (sse.Pos, error)

	// Back returns the position that the last n frames follow, or as many of
	// them as are kept. ErrUnknown when the topic has no numbering, ErrBroken.
	Back(ctx context.Context, stream sse.StreamID, n int) (sse.Pos, error)

	// Pass notes for ttl that a client has everything up to pos; one that is
	// behind what was noted already only puts off its end. Passed returns
	// what was noted, or the zero Pos.
	Pass(ctx context.Context, stream sse.StreamID, pos sse.Pos, ttl time.Duration) error
	Passed(ctx context.Context, stream sse.StreamID) (sse.Pos, error)
}

package sse

// Kind says what a frame is.
type Kind uint8

const (
	// KindEvent is a block that carries data: what a client calls an event.
	KindEvent Kind = 1 + iota
	// KindBare is a block without data (only id, event or retry fields). It
	// is numbered and kept like an event, but never carries a retry hint of
	// ours.
	KindBare
	// KindEnd closes a stream. Its Block is empty, its End says how, its ID
	// is free.
	KindEnd
	// KindFence is what a new owner writes into the log so that the old one
	// can add nothing more. It bears the Seq of the last frame before it and
	// is never sent to a client.
	KindFence
	// KindNote is text for the followers of this moment (an upstream's
	// comment, a gap that is told): unnumbered (its Pos is zero), kept in no
	// log.
	KindNote
)

// End says how a stream ended. Its values stand in logs and registries: never
// renumber them.
type End uint8

const (
	// EndNone is the End of every frame that is not a KindEnd.
	EndNone End = iota
	// EndFinished is a clean end whose last event matched a done marker:
	// there is nothing to come back for.
	EndFinished
	// EndClean is a clean end without a marker: a feed, or a backend that
	// marks nothing.
	EndClean
	// EndCut is an upstream connection that broke before its body was whole.
	EndCut
	// EndStopped is a stream that was stopped by request (DELETE).
	EndStopped
	// EndLost is a stream whose owner died and that nobody took over.
	EndLost
	// EndDetached is an upstream that was cancelled because nobody came back
	// within the detach budget.
	EndDetached
	// EndLeft is an upstream that was cancelled because its owner left, the time
	// that it had for that being over. Nobody took over.
	EndLeft
)

var endNames = [...]string{"none", "finished", "ended", "cut", "stopped", "lost", "detached", "left"}

// String is the state's name in the status API and in metrics.
func (e End) String() string {
	if int(e) < len(endNames) {
		return endNames[e]
	}
	return "unknown"
}

// Clean reports whether a client sees the end of the body (true) or a cut
// connection (false).
func (e End) Clean() bool {
	return e == EndFinished || e == EndClean || e == EndStopped || e == EndLost
}

// Frame is one item of a stream in the form in which it is kept in rings and
// logs and carried between nodes. The bytes it points to are never changed
// once the frame was handed to somebody, so they may be shared freely.
type Frame struct {
	Pos  Pos
	Kind Kind
	End  End
	// ID is the upstream's own id in effect after this frame, nil when it
	// gave none. It is what a takeover asks the upstream to go on from. Of a
	// topic's frame it is the message's id.
	ID []byte
	// Block is the whole encoded block as it goes to a client, the blank
	// line that ends it included (for KindNote: whole lines).
	Block []byte
	// Time is when the log took the frame, in Unix milliseconds of the log's
	// clock; 0 where that is unknown. Only frames of topics have it.
	Time int64
	// Meta says to whom a topic's frame is of interest, in words of package
	// cluster's that nobody below it reads. Nil means everybody.
	Meta []byte
}

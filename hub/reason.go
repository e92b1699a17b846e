package hub

import "ssegate/sse"

// Reason says why a follower left its stream. It is a metric label, so a
// caller of Kick who brings its own keeps them few ("kicked:drain").
type Reason string

const (
	// ReasonClient: the client closed its side, or its connection broke.
	ReasonClient Reason = "client"
	// ReasonGhost: the client's machine no longer answers (what was sent to
	// it was not acknowledged within twice the write timeout).
	ReasonGhost Reason = "ghost"
	// ReasonWrite: a write failed while the connection seemed to be there.
	ReasonWrite Reason = "write"
	// ReasonSlow: nothing could be written for the write timeout, or the
	// ring went on without a follower of a SlowCut stream.
	ReasonSlow Reason = "slow"
	// ReasonGap: a frame that the follower needs next is neither in the ring
	// nor to be had from the Source.
	ReasonGap Reason = "gap"
	// ReasonSource: the Source failed for longer than a follower may wait.
	ReasonSource Reason = "source"
	// ReasonClosed: the stream was closed here before it ended.
	ReasonClosed Reason = "closed"
	// ReasonShutdown: Run has ended.
	ReasonShutdown Reason = "shutdown"
	// ReasonConn: the connection could not be taken over, for want of a
	// descriptor, say.
	ReasonConn Reason = "conn"

	// The rest say that the follower saw the end of its stream.

	// ReasonFinished: it ended with a done marker.
	ReasonFinished Reason = "finished"
	// ReasonEnded: it ended cleanly, without a marker.
	ReasonEnded Reason = "ended"
	// ReasonCut: the upstream connection broke, or its owner left.
	ReasonCut Reason = "cut"
	// ReasonStopped: it was stopped by request.
	ReasonStopped Reason = "stopped"
	// ReasonLost: its owner died and nobody took over.
	ReasonLost Reason = "lost"
	// ReasonDetached: its upstream was cancelled for want of followers.
	ReasonDetached Reason = "detached"
)

// reasonOf is the Reason of followers that see a stream end in this way.
func reasonOf(e sse.End) Reason {
	switch e {
	case sse.EndFinished:
		return ReasonFinished
	case sse.EndCut, sse.EndLeft:
		return ReasonCut
	case sse.EndStopped:
		return ReasonStopped
	case sse.EndLost:
		return ReasonLost
	case sse.EndDetached:
		return ReasonDetached
	default:
		return ReasonEnded
	}
}

package intake

import "time"

// A connection that brings little at a time, over and over, is left alone for a
// moment before each read: then one read, and one write to each of its clients,
// bear all that has come meanwhile. Streams for people, of a hundred events a
// second, never get that far, and those that fill a read gain nothing.
const (
	pause  = 8 * time.Millisecond
	often  = 5 * time.Millisecond  // between two of a service's writes, on average
	seldom = 64 * time.Millisecond // between two reads: the average begins anew
	little = 8 << 10               // bytes in a read
)

// pace is how a connection's bytes have come of late.
type pace struct {
	last    time.Duration // of the last read, since the set began
	gap     time.Duration // between two of the service's writes: a moving average
	much    bool          // in the last read
	nothing bool          // since the last read
	resting bool          // epoll tells nothing of it
	listed  bool          // among those that the set comes back to
}

// read notes a read of n bytes that the service wrote in so many pieces.
func (p *pace) read(n, pieces int, at time.Duration) {
	if gap := at - p.last; gap >= seldom {
		p.gap = seldom
	} else {
		p.gap += (gap/time.Duration(pieces) - p.gap) / 8
	}
	p.last, p.much, p.nothing = at, n > little, false
}

// hasty reports whether to rest before the next read.
func (p *pace) hasty() bool { return p.gap < often && !p.much }

// patient reports, where nothing has come in a rest, whether to rest once more:
// a burst may come less often, and to be told of it costs more than to look.
func (p *pace) patient() bool {
	p.nothing = !p.nothing && p.resting
	return p.nothing
}

// list reports whether it is to be put on the set's list.
func (p *pace) list() bool {
	if !p.resting || p.listed {
		return false
	}
	p.listed = true
	return true
}

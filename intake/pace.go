package intake

import "time"

// A connection that brings little at a time, over and over, is left alone for a
// moment after each read: then one read, and one write to each of its clients,
// bear all that has come meanwhile. Streams for people, of a hundred events a
// second, never get that far, and those that fill a read gain nothing.
const (
	pause  = 8 * time.Millisecond
	often  = 5 * time.Millisecond  // between two reads, on average
	seldom = 64 * time.Millisecond // between two reads: the average begins anew
	little = 8 << 10               // bytes in a read
)

// pace is how a connection's bytes have come of late.
type pace struct {
	last    time.Duration // of the last read, since the loop began
	gap     time.Duration // between two reads while it does not rest: a moving average
	resting bool          // epoll tells nothing of it
	listed  bool          // among those that the loop comes back to
}

// read notes a read of n bytes, and reports whether to rest before the next.
func (p *pace) read(n int, at time.Duration) bool {
	switch gap := at - p.last; {
	case gap >= seldom:
		p.gap = seldom
	case !p.resting:
		p.gap += (gap - p.gap) / 8
	}
	p.last = at
	return p.gap < often && n <= little
}

// list reports whether it is to be put on the loop's list.
func (p *pace) list() bool {
	if !p.resting || p.listed {
		return false
	}
	p.listed = true
	return true
}

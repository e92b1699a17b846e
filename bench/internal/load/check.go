package load

// check follows the numbers of the events that one client gets. The zero
// value wants no streams; see [check.expect].
type check struct {
	next []uint32 // the number due of each stream
}

// expect makes it follow n streams from their first events.
func (c *check) expect(n int) {
	if cap(c.next) < n {
		c.next = make([]uint32, n)
	}
	c.next = c.next[:n]
	clear(c.next)
}

// faults counts what must not be.
type faults struct {
	Lost    int64 // events that never came
	Doubled int64 // events that came again, or after a later one
	Foreign int64 // events of a stream that was not asked for, or no events of ours
}

func (f faults) any() bool { return f != faults{} }

// see takes event seq of the i-th stream. It says whether that was the first
// sight of the event.
func (c *check) see(i int, seq uint32, f *faults) bool {
	if i < 0 || i >= len(c.next) {
		f.Foreign++
		return false
	}
	switch next := c.next[i]; {
	case seq < next:
		f.Doubled++
		return false
	case seq > next:
		f.Lost += int64(seq - next)
	}
	c.next[i] = seq + 1
	return true
}

// end is told how many events the i-th stream had.
func (c *check) end(i int, events uint32, f *faults) {
	if i < len(c.next) && c.next[i] < events {
		f.Lost += int64(events - c.next[i])
	}
}

//go:build linux

package load

import (
	"bytes"
	"fmt"
	"slices"

	"golang.org/x/sys/unix"
)

// crowd is all clients of one piece of work, and what they saw together. It
// belongs to one loop.
type crowd struct {
	l       *loop
	sources int  // how many streams each client follows; 1: one of its own
	keepIDs bool // remember the ids of events, to come back with
	// until says when a client has all that it wants, besides the end of its
	// stream; nil: never. It is asked after each read.
	until func(*client) bool
	// left is told that a client is done or was cut off; nil: nothing to do.
	left func(*client)

	late, first, whole Histogram
	faults
	events  int64
	lastAt  int64 // when the last event arrived
	heads   int   // answers that began
	primed  int   // clients that have the first event of every stream they follow
	ended   int   // clients that are done
	told    int64
	refused int64
	cut     int
	err     error // of the first response that made no sense
}

// client is one connection at a time to the measured program.
type client struct {
	c    *crowd
	fd   int // -1 while it has none
	src  int // the stream that it asked for; -1: whatever is published
	req  []byte
	resp response
	check
	begun   int64 // when it connected or came back
	lastOld int64 // when the last event of before begun arrived
	primes  int
	got     bool // an event since begun
	telling bool // it reads an event of the program's own
	lastID  []byte
	newID   []byte // of the event that is being read
	firstID []byte
}

// request is what clients send, as EventSource does.
func request(host, path string, lastID []byte) []byte {
	b := fmt.Appendf(nil, "GET %s HTTP/1.1\r\nHost: %s\r\nAccept: text/event-stream\r\nCache-Control: no-cache\r\n", path, host)
	if len(lastID) > 0 {
		b = fmt.Appendf(b, "Last-Event-ID: %s\r\n", lastID)
	}
	return append(b, "\r\n"...)
}

// newClient makes a client that follows stream src, or what is published.
func (c *crowd) newClient(src int) *client {
	cl := &client{c: c, fd: -1, src: src}
	cl.expect(c.sources)
	return cl
}

// connect begins to connect and to ask.
func (cl *client) connect(to *unix.SockaddrInet4, req []byte) error {
	fd, err := connect(to)
	if err != nil {
		return err
	}
	cl.fd, cl.req, cl.got = fd, req, false
	cl.begun = cl.c.l.now()
	cl.resp.reset()
	return cl.c.l.add(fd, unix.EPOLLOUT, cl)
}

// close leaves, without a word to the crowd.
func (cl *client) close() {
	if cl.fd >= 0 {
		cl.c.l.drop(cl.fd)
		cl.fd = -1
	}
}

func (cl *client) ready(events uint32) {
	if cl.req != nil {
		if n, ok := write(cl.fd, cl.req); !ok || n < len(cl.req) { // a request always fits into a new socket
			cl.leave(false)
			return
		}
		cl.req = nil
		if err := cl.c.l.watch(cl.fd, unix.EPOLLIN); err != nil {
			cl.leave(false)
		}
		return
	}
	b, more := cl.c.l.read(cl.fd)
	if !more {
		cl.leave(cl.resp.state == inRest)
		return
	}
	headed := cl.resp.headed()
	err := cl.resp.feed(b, cl)
	if !headed && cl.resp.headed() {
		cl.c.heads++
		if cl.resp.status != 200 {
			cl.c.refused++
		}
	}
	switch {
	case err != nil:
		if cl.c.err == nil {
			cl.c.err = err
		}
		cl.leave(false)
	case cl.resp.over(), cl.c.until != nil && cl.c.until(cl):
		cl.leave(true)
	}
}

// leave closes; whole says that the stream was at its end.
func (cl *client) leave(whole bool) {
	cl.close()
	if whole {
		cl.c.ended++
	} else {
		cl.c.cut++
	}
	if cl.c.left != nil {
		cl.c.left(cl)
	}
}

// line takes a line of the event stream.
func (cl *client) line(b []byte) {
	if len(b) == 0 {
		cl.telling = false
		if cl.c.keepIDs && len(cl.newID) > 0 {
			cl.lastID, cl.newID = cl.newID, cl.lastID[:0]
			if cl.firstID == nil {
				cl.firstID = slices.Clone(cl.lastID)
			}
		}
		return
	}
	switch b[0] {
	case 'd':
		if data, ok := bytes.CutPrefix(b, []byte("data:")); ok && !cl.telling {
			cl.data(data)
		}
	case 'i':
		if cl.c.keepIDs {
			if id, ok := bytes.CutPrefix(b, []byte("id:")); ok {
				cl.newID = append(cl.newID[:0], bytes.TrimPrefix(id, []byte(" "))...)
			}
		}
	case 'e':
		if bytes.HasPrefix(b, []byte("event: ssegate.")) {
			cl.c.told++
			cl.telling = true
		}
	}
}

func (cl *client) data(b []byte) {
	c := cl.c
	m, ok := readMark(b)
	i := m.src
	if cl.src >= 0 { // its own stream, and no other
		if i = 0; m.src != cl.src {
			i = -1
		}
	}
	if !ok {
		i = -1
	}
	if !cl.see(i, m.seq, &c.faults) {
		return
	}
	now := c.l.now()
	if m.seq == 0 {
		if cl.primes++; cl.primes == len(cl.next) {
			c.primed++
		}
	}
	if !cl.got {
		cl.got = true
		c.first.Add(now - cl.begun)
	}
	if m.at < cl.begun {
		cl.lastOld = now
	}
	c.events++
	c.lastAt = now
	c.late.Add(now - m.at)
}

// clear forgets what was measured so far, but for faults.
func (c *crowd) clear() {
	c.events, c.lastAt = 0, 0
	c.late, c.first, c.whole = Histogram{}, Histogram{}, Histogram{}
}

// result is what the crowd measured since it was cleared at a time.
func (c *crowd) result(since int64) Result {
	return Result{
		Events:  c.events,
		Seconds: float64(max(c.lastAt-since, 1)) / 1e6,
		Late:    c.late.times(), First: c.first.times(), Whole: c.whole.times(),
	}
}

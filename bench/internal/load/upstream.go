//go:build linux

package load

import (
	"bytes"
	"fmt"
	"strconv"
	"time"

	"golang.org/x/sys/unix"
)

// upstream is the service behind the measured program: it answers
// GET /s/<number> with an event stream, in which each write is one chunk, as
// application servers send it.
type upstream struct {
	l    *loop
	fd   int
	addr string
	plan Plan

	chunk []byte // one write: a chunk of plan.Batch events
	first []byte // one chunk of a single event, behind the head
	head  int    // length of the head in first
	marks []int  // where the marks are in chunk
	mark1 int    // where the mark is in first

	hold     bool // streams wait behind their first event for go
	running  bool
	sources  []*source // all that were asked for, in order of asking
	queue    []*source // those that can be written to at full speed
	spare    []*source // the queue of the round before, to be used again
	began    int64     // of paced writing, µs
	writes   int64     // paced writes so far
	requests int
}

const (
	streamHead = "HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\nCache-Control: no-cache\r\n" +
		"Transfer-Encoding: chunked\r\n\r\n"
	lastChunk = "0\r\n\r\n"

	// tick is how exact paced writing is: what is due within one is written
	// together.
	tick = 250 * time.Microsecond

	// turn is how many writes one stream gets at full speed before the next:
	// about the time slice of a service with a thread a stream.
	turn = 64

	// mostUnsent is how much is kept for a stream that is not read.
	mostUnsent = 64 << 20
)

// newUpstream listens. It serves when l runs.
func newUpstream(l *loop, plan Plan, hold bool) (*upstream, error) {
	u := &upstream{l: l, plan: plan, hold: hold}
	u.first, u.mark1 = prepare(plan.Size, 1, &u.marks)
	u.first, u.head = append([]byte(streamHead), u.first...), len(streamHead)
	u.mark1 += u.head
	u.marks = nil
	u.chunk, _ = prepare(plan.Size, plan.Batch, &u.marks)
	var err error
	if u.fd, u.addr, err = listen(); err != nil {
		return nil, err
	}
	l.call(func() {
		l.each(u.push)
		err = l.add(u.fd, unix.EPOLLIN, u)
	})
	return u, err
}

// prepare makes a chunk of n events and tells where their marks are.
func prepare(size, n int, marks *[]int) (chunk []byte, first int) {
	data := fill(size)
	each := len("data: ") + len(data) + len("\n\n")
	chunk = fmt.Appendf(nil, "%x\r\n", n*each)
	for range n {
		chunk = append(chunk, "data: "...)
		*marks = append(*marks, len(chunk))
		chunk = append(append(chunk, data...), "\n\n"...)
	}
	return append(chunk, "\r\n"...), (*marks)[0]
}

// ready accepts.
func (u *upstream) ready(uint32) {
	for range 64 { // then the streams get their turn
		fd, _, err := unix.Accept4(u.fd, unix.SOCK_NONBLOCK|unix.SOCK_CLOEXEC)
		if err != nil {
			return // none left, or one that is gone already
		}
		c := &upstreamConn{u: u, fd: fd}
		if noDelay(fd) != nil || u.l.add(fd, unix.EPOLLIN|unix.EPOLLOUT|unix.EPOLLRDHUP|unix.EPOLLET, c) != nil {
			_ = unix.Close(fd)
		}
	}
}

// upstreamConn is a connection of the measured program to the service.
type upstreamConn struct {
	u   *upstream
	fd  int
	req []byte  // a begun request
	src *source // the stream that it carries now
}

func (c *upstreamConn) ready(events uint32) {
	if events&(unix.EPOLLIN|unix.EPOLLRDHUP|unix.EPOLLHUP|unix.EPOLLERR) != 0 {
		for {
			b, more := c.u.l.read(c.fd)
			if !more {
				c.close()
				return
			}
			if b == nil {
				break
			}
			c.req = append(c.req, b...)
		}
		for c.src == nil && c.request() {
		}
	}
	if events&unix.EPOLLOUT != 0 && c.src != nil {
		c.src.flush()
	}
}

func (c *upstreamConn) close() {
	if c.src != nil {
		c.src.conn = nil
	}
	c.u.l.drop(c.fd)
}

// request takes one request off what was read and begins to answer it.
func (c *upstreamConn) request() bool {
	end := bytes.Index(c.req, []byte("\r\n\r\n"))
	if end < 0 {
		return false
	}
	line, _, _ := bytes.Cut(c.req[:end], []byte("\r\n"))
	_, path, _ := bytes.Cut(line, []byte(" "))
	path, _, _ = bytes.Cut(path, []byte(" "))
	name, ok := bytes.CutPrefix(path, []byte("/s/"))
	id, err := strconv.Atoi(string(name))
	c.req = c.req[:copy(c.req, c.req[end+4:])]
	if !ok || err != nil { // a health check, or the like
		_, _ = write(c.fd, []byte("HTTP/1.1 404 Not Found\r\nContent-Length: 0\r\n\r\n"))
		return true
	}
	c.u.begin(c, id)
	return true
}

// source is one stream of the service.
type source struct {
	u      *upstream
	conn   *upstreamConn // nil when the program has left
	id     int
	seq    uint32 // of the next event
	rest   []byte // what the connection did not take
	queued bool
	ending bool
	sent   bool // the end, too
}

// begin answers with a head and the first event.
func (u *upstream) begin(c *upstreamConn, id int) {
	s := &source{u: u, conn: c, id: id}
	c.src = s
	u.requests++
	u.sources = append(u.sources, s)
	mark{seq: 0, at: u.l.now(), src: id}.put(u.first[u.mark1:])
	s.seq = 1
	s.send(u.first)
	switch {
	case u.plan.Events == 1:
		s.end()
	case !u.hold:
		u.enqueue(s)
	}
}

// send writes, and keeps what is not taken.
func (s *source) send(b []byte) {
	if s.conn == nil {
		return
	}
	if len(s.rest) == 0 {
		n, ok := write(s.conn.fd, b)
		if !ok {
			s.conn.close()
			return
		}
		b = b[n:]
	}
	if len(s.rest)+len(b) > mostUnsent {
		s.conn.close() // nobody reads: the clients will find events lost
		return
	}
	s.rest = append(s.rest, b...)
}

// flush is called when the connection takes more.
func (s *source) flush() {
	if s.conn == nil {
		return
	}
	if len(s.rest) > 0 {
		n, ok := write(s.conn.fd, s.rest)
		if !ok {
			s.conn.close()
			return
		}
		if s.rest = s.rest[n:]; len(s.rest) > 0 {
			return
		}
		s.rest = nil
	}
	switch {
	case s.ending:
		s.end()
	case s.u.plan.Every == 0 && (!s.u.hold || s.u.running):
		s.u.enqueue(s)
	}
}

// write sends the next batch.
func (s *source) write() {
	now := s.u.l.now()
	for _, at := range s.u.marks {
		mark{seq: s.seq, at: now, src: s.id}.put(s.u.chunk[at:])
		s.seq++
	}
	s.send(s.u.chunk)
}

// end sends the last chunk; the connection is then free for another request.
func (s *source) end() {
	s.ending = true
	if s.conn == nil || len(s.rest) > 0 {
		return // flush comes back to it
	}
	if !s.sent {
		s.sent = true
		s.send([]byte(lastChunk))
	}
	if c := s.conn; c != nil && len(s.rest) == 0 {
		c.src, s.conn = nil, nil
		for c.src == nil && c.request() { // one may wait already
		}
	}
}

// enqueue puts a stream among those that are written to at full speed.
func (u *upstream) enqueue(s *source) {
	if !s.queued && !s.ending {
		s.queued = true
		u.queue = append(u.queue, s)
	}
}

// push gives each stream at full speed a turn. It says whether there are any
// left.
func (u *upstream) push() bool {
	round := u.queue
	u.queue = u.spare
	for _, s := range round {
		s.queued = false
		for range turn {
			if s.conn == nil || len(s.rest) > 0 {
				break // flush comes back to it
			}
			if int(s.seq) >= u.plan.Events {
				s.end()
				break
			}
			s.write()
		}
		if s.conn != nil && len(s.rest) == 0 && !s.ending {
			u.enqueue(s)
		}
	}
	u.spare = round[:0]
	return len(u.queue) > 0
}

// start lets the streams go on behind their first event.
func (u *upstream) start() (err error) {
	u.l.call(func() {
		u.running = true
		if u.plan.Every == 0 {
			for _, s := range u.sources {
				u.enqueue(s)
			}
			return
		}
		u.began = u.l.now()
		err = u.l.every(tick, u.pace)
	})
	return err
}

// pace writes what is due. The streams are spread evenly over the time
// between two writes to one.
func (u *upstream) pace() {
	if !u.running || len(u.sources) == 0 {
		return
	}
	due := (u.l.now() - u.began) * int64(len(u.sources)) / u.plan.Every.Microseconds()
	for ; u.writes < due; u.writes++ {
		u.sources[u.writes%int64(len(u.sources))].write()
	}
}

// stop ends all streams and tells how many events each had, by its number.
func (u *upstream) stop() map[int]uint32 {
	had := map[int]uint32{}
	u.l.call(func() {
		u.running = false
		for _, s := range u.sources {
			had[s.id] = s.seq
			s.end()
		}
	})
	return had
}

//go:build linux

package load

import (
	"bytes"
	"errors"
	"fmt"
	"strings"

	"golang.org/x/sys/unix"
)

// press is all publishers of one piece of work. Each has a connection and
// publishes one request at a time, in order.
type press struct {
	l    *loop
	plan Plan
	pubs []*publisher

	running bool
	began   int64
	ticks   int64 // publishes that were due so far
	refused int64
	answer  Histogram
	err     error // the first that went wrong
}

// publisher is one connection.
type publisher struct {
	p       *press
	fd      int
	src     int
	resp    response
	one     posting // of one event
	batch   posting // of plan.Batch
	seq     uint32
	most    uint32 // events it publishes in all; 0: until stopped
	waiting int    // publishes that are due and not yet sent
	sent    int64  // when, while an answer is due; else 0
	body    strings.Builder
}

// posting is a prepared request.
type posting struct {
	b     []byte
	marks []int
}

// post prepares a request that publishes n events.
func (p Publish) post(size, n int) posting {
	data := fill(size)
	body := bytes.NewBufferString(p.Open)
	var marks []int
	for i := range n {
		if i > 0 {
			body.WriteString(p.Between)
		}
		body.WriteString(p.Before)
		marks = append(marks, body.Len())
		body.Write(data)
		body.WriteString(p.After)
	}
	body.WriteString(p.Close)
	b := fmt.Appendf(nil, "POST %s HTTP/1.1\r\nHost: %s\r\nContent-Type: %s\r\nContent-Length: %d\r\n\r\n",
		p.Path, p.Addr, p.Type, body.Len())
	for i := range marks {
		marks[i] += len(b)
	}
	return posting{append(b, body.Bytes()...), marks}
}

// newPress connects the publishers. It runs in l's thread.
func newPress(l *loop, plan Plan, front Front) (*press, error) {
	p := &press{l: l, plan: plan}
	addr, err := address(front.Publish.Addr)
	if err != nil {
		return nil, err
	}
	for i := range plan.Publishers {
		pub := &publisher{p: p, src: i, one: front.Publish.post(plan.Size, 1)}
		pub.batch = pub.one
		if plan.Batch > 1 {
			pub.batch = front.Batch.post(plan.Size, plan.Batch)
		}
		if plan.Events > 0 {
			pub.most = uint32(p.each())
			if plan.Kind != Replay {
				pub.most++ // the first event is no part of the work
			}
		}
		if pub.fd, err = connect(addr); err != nil {
			return nil, err
		}
		if err := l.add(pub.fd, unix.EPOLLIN, pub); err != nil {
			return nil, err
		}
		p.pubs = append(p.pubs, pub)
	}
	return p, nil
}

// each is how many events each publishes in all: a whole number of batches.
func (p *press) each() int {
	return p.plan.Events / p.plan.Publishers / p.plan.Batch * p.plan.Batch
}

// prime publishes the first event of each.
func (p *press) prime() {
	for _, pub := range p.pubs {
		pub.send(pub.one)
	}
}

// start lets them go on.
func (p *press) start() error {
	p.running = true
	p.began = p.l.now()
	if p.plan.Every > 0 {
		return p.l.every(tick, p.pace)
	}
	for _, pub := range p.pubs {
		pub.next()
	}
	return nil
}

func (p *press) stop() { p.running = false }

// pace counts what is due, spread evenly over the publishers.
func (p *press) pace() {
	if !p.running {
		return
	}
	due := (p.l.now() - p.began) * int64(len(p.pubs)) / p.plan.Every.Microseconds()
	for ; p.ticks < due; p.ticks++ {
		pub := p.pubs[p.ticks%int64(len(p.pubs))]
		pub.waiting++
		pub.next()
	}
}

// next publishes if there is reason to, and nothing under way.
func (pub *publisher) next() {
	switch {
	case !pub.p.running, pub.sent != 0, pub.most > 0 && pub.seq >= pub.most:
		return
	case pub.p.plan.Every > 0:
		if pub.waiting == 0 {
			return
		}
		pub.waiting--
	}
	pub.send(pub.batch)
}

func (pub *publisher) send(r posting) {
	now := pub.p.l.now()
	for _, at := range r.marks {
		mark{seq: pub.seq, at: now, src: pub.src}.put(r.b[at:])
		pub.seq++
	}
	pub.sent = now
	pub.resp.reset()
	pub.body.Reset()
	for b := r.b; len(b) > 0; { // a batch may be more than the socket takes at once
		n, ok := write(pub.fd, b)
		if !ok {
			pub.fail(errors.New("the connection broke"))
			return
		}
		if b = b[n:]; len(b) > 0 {
			_, _ = unix.Poll([]unix.PollFd{{Fd: int32(pub.fd), Events: unix.POLLOUT}}, 100)
		}
	}
}

func (pub *publisher) fail(err error) {
	pub.p.refused++
	if pub.p.err == nil {
		pub.p.err = fmt.Errorf("publisher %d: %w", pub.src, err)
	}
	pub.p.l.drop(pub.fd)
	pub.most = pub.seq // and no more
}

// line keeps what a refusal says.
func (pub *publisher) line(b []byte) {
	if pub.resp.status >= 300 && pub.body.Len() < 500 {
		pub.body.Write(b)
	}
}

func (pub *publisher) ready(uint32) {
	b, more := pub.p.l.read(pub.fd)
	if !more {
		pub.fail(errors.New("the connection was closed"))
		return
	}
	if err := pub.resp.feed(b, pub); err != nil {
		pub.fail(err)
		return
	}
	if !pub.resp.over() {
		return
	}
	if pub.resp.status/100 != 2 {
		pub.fail(fmt.Errorf("%d: %s%s", pub.resp.status, pub.body.String(), pub.resp.carry))
		return
	}
	pub.p.answer.Add(pub.p.l.now() - pub.sent)
	pub.sent = 0
	pub.next()
}

package hub

import (
	"bufio"
	"bytes"
	"context"
	"fmt"
	"io"
	"math/rand/v2"
	"net"
	"net/http/httputil"
	"runtime"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	"ssegate/sse"
)

const testTime = 20 * time.Second // no test waits longer for anything

// running returns a hub that runs until the test ends, and checks that
// nothing of it is left then.
func running(t testing.TB, cfg Config) *Hub {
	t.Helper()
	before := runtime.NumGoroutine()
	h, err := New(cfg)
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan struct{})
	go func() { defer close(done); h.Run(ctx) }()
	t.Cleanup(func() {
		cancel()
		<-done
		if n := h.Stats().Followers; n != 0 {
			t.Errorf("%d followers after Run", n)
		}
		noGoroutines(t, before)
	})
	return h
}

// noGoroutines waits until there are no more goroutines than before.
func noGoroutines(t testing.TB, before int) {
	t.Helper()
	for end := time.Now().Add(testTime); runtime.NumGoroutine() > before; {
		if time.Now().After(end) {
			buf := make([]byte, 1<<20)
			t.Fatalf("%d goroutines, %d before:\n%s", runtime.NumGoroutine(), before, buf[:runtime.Stack(buf, true)])
		}
		runtime.Gosched()
	}
}

// event is the frame number seq of a stream; pad makes it longer.
func event(seq uint64, pad int) sse.Frame {
	return sse.Frame{
		Pos:   sse.Pos{Epoch: 1, Seq: seq},
		Kind:  sse.KindEvent,
		Block: fmt.Appendf(nil, "data: %d %s\n\n", seq, strings.Repeat("x", pad)),
	}
}

// events are the frames from..to, each with some padding.
func events(from, to uint64, pad int) []sse.Frame {
	var out []sse.Frame
	for seq := from; seq <= to; seq++ {
		out = append(out, event(seq, pad))
	}
	return out
}

func endFrame(seq uint64, how sse.End) sse.Frame {
	return sse.Frame{Pos: sse.Pos{Epoch: 1, Seq: seq}, Kind: sse.KindEnd, End: how}
}

func note(text string) sse.Frame { return sse.Frame{Kind: sse.KindNote, Block: []byte(text)} }

// body takes the chunk framing off. whole is true when the last chunk was
// there.
func body(raw []byte) (text string, whole bool) {
	b, err := io.ReadAll(httputil.NewChunkedReader(bufio.NewReader(bytes.NewReader(raw))))
	return string(b), err == nil
}

// numbers returns the numbers of the events in a body, in order, and what
// else was there.
func numbers(text string) (seqs []uint64, rest string) {
	for block := range strings.SplitAfterSeq(text, "\n\n") {
		var other strings.Builder
		for line := range strings.Lines(block) {
			if data, ok := strings.CutPrefix(line, "data: "); ok {
				word, _, _ := strings.Cut(strings.TrimSpace(data), " ")
				if n, err := strconv.ParseUint(word, 10, 64); err == nil {
					seqs = append(seqs, n)
					continue
				}
			}
			if line != "\n" {
				other.WriteString(line)
			}
		}
		rest += other.String()
	}
	return seqs, rest
}

// consecutive checks that seqs is from..to without a hole.
func consecutive(t testing.TB, seqs []uint64, from, to uint64) {
	t.Helper()
	for i, n := range seqs {
		if n != from+uint64(i) {
			t.Fatalf("event %d stands where %d should", n, from+uint64(i))
		}
	}
	if got := from + uint64(len(seqs)) - 1; got != to {
		t.Fatalf("events %d to %d arrived, want up to %d", from, got, to)
	}
}

// A fakeConn is a Conn in memory. It takes room bytes and then blocks.
type fakeConn struct {
	mu     sync.Mutex
	peer   Peer
	got    []byte
	room   int // -1: as much as comes
	blocks bool
	rng    *rand.Rand // takes a random part of what fits
	fail   error
	closed []Closing
	done   chan struct{} // closed by Close
}

func newFake(room int) *fakeConn { return &fakeConn{room: room, done: make(chan struct{})} }

func (c *fakeConn) Start(p Peer, _ time.Duration) error {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.peer = p
	return c.fail
}

func (c *fakeConn) TryWrite(p []byte) (int, error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.fail != nil {
		return 0, c.fail
	}
	n := len(p)
	if c.room >= 0 {
		n = min(n, c.room)
	}
	if c.rng != nil && n > 0 {
		n = c.rng.IntN(n + 1)
	}
	c.got = append(c.got, p[:n]...)
	if c.room >= 0 {
		c.room -= n
	}
	c.blocks = n < len(p)
	return n, nil
}

// open gives room for n more bytes and tells the follower.
func (c *fakeConn) open(n int) {
	c.mu.Lock()
	if n < 0 {
		c.room = -1
	} else {
		c.room += n
	}
	tell := c.blocks
	c.blocks = false
	c.mu.Unlock()
	if tell {
		c.peer.Writable()
	}
}

func (c *fakeConn) Close(how Closing) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.closed = append(c.closed, how)
	if len(c.closed) == 1 {
		close(c.done)
	}
}

func (c *fakeConn) bytes() []byte {
	c.mu.Lock()
	defer c.mu.Unlock()
	return bytes.Clone(c.got)
}

// text is the body so far, without an end.
func (c *fakeConn) text() string { s, _ := body(c.bytes()); return s }

// how says how it was closed.
func (c *fakeConn) how(t testing.TB) Closing {
	t.Helper()
	select {
	case <-c.done:
	case <-time.After(testTime):
		t.Fatal("not closed")
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.closed[0]
}

// A nullConn takes everything.
type nullConn struct{ n int }

func (*nullConn) Start(Peer, time.Duration) error { return nil }
func (c *nullConn) TryWrite(p []byte) (int, error) {
	c.n += len(p)
	return len(p), nil
}
func (*nullConn) Close(Closing) {}

// A leaver collects why followers left.
type leaver struct {
	mu     sync.Mutex
	joined int
	left   map[*Follower]Reason
	all    chan Reason
}

func newLeaver() *leaver {
	return &leaver{left: map[*Follower]Reason{}, all: make(chan Reason, 1<<16)}
}

func (l *leaver) options(o StreamOptions) StreamOptions {
	o.Joined = func(*Follower, Reason) { l.mu.Lock(); l.joined++; l.mu.Unlock() }
	o.Left = func(f *Follower, why Reason) {
		l.mu.Lock()
		defer l.mu.Unlock()
		if _, twice := l.left[f]; twice {
			panic("left twice")
		}
		l.left[f] = why
		l.all <- why
	}
	return o
}

// why tells why f left; empty when it has not.
func (l *leaver) why(f *Follower) Reason {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.left[f]
}

// next waits for one that leaves.
func (l *leaver) next(t testing.TB) Reason {
	t.Helper()
	select {
	case why := <-l.all:
		return why
	case <-time.After(testTime):
		t.Fatal("nobody left")
		return ""
	}
}

// pair returns the two ends of a TCP connection, with
// small buffers if so wished.
func pair(t testing.TB, small bool) (server, client *net.TCPConn) {
	t.Helper()
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer ln.Close()
	d, err := net.Dial("tcp", ln.Addr().String())
	if err != nil {
		t.Fatal(err)
	}
	a, err := ln.Accept()
	if err != nil {
		t.Fatal(err)
	}
	server, client = a.(*net.TCPConn), d.(*net.TCPConn)
	if small {
		server.SetWriteBuffer(8 << 10)
		client.SetReadBuffer(8 << 10)
	}
	t.Cleanup(func() { client.Close() })
	client.SetReadDeadline(time.Now().Add(3 * testTime))
	return server, client
}

// until waits for a condition that another goroutine brings about.
func until(t testing.TB, what string, ok func() bool) {
	t.Helper()
	for end := time.Now().Add(testTime); !ok(); {
		if time.Now().After(end) {
			t.Fatal("in vain: " + what)
		}
		time.Sleep(50 * time.Microsecond)
	}
}

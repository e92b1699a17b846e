package hub

import (
	"bufio"
	"bytes"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"io"
	"math/big"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"ssegate/sse"
)

// A wrapped connection as fasthttp hands it out.
type wrapped struct{ net.Conn }

func (w wrapped) UnsafeConn() net.Conn { return w.Conn }

// What the client sent and nobody read does not cost it the end of the
// stream, whether it came before the end or comes after it.
func TestUnreadInput(t *testing.T) {
	for _, secure := range []bool{false, true} {
		h := running(t, Config{})
		l := newLeaver()
		raw, rawClient := pair(t, false)
		server, client := net.Conn(wrapped{wrapped{raw}}), net.Conn(rawClient)
		if secure {
			server, client = secured(t, raw, rawClient)
		}
		s := h.Open(l.options(StreamOptions{}))
		junk := bytes.Repeat([]byte("GET / HTTP/1.1\r\n\r\n"), 500)
		if _, err := client.Write(junk); err != nil {
			t.Fatal(err)
		}
		s.Follow(h.Hold(server), FollowOptions{Chunked: true})
		s.Append(append(events(1, 1000, 200), endFrame(1001, sse.EndFinished)))
		s.Flush()
		if why := l.next(t); why != ReasonFinished {
			t.Fatal("left:", why)
		}
		for range 10 { // the client is still sending when the hub has ended
			if _, err := client.Write(junk); err != nil {
				t.Fatal(err)
			}
			time.Sleep(2 * time.Millisecond)
		}
		all, err := io.ReadAll(client)
		if err != nil {
			t.Fatalf("secure %v: the end was reset away: %v", secure, err)
		}
		text, whole := body(all)
		if !whole {
			t.Fatal("not whole")
		}
		seqs, _ := numbers(text)
		consecutive(t, seqs, 1, 1000)
		// The hub's end is closed soon after the client's.
		client.Close()
		until(t, "closing", func() bool {
			h.lingering.mu.Lock()
			defer h.lingering.mu.Unlock()
			return len(h.lingering.until) == 0
		})
		if _, err := raw.Write([]byte("x")); !errors.Is(err, net.ErrClosed) {
			t.Error("the connection is still open:", err)
		}
	}
}

// A client that never closes does not keep its connection for ever.
func TestLingerEnds(t *testing.T) {
	h := running(t, Config{Tick: time.Millisecond})
	s := h.Open(StreamOptions{})
	server, client := pair(t, false)
	f := s.Follow(h.Hold(server), FollowOptions{Chunked: true})
	f.Kick("kicked:test", []byte("retry: 1\n"), true)
	all, err := io.ReadAll(client)
	if text, whole := body(all); err != nil || !whole || text != "retry: 1\n" {
		t.Fatal(err, whole, text)
	}
	until(t, "closing", func() bool {
		_, err := server.Write(nil)
		return errors.Is(err, net.ErrClosed)
	})
}

// How a stream's end looks to the client: clean, cut inside chunked framing,
// or reset where there is no framing.
func TestEndings(t *testing.T) {
	for _, c := range []struct {
		end     sse.End
		chunked bool
		why     Reason
		clean   bool
	}{
		{sse.EndFinished, true, ReasonFinished, true},
		{sse.EndFinished, false, ReasonFinished, true},
		{sse.EndClean, true, ReasonEnded, true},
		{sse.EndStopped, true, ReasonStopped, true},
		{sse.EndLost, false, ReasonLost, true},
		{sse.EndCut, true, ReasonCut, false},
		{sse.EndCut, false, ReasonCut, false},
		{sse.EndDetached, true, ReasonDetached, false},
	} {
		h := running(t, Config{})
		l := newLeaver()
		s := h.Open(l.options(StreamOptions{}))
		server, client := pair(t, false)
		s.Follow(h.Hold(server), FollowOptions{Chunked: c.chunked})
		s.Append(append(events(1, 10, 10), endFrame(11, c.end)))
		if end, over := s.Ended(); end != c.end || !over {
			t.Error("ended:", end, over)
		}
		s.Flush()
		if why := l.next(t); why != c.why {
			t.Fatalf("left: %s, want %s", why, c.why)
		}
		all, err := io.ReadAll(client)
		text, whole := string(all), err == nil
		if c.chunked {
			if err != nil {
				t.Fatalf("end %v: %v", c.end, err)
			}
			text, whole = body(all)
		} else if !c.clean && !errors.Is(err, syscall.ECONNRESET) {
			t.Errorf("a cut without framing must be a reset, is %v", err)
		}
		if whole != c.clean {
			t.Errorf("end %v, chunked %v: looks whole: %v", c.end, c.chunked, whole)
		}
		seqs, _ := numbers(text)
		consecutive(t, seqs, 1, 10)
	}
}

// A real HTTP client takes it for what it is.
func TestHTTPClient(t *testing.T) {
	h := running(t, Config{})
	s := h.Open(StreamOptions{})
	server, client := pair(t, false)
	s.Follow(h.Hold(server), FollowOptions{
		Chunked: true, Retry: 1500 * time.Millisecond,
		Head: []byte("HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\nTransfer-Encoding: chunked\r\n\r\n"),
	})
	resp, err := http.ReadResponse(bufio.NewReader(client), nil)
	if err != nil {
		t.Fatal(err)
	}
	s.Append([]sse.Frame{note(": hello\n"), event(1, 0), event(2, 0), {Pos: sse.Pos{Epoch: 1, Seq: 3}, Kind: sse.KindEnd, End: sse.EndClean, Block: []byte("data: bye\n\n")}})
	s.Flush()
	all, err := io.ReadAll(resp.Body)
	want := ": hello\nretry: 1500\n" + string(event(1, 0).Block) + string(event(2, 0).Block) + "data: bye\n\n"
	if err != nil || string(all) != want {
		t.Fatalf("%v, %q", err, all)
	}
}

// A descriptor that is used again belongs to its new owner alone, whatever
// still comes for the old one.
func TestFDReuse(t *testing.T) {
	h := running(t, Config{})
	l := newLeaver()
	s := h.Open(l.options(StreamOptions{}))
	seen := map[int]bool{}
	again := false
	for range 200 {
		server, client := pair(t, false)
		raw, err := server.SyscallConn()
		if err != nil {
			t.Fatal(err)
		}
		raw.Control(func(fd uintptr) { again = again || seen[int(fd)]; seen[int(fd)] = true })
		f := s.Follow(h.Hold(server), FollowOptions{Chunked: true})
		go client.Close() // its event may come before or after the kick
		f.Kick("kicked:test", nil, false)
		f.end(ReasonClosed)
		server, client = pair(t, false)
		keep := s.Follow(h.Hold(server), FollowOptions{Chunked: true, Head: []byte("ok")})
		ok := make([]byte, 2)
		if _, err := io.ReadFull(client, ok); err != nil {
			t.Fatal("the new owner was closed:", err, l.why(keep))
		}
		if why := l.why(keep); why != "" {
			t.Fatal("the new owner left:", why)
		}
		keep.Kick("kicked:test", nil, true)
		client.Close()
	}
	if !again {
		t.Error("no descriptor was used again: the test tests nothing")
	}
	until(t, "all to leave", func() bool { return s.Followers() == 0 })
}

// An event for a slot that was given back finds nobody, and closing twice
// does not free what is another's by now.
func TestStaleSlot(t *testing.T) {
	h := running(t, Config{})
	s := h.Open(StreamOptions{})
	server, client := pair(t, false)
	c := h.Hold(server).(*polledConn)
	f := s.Follow(c, FollowOptions{Chunked: true})
	late := []unix.EpollEvent{{Fd: c.at, Pad: c.gen}}
	found := make([]target, 1)
	if h.poller.find(late, found); found[0] != target(c) {
		t.Error("an event does not find its connection")
	}
	f.end(ReasonClosed)
	if _, err := io.ReadAll(client); !errors.Is(err, syscall.ECONNRESET) {
		t.Error(err)
	}
	server2, client2 := pair(t, false)
	c2 := h.Hold(server2).(*polledConn)
	s.Follow(c2, FollowOptions{Chunked: true})
	if c2.at != c.at {
		t.Fatal("the slot was not used again")
	}
	if h.poller.find(late, found); found[0] != nil {
		t.Error("a late event finds the new owner")
	}
	c.Close(CloseNow)
	h.poller.release(c.at, c.gen)
	client2.Close()
	until(t, "the second to leave", func() bool { return s.Followers() == 0 })
}

// A reset comes after what was written, not instead of it.
func TestResetComesLast(t *testing.T) {
	h := running(t, Config{Tick: time.Millisecond})
	l := newLeaver()
	s := h.Open(l.options(StreamOptions{}))
	server, client := pair(t, false)
	client.SetReadBuffer(8 << 10)
	f := s.Follow(h.Hold(server), FollowOptions{})
	s.Append(events(1, 2000, 100))
	s.Flush()
	f.Kick("kicked:test", []byte("retry: 1\n"), false)
	buf := make([]byte, 4096)
	var all []byte
	for {
		n, err := client.Read(buf)
		all = append(all, buf[:n]...)
		if errors.Is(err, syscall.ECONNRESET) {
			break
		}
		if err != nil {
			t.Fatal(err)
		}
	}
	l.next(t)
	seqs, rest := numbers(string(all))
	consecutive(t, seqs, 1, f.Pos().Seq)
	if rest != "retry: 1\n" {
		t.Errorf("the last words: %q", rest)
	}
}

func TestWatch(t *testing.T) {
	h := running(t, Config{})
	server, client := pair(t, false)
	var gone atomic.Int32
	stop := h.Watch(wrapped{server}, func() { gone.Add(1) })
	if _, err := client.Write([]byte("more input is no reason")); err != nil {
		t.Fatal(err)
	}
	buf := make([]byte, 4)
	if _, err := io.ReadFull(server, buf); err != nil || string(buf) != "more" {
		t.Fatal(err, buf) // still the caller's to read
	}
	if gone.Load() != 0 {
		t.Fatal("gone too early")
	}
	client.Close()
	until(t, "gone", func() bool { return gone.Load() == 1 })
	stop()
	stop()
	server.Close()

	server, client = pair(t, false)
	stop = h.Watch(server, func() { t.Error("told after stop") })
	stop()
	client.Close()
	// It may be held afterwards.
	l := newLeaver()
	h.Open(l.options(StreamOptions{})).Follow(h.Hold(server), FollowOptions{})
	if why := l.next(t); why != ReasonClient {
		t.Error("left:", why)
	}

	a, b := net.Pipe()
	h.Watch(a, func() { t.Error("a pipe cannot be watched") })()
	a.Close()
	b.Close()
}

// The same promises hold for connections that only block: TLS here.
func TestTLS(t *testing.T) {
	h := running(t, Config{})
	l := newLeaver()
	s := h.Open(l.options(StreamOptions{}))
	connect := func() (*tls.Conn, *tls.Conn) {
		server, client := pair(t, false)
		return secured(t, server, client)
	}
	ts, tc := connect()
	s.Follow(h.Hold(ts), FollowOptions{Chunked: true})
	if _, err := tc.Write(bytes.Repeat([]byte("junk"), 1000)); err != nil {
		t.Fatal(err)
	}
	read := make(chan string)
	go func() {
		all, err := io.ReadAll(tc)
		text, whole := body(all)
		if err != nil || !whole {
			t.Error(err, whole)
		}
		tc.Close()
		read <- text
	}()
	for seq := uint64(1); seq <= 5000; seq += 10 {
		if err := s.Wait(t.Context()); err != nil {
			t.Fatal(err)
		}
		s.Append(events(seq, seq+9, 100))
		s.Flush()
	}
	leaving, leavingClient := connect()
	f := s.Follow(h.Hold(leaving), FollowOptions{Chunked: true, After: s.Tail()})
	leavingClient.Close()
	if why := l.next(t); why != ReasonClient || l.why(f) != why {
		t.Fatal("left:", why)
	}
	cut, cutClient := connect()
	f = s.Follow(h.Hold(cut), FollowOptions{After: s.Tail()})
	bye := strings.Repeat("retry: 1\n", 20_000)
	f.Kick("kicked:test", []byte(bye), false)
	if all, err := io.ReadAll(cutClient); err == nil || string(all) != bye {
		t.Errorf("a cut without framing looks like a clean end, or loses what was said: %v, %d bytes", err, len(all))
	}
	l.next(t)
	s.Append([]sse.Frame{endFrame(5001, sse.EndFinished)})
	s.Flush()
	seqs, _ := numbers(<-read)
	consecutive(t, seqs, 1, 5000)
	if why := l.next(t); why != ReasonFinished {
		t.Fatal("left:", why)
	}
}

// secured lays TLS over both ends of a connection.
func secured(t *testing.T, server, client net.Conn) (*tls.Conn, *tls.Conn) {
	t.Helper()
	ts := tls.Server(server, &tls.Config{Certificates: []tls.Certificate{certificate(t)}})
	tc := tls.Client(client, &tls.Config{InsecureSkipVerify: true})
	done := make(chan error, 1)
	go func() { done <- ts.Handshake() }()
	if err := tc.Handshake(); err != nil {
		t.Fatal(err)
	}
	if err := <-done; err != nil {
		t.Fatal(err)
	}
	return ts, tc
}

func certificate(t *testing.T) tls.Certificate {
	t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	tmpl := &x509.Certificate{SerialNumber: big.NewInt(1), NotAfter: time.Now().Add(time.Hour)}
	der, err := x509.CreateCertificate(rand.Reader, tmpl, tmpl, key.Public(), key)
	if err != nil {
		t.Fatal(err)
	}
	return tls.Certificate{Certificate: [][]byte{der}, PrivateKey: key}
}

// Unix sockets are held like TCP.
func TestUnix(t *testing.T) {
	h := running(t, Config{RingBytes: 4 << 20})
	l := newLeaver()
	s := h.Open(l.options(StreamOptions{}))
	ln, err := net.Listen("unix", filepath.Join(t.TempDir(), "s"))
	if err != nil {
		t.Fatal(err)
	}
	defer ln.Close()
	client, err := net.Dial("unix", ln.Addr().String())
	if err != nil {
		t.Fatal(err)
	}
	defer client.Close()
	server, err := ln.Accept()
	if err != nil {
		t.Fatal(err)
	}
	s.Follow(h.Hold(server), FollowOptions{Chunked: true})
	s.Append(append(events(1, 900, 1000), endFrame(901, sse.EndFinished))) // more than a socket takes at once
	s.Flush()
	all, err := io.ReadAll(client)
	text, whole := body(all)
	if err != nil || !whole {
		t.Fatal(err, whole)
	}
	seqs, _ := numbers(text)
	consecutive(t, seqs, 1, 900)
	l.next(t)
}

// A connection that cannot be taken over ends its follower at once.
func TestBadConn(t *testing.T) {
	h := running(t, Config{})
	l := newLeaver()
	s := h.Open(l.options(StreamOptions{}))
	server, _ := pair(t, false)
	server.Close()
	f := s.Follow(h.Hold(server), FollowOptions{})
	if why := l.why(f); why != ReasonConn {
		t.Error("left:", why)
	}
	c := newFake(-1)
	c.fail = errors.New("broken")
	f = s.Follow(c, FollowOptions{Head: []byte("x")})
	if why := l.why(f); why != ReasonConn {
		t.Error("left:", why)
	}
	c = newFake(-1)
	f = s.Follow(c, FollowOptions{Chunked: true})
	c.mu.Lock()
	c.fail = errors.New("broken")
	c.mu.Unlock()
	s.Append(events(1, 1, 0))
	s.Flush()
	if why := l.why(f); why != ReasonWrite {
		t.Error("left:", why)
	}
	if n := s.Followers(); n != 0 {
		t.Error(n, "followers")
	}
}

// The fast path takes no lock of another stream's, of the budget or of the
// wheel: with all of them taken, events still flow.
func TestFlushNeedsNoBigLock(t *testing.T) {
	h := still(t, Config{})
	s, other := h.Open(StreamOptions{}), h.Open(StreamOptions{})
	c := newFake(-1)
	s.Follow(c, FollowOptions{Chunked: true})
	f := other.Follow(newFake(-1), FollowOptions{Chunked: true})
	s.Append(events(1, 1, 0))
	locks := []*sync.Mutex{
		&h.mu, &h.wheel.mu, &h.budget.mu, &h.catchUps.mu, &h.lingering.mu, &h.poller.mu, &h.count.mu, &other.mu, &f.mu,
	}
	for _, mu := range locks {
		mu.Lock()
	}
	done := make(chan struct{})
	go func() {
		defer close(done)
		for seq := uint64(2); seq <= 4; seq++ {
			s.Append(events(seq, seq, 0))
			s.Flush()
		}
	}()
	select {
	case <-done:
	case <-time.After(testTime):
		t.Fatal("the fast path waits for a big lock")
	}
	for _, mu := range locks {
		mu.Unlock()
	}
	seqs, _ := numbers(c.text())
	consecutive(t, seqs, 1, 4)
}

// A client that reads nothing leaves no more than that with the kernel, however
// large its buffer may grow.
func TestUnsent(t *testing.T) {
	h := running(t, Config{})
	l := newLeaver()
	server, client := pair(t, false)
	client.SetReadBuffer(8 << 10)
	server.SetWriteBuffer(8 << 20)
	s := h.Open(l.options(StreamOptions{RingBytes: 64 << 20, RingEvents: 1 << 20}))
	f := s.Follow(h.Hold(server), FollowOptions{Chunked: true})
	const size = 1000
	for seq := uint64(1); seq <= 10_000; seq += 100 {
		s.Append(events(seq, seq+99, size))
		s.Flush()
	}
	if got := f.Pos().Seq; got == 0 || got > 2*unsent/size {
		t.Errorf("the kernel took %d events of %d bytes, want %d bytes at most, and what the client has room for", got, size, unsent)
	}
}

// Without a free descriptor a connection cannot be taken over: its follower
// leaves with that reason, and the client is not left waiting.
func TestNoDescriptor(t *testing.T) {
	h := running(t, Config{})
	l := newLeaver()
	server, client := pair(t, false)
	s := h.Open(l.options(StreamOptions{}))
	var limit unix.Rlimit
	if err := unix.Getrlimit(unix.RLIMIT_NOFILE, &limit); err != nil {
		t.Fatal(err)
	}
	if err := unix.Setrlimit(unix.RLIMIT_NOFILE, &unix.Rlimit{Cur: 3, Max: limit.Max}); err != nil {
		t.Fatal(err)
	}
	held := h.Hold(server)
	if err := unix.Setrlimit(unix.RLIMIT_NOFILE, &limit); err != nil {
		t.Fatal(err)
	}
	s.Follow(held, FollowOptions{Chunked: true})
	if why := l.next(t); why != ReasonConn {
		t.Error("left:", why)
	}
	if n, err := client.Read(make([]byte, 1)); err == nil || errors.Is(err, os.ErrDeadlineExceeded) {
		t.Errorf("the client reads %d bytes, %v", n, err)
	}
	held.Close(CloseNow) // once more does no harm
}

package intake

import (
	"errors"
	"fmt"
	"io"
	"net"
	"runtime"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"
)

// recorder is a Sink that keeps everything.
type recorder struct {
	mu    sync.Mutex
	data  []byte
	ends  []error
	pause bool  // say no more after the next piece
	fail  error // what Take answers
	news  chan struct{}
}

func newRecorder() *recorder { return &recorder{news: make(chan struct{}, 1)} }

func (r *recorder) tell() {
	select {
	case r.news <- struct{}{}:
	default:
	}
}

func (r *recorder) Take(p []byte) (bool, error) {
	r.mu.Lock()
	defer r.mu.Unlock()
	defer r.tell()
	r.data = append(r.data, p...)
	return !r.pause, r.fail
}

func (r *recorder) End(err error) {
	r.mu.Lock()
	defer r.mu.Unlock()
	defer r.tell()
	r.ends = append(r.ends, err)
}

// until waits for what has come to satisfy ok.
func (r *recorder) until(t *testing.T, what string, ok func() bool) {
	t.Helper()
	limit := time.After(10 * time.Second)
	for {
		r.mu.Lock()
		done := ok()
		r.mu.Unlock()
		if done {
			return
		}
		select {
		case <-r.news:
		case <-limit:
			r.mu.Lock()
			defer r.mu.Unlock()
			t.Fatalf("%s: not within 10 s; have %d bytes, ends %v", what, len(r.data), r.ends)
		}
	}
}

func (r *recorder) ended(t *testing.T) error {
	t.Helper()
	r.until(t, "the end", func() bool { return len(r.ends) > 0 })
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.ends[0]
}

func set(t *testing.T) *Set {
	t.Helper()
	s, err := New(2)
	if err != nil {
		t.Fatal(err)
	}
	before := runtime.NumGoroutine()
	t.Cleanup(func() {
		s.Close()
		for end := time.Now().Add(5 * time.Second); runtime.NumGoroutine() > before && time.Now().Before(end); time.Sleep(time.Millisecond) {
		}
		if n := runtime.NumGoroutine(); n > before {
			t.Errorf("%d goroutines, %d before", n, before)
		}
	})
	return s
}

// pair is a connection: the service's end and ours.
func pair(t *testing.T) (service, ours *net.TCPConn) {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	c, err := net.Dial("tcp", l.Addr().String())
	if err != nil {
		t.Fatal(err)
	}
	a, err := l.Accept()
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { a.Close() })
	return a.(*net.TCPConn), c.(*net.TCPConn)
}

func add(t *testing.T, s *Set, c net.Conn, o Options, r Sink) *Conn {
	t.Helper()
	conn, ok, err := s.Add(c, o, r)
	if err != nil || !ok {
		t.Fatal(ok, err)
	}
	return conn
}

func TestBodies(t *testing.T) {
	chunked := Framing{Chunked: true}
	for _, c := range []struct {
		name    string
		framing Framing
		first   string
		send    string
		want    string
		err     error
	}{
		{"chunked", chunked, "", "5\r\nhello\r\n0\r\n\r\n", "hello", nil},
		{"chunked, begun before", chunked, "5\r\nhe", "llo\r\n0\r\n\r\n", "hello", nil},
		{"chunked, all there before", chunked, "1\r\na\r\n0\r\n\r\n", "", "a", nil},
		{"chunked, cut", chunked, "", "5\r\nhello\r\n", "hello", io.ErrUnexpectedEOF},
		{"chunked, broken", chunked, "", "5\r\nhellox", "hello", ErrFraming},
		{"sized", Framing{Sized: true, Length: 5}, "", "hello and more", "hello", nil},
		{"sized, nothing", Framing{Sized: true}, "", "", "", nil},
		{"sized, cut", Framing{Sized: true, Length: 6}, "", "hello", "hello", io.ErrUnexpectedEOF},
		{"to the end", Framing{}, "he", "llo", "hello", nil},
	} {
		t.Run(c.name, func(t *testing.T) {
			s := set(t)
			service, ours := pair(t)
			r := newRecorder()
			add(t, s, ours, Options{Framing: c.framing, First: []byte(c.first)}, r)
			io.WriteString(service, c.send)
			service.CloseWrite()
			if err := r.ended(t); !errors.Is(err, c.err) {
				t.Errorf("ended with %v", err)
			}
			if string(r.data) != c.want {
				t.Errorf("got %q", r.data)
			}
		})
	}
}

func TestReset(t *testing.T) {
	s := set(t)
	service, ours := pair(t)
	r := newRecorder()
	add(t, s, ours, Options{}, r)
	service.SetLinger(0)
	service.Close()
	if err := r.ended(t); err == nil {
		t.Error("a reset passed for an end")
	}
}

// TestPause: who takes no more makes the service wait, and loses nothing.
func TestPause(t *testing.T) {
	s := set(t)
	service, ours := pair(t)
	r := newRecorder()
	r.pause = true
	c := add(t, s, ours, Options{Framing: Framing{Sized: true, Length: 16 << 20}}, r)
	sent := make(chan error, 1)
	go func() {
		_, err := service.Write(make([]byte, 16<<20))
		sent <- err
	}()
	r.until(t, "the first piece", func() bool { return len(r.data) > 0 })
	select {
	case <-sent:
		t.Fatal("16 MiB went to who takes none")
	case <-time.After(100 * time.Millisecond):
	}
	if n := len(r.data); n > readSize {
		t.Errorf("%d bytes read in spite of the pause", n)
	}
	r.mu.Lock()
	r.pause = false
	r.mu.Unlock()
	c.Resume()
	if err := r.ended(t); err != nil || len(r.data) != 16<<20 {
		t.Errorf("%d bytes, %v", len(r.data), err)
	}
	if err := <-sent; err != nil {
		t.Error(err)
	}
}

// TestPausedAndGone: a service that leaves meanwhile is noticed on Resume, and
// costs nothing before.
func TestPausedAndGone(t *testing.T) {
	s := set(t)
	service, ours := pair(t)
	r := newRecorder()
	r.pause = true
	c := add(t, s, ours, Options{Framing: Framing{Chunked: true}}, r)
	io.WriteString(service, "1\r\na\r\n")
	r.until(t, "a piece", func() bool { return len(r.data) > 0 })
	io.WriteString(service, "1\r\nb\r\n")
	service.Close()
	c.Resume()
	r.until(t, "the second piece", func() bool { return string(r.data) == "ab" })
	c.Resume()
	if err := r.ended(t); err != io.ErrUnexpectedEOF {
		t.Error(err)
	}
}

func TestSinkFails(t *testing.T) {
	s := set(t)
	service, ours := pair(t)
	r := newRecorder()
	r.fail = errors.New("no more of this")
	add(t, s, ours, Options{}, r)
	io.WriteString(service, "x")
	if err := r.ended(t); err != r.fail {
		t.Error(err)
	}
	if _, err := io.ReadAll(service); err == nil {
		return // closed in order or reset: closed
	}
}

func TestCloseOnce(t *testing.T) {
	s := set(t)
	service, ours := pair(t)
	r := newRecorder()
	c := add(t, s, ours, Options{}, r)
	why := errors.New("stopped")
	var wg sync.WaitGroup
	for range 8 {
		wg.Go(func() { c.Close(why) })
	}
	service.Close()
	wg.Wait()
	c.Resume()
	if len(r.ends) != 1 || r.ends[0] != why && r.ends[0] != nil {
		t.Error(r.ends)
	}
}

func TestSilent(t *testing.T) {
	s := set(t)
	service, ours := pair(t)
	r := newRecorder()
	add(t, s, ours, Options{Idle: time.Second}, r)
	io.WriteString(service, "x")
	if err := r.ended(t); err != ErrSilent || string(r.data) != "x" {
		t.Errorf("%q, %v", r.data, err)
	}
}

func TestSetCloses(t *testing.T) {
	s := set(t)
	_, ours := pair(t)
	r := newRecorder()
	add(t, s, ours, Options{}, r)
	s.Close()
	if err := r.ended(t); !errors.Is(err, net.ErrClosed) {
		t.Error(err)
	}
	_, late := pair(t)
	if _, _, err := s.Add(late, Options{}, newRecorder()); !errors.Is(err, net.ErrClosed) {
		t.Error(err)
	}
}

// TestOthersAreRefused: what is no plain TCP connection stays its owner's.
func TestOthersAreRefused(t *testing.T) {
	s := set(t)
	a, b := net.Pipe()
	defer b.Close()
	if _, ok, err := s.Add(a, Options{}, newRecorder()); ok || err != nil {
		t.Error(ok, err)
	}
	go b.Write([]byte("x"))
	if _, err := a.Read(make([]byte, 1)); err != nil {
		t.Error("the connection was touched:", err)
	}
}

// TestHelp: who waits behind a whole batch does not wait for it.
func TestHelp(t *testing.T) {
	const conns = 3 * batch
	s := set(t)
	var met atomic.Int32
	var services []net.Conn
	held, written, others := make(chan struct{}), make(chan struct{}), make(chan struct{})
	wait := func(c chan struct{}) {
		select {
		case <-c:
		case <-time.After(20 * time.Second):
			t.Error("nobody helps")
		}
	}
	first, ours := pair(t)
	add(t, s, ours, Options{}, taker(func() {
		close(held)
		wait(written)
	}))
	for range conns {
		service, ours := pair(t)
		services = append(services, service)
		add(t, s, ours, Options{}, taker(func() {
			switch met.Add(1) {
			case 1:
				wait(others)
			case batch + 2: // at least one of them behind the first one's batch
				close(others)
			}
		}))
	}
	io.WriteString(first, "x")
	wait(held)
	for _, service := range services {
		io.WriteString(service, "x")
	}
	close(written)
	wait(others)
}

// A taker is a sink that is called for each piece.
type taker func()

func (f taker) Take([]byte) (bool, error) { f(); return true, nil }
func (taker) End(error)                   {}

// TestMany: a thousand bodies, each in pieces, each whole at its sink.
func TestMany(t *testing.T) {
	s := set(t)
	const conns, pieces = 1000, 20
	before := runtime.NumGoroutine()
	rs := make([]*recorder, conns)
	services := make([]net.Conn, conns)
	for i := range rs {
		service, ours := pair(t)
		rs[i], services[i] = newRecorder(), service
		add(t, s, ours, Options{Framing: Framing{Chunked: true}}, rs[i])
	}
	if n := runtime.NumGoroutine(); n > before+8 {
		t.Errorf("%d goroutines for %d connections", n-before, conns)
	}
	for p := range pieces {
		for i, c := range services {
			piece := fmt.Sprintf("%d of %d;", p, i)
			fmt.Fprintf(c, "%x\r\n%s\r\n", len(piece), piece)
		}
	}
	for i, r := range rs {
		io.WriteString(services[i], "0\r\n\r\n")
		if err := r.ended(t); err != nil {
			t.Fatal(err)
		}
		var want strings.Builder
		for p := range pieces {
			fmt.Fprintf(&want, "%d of %d;", p, i)
		}
		if string(r.data) != want.String() {
			t.Fatalf("%d: %q", i, r.data)
		}
	}
}

package link

import (
	"context"
	"errors"
	"io"
	"net"
	"os"
	"testing"
	"time"
)

// listen accepts connections and hands them out; nobody reads from them.
func listen(t *testing.T) (addr string, accepted <-chan net.Conn) {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	conns := make(chan net.Conn, 10)
	done := make(chan struct{})
	go func() {
		defer close(done)
		for {
			c, err := l.Accept()
			if err != nil {
				return
			}
			t.Cleanup(func() { c.Close() })
			conns <- c
		}
	}()
	t.Cleanup(func() {
		l.Close()
		<-done
	})
	return l.Addr().String(), conns
}

func dialed(t *testing.T, w *Wire, addr string) net.Conn {
	t.Helper()
	c, err := w.Dial(t.Context(), new(net.Dialer).DialContext, "tcp", addr)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { c.Close() })
	return c
}

// A write to somebody who takes nothing ends when patience does.
func TestWirePatience(t *testing.T) {
	addr, _ := listen(t)
	const patience = 200 * time.Millisecond
	c := dialed(t, newWire(t.Context(), patience), addr)
	began := time.Now()
	n, err := c.Write(make([]byte, 256<<20))
	if !errors.Is(err, os.ErrDeadlineExceeded) {
		t.Fatalf("%d bytes, %v", n, err)
	}
	if took := time.Since(began); took < patience {
		t.Fatalf("gave up after %v", took)
	}
}

// One that is slow, but does not stand still, is waited for.
func TestWireSlowReader(t *testing.T) {
	addr, accepted := listen(t)
	const patience = 300 * time.Millisecond
	c := dialed(t, newWire(t.Context(), patience), addr)
	const size = 32 << 20
	read := make(chan int64, 1)
	began := time.Now()
	go func() {
		far := <-accepted
		total := int64(0)
		for total < size {
			n, err := io.CopyN(io.Discard, far, 1<<20)
			if total += n; err != nil {
				break
			}
			time.Sleep(patience / 15)
		}
		read <- total
	}()
	if n, err := c.Write(make([]byte, size)); n != size || err != nil {
		t.Fatalf("%d bytes, %v", n, err)
	}
	if n := <-read; n != size {
		t.Fatalf("%d bytes arrived", n)
	}
	if took := time.Since(began); took < patience {
		t.Fatalf("the reader was not slow: %v", took)
	}
}

// Cutting ends every connection, whatever is under way on it, and lets no new
// one begin.
func TestWireCut(t *testing.T) {
	addr, _ := listen(t)
	w := newWire(t.Context(), time.Hour)
	closed := dialed(t, w, addr)
	closed.Close()
	ends := make(chan error, 2)
	reader, writer := dialed(t, w, addr), dialed(t, w, addr)
	go func() {
		_, err := reader.Read(make([]byte, 1))
		ends <- err
	}()
	go func() {
		_, err := writer.Write(make([]byte, 256<<20))
		ends <- err
	}()
	hung := make(chan error, 1)
	dialing := make(chan struct{})
	go func() {
		_, err := w.Dial(context.Background(), func(ctx context.Context, _, _ string) (net.Conn, error) {
			close(dialing)
			<-ctx.Done()
			return nil, ctx.Err()
		}, "tcp", addr)
		hung <- err
	}()
	<-dialing
	if len(w.conns) != 2 {
		t.Fatalf("%d connections are kept", len(w.conns))
	}
	w.cut()
	w.cut()
	for range 2 {
		if err := <-ends; !errors.Is(err, net.ErrClosed) {
			t.Fatal(err)
		}
	}
	if err := <-hung; err == nil {
		t.Fatal("a dial went on")
	}
	if _, err := w.Dial(context.Background(), new(net.Dialer).DialContext, "tcp", addr); err == nil {
		t.Fatal("a new connection began")
	}
}

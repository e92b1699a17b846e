package intake

import (
	"errors"
	"fmt"
	"io"
	"net"
	"strings"
	"syscall"
	"testing"
	"time"
)

// TestPace: who brings little often has to rest, who is seldom heard of or
// brings much never does.
func TestPace(t *testing.T) {
	for _, c := range []struct {
		name   string
		every  time.Duration
		bytes  int
		pieces int
		after  int // reads; 0: never
	}{
		{"an event in 20 ms", 20 * time.Millisecond, 100, 1, 0},
		{"an event in 6 ms", 6 * time.Millisecond, 100, 1, 0},
		{"an event in 1 ms", time.Millisecond, 100, 1, 21},
		{"ten events in 14 ms", 14 * time.Millisecond, 1000, 10, 22},
		{"much at once", time.Millisecond, little + 1, 10, 0},
	} {
		p := pace{gap: seldom}
		at, rests := time.Duration(0), 0
		for n := 1; n <= 1000 && rests == 0; n++ {
			at += c.every
			if p.read(c.bytes, c.pieces, at); p.hasty() {
				rests = n
			}
		}
		if rests != c.after {
			t.Errorf("%s: rests after %d reads, want %d", c.name, rests, c.after)
		}
	}
	p := pace{gap: seldom}
	at := time.Duration(0)
	for range 20 { // thirty events at once, now and then
		at += 3 * time.Second
		for range 8 {
			at += time.Millisecond / 10
			if p.read(300, 4, at); p.hasty() {
				t.Fatal("a burst is made to wait")
			}
		}
	}
	for range 100 {
		at += time.Millisecond
		p.read(100, 1, at)
	}
	slow := 0
	for ; p.hasty(); slow++ { // an event in 20 ms again
		at += 20 * time.Millisecond
		p.read(100, 1, at)
	}
	if slow > 4 {
		t.Errorf("it goes on resting for %d reads", slow)
	}
}

// tired writes and waits for what was written, over and over, until the
// connection rests, and returns all of it.
func tired(t *testing.T, service net.Conn, conn *Conn, r *recorder) (sent string) {
	t.Helper()
	var all strings.Builder
	for n, end := 0, time.Now().Add(20*time.Second); ; n++ {
		if time.Now().After(end) {
			t.Fatalf("it never rests, after %d writes", n)
		}
		all.WriteString(write(t, service, fmt.Sprintf("data: %d\n\n", n)))
		r.until(t, "what was written", func() bool { return len(r.data) == all.Len() })
		conn.mu.Lock()
		rests := conn.pace.resting && conn.pace.listed
		conn.mu.Unlock()
		if rests {
			return all.String()
		}
	}
}

func write(t *testing.T, c net.Conn, s string) string {
	t.Helper()
	if _, err := io.WriteString(c, s); err != nil {
		t.Fatal(err)
	}
	return s
}

// TestResting: a connection that rests misses nothing: not what comes, nor a
// pause, its end, a reset, or that it is closed; and when it has fallen silent
// it is listened to again.
func TestResting(t *testing.T) {
	for name, then := range map[string]func(t *testing.T, service *net.TCPConn, conn *Conn, r *recorder) (more string, end error){
		"more comes": func(t *testing.T, service *net.TCPConn, conn *Conn, r *recorder) (string, error) {
			var more strings.Builder
			for i := range 2000 {
				more.WriteString(write(t, service, fmt.Sprintf("%d ", i)))
			}
			more.WriteString(write(t, service, strings.Repeat("x", 1<<20))) // too much to rest
			service.Close()
			return more.String(), nil
		},
		"silence": func(t *testing.T, service *net.TCPConn, conn *Conn, r *recorder) (string, error) {
			for end := time.Now().Add(10 * time.Second); ; time.Sleep(time.Millisecond) {
				conn.mu.Lock()
				rests := conn.pace.resting
				conn.mu.Unlock()
				if !rests {
					break
				}
				if time.Now().After(end) {
					t.Fatal("it rests for ever")
				}
			}
			more := write(t, service, "again")
			service.Close()
			return more, nil
		},
		"the end": func(t *testing.T, service *net.TCPConn, conn *Conn, r *recorder) (string, error) {
			service.Close()
			return "", nil
		},
		"a reset": func(t *testing.T, service *net.TCPConn, conn *Conn, r *recorder) (string, error) {
			service.SetLinger(0)
			service.Close()
			return "", syscall.ECONNRESET
		},
		"closed": func(t *testing.T, service *net.TCPConn, conn *Conn, r *recorder) (string, error) {
			conn.Close(net.ErrClosed)
			return "", net.ErrClosed
		},
		"no more, then more": func(t *testing.T, service *net.TCPConn, conn *Conn, r *recorder) (string, error) {
			r.mu.Lock()
			r.pause = true
			had := len(r.data)
			r.mu.Unlock()
			more := write(t, service, "last")
			r.until(t, "the last piece", func() bool { return len(r.data) == had+len(more) })
			more += write(t, service, "and more")
			time.Sleep(3 * pause) // it must not be read meanwhile
			r.mu.Lock()
			r.pause = false
			if len(r.data) != had+len("last") {
				t.Error("it was read while nothing was wanted")
			}
			r.mu.Unlock()
			conn.Resume()
			service.Close()
			return more, nil
		},
	} {
		t.Run(name, func(t *testing.T) {
			service, ours := pair(t)
			r := newRecorder()
			conn := add(t, set(t), ours, Options{}, r)
			sent := tired(t, service, conn, r)
			more, end := then(t, service, conn, r)
			if err := r.ended(t); !errors.Is(err, end) {
				t.Errorf("it ended with %v, want %v", err, end)
			}
			if got := string(r.data); got != sent+more {
				t.Errorf("got %d bytes, want %d", len(got), len(sent+more))
			}
		})
	}
}

package intake

import (
	"bytes"
	"fmt"
	"net"
	"sync/atomic"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

// A meter is a sink that only counts.
type meter struct {
	bytes int64
	ended atomic.Bool
	all   chan struct{} // told when so much has come
	goal  int64
}

func (m *meter) Take(p []byte) (bool, error) {
	if m.bytes += int64(len(p)); m.bytes >= m.goal {
		m.bytes = 0
		m.all <- struct{}{}
	}
	return true, nil
}

func (m *meter) End(error) { m.ended.Store(true) }

// upstream is a connection whose service is a descriptor alone, which writing
// costs nothing of Go's. The caller closes it.
func upstream(tb testing.TB, s *Set, sink Sink) (service int) {
	tb.Helper()
	ln, err := net.Listen("tcp4", "127.0.0.1:0")
	if err != nil {
		tb.Fatal(err)
	}
	defer ln.Close()
	if service, err = unix.Socket(unix.AF_INET, unix.SOCK_STREAM|unix.SOCK_CLOEXEC, 0); err != nil {
		tb.Fatal(err)
	}
	if err := unix.Connect(service, &unix.SockaddrInet4{Port: ln.Addr().(*net.TCPAddr).Port, Addr: [4]byte{127, 0, 0, 1}}); err != nil {
		tb.Fatal(err)
	}
	c, err := ln.Accept()
	if err != nil {
		tb.Fatal(err)
	}
	if _, ok, err := s.Add(c, Options{Framing: Framing{Chunked: true}, Idle: time.Minute}, sink); !ok || err != nil {
		tb.Fatal(ok, err)
	}
	return service
}

// chunked are so many events of so many bytes, each a chunk of its own.
func chunked(events, size int) []byte {
	return bytes.Repeat(fmt.Appendf(nil, "%x\r\n%0*d\r\n", size, size, 0), events)
}

func newSet(tb testing.TB) *Set {
	tb.Helper()
	s, err := New(1)
	if err != nil {
		tb.Fatal(err)
	}
	tb.Cleanup(s.Close)
	return s
}

// BenchmarkSet is the way of an event from a service's write to the sink, one
// write under way at a time.
//
//	go test -run - -bench 'Set$' ./intake
func BenchmarkSet(b *testing.B) {
	for _, bb := range []struct{ size, events int }{{64, 1}, {64, 20}, {1024, 1}, {1024, 20}} {
		b.Run(fmt.Sprintf("%dB/%daWrite", bb.size, bb.events), func(b *testing.B) {
			m := &meter{all: make(chan struct{}, 1), goal: int64(bb.size * bb.events)}
			service := upstream(b, newSet(b), m)
			defer unix.Close(service)
			raw := chunked(bb.events, bb.size)
			n := 0
			b.ReportAllocs()
			for b.Loop() {
				if _, err := unix.Write(service, raw); err != nil {
					b.Fatal(err)
				}
				<-m.all
				n += bb.events
			}
			b.ReportMetric(float64(b.Elapsed().Nanoseconds())/float64(n), "ns/event")
		})
	}
}

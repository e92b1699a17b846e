//go:build linux

package load

import (
	"fmt"
	"io"
	"net"
	"slices"
	"strings"
	"testing"
	"time"
)

// direct does a plan with nothing between the clients and the service, or with
// what front starts.
func direct(t *testing.T, plan Plan, front func(service string) (Front, error)) (Result, []string, error) {
	t.Helper()
	plan.Size, plan.Batch, plan.Patience = 64, max(plan.Batch, 1), 20*time.Second
	toLoad, fromConductor := io.Pipe()
	toConductor, fromLoad := io.Pipe()
	done := make(chan error, 1)
	go func() { done <- Main(toLoad, fromLoad) }()
	if front == nil {
		front = func(service string) (Front, error) { return Front{Clients: []string{service}, Back: service}, nil }
	}
	var marks []string
	r, err := NewTalk(toConductor, fromConductor).Conduct(plan, front, func(name string) error {
		marks = append(marks, name)
		return nil
	})
	fromConductor.Close()
	toConductor.Close()
	<-done // what it could not report
	return r, marks, err
}

func TestWork(t *testing.T) {
	f := func(plan Plan, events func(n int64) bool, wantMarks ...string) {
		t.Helper()
		r, marks, err := direct(t, plan, nil)
		if err != nil {
			t.Errorf("%s: %v", plan.Kind, err)
		}
		if !r.Sound() || !events(r.Events) || !slices.Equal(marks, wantMarks) {
			t.Errorf("%s: %+v, marks %q", plan.Kind, r, marks)
		}
	}
	exactly := func(want int64) func(int64) bool { return func(n int64) bool { return n == want } }
	// The first event of each stream is there before the beginning.
	f(Plan{Kind: Proxied, Clients: 7, Events: 100}, exactly(7*99), "begin", "end")
	f(Plan{Kind: Proxied, Clients: 7, Events: 101, Batch: 20}, exactly(7*100), "begin", "end")
	f(Plan{Kind: Short, Clients: 7, Streams: 50, Events: 20}, exactly(50*20), "begin", "end")
	f(Plan{Kind: Idle, Clients: 40, Settle: time.Millisecond}, exactly(0), "empty", "full")
	f(Plan{Kind: Proxied, Clients: 10, Every: 5 * time.Millisecond, Warm: 20 * time.Millisecond, Lasts: 200 * time.Millisecond},
		func(n int64) bool { return n > 10*20 && n < 10*60 }, "begin", "end")
}

// between is a proxy that hands on what the service says after editing it.
func between(t *testing.T, edit func(stream string) string) func(service string) (Front, error) {
	return func(service string) (Front, error) {
		l, err := net.Listen("tcp", "127.0.0.1:0")
		if err != nil {
			return Front{}, err
		}
		t.Cleanup(func() { l.Close() })
		go func() {
			for {
				conn, err := l.Accept()
				if err != nil {
					return
				}
				go func() {
					defer conn.Close()
					up, err := net.Dial("tcp", service)
					if err != nil {
						return
					}
					defer up.Close()
					b := make([]byte, 4096)
					n, err := conn.Read(b)
					if err != nil {
						return
					}
					if _, err := up.Write(b[:n]); err != nil {
						return
					}
					var all strings.Builder
					for !strings.HasSuffix(all.String(), lastChunk) {
						n, err := up.Read(b)
						if err != nil {
							return
						}
						all.Write(b[:n])
					}
					_, _ = io.WriteString(conn, edit(all.String())) // the client may have left
				}()
			}
		}()
		return Front{Clients: []string{l.Addr().String()}}, nil
	}
}

// TestFindsFaults has a proxy that does what must not be.
func TestFindsFaults(t *testing.T) {
	const streams = 5
	plan := Plan{Kind: Short, Clients: 2, Streams: streams, Events: 20}
	chunks := func(s string) []string { return strings.SplitAfter(s, "\n\n\r\n") }
	f := func(name string, edit func(string) string, ok func(Result) bool) {
		t.Helper()
		r, _, err := direct(t, plan, between(t, edit))
		if err != nil {
			t.Errorf("%s: %v", name, err)
		}
		if !ok(r) || r.Sound() != (name == "nothing") {
			t.Errorf("%s: %+v, sound %v", name, r, r.Sound())
		}
	}
	f("nothing", func(s string) string { return s }, func(r Result) bool { return r.Events == streams*20 })
	f("lost", func(s string) string { c := chunks(s); return strings.Join(slices.Delete(c, 7, 8), "") },
		func(r Result) bool { return r.Lost == streams && r.Doubled == 0 })
	f("lost at the end", func(s string) string { c := chunks(s); return strings.Join(slices.Delete(c, 19, 20), "") },
		func(r Result) bool { return r.Lost == streams && r.Doubled == 0 })
	f("doubled", func(s string) string { c := chunks(s); return strings.Join(slices.Insert(c, 7, c[6]), "") },
		func(r Result) bool { return r.Lost == 0 && r.Doubled == streams })
	f("another's", func(s string) string {
		i := strings.LastIndex(s, "@") + 2 + seqDigits + atDigits + 1
		return s[:i] + "99999" + s[i+srcDigits:]
	}, func(r Result) bool { return r.Foreign == streams && r.Lost == streams })
	f("cut", func(s string) string { return strings.TrimSuffix(s, lastChunk) }, func(r Result) bool { return r.Cut == streams && r.Lost == 0 })
	f("refused", func(string) string { return "HTTP/1.1 503 Busy\r\nContent-Length: 0\r\n\r\n" },
		func(r Result) bool { return r.Refused == streams })
	f("told", func(s string) string {
		const gap = "event: ssegate.gap\ndata: {}\n\n"
		c := chunks(s)
		return strings.Join(slices.Insert(c, 7, fmt.Sprintf("%x\r\n%s\r\n", len(gap), gap)), "")
	}, func(r Result) bool { return r.Told == streams })
}

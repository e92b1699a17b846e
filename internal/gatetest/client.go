package gatetest

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"strings"
	"sync"
	"testing"
	"time"
)

// Event is what a client's application sees.
type Event struct {
	ID, Name, Data string
	Retry          string
	At             time.Time
}

// Stream is one response that is being read. It is a plain reading of the
// standard, apart from the product's own decoder.
type Stream struct {
	t      testing.TB
	Resp   *http.Response
	cancel context.CancelFunc
	r      *bufio.Reader
	LastID string   // as an EventSource would send it
	Lines  []string // all lines as they came
	err    error
}

// Request is what a client asks.
type Request struct {
	Method string // GET
	URL    string
	Header map[string]string
	Body   string
}

// EventSource asks as a browser's EventSource does, with its last id if any.
func EventSource(t testing.TB, url, lastID string) *Stream {
	t.Helper()
	h := map[string]string{"Accept": "text/event-stream", "Cache-Control": "no-cache"}
	if lastID != "" {
		h["Last-Event-ID"] = lastID
	}
	return Do(t, Request{URL: url, Header: h})
}

// Do sends a request and returns its response once the head is there.
func Do(t testing.TB, r Request) *Stream {
	t.Helper()
	s, err := Try(t, r)
	if err != nil {
		t.Fatalf("%s %s: %v", r.Method, r.URL, err)
	}
	return s
}

// Try is Do for a request that may fail.
func Try(t testing.TB, r Request) (*Stream, error) {
	ctx, cancel := context.WithCancel(context.Background())
	var body io.Reader
	if r.Body != "" {
		body = strings.NewReader(r.Body)
	}
	req, err := http.NewRequestWithContext(ctx, r.Method, r.URL, body)
	if err != nil {
		cancel()
		return nil, err
	}
	for k, v := range r.Header {
		req.Header.Set(k, v)
	}
	// A connection of its own, so that closing it is what a client that goes
	// away does.
	tr := &http.Transport{DisableKeepAlives: true, DisableCompression: true, ResponseHeaderTimeout: Patience}
	resp, err := tr.RoundTrip(req)
	if err != nil {
		cancel()
		return nil, err
	}
	s := &Stream{t: t, Resp: resp, cancel: cancel, r: bufio.NewReader(resp.Body)}
	if ids := resp.Header.Get("Ssegate-Stream"); ids != "" {
		s.LastID = r.Header["Last-Event-ID"]
	}
	t.Cleanup(s.Close)
	return s, nil
}

// ID is the stream's name as the response has it.
func (s *Stream) ID() string { return s.Resp.Header.Get("Ssegate-Stream") }

// Close goes away, as a client does whose network drops.
func (s *Stream) Close() { s.cancel(); s.Resp.Body.Close() }

// Next reads the next event; the error is io.EOF at a clean end and another
// one at a cut.
func (s *Stream) Next() (Event, error) {
	if s.err != nil {
		return Event{}, s.err
	}
	type result struct {
		ev  Event
		err error
	}
	c := make(chan result, 1)
	go func() { ev, err := s.read(); c <- result{ev, err} }()
	select {
	case r := <-c:
		s.err = r.err
		return r.ev, r.err
	case <-time.After(Patience):
		s.cancel()
		s.err = errors.New("gatetest: no event within patience")
		return Event{}, s.err
	}
}

func (s *Stream) read() (ev Event, err error) {
	var data []string
	id, hasID := "", false
	for {
		line, err := s.r.ReadString('\n')
		if err != nil {
			return ev, err // an unfinished block is no event
		}
		line = strings.TrimSuffix(strings.TrimSuffix(line, "\n"), "\r")
		s.Lines = append(s.Lines, line)
		if line == "" {
			if hasID {
				s.LastID = id
			}
			if data == nil {
				ev, id, hasID = Event{}, "", false
				continue
			}
			ev.ID, ev.Data, ev.At = s.LastID, strings.Join(data, "\n"), time.Now()
			return ev, nil
		}
		name, value, _ := strings.Cut(line, ":")
		value = strings.TrimPrefix(value, " ")
		switch name {
		case "data":
			data = append(data, value)
		case "event":
			ev.Name = value
		case "id":
			id, hasID = value, true
		case "retry":
			ev.Retry = value
		}
	}
}

// Take reads n events and fails the test when the stream ends before.
func (s *Stream) Take(n int) []Event {
	s.t.Helper()
	out := make([]Event, 0, n)
	for len(out) < n {
		ev, err := s.Next()
		if err != nil {
			s.t.Fatalf("after %d of %d events: %v; lines so far: %q", len(out), n, err, s.Lines)
		}
		out = append(out, ev)
	}
	return out
}

// Rest reads to the end; clean says whether it was a clean one.
func (s *Stream) Rest() (events []Event, clean bool) {
	s.t.Helper()
	for {
		ev, err := s.Next()
		switch {
		case err == nil:
			events = append(events, ev)
		case errors.Is(err, io.EOF) && !errors.Is(err, io.ErrUnexpectedEOF):
			return events, true
		case errors.Is(err, io.ErrUnexpectedEOF), isCut(err):
			return events, false
		default:
			s.t.Fatalf("after %d events: %v", len(events), err)
		}
	}
}

func isCut(err error) bool {
	var op *net.OpError
	return errors.As(err, &op) || strings.Contains(err.Error(), "unexpected EOF") || strings.Contains(err.Error(), "connection reset")
}

// Body reads what is left as text.
func (s *Stream) Body() string {
	s.t.Helper()
	b, err := io.ReadAll(s.r)
	if err != nil {
		s.t.Fatal(err)
	}
	return string(b)
}

// Data lists the events' data.
func Data(events []Event) []string {
	out := make([]string, len(events))
	for i, ev := range events {
		out[i] = ev.Data
	}
	return out
}

// Numbers is what Data is of events from..to of /count, and then [DONE] if so.
func Numbers(from, to int, done bool) []string {
	var out []string
	for i := from; i <= to; i++ {
		out = append(out, fmt.Sprint(i))
	}
	if done {
		out = append(out, "[DONE]")
	}
	return out
}

// Line reads one raw line.
func (s *Stream) Line() (string, error) {
	line, err := s.r.ReadString('\n')
	return strings.TrimRight(line, "\r\n"), err
}

// Record reads the stream in the background from now on, so that each event
// bears the time at which it came. Only the Recorder may be used afterwards.
func (s *Stream) Record() *Recorder {
	r := &Recorder{s: s, more: make(chan struct{}), ended: make(chan struct{})}
	go func() {
		defer close(r.ended)
		for {
			ev, err := s.Next()
			r.mu.Lock()
			if err == nil {
				r.events = append(r.events, ev)
			}
			close(r.more)
			r.more = make(chan struct{})
			r.mu.Unlock()
			if err != nil {
				return
			}
		}
	}()
	return r
}

// Recorder is a stream that is read in the background.
type Recorder struct {
	s      *Stream
	mu     sync.Mutex
	events []Event
	more   chan struct{}
	ended  chan struct{}
}

// Wait waits until there are n more events than now.
func (r *Recorder) Wait(n int) {
	r.s.t.Helper()
	r.mu.Lock()
	until := len(r.events) + n
	r.mu.Unlock()
	for bound := time.After(Patience); ; {
		r.mu.Lock()
		have, more := len(r.events), r.more
		r.mu.Unlock()
		if have >= until {
			return
		}
		select {
		case <-more:
		case <-r.ended:
			r.s.t.Fatalf("the stream ended with %d events, want %d", have, until)
		case <-bound:
			r.s.t.Fatalf("%d events, want %d", have, until)
		}
	}
}

// Close goes away and returns all events and the id to come back with.
func (r *Recorder) Close() (events []Event, lastID string) {
	r.s.Close()
	<-r.ended
	return r.events, r.s.LastID
}

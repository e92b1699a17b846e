package e2e

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"net/http"
	"slices"
	"sync"
	"testing"
	"time"

	. "ssegate/internal/gatetest"
	"ssegate/push/client"
)

// pushes is [push] with the data alone as an event's data.
const pushes = "[push]\npayload = \"data\"\n"

// trio starts three nodes of this world that know each other.
func (w *world) trio(t *testing.T, more string) []*Node {
	t.Helper()
	var nodes []*Node
	for _, name := range []string{"a", "b", "c"} {
		nodes = append(nodes, Start(t, bin, name, w.together(more)))
	}
	acquainted(t, nodes...)
	return nodes
}

// publisher sends to one node's internal listener, over connections of its own.
func publisher(t *testing.T, n *Node) *client.Publisher {
	tr := &http.Transport{MaxIdleConnsPerHost: 32}
	t.Cleanup(tr.CloseIdleConnections)
	return &client.Publisher{Base: n.Internal, HTTP: &http.Client{Transport: tr, Timeout: Patience}}
}

// told is a message that was answered 2xx.
type told struct {
	data     string
	position uint64
}

// ledger is what publishers were promised. Its methods may be called
// concurrently.
type ledger struct {
	mu  sync.Mutex
	all []told
}

func (l *ledger) add(data string, position uint64) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.all = append(l.all, told{data, position})
}

// inOrder is the data of all of them, as the log has numbered them.
func (l *ledger) inOrder() []string {
	l.mu.Lock()
	defer l.mu.Unlock()
	all := slices.SortedFunc(slices.Values(l.all), func(a, b told) int {
		switch {
		case a.position < b.position:
			return -1
		case a.position > b.position:
			return 1
		}
		return 0
	})
	out := make([]string, len(all))
	for i := range all {
		out[i] = all[i].data
	}
	return out
}

// retried sends a message as a careful service does: with an id of its own,
// again until it is answered 2xx. What is answered else must be 503 with
// Retry-After. It returns the answer and how often it was refused.
func retried(t *testing.T, p *client.Publisher, m client.Message) (a client.Answer, refused int) {
	for end := time.Now().Add(Patience); ; refused++ {
		a, err := p.Send(context.Background(), m)
		if err == nil {
			return a, refused
		}
		var said *client.Error
		if !errors.As(err, &said) {
			t.Errorf("%s: no answer: %v", m.ID, err)
			return a, refused
		}
		if said.Status != 503 || said.RetryAfter <= 0 {
			t.Errorf("%s is answered %d, Retry-After %v: %s", m.ID, said.Status, said.RetryAfter, said.Body)
			return a, refused
		}
		if time.Now().After(end) {
			t.Errorf("%s was never taken: %v", m.ID, err)
			return a, refused
		}
		time.Sleep(20 * time.Millisecond)
	}
}

// rider is a client as EventSource is one: when its connection ends, it comes
// back with its last id. It goes from node to node of its own accord, too.
type rider struct {
	t    *testing.T
	path string

	mu     sync.Mutex
	nodes  []*Node
	stay   func(rng *rand.Rand) int // events after which it goes elsewhere
	s      *Stream
	events []Event // but for what ssegate says of gaps
	gaps   []Event
	lines  []string // of connections that have ended
	more   chan struct{}
	hops   int
	closed bool
	done   chan struct{}
	first  chan struct{} // closed when it is connected for the first time
}

// ride begins to follow path on one of the nodes. stay says after how many
// events the client goes elsewhere; nil: it stays while it can.
func ride(t *testing.T, path string, seed int, stay func(*rand.Rand) int, nodes ...*Node) *rider {
	r := &rider{t: t, path: path, nodes: nodes, stay: stay, more: make(chan struct{}), done: make(chan struct{}), first: make(chan struct{})}
	go r.run(rand.New(rand.NewPCG(uint64(seed), 17)))
	t.Cleanup(r.leave)
	return r
}

// often goes elsewhere after few events.
func often(rng *rand.Rand) int { return 1 + rng.IntN(60) }

func (r *rider) run(rng *rand.Rand) {
	defer close(r.done)
	id := ""
	for at := rng.IntN(1000); ; at++ {
		r.mu.Lock()
		node := r.nodes[at%len(r.nodes)]
		closed := r.closed
		r.mu.Unlock()
		if closed {
			return
		}
		h := map[string]string{"Accept": "text/event-stream"}
		if id != "" {
			h["Last-Event-ID"] = id
		}
		s, err := Try(r.t, Request{URL: node.URL + r.path, Header: h})
		if err != nil { // the node is gone
			time.Sleep(5 * time.Millisecond)
			continue
		}
		if s.Resp.StatusCode != 200 {
			r.t.Errorf("%s on %s with id %q is answered %d", r.path, node.Name, id, s.Resp.StatusCode)
			s.Close()
			return
		}
		r.connected(s)
		r.read(s, rng)
		r.mu.Lock()
		r.lines = append(r.lines, s.Lines...)
		r.mu.Unlock()
		if s.LastID != "" {
			id = s.LastID
		}
		s.Close()
	}
}

func (r *rider) connected(s *Stream) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.closed {
		s.Close()
	}
	r.s = s
	if r.hops++; r.hops == 1 {
		close(r.first)
	}
}

// read reads until the connection ends, or it is time to go.
func (r *rider) read(s *Stream, rng *rand.Rand) {
	left := -1
	if r.stay != nil {
		left = r.stay(rng)
	}
	for ; left != 0; left-- {
		ev, err := s.Next()
		if err != nil {
			return
		}
		r.mu.Lock()
		if ev.Name == "ssegate.gap" {
			r.gaps = append(r.gaps, ev)
		} else {
			r.events = append(r.events, ev)
		}
		close(r.more)
		r.more = make(chan struct{})
		r.mu.Unlock()
	}
}

// leave goes away for good.
func (r *rider) leave() {
	r.mu.Lock()
	r.closed = true
	if r.s != nil {
		r.s.Close()
	}
	r.mu.Unlock()
	<-r.done
}

// begun waits until the client is connected.
func (r *rider) begun() {
	r.t.Helper()
	select {
	case <-r.first:
	case <-time.After(Patience):
		r.t.Fatalf("%s: never connected", r.path)
	}
}

// await waits until the client has n events in all, and returns all it has.
func (r *rider) await(n int) []Event {
	r.t.Helper()
	for bound := time.After(Patience); ; {
		r.mu.Lock()
		events, more := r.events, r.more
		r.mu.Unlock()
		if len(events) >= n {
			return events
		}
		select {
		case <-more:
		case <-bound:
			r.t.Errorf("%s: %d events came, want %d", r.path, len(events), n)
			return events
		}
	}
}

// exactly fails the test unless the client gets just this, in this order, and
// is told of no gap.
func (r *rider) exactly(should []string) {
	r.t.Helper()
	r.exactlyBut(should)
	if gaps := r.toldGaps(); len(gaps) > 0 {
		r.t.Errorf("%s: told of gaps: %q", r.path, gaps)
	}
}

// toldGaps are the gaps that the client was told of.
func (r *rider) toldGaps() []string {
	r.mu.Lock()
	defer r.mu.Unlock()
	return Data(r.gaps)
}

// exactlyBut is exactly for who may be told of gaps.
func (r *rider) exactlyBut(should []string) {
	r.t.Helper()
	sameData(r.t, fmt.Sprintf("%s after %d connections", r.path, r.count()), Data(r.await(len(should))), should)
}

// count is how often the client has connected.
func (r *rider) count() int {
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.hops
}

// sameData compares long lists and tells where they part.
func sameData(t *testing.T, what string, got, want []string) {
	t.Helper()
	if slices.Equal(got, want) {
		return
	}
	i := 0
	for i < min(len(got), len(want)) && got[i] == want[i] {
		i++
	}
	t.Errorf("%s: %d come, want %d; from the %dth on they are %q, want %q", what, len(got), len(want), i+1,
		got[i:min(len(got), i+8)], want[i:min(len(want), i+8)])
}

package bustest

import (
	"bytes"
	"context"
	"maps"
	"runtime"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"ssegate/bus"
)

// patience bounds every wait for something that is to happen, on a busy
// machine.
const patience = time.Minute

// Node is a running node whose handler remembers its calls.
type Node struct {
	bus.Bus
	ID string

	stop  func()        // ends Run
	ended chan struct{} // Run has returned
	err   error         // what it returned

	mu      sync.Mutex
	changed chan struct{} // closed and replaced at each call of the handler
	got     []bus.Message
	lost    map[Loss]int
	ups     []bool
	hold    chan struct{} // while not nil, Receive waits for its end
	each    func(bus.Message)
}

// Loss is what a handler was told with Lost.
type Loss struct {
	To  string
	Why bus.LostReason
}

// Start runs b under a fresh handler, waits until it is up, and ends it with
// the test.
func Start(tb testing.TB, b bus.Bus, id string) *Node {
	tb.Helper()
	n := StartDown(tb, b, id)
	n.WaitUp(tb, 1)
	return n
}

// StartDown is Start without the wait.
func StartDown(tb testing.TB, b bus.Bus, id string) *Node {
	ctx, cancel := context.WithCancel(context.Background())
	n := &Node{
		Bus: b, ID: id, stop: cancel,
		ended: make(chan struct{}), changed: make(chan struct{}), lost: map[Loss]int{},
	}
	go func() {
		defer close(n.ended)
		n.err = b.Run(ctx, n)
	}()
	tb.Cleanup(func() {
		tb.Helper()
		n.Release()
		n.Stop(tb)
	})
	return n
}

// Stop ends Run and waits for it.
func (n *Node) Stop(tb testing.TB) {
	tb.Helper()
	n.stop()
	select {
	case <-n.ended:
		if n.err != nil {
			tb.Errorf("%s: Run returned %v", n.ID, n.err)
		}
	case <-time.After(patience):
		tb.Errorf("%s: Run does not end\n%s", n.ID, stacks())
	}
}

// change books a call of the handler. n.mu is held.
func (n *Node) change() {
	close(n.changed)
	n.changed = make(chan struct{})
}

// Receive implements bus.Handler.
func (n *Node) Receive(msgs []bus.Message) {
	n.mu.Lock()
	if n.each == nil {
		n.got = append(n.got, msgs...)
	} else {
		for _, m := range msgs {
			n.each(m)
		}
	}
	n.change()
	hold := n.hold
	n.mu.Unlock()
	if hold != nil {
		<-hold
	}
}

// Lost implements bus.Handler.
func (n *Node) Lost(to string, why bus.LostReason) {
	n.mu.Lock()
	defer n.mu.Unlock()
	n.lost[Loss{to, why}]++
	n.change()
}

// Up implements bus.Handler.
func (n *Node) Up(up bool) {
	n.mu.Lock()
	defer n.mu.Unlock()
	n.ups = append(n.ups, up)
	n.change()
}

// Each has f called with each message from now on, instead of remembering it.
func (n *Node) Each(f func(bus.Message)) {
	n.mu.Lock()
	defer n.mu.Unlock()
	n.each = f
}

// Hold makes the handler wait in the next Receive, until Release.
func (n *Node) Hold() {
	n.mu.Lock()
	defer n.mu.Unlock()
	n.hold = make(chan struct{})
}

// Release ends Hold.
func (n *Node) Release() {
	n.mu.Lock()
	defer n.mu.Unlock()
	if n.hold != nil {
		close(n.hold)
		n.hold = nil
	}
}

// Wait waits until ok, which is asked after each call of the handler, under
// the lock.
func (n *Node) Wait(tb testing.TB, what string, ok func() bool) {
	tb.Helper()
	if !n.within(patience, ok) {
		n.mu.Lock()
		defer n.mu.Unlock()
		tb.Fatalf("%s: waited in vain for %s: %d messages, lost %v, ups %v, %v", n.ID, what, len(n.got), n.lost, n.ups, n.Err())
	}
}

// Err is the driver's own word about why it is down, where it has one.
func (n *Node) Err() error {
	if b, ok := n.Bus.(interface{ Err() error }); ok {
		return b.Err()
	}
	return nil
}

// within reports whether ok came true within d.
func (n *Node) within(d time.Duration, ok func() bool) bool {
	t := time.NewTimer(d)
	defer t.Stop()
	for {
		n.mu.Lock()
		done, changed := ok(), n.changed
		n.mu.Unlock()
		if done {
			return true
		}
		select {
		case <-changed:
		case <-t.C:
			return false
		}
	}
}

// WaitUp waits for the count-th Up(true).
func (n *Node) WaitUp(tb testing.TB, count int) {
	tb.Helper()
	n.Wait(tb, "Up(true)", func() bool { return n.countUps(true) >= count })
}

// WaitDown waits for the count-th Up(false).
func (n *Node) WaitDown(tb testing.TB, count int) {
	tb.Helper()
	n.Wait(tb, "Up(false)", func() bool { return n.countUps(false) >= count })
}

func (n *Node) countUps(up bool) (count int) {
	for _, u := range n.ups {
		if u == up {
			count++
		}
	}
	return count
}

// Ups returns the calls of Up.
func (n *Node) Ups() []bool {
	n.mu.Lock()
	defer n.mu.Unlock()
	return slices.Clone(n.ups)
}

// Losses returns what Lost was called with, and how often.
func (n *Node) Losses() map[Loss]int {
	n.mu.Lock()
	defer n.mu.Unlock()
	return maps.Clone(n.lost)
}

// WaitLost waits for a loss.
func (n *Node) WaitLost(tb testing.TB, to string, why bus.LostReason) {
	tb.Helper()
	n.Wait(tb, "Lost("+to+", "+string(why)+")", func() bool { return n.lost[Loss{to, why}] > 0 })
}

// WaitMessages waits until count messages arrived in all, and returns them.
func (n *Node) WaitMessages(tb testing.TB, count int) []bus.Message {
	tb.Helper()
	n.Wait(tb, "messages", func() bool { return len(n.got) >= count })
	n.mu.Lock()
	defer n.mu.Unlock()
	return slices.Clone(n.got)
}

// Forget forgets the messages that arrived.
func (n *Node) Forget() {
	n.mu.Lock()
	defer n.mu.Unlock()
	n.got = nil
}

// Say sends messages and fails the test if it cannot.
func (n *Node) Say(tb testing.TB, to string, msgs ...bus.Message) {
	tb.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), patience)
	defer cancel()
	if err := n.Send(ctx, to, msgs); err != nil {
		tb.Fatalf("%s: Send: %v", n.ID, err)
	}
}

// Reach sends numbered messages to another node until one arrives: the way is
// open.
func (n *Node) Reach(tb testing.TB, to *Node) {
	tb.Helper()
	const knock = 200
	body := []byte(n.ID + " knocks " + time.Now().String())
	for range int(patience / (100 * time.Millisecond)) {
		_ = n.Send(tb.Context(), to.ID, []bus.Message{{Kind: knock, Body: body}}) // down for a while yet, perhaps
		if to.within(100*time.Millisecond, func() bool {
			return slices.ContainsFunc(to.got, func(m bus.Message) bool { return m.Kind == knock && bytes.Equal(m.Body, body) })
		}) {
			return
		}
	}
	tb.Fatalf("%s: nothing reaches %s: %v, %v", n.ID, to.ID, n.Err(), to.Err())
}

func stacks() string {
	buf := make([]byte, 1<<20)
	return string(buf[:runtime.Stack(buf, true)])
}

// goroutines lists the stacks of the goroutines that are the code's under
// test: those of the testing package, and of helpers that start services, are
// not.
func goroutines() (list []string) {
	for s := range strings.SplitSeq(stacks(), "\n\n") {
		if !strings.Contains(s, "testing.") && !strings.Contains(s, "gatetest/service") && !strings.Contains(s, "os/exec") &&
			!strings.Contains(s, "os/signal") {
			list = append(list, s)
		}
	}
	return list
}

// NoLeak fails the test if, when it ends, there are more goroutines than when
// NoLeak was called. Call it first.
func NoLeak(tb testing.TB) {
	before := len(goroutines())
	tb.Cleanup(func() {
		deadline := time.Now().Add(10 * time.Second)
		for {
			after := goroutines()
			if len(after) <= before {
				return
			}
			if time.Now().After(deadline) {
				tb.Errorf("%d goroutines, %d before:\n%s", len(after), before, strings.Join(after, "\n\n"))
				return
			}
			time.Sleep(10 * time.Millisecond)
		}
	})
}

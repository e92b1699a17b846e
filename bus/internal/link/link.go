package link

import (
	"context"
	"crypto/rand"
	"encoding/binary"
	"errors"
	"fmt"
	mathrand "math/rand/v2"
	"sync"
	"sync/atomic"
	"time"

	"ssegate/bus"
)

// Options are a Link's bounds. Every field must be set; Defaults does.
type Options struct {
	Queue   int           // bytes that wait for the writer; what is beyond is lost
	Batch   int           // bytes above which a parcel takes no further message
	Take    int           // bytes of parcels that Publish is given at once; one parcel in any case
	Stall   time.Duration // how long a broker may leave us without an answer before it counts as down
	Dial    time.Duration // how long one attempt to connect may take
	Backoff time.Duration // wait before the second attempt to connect; doubled for each that follows
	MaxWait time.Duration // longest wait before an attempt
	Linger  time.Duration // how long Run takes at most to send what is queued when it ends
}

// Defaults returns the Options that suit a broker in the same data centre.
func Defaults() Options {
	return Options{
		Queue:   32 << 20,
		Batch:   256 << 10,
		Take:    1,
		Stall:   3 * time.Second,
		Dial:    5 * time.Second,
		Backoff: 100 * time.Millisecond,
		MaxWait: 3 * time.Second,
		Linger:  time.Second,
	}
}

// Conn is one connection of a driver to its broker, from dial to Close.
type Conn interface {
	// Publish hands parcels to the broker, in order, and returns when it may
	// be given more. One goroutine calls it. What becomes of the parcels is
	// the Conn's to find out: it calls Session.Lost for each that does not
	// arrive, at the latest in Close. It must not keep Data after it
	// returned. It ends with an error soon after ctx is done; any error ends
	// the session.
	Publish(ctx context.Context, parcels []*Parcel) error
	// Leave is called when nothing will be published any more: it waits until
	// the broker has answered for everything, takes leave of it, and ends
	// soon after ctx is done.
	Leave(ctx context.Context)
	// Receive calls deliver for each parcel that arrives for this node, one
	// at a time, until ctx is done or the session is over, and says why. The
	// data are deliver's to keep.
	Receive(ctx context.Context, deliver func(data []byte)) error
	// Close lets go of everything. The sockets are closed already, and no
	// other method runs.
	Close()
}

// Dial connects. What it opens it opens through s.Wire, so that it ends with
// ctx. When it returns, parcels for s.Node arrive here.
type Dial func(ctx context.Context, s *Session) (Conn, error)

// Link is a bus.Bus but for the broker.
type Link struct {
	node  string
	opt   Options
	dial  Dial
	run   uint64
	queue *queue
	ran   atomic.Bool
	lost  losses

	garbled atomic.Uint64

	errMu sync.Mutex
	err   error // why it is down; nil while up

	calls   sync.Mutex // the handler's calls come one at a time
	h       bus.Handler
	senders senders // guarded by calls
}

// New returns a Link for the node, whose sessions dial makes.
func New(node string, opt Options, dial Dial) *Link {
	var run [8]byte
	rand.Read(run[:]) // never fails since Go 1.24
	return &Link{
		node:    node,
		opt:     opt,
		dial:    dial,
		run:     max(1, binary.BigEndian.Uint64(run[:])), // 0 is no run
		queue:   newQueue(opt.Queue, opt.Batch),
		lost:    losses{wake: make(chan struct{}, 1)},
		err:     errors.New("not connected yet"),
		senders: senders{},
	}
}

// Send implements bus.Bus. It never waits: what finds no room in the queue is
// lost, for a transport that lags behind must not slow down who feeds it.
func (l *Link) Send(ctx context.Context, to string, msgs []bus.Message) error {
	if err := ctx.Err(); err != nil {
		return err
	}
	if err := bus.CheckSize(msgs); err != nil {
		return err
	}
	err := l.queue.add(to, l.signed(msgs))
	if errors.Is(err, errFull) {
		l.Lost(to, bus.LostOverflow)
		return nil
	}
	return err
}

// Lost has the handler told that something sent to a node did not arrive.
func (l *Link) Lost(to string, why bus.LostReason) { l.lost.add(to, why) }

// signed returns msgs as sent by this node, the same slice where they are.
func (l *Link) signed(msgs []bus.Message) []bus.Message {
	for i := range msgs {
		if msgs[i].From != l.node {
			own := make([]bus.Message, len(msgs))
			for i, m := range msgs {
				m.From = l.node
				own[i] = m
			}
			return own
		}
	}
	return msgs
}

// Err says why the transport is down, for whoever has to mend it; nil while it
// is up.
func (l *Link) Err() error {
	l.errMu.Lock()
	defer l.errMu.Unlock()
	return l.err
}

func (l *Link) setErr(err error) {
	l.errMu.Lock()
	defer l.errMu.Unlock()
	l.err = err
}

// Garbled counts the parcels that arrived and could not be read.
func (l *Link) Garbled() uint64 { return l.garbled.Load() }

// Run implements bus.Bus.
func (l *Link) Run(ctx context.Context, h bus.Handler) error {
	if l.ran.Swap(true) {
		return bus.ErrClosed
	}
	l.h = h
	var wg sync.WaitGroup
	over := make(chan struct{})
	wg.Go(func() { l.tell(over) })
	defer wg.Wait()
	defer close(over)

	wait := l.opt.Backoff
	for n := uint64(1); ; n++ {
		up, err := l.session(ctx, n)
		if ctx.Err() != nil {
			l.queue.stop(bus.ErrClosed)
			l.setErr(bus.ErrClosed)
			return nil
		}
		l.setErr(err)
		if up > l.opt.MaxWait {
			wait = l.opt.Backoff
		}
		sleep(ctx, wait/2+mathrand.N(wait/2))
		wait = min(2*wait, l.opt.MaxWait)
	}
}

func sleep(ctx context.Context, d time.Duration) {
	t := time.NewTimer(d)
	defer t.Stop()
	select {
	case <-ctx.Done():
	case <-t.C:
	}
}

// tell tells the handler of losses until over is closed.
func (l *Link) tell(over <-chan struct{}) {
	for {
		select {
		case <-over:
			return
		case <-l.lost.wake:
		}
		for _, loss := range l.lost.take() {
			l.calls.Lock()
			l.h.Lost(loss.to, loss.why)
			l.calls.Unlock()
		}
	}
}

// losses are what the handler is still to be told. Who finds out about a loss
// never waits for the handler, and the same loss is told once until it was.
type losses struct {
	wake chan struct{}

	mu   sync.Mutex
	list []loss
	have map[loss]bool
}

type loss struct {
	to  string
	why bus.LostReason
}

func (l *losses) add(to string, why bus.LostReason) {
	l.mu.Lock()
	defer l.mu.Unlock()
	entry := loss{to, why}
	if l.have[entry] {
		return
	}
	if l.have == nil {
		l.have = map[loss]bool{}
	}
	l.have[entry] = true
	l.list = append(l.list, entry)
	select {
	case l.wake <- struct{}{}:
	default:
	}
}

func (l *losses) take() []loss {
	l.mu.Lock()
	defer l.mu.Unlock()
	list := l.list
	l.list, l.have = nil, nil
	return list
}

// Errors that end a session.
var (
	errSilent    = errors.New("the broker does not answer")
	errNotRouted = errors.New("the broker no longer routes this node's messages to it")
	errLeft      = errors.New("left")
)

// String names the session in the whole cluster, in [0-9a-f.].
func (s *Session) String() string { return fmt.Sprintf("%016x.%d", s.stamp.run, s.stamp.session) }

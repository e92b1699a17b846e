package hub

import (
	"context"
	"maps"
	"runtime"
	"sync"
	"sync/atomic"
	"time"
)

// Config says what a hub may use. Zero fields get the defaults.
type Config struct {
	Tick       time.Duration // resolution of the timer wheel, default 100ms
	RingEvents int           // frames a stream's ring keeps for followers unless it says otherwise, default 1024
	RingBytes  int           // and bytes, default 256 KiB; whichever is reached first
	Memory     int64         // bytes all rings together may hold, default 256 MiB
	CatchUps   int           // followers that may read from a Source at once, default 64
}

func (c *Config) fill() {
	def := func(n *int, v int) {
		if *n <= 0 {
			*n = v
		}
	}
	def(&c.RingEvents, 1024)
	def(&c.RingBytes, 256<<10)
	def(&c.CatchUps, 64)
	if c.Tick <= 0 {
		c.Tick = 100 * time.Millisecond
	}
	if c.Memory <= 0 {
		c.Memory = 256 << 20
	}
}

// A Hub holds the streams and the followers of one node. All its methods may
// be called concurrently.
type Hub struct {
	cfg       Config
	poller    *poller
	wheel     wheel
	lingering lingering
	catchUps  catchUps
	budget    budget
	beat      atomic.Pointer[beat] // the last one made
	count     counters
	helpers   int // goroutines that may help a Flush

	ctx  context.Context // of what reads from a Source
	stop context.CancelFunc

	mu     sync.Mutex // guards closed against the start of goroutines
	closed bool
	wg     sync.WaitGroup
}

// New returns a hub. It opens the epoll set, where the system has one; the
// error is the system's.
func New(cfg Config) (*Hub, error) {
	cfg.fill()
	h := &Hub{cfg: cfg, helpers: runtime.GOMAXPROCS(0) - 1}
	h.ctx, h.stop = context.WithCancel(context.Background())
	h.lingering.h = h
	h.catchUps.h = h
	h.budget.limit = cfg.Memory
	h.wheel.start = time.Now()
	var err error
	if h.poller, err = newPoller(h); err != nil {
		return nil, err
	}
	return h, nil
}

// Run keeps the time until ctx is done: heartbeats, write timeouts, the next
// try of who waits for a Source. It is called once. When it returns (always
// nil), every follower has been ended, with ReasonShutdown if nothing came
// before, and every goroutine of the hub has ended.
func (h *Hub) Run(ctx context.Context) error {
	ticker := time.NewTicker(h.cfg.Tick)
	defer ticker.Stop()
	for {
		select {
		case <-ctx.Done():
			h.shutdown()
			return nil
		case <-ticker.C:
			now := uint32(time.Since(h.wheel.start) / h.cfg.Tick)
			h.wheel.turn(now)
			h.lingering.tick(now, false)
		}
	}
}

func (h *Hub) shutdown() {
	h.wheel.close()
	h.mu.Lock()
	h.closed = true
	h.mu.Unlock()
	h.stop()
	h.lingering.tick(h.now(), true)
	h.poller.close()
	h.wg.Wait()
}

// spawn starts a goroutine that Run waits for; false when Run has ended.
func (h *Hub) spawn(f func()) bool {
	h.mu.Lock()
	defer h.mu.Unlock()
	if h.closed {
		return false
	}
	h.wg.Go(f)
	return true
}

// now is the coarse clock: ticks since New, as of the last turn of the wheel.
func (h *Hub) now() uint32 { return h.wheel.now.Load() }

// ticks is a duration in ticks, rounded up.
func (h *Hub) ticks(d time.Duration) uint32 {
	return uint32((d + h.cfg.Tick - 1) / h.cfg.Tick)
}

// counters are what a hub has counted since New.
type counters struct {
	streams, followers, catching             atomic.Int64
	frames, ignored, deliveries, bytes       atomic.Int64
	skipped                                  atomic.Int64
	heartbeats, catchUps                     atomic.Int64
	trimmedMemory, trimmedUnflushed, trimmed atomic.Int64

	mu   sync.Mutex
	left map[Reason]int64
}

func (c *counters) leave(why Reason) {
	c.mu.Lock()
	if c.left == nil {
		c.left = make(map[Reason]int64)
	}
	c.left[why]++
	c.mu.Unlock()
}

// Stats is a snapshot of a hub.
type Stats struct {
	Streams    int64 // open
	Followers  int64 // following
	CatchingUp int64 // of them, those that read from a Source
	RingBytes  int64 // held by all rings

	// Since New:

	Frames     int64 // appended
	Ignored    int64 // not appended: already there, or after the end or Close
	Deliveries int64 // frames handed to followers
	Skipped    int64 // frames that followers did not want
	Bytes      int64 // handed to connections, all told
	Heartbeats int64 // begun
	CatchUps   int64 // times that a follower went to a Source

	Trimmed          int64 // frames dropped because their ring was full (the usual way to go)
	TrimmedMemory    int64 // frames dropped because all rings together were too big
	TrimmedUnflushed int64 // of both, those that were never Flushed although the stream asked for it

	Left map[Reason]int64 // followers that left
}

// Stats returns what the hub holds now and what it has counted.
func (h *Hub) Stats() Stats {
	c := &h.count
	s := Stats{
		Streams:          c.streams.Load(),
		Followers:        c.followers.Load(),
		CatchingUp:       c.catching.Load(),
		RingBytes:        h.budget.used.Load(),
		Frames:           c.frames.Load(),
		Ignored:          c.ignored.Load(),
		Deliveries:       c.deliveries.Load(),
		Skipped:          c.skipped.Load(),
		Bytes:            c.bytes.Load(),
		Heartbeats:       c.heartbeats.Load(),
		CatchUps:         c.catchUps.Load(),
		Trimmed:          c.trimmed.Load(),
		TrimmedMemory:    c.trimmedMemory.Load(),
		TrimmedUnflushed: c.trimmedUnflushed.Load(),
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	s.Left = make(map[Reason]int64, len(c.left))
	maps.Copy(s.Left, c.left)
	return s
}

package push

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"io"
	"net/http"
	"net/http/httptest"
	"os"
	"slices"
	"strconv"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"ssegate/bus"
	"ssegate/cluster"
	"ssegate/hub"
	"ssegate/reconnect"
	"ssegate/registry"
	"ssegate/sse"
)

// world is a cluster in one process and in fake time: real nodes on a log, a
// registry and a bus in memory, each with an API.
type world struct {
	*testing.T
	log   *shakyLog
	reg   *shakyRegistry
	bus   *bus.Memory
	nodes []*node
	ids   int
}

// shakyLog is a log that can be away. It forgets nothing.
type shakyLog struct {
	*reconnect.Memory
	mu       sync.Mutex
	err      error // of Publish
	after    bool  // the error comes after the log has taken what was published
	hangs    bool  // it does not answer
	calls    int
	together int // messages of the largest call
}

func (l *shakyLog) Publish(ctx context.Context, batch []reconnect.Posts) []reconnect.Posted {
	l.mu.Lock()
	err, after, hangs := l.err, l.after, l.hangs
	l.calls++
	for i := range batch {
		l.together = max(l.together, len(batch[i].Posts))
	}
	l.mu.Unlock()
	if hangs {
		<-ctx.Done()
		err = ctx.Err()
	}
	var out []reconnect.Posted
	if err == nil || after {
		out = l.Memory.Publish(ctx, batch)
	}
	if err != nil {
		out = make([]reconnect.Posted, len(batch))
		for i := range out {
			out[i].Err = err
		}
	}
	return out
}

func (l *shakyLog) fails(err error, after bool) {
	l.mu.Lock()
	l.err, l.after = err, after
	l.mu.Unlock()
}

// shakyRegistry is a registry that can be away.
type shakyRegistry struct {
	*registry.Memory
	mu  sync.Mutex
	err error // of lists, notes and what is due
	// slow is how long a list takes, or to read a note, if its ctx lasts so long.
	slow time.Duration
	// dies, if it is set, is called once with what was taken: whoever took it
	// gets nothing.
	dies func(taken [][]byte)
}

func (r *shakyRegistry) fails(err error) {
	r.mu.Lock()
	r.err = err
	r.mu.Unlock()
}

func (r *shakyRegistry) broken() error {
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.err
}

func (r *shakyRegistry) Conns(ctx context.Context) ([]registry.Connection, error) {
	if err := r.broken(); err != nil {
		return nil, err
	}
	if err := r.late(ctx); err != nil {
		return nil, err
	}
	return r.Memory.Conns(ctx)
}

func (r *shakyRegistry) late(ctx context.Context) error {
	r.mu.Lock()
	slow := r.slow
	r.mu.Unlock()
	pause(ctx, slow)
	return ctx.Err()
}

func (r *shakyRegistry) GetNote(ctx context.Context, name string) ([]byte, error) {
	if err := r.late(ctx); err != nil {
		return nil, err
	}
	return r.Memory.GetNote(ctx, name)
}

func (r *shakyRegistry) PutNote(ctx context.Context, name string, value []byte, ttl time.Duration) error {
	if err := r.broken(); err != nil {
		return err
	}
	return r.Memory.PutNote(ctx, name, value, ttl)
}

func (r *shakyRegistry) Gather(ctx context.Context, name string, value []byte, ttl time.Duration) error {
	if err := r.broken(); err != nil {
		return err
	}
	return r.Memory.Gather(ctx, name, value, ttl)
}

func (r *shakyRegistry) Gathered(ctx context.Context, name string) ([][]byte, error) {
	if err := r.broken(); err != nil {
		return nil, err
	}
	return r.Memory.Gathered(ctx, name)
}

func (r *shakyRegistry) PutDue(ctx context.Context, at time.Time, items [][]byte) error {
	if err := r.broken(); err != nil {
		return err
	}
	return r.Memory.PutDue(ctx, at, items)
}

func (r *shakyRegistry) TakeDue(ctx context.Context, now, back time.Time, most int) ([][]byte, error) {
	items, err := r.Memory.TakeDue(ctx, now, back, most)
	r.mu.Lock()
	dies := r.dies
	if len(items) > 0 {
		r.dies = nil
	}
	r.mu.Unlock()
	if dies != nil && len(items) > 0 {
		dies(items)
		return nil, errAway
	}
	return items, err
}

var errAway = errors.New("away")

// node is one node of the world.
type node struct {
	*cluster.Node
	api  *API
	w    *world
	stop []func() // in the order in which they are called

	mu      sync.Mutex
	reports []string
}

// inWorld runs a test in a bubble with these nodes.
func inWorld(t *testing.T, cfg Config, f func(w *world, n ...*node), names ...string) {
	t.Helper()
	synctest.Test(t, func(t *testing.T) {
		reg := registry.NewMemory(nil)
		w := &world{
			T: t, bus: bus.NewMemory(), reg: &shakyRegistry{Memory: reg},
			log: &shakyLog{Memory: reconnect.NewMemory(reconnect.MemoryConfig{Followers: func(ids []sse.StreamID) [][]string {
				nodes, _ := reg.Followers(context.Background(), ids)
				return nodes
			}})},
		}
		for _, name := range names {
			w.nodes = append(w.nodes, w.start(name, cfg))
		}
		defer func() {
			w.log.fails(nil, false)
			w.reg.fails(nil)
			for _, n := range w.nodes {
				n.leave()
			}
		}()
		wait(time.Second) // until all know each other
		f(w, w.nodes...)
	})
}

func (w *world) start(name string, cfg Config) *node {
	w.Helper()
	h, err := hub.New(hub.Config{Tick: 10 * time.Millisecond})
	if err != nil {
		w.Fatal(err)
	}
	n := &node{w: w}
	n.Node = cluster.New(cluster.Config{
		Self: registry.Node{ID: name}, Hub: h, Log: w.log, Journal: w.log, Registry: w.reg, Bus: w.bus.Node(name),
		Heartbeat: time.Second, DeadAfter: 3 * time.Second, CheckEvery: 500 * time.Millisecond, TailCheck: 2 * time.Second,
		Report: func(r cluster.Report) {
			if r.Dead() {
				n.api.Gone(r.Node)
			}
		},
	})
	cfg.Cluster, cfg.Log, cfg.Registry = n.Node, w.log, w.reg
	cfg.Report = func(what string, err error) {
		n.mu.Lock()
		n.reports = append(n.reports, what+": "+err.Error())
		n.mu.Unlock()
	}
	if n.api, err = New(cfg); err != nil {
		w.Fatal(err)
	}
	start := func(f func(ctx context.Context) error) {
		ctx, cancel := context.WithCancel(context.Background())
		done := make(chan struct{})
		go func() { defer close(done); f(ctx) }()
		n.stop = append(n.stop, func() { cancel(); <-done })
	}
	start(n.api.Run)
	start(n.Run)
	start(func(ctx context.Context) error { h.Run(ctx); return nil })
	return n
}

func (n *node) leave() {
	for _, stop := range n.stop {
		stop()
	}
	n.stop = nil
}

// wait lets time pass until nothing moves any more at its end.
func wait(d time.Duration) {
	time.Sleep(d)
	synctest.Wait()
}

// client is a subscriber in memory.
type client struct {
	w    *world
	n    *node
	id   string
	sub  *cluster.Subscription
	mu   sync.Mutex
	peer hub.Peer
	got  bytes.Buffer
}

func (c *client) Start(p hub.Peer, _ time.Duration) error { c.peer = p; return nil }

func (c *client) TryWrite(p []byte) (int, error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.got.Write(p)
}

func (c *client) Close(hub.Closing) {}

// follow attaches a client to topics, as the proxy does, and waits until the
// cluster knows of it.
func (n *node) follow(filter cluster.Filter, topics ...string) *client {
	n.w.Helper()
	n.w.ids++
	c := &client{w: n.w, n: n, id: "c" + strconv.Itoa(n.w.ids)}
	var ts []cluster.Topic
	for _, t := range topics {
		ts = append(ts, cluster.TopicOf(t))
	}
	o := cluster.SubscribeOptions{
		ID: c.id, Filter: filter, Limits: reconnect.Limits{Length: 1000, TTL: time.Hour},
		Left: func(*cluster.Subscription, hub.Reason) { n.Disconnected(c.id) },
	}
	var err error
	if c.sub, err = n.SubscribeAll(ts, cluster.CursorFrom{}, c, o); err != nil {
		n.w.Fatal(err)
	}
	n.Connected(registry.Connection{ID: c.id, Topics: topics, Remote: "192.0.2.1", Since: time.Now()})
	wait(300 * time.Millisecond)
	return c
}

// told is one event as a client saw it.
type told struct{ name, data string }

// events are those so far.
func (c *client) events() (all []told) {
	synctest.Wait()
	c.mu.Lock()
	defer c.mu.Unlock()
	d := sse.NewDecoder(16 << 20)
	d.Feed(bytes.Clone(c.got.Bytes()))
	var ev sse.Event
	for {
		ok, err := d.Next(&ev)
		if err != nil {
			c.w.Fatal(err)
		}
		if !ok {
			return all
		}
		if ev.HasData {
			all = append(all, told{string(ev.Name), string(ev.Data)})
		}
	}
}

// datas are the data of the events so far, or a member of it.
func (c *client) datas(member string) (all []string) {
	for _, e := range c.events() {
		if member == "" {
			all = append(all, e.data)
			continue
		}
		var v map[string]any
		if err := json.Unmarshal([]byte(e.data), &v); err != nil {
			c.w.Fatalf("%q: %v", e.data, err)
		}
		s, _ := json.Marshal(v[member])
		all = append(all, strings.Trim(string(s), `"`))
	}
	return all
}

func (c *client) got1(want ...string) {
	c.w.Helper()
	if got := c.datas("data"); !slices.Equal(got, want) {
		c.w.Fatalf("%s got %q, want %q", c.id, got, want)
	}
}

// answer is what the API said.
type answer struct {
	status int
	head   http.Header
	body   map[string]any
	raw    string
}

func (n *node) do(method, path, contentType string, body io.Reader, change ...func(*http.Request)) answer {
	n.w.Helper()
	r := httptest.NewRequest(method, "http://127.0.0.1:8089"+path, body)
	if contentType != "" {
		r.Header.Set("Content-Type", contentType)
	}
	for _, f := range change {
		f(r)
	}
	rec := httptest.NewRecorder()
	n.api.ServeHTTP(&recorder{ResponseRecorder: rec, body: body}, r)
	a := answer{status: rec.Code, head: rec.Header(), raw: rec.Body.String()}
	if err := json.Unmarshal(rec.Body.Bytes(), &a.body); err != nil {
		n.w.Fatalf("%s %s: %d %q: %v", method, path, rec.Code, a.raw, err)
	}
	return a
}

// recorder lets what reads a pipe be bounded. The bound of the pipe is passed
// once: it is not read again after that.
type recorder struct {
	*httptest.ResponseRecorder
	body  io.Reader
	mu    sync.Mutex
	timer *time.Timer
}

func (r *recorder) SetReadDeadline(at time.Time) error {
	p, ok := r.body.(*io.PipeReader)
	if !ok {
		return http.ErrNotSupported
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.timer != nil {
		r.timer.Stop()
	}
	if !at.IsZero() {
		r.timer = time.AfterFunc(time.Until(at), func() { p.CloseWithError(os.ErrDeadlineExceeded) })
	}
	return nil
}

func (n *node) post(path, body string, change ...func(*http.Request)) answer {
	n.w.Helper()
	return n.do("POST", path, "application/json", strings.NewReader(body), change...)
}

func (n *node) get(path string, change ...func(*http.Request)) answer {
	n.w.Helper()
	return n.do("GET", path, "", nil, change...)
}

// at is what the answer says at a path of members and numbers.
func (a answer) at(path ...any) any {
	var v any = a.body
	for _, p := range path {
		switch p := p.(type) {
		case string:
			m, _ := v.(map[string]any)
			v = m[p]
		case int:
			list, _ := v.([]any)
			if p >= len(list) {
				return nil
			}
			v = list[p]
		}
	}
	return v
}

// is checks the status of the answer.
func (w *world) is(a answer, status int) answer {
	w.Helper()
	if a.status != status {
		w.Fatalf("%d %s, want %d", a.status, a.raw, status)
	}
	return a
}

package e2e

import (
	"bufio"
	"context"
	"fmt"
	"io"
	"math/rand/v2"
	"net"
	"net/http"
	"slices"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	. "ssegate/internal/gatetest"
	"ssegate/internal/gatetest/service"
)

// TestNothingIsLeft: after 1 000 streams that were cut at random moments, on
// random nodes, some finished, some stopped, some joined by key, half of them
// never come back to, nothing is left of them: no goroutine, no socket, no key
// in Redis, no queue. When the nodes have left there is nothing at all.
func TestNothingIsLeft(t *testing.T) {
	const short = `detach_for = "300ms"
attach_for = "300ms"
log_ttl = "1s"
attach = "key"
attach_key = "header:Idempotency-Key"
`
	test := func(t *testing.T, w *world, streams int) {
		a, b := w.pair(t, short)
		nodes := []*Node{a, b}
		var before []usage
		for _, n := range nodes {
			EventSource(t, n.URL+"/count?n=1", "").Rest() // what reads upstreams begins with the first of them
			before = append(before, w.use(t, n))
		}
		r := &rough{t: t, nodes: nodes, backend: w.backend}
		r.run(streams)
		t.Logf("%d streams, %d requests to the backend, %d of them cut short", streams, w.backend.Runs("/count"), w.backend.Cancelled())

		allowed := []string{"ssegate:nodes", "ssegate:cleaner", "ssegate:{node:" + a.ID + "}:node", "ssegate:{node:" + b.ID + "}:node"}
		for i, n := range nodes {
			nothingLeft(t, n, processOf(t, n), before[i].goroutines)
			before[i].check(t, w, n)
		}
		w.keys(t, allowed...)
		w.queues(t, 2)

		for _, n := range nodes {
			n.Term()
		}
		for _, n := range nodes {
			if code := n.Exited(); code != 0 {
				t.Errorf("%s: exit code %d", n.Name, code)
			}
		}
		w.keys(t)
		w.queues(t, 0)
	}
	t.Run("redis and rabbitmq", func(t *testing.T) {
		test(t, &world{redis: service.Redis(t), rabbit: service.Rabbit(t), backend: NewBackend(t)}, 1000)
	})
	t.Run("redis", func(t *testing.T) { test(t, &world{redis: service.Redis(t), backend: NewBackend(t)}, 300) })
}

// TestNothingIsLeftOfTheDead: what a node leaves behind that is killed under
// its streams is swept by the others.
func TestNothingIsLeftOfTheDead(t *testing.T) {
	kinds(t, func(t *testing.T, w *world) {
		a, b := w.pair(t, "detach_for = \"300ms\"\nlog_ttl = \"1s\"\n")
		var left []*Stream
		for i := range 60 {
			url := fmt.Sprintf("/count?n=100000&every=5ms&i=%d", i)
			s := EventSource(t, a.URL+url, "")
			s.Take(3)
			if i%2 == 0 {
				far := EventSource(t, b.URL+url, s.LastID)
				s.Close()
				far.Take(3)
				left = append(left, far)
			}
		}
		a.Kill()
		for i, far := range left {
			if i%2 == 0 {
				far.Close()
				continue
			}
			if got, _ := far.Rest(); got[len(got)-1].Name != "ssegate.error" {
				t.Errorf("the last that a follower was told is %+v", got[len(got)-1])
			}
		}
		w.keys(t, "ssegate:nodes", "ssegate:cleaner", "ssegate:{node:"+b.ID+"}:node")
		w.queues(t, 1)
		b.Term()
		b.Exited()
		w.keys(t)
		w.queues(t, 0)
	})
}

// TestMemoryComesBack: a node by itself holds nothing of 1 000 streams once
// their time is over, neither goroutines nor heap.
func TestMemoryComesBack(t *testing.T) {
	t.Setenv("GOGC", "10") // so that what is free soon counts as free
	b := NewBackend(t)
	n := Start(t, plain(t), "one", config(b.URL, `detach_for = "300ms"
attach_for = "300ms"
log_ttl = "1s"
attach = "key"
attach_key = "header:Idempotency-Key"
`))
	r := &rough{t: t, nodes: []*Node{n}, backend: b}
	r.run(50)
	w := &world{}
	before := w.use(t, n)
	heap := n.Metric("go_memstats_heap_inuse_bytes")
	r.run(1000)
	highest := n.Metric("go_memstats_heap_inuse_bytes")
	nothingLeft(t, n, processOf(t, n), before.goroutines)
	before.check(t, w, n)
	// An ended stream stays in memory for half a minute.
	lowest := highest
	for end := time.Now().Add(90 * time.Second); lowest > heap+1<<20 && time.Now().Before(end); time.Sleep(100 * time.Millisecond) {
		lowest = min(lowest, n.Metric("go_memstats_heap_inuse_bytes"))
	}
	t.Logf("heap: %s before, %s behind 1 000 streams, %s later", mib(int64(heap)), mib(int64(highest)), mib(int64(lowest)))
	if lowest > heap+1<<20 {
		t.Error("memory does not come back")
	}
}

// rough treats streams as networks and people do.
type rough struct {
	t       *testing.T
	nodes   []*Node
	backend *Backend
	serial  int
}

func (r *rough) run(streams int) {
	var wg sync.WaitGroup
	room := make(chan bool, 40)
	for range streams {
		r.serial++
		i := r.serial
		room <- true
		wg.Go(func() {
			r.treat(i, rand.New(rand.NewPCG(uint64(i), 13)))
			<-room
		})
	}
	wg.Wait()
}

// treat starts one stream and does something to it.
func (r *rough) treat(i int, rng *rand.Rand) {
	node := func() *Node { return r.nodes[rng.IntN(len(r.nodes))] }
	events := 10 + rng.IntN(200)
	path := fmt.Sprintf("/count?n=%d&every=%dms&i=%d", events, rng.IntN(8), i)
	switch rng.IntN(6) {
	case 0:
		path += "&ids=1"
	case 1:
		path += "&done=0"
	case 2:
		path += fmt.Sprint("&cut=", 1+rng.IntN(events))
	}
	q := Request{Method: "GET", Header: map[string]string{"Accept": "text/event-stream"}}
	if rng.IntN(3) == 0 {
		q.Method, q.Body, q.Header = "POST", "{}", map[string]string{}
	}
	if rng.IntN(3) == 0 {
		q.Header["Idempotency-Key"] = fmt.Sprint("key-", i)
	}
	id := "" // after which the client comes back
	for tries := 0; ; tries++ {
		q.URL = node().URL + path
		s, err := Try(r.t, q)
		if err != nil {
			r.t.Errorf("%s: %v", path, err)
			return
		}
		if q.Header["Idempotency-Key"] != "" && tries == 0 && rng.IntN(2) == 0 { // one more joins
			other := q
			other.URL = node().URL + path
			if o, err := Try(r.t, other); err == nil {
				defer o.Close()
			}
		}
		if s.Resp.StatusCode != 200 || rng.IntN(20) == 0 {
			s.Close()
			return
		}
		for range rng.IntN(events + 10) {
			if _, err = s.Next(); err != nil {
				break
			}
		}
		stream := s.ID()
		s.Close()
		if s.LastID != "" {
			id = s.LastID
		}
		switch {
		case rng.IntN(10) == 0 && stream != "": // stopped
			stop := Do(r.t, Request{Method: "DELETE", URL: node().URL + "/_ssegate/streams/" + stream})
			io.Copy(io.Discard, stop.Resp.Body)
			stop.Close()
			return
		case rng.IntN(10) == 0 && stream != "": // looked at, from the start
			look := Do(r.t, Request{URL: node().URL + "/_ssegate/streams/" + stream})
			look.Next()
			look.Close()
			return
		case err != nil || tries == 3 || rng.IntN(2) == 0: // never back
			return
		}
		q.Header["Last-Event-ID"] = id
	}
}

// usage is what a node uses of the system.
type usage struct {
	goroutines float64 // and the hub's one that waits for clients, begun with the first of them
	files      int
	sockets    map[int]int
}

func (w *world) use(t *testing.T, n *Node) usage {
	t.Helper()
	p := processOf(t, n)
	goroutines := n.Metric("go_goroutines") + 1
	http.DefaultClient.CloseIdleConnections() // our own
	return usage{goroutines, p.files(), p.sockets()}
}

// check waits until the node has no more connections and files than it had,
// but for connections to Redis, which it may keep: so many at most.
func (u usage) check(t *testing.T, w *world, n *Node) {
	t.Helper()
	const pool = 64
	redis := -2
	if w.redis != nil {
		redis = port(t, w.redis.Addr)
	}
	var now usage
	for end := time.Now().Add(Patience); time.Now().Before(end); time.Sleep(50 * time.Millisecond) {
		now = w.use(t, n)
		files := now.files - now.sockets[redis] - (u.files - u.sockets[redis])
		kept := now.sockets[redis]
		delete(now.sockets, redis)
		others := 0
		for _, count := range now.sockets {
			others += count
		}
		for p, count := range u.sockets {
			if p != redis {
				others -= count
			}
		}
		if files <= 0 && others <= 0 && kept <= pool {
			return
		}
	}
	t.Errorf("%s: %d files open, %d before; sockets by port %v, before %v", n.Name, now.files, u.files, now.sockets, u.sockets)
}

func port(t *testing.T, addr string) int {
	t.Helper()
	_, p, err := net.SplitHostPort(addr)
	if err != nil {
		t.Fatal(err)
	}
	n, _ := strconv.Atoi(p)
	return n
}

// keys waits until Redis has these keys at most.
func (w *world) keys(t *testing.T, allowed ...string) {
	t.Helper()
	var others []string
	for end := time.Now().Add(Patience); time.Now().Before(end); time.Sleep(50 * time.Millisecond) {
		others = slices.DeleteFunc(w.allKeys(t), func(k string) bool { return slices.Contains(allowed, k) })
		if len(others) == 0 {
			return
		}
	}
	t.Errorf("%d keys are left in Redis: %q", len(others), others[:min(len(others), 20)])
}

func (w *world) allKeys(t *testing.T) []string {
	t.Helper()
	c, err := net.Dial("tcp", w.redis.Addr)
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	c.SetDeadline(time.Now().Add(Patience))
	io.WriteString(c, "KEYS *\r\n")
	r := bufio.NewReader(c)
	line := func() string {
		l, err := r.ReadString('\n')
		if err != nil {
			t.Fatal(err)
		}
		return strings.TrimSpace(l)
	}
	count, err := strconv.Atoi(strings.TrimPrefix(line(), "*"))
	if err != nil {
		t.Fatal(err)
	}
	keys := make([]string, count)
	for i := range keys {
		line() // its length
		keys[i] = line()
	}
	return keys
}

// queues waits until the broker has so many queues.
func (w *world) queues(t *testing.T, count int) {
	t.Helper()
	if w.rabbit == nil {
		return
	}
	var out string
	for end := time.Now().Add(Patience); time.Now().Before(end); {
		var err error
		if out, err = w.rabbit.Ctl(context.Background(), "list_queues", "name"); err != nil {
			t.Fatal(err)
		}
		if len(strings.Fields(strings.TrimPrefix(out, "name"))) == count {
			return
		}
	}
	t.Errorf("the broker's queues are %q, want %d", out, count)
}

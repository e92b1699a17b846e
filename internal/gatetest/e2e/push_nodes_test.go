package e2e

import (
	"encoding/json"
	"fmt"
	"io"
	"math/rand/v2"
	"net/http"
	"slices"
	"strings"
	"testing"
	"time"

	. "ssegate/internal/gatetest"
	"ssegate/internal/gatetest/service"
	"ssegate/push/client"
)

// askAPI sends a request to a node's internal listener, and reads its JSON.
func askAPI(t *testing.T, n *Node, method, path string, into any) (status int) {
	t.Helper()
	req, err := http.NewRequest(method, n.Internal+path, nil)
	if err != nil {
		t.Fatal(err)
	}
	resp, err := http.DefaultClient.Do(req)
	if err != nil {
		t.Fatal(err)
	}
	defer resp.Body.Close()
	text, err := io.ReadAll(resp.Body)
	if err != nil {
		t.Fatal(err)
	}
	if into != nil && resp.StatusCode == 200 {
		if err := json.Unmarshal(text, into); err != nil {
			t.Fatalf("%s: %v in %s", path, err, text)
		}
	}
	return resp.StatusCode
}

// connPage is a page of GET /api/v1/connections.
type connPage struct {
	Connections []struct {
		ID, Node, User, Remote string
		Topics                 []string
		Since                  time.Time
	}
	Total int
	Next  string
}

// idsOn are those of a list that a query asks for, gathered page by page.
func idsOn(t *testing.T, n *Node, query string) []string {
	t.Helper()
	out := []string{}
	for cursor := ""; ; {
		var page connPage
		if status := askAPI(t, n, "GET", "/api/v1/connections?limit=7&"+query+"&cursor="+cursor, &page); status != 200 {
			t.Fatalf("the list of %s is answered %d", n.Name, status)
		}
		for _, c := range page.Connections {
			out = append(out, c.ID)
		}
		if cursor = page.Next; cursor == "" {
			slices.Sort(out)
			return out
		}
	}
}

// connStats is what GET /api/v1/connections/stats says.
type connStats struct {
	Total, Users, Topics int
	Nodes, Kinds         map[string]int
}

// crowd are connections that stay, and the lists that should tell of them.
type crowd struct {
	t       *testing.T
	nodes   []*Node
	streams []*Stream
	of      []*Node // where each is
	worst   time.Duration
}

func (c *crowd) open(n *Node, path string) *Stream {
	c.t.Helper()
	s := EventSource(c.t, n.URL+path, "")
	if s.Resp.StatusCode != 200 {
		c.t.Fatalf("%s: %d", path, s.Resp.StatusCode)
	}
	c.streams, c.of = append(c.streams, s), append(c.of, n)
	return s
}

func connectionOf(s *Stream) string { return s.Resp.Header.Get("Ssegate-Connection") }

// drop forgets those that went.
func (c *crowd) drop(gone func(i int) bool) {
	var streams []*Stream
	var of []*Node
	for i, s := range c.streams {
		if !gone(i) {
			streams, of = append(streams, s), append(of, c.of[i])
		}
	}
	c.streams, c.of = streams, of
}

// true waits until all nodes list just those that are there, and notes how long
// that took since the change.
func (c *crowd) true(what string, since time.Time, most time.Duration) {
	c.t.Helper()
	should := []string{}
	for _, s := range c.streams {
		should = append(should, connectionOf(s))
	}
	slices.Sort(should)
	for _, n := range c.nodes {
		var got []string
		for {
			if got = idsOn(c.t, n, ""); slices.Equal(got, should) {
				break
			}
			if time.Since(since) > Patience {
				c.t.Fatalf("%s: %s lists %q, want %q", what, n.Name, got, should)
			}
			time.Sleep(5 * time.Millisecond)
		}
		var st connStats
		askAPI(c.t, n, "GET", "/api/v1/connections/stats", &st)
		if st.Total != len(should) {
			c.t.Errorf("%s: %s counts %+v, want %d", what, n.Name, st, len(should))
		}
	}
	took := time.Since(since)
	if c.worst = max(c.worst, took); took > most {
		c.t.Errorf("%s: the lists were true after %v, want %v at most", what, took, most)
	}
}

// The lists tell, on every node, who is connected in the whole cluster; and a
// killed node's clients go on elsewhere.
func TestPushNodes(t *testing.T) {
	w := &world{redis: service.Redis(t), rabbit: service.Rabbit(t), backend: NewBackend(t)}
	nodes := w.trio(t, pushes)
	t.Run("connections", func(t *testing.T) { connections(t, nodes) })
	t.Run("redis stood still", func(t *testing.T) { stoodStill(t, w, nodes) })
	t.Run("killed", func(t *testing.T) { killedUnderPush(t, w, nodes) })
}

// stoodStill: a Redis that stands still for longer than a lease holds forgets
// everybody when it goes on, and does what it was asked meanwhile. All who are
// still there are listed again, and a broadcast reaches them.
func stoodStill(t *testing.T, w *world, nodes []*Node) {
	c := &crowd{t: t, nodes: nodes}
	for i := range 6 {
		c.open(nodes[i%3], fmt.Sprintf("/sse/user/still%d", i%3))
	}
	c.true("all are there", time.Now(), Patience)
	for round := range 4 {
		w.redis.Pause()
		time.Sleep(1500*time.Millisecond + time.Duration(round)*200*time.Millisecond) // dead_after is 1s
		w.redis.Resume()
		resumed := time.Now()
		c.true("Redis goes on", resumed, Patience)
		data := fmt.Sprint(round)
		Eventually(t, "a broadcast is taken", func() bool {
			resp, err := http.Post(nodes[round%3].Internal+"/api/v1/messages/broadcast", "application/json", strings.NewReader(`{"data":`+data+`}`))
			if err != nil {
				t.Fatal(err)
			}
			resp.Body.Close()
			return resp.StatusCode == 200
		})
		for i, s := range c.streams {
			if got, err := s.Next(); err != nil || got.Data != data {
				t.Fatalf("client %d got %q, %v, want %q", i, got.Data, err, data)
			}
		}
	}
	for _, s := range c.streams {
		s.Close()
	}
	c.streams = nil
	c.true("all have left", time.Now(), Patience)
}

func connections(t *testing.T, nodes []*Node) {
	c := &crowd{t: t, nodes: nodes}
	defer func() { t.Logf("the lists were true after %v at most", c.worst) }()
	now := time.Now()
	for i := range 30 {
		c.open(nodes[i%3], []string{fmt.Sprintf("/sse/user/u%d", i%5), "/sse/stream/x,y", "/api/sse/connect/seed"}[i%3])
	}
	c.true("30 came", now, 2*time.Second) // one after the other
	for i := range 6 {
		now = time.Now()
		c.open(nodes[i%3], "/sse/user/more")
		c.true("one came", now, time.Second)
	}
	for range 6 {
		now = time.Now()
		c.streams[0].Close()
		c.drop(func(i int) bool { return i == 0 })
		c.true("one went", now, time.Second)
	}
	// Filters.
	for query, fits := range map[string]func(i int) bool{
		"node=" + nodes[1].ID: func(i int) bool { return c.of[i] == nodes[1] },
		"user=more":           func(i int) bool { return strings.HasSuffix(c.streams[i].Resp.Request.URL.Path, "/more") },
		"topic=channel/y":     func(i int) bool { return strings.HasSuffix(c.streams[i].Resp.Request.URL.Path, "/x,y") },
		"user=nobody":         func(int) bool { return false },
	} {
		should := []string{}
		for i, s := range c.streams {
			if fits(i) {
				should = append(should, connectionOf(s))
			}
		}
		slices.Sort(should)
		if got := idsOn(t, nodes[0], query); !slices.Equal(got, should) {
			t.Errorf("%s: %q, want %q", query, got, should)
		}
	}
	// Ended by request, from another node: the client may come back.
	victim := len(c.streams) - 1
	other := nodes[0]
	if c.of[victim] == other {
		other = nodes[1]
	}
	now = time.Now()
	if status := askAPI(t, other, "DELETE", "/api/v1/connections/"+connectionOf(c.streams[victim]), nil); status != 200 {
		t.Fatalf("a disconnect is answered %d", status)
	}
	if got, _ := c.streams[victim].Rest(); len(got) > 0 {
		t.Errorf("the disconnected client was told %q", Data(got))
	}
	again := askAPI(t, other, "DELETE", "/api/v1/connections/"+connectionOf(c.streams[victim]), nil)
	if again != 404 {
		t.Errorf("a second disconnect is answered %d", again)
	}
	c.drop(func(i int) bool { return i == victim })
	c.true("one was disconnected", now, time.Second)
	// The seed's.
	var status struct {
		Connected   bool
		Node        string
		Nodes       []string
		Connections int
	}
	askAPI(t, nodes[2], "GET", "/api/sse/status/more", &status)
	if !status.Connected || status.Connections != 5 || len(status.Nodes) != 3 || status.Node == "" {
		t.Errorf("status: %+v", status)
	}
	now = time.Now()
	out := send(t, nodes[0], "/api/sse/close/more", "")
	if out["closed"] != 5.0 {
		t.Errorf("close: %v", out)
	}
	c.drop(func(i int) bool {
		is := strings.HasSuffix(c.streams[i].Resp.Request.URL.Path, "/more")
		if is {
			c.streams[i].Rest()
		}
		return is
	})
	c.true("a user's were closed", now, time.Second)
	if askAPI(t, nodes[1], "GET", "/api/sse/status/more", &status); status.Connected {
		t.Errorf("status of who was closed: %+v", status)
	}
	now = time.Now()
	for _, s := range c.streams {
		s.Close()
	}
	c.drop(func(int) bool { return true })
	c.true("all went", now, time.Second)
}

// killedUnderPush kills a node while messages flow: its clients, back
// elsewhere, miss nothing, and the lists are true again.
func killedUnderPush(t *testing.T, w *world, nodes []*Node) {
	a, b, c := nodes[0], nodes[1], nodes[2]
	var riders []*rider
	for i := range 12 {
		// They begin on c, all but a few, and stay there until it is gone.
		riders = append(riders, ride(t, "/sse/user/k", i, nil, [][]*Node{{c}, {c}, {a}, {b}}[i%4]...))
	}
	// Of many topics, too: one id says where the client is in all of them.
	var topics, names []string
	for i := range 12 {
		names = append(names, fmt.Sprint("t", i))
		topics = append(topics, "channel/t"+fmt.Sprint(i))
	}
	many := []*rider{
		ride(t, "/sse/stream/t0,t1,t2?since=1", 1, often, a, b, c),
		ride(t, "/sse/stream/"+strings.Join(names, ",")+"?since=1", 2, func(rng *rand.Rand) int { return 1 + rng.IntN(30) }, a, b, c),
		ride(t, "/sse/stream/"+strings.Join(names, ",")+"?since=1", 3, nil, c),
	}
	for _, r := range append(slices.Clone(riders), many...) {
		r.begun()
	}
	f := publishing(t, client.Target{UserID: "k"}, a, b)
	var flows []*flow
	for _, n := range names {
		flows = append(flows, trickle(t, client.Target{Channel: n}, a, b))
	}
	f.pass(100)
	stay := &crowd{t: t, nodes: []*Node{a, b}}
	killed := time.Now()
	c.Kill()
	for _, r := range append(slices.Clone(riders), many...) {
		r.mu.Lock()
		r.nodes = []*Node{a, b}
		r.mu.Unlock()
	}
	// dead_after is 1 s, looked at every 200 ms: then nobody lists what c had.
	Eventually(t, "nobody lists what was on the dead node", func() bool {
		for _, n := range stay.nodes {
			var st connStats
			askAPI(t, n, "GET", "/api/v1/connections/stats", &st)
			if _, is := st.Nodes[c.ID]; is || len(idsOn(t, n, "node="+c.ID)) > 0 {
				return false
			}
		}
		return true
	})
	if took := time.Since(killed); took > 2*time.Second {
		t.Errorf("the lists were true %v after a node was killed", took)
	} else {
		t.Logf("the lists were true %v after a node was killed", took)
	}
	f.pass(150)
	f.end()
	total := map[string][]string{}
	for i, one := range flows {
		one.end()
		total[topics[i]] = one.l.inOrder()
	}
	should := f.l.inOrder()
	for _, r := range riders {
		r.exactly(should)
	}
	for i, r := range many {
		n := 12
		if i == 0 {
			n = 3
		}
		r.each(total, topics[:n])
	}
	// Nothing is left of any of them, once they go.
	for _, r := range append(riders, many...) {
		r.leave()
	}
	stay.true("all left", time.Now(), 2*time.Second)
	c.Run()
	acquainted(t, nodes...)
}

// trickle publishes to one topic, now and then.
func trickle(t *testing.T, to client.Target, nodes ...*Node) *flow {
	f := &flow{t: t, to: to, more: make(chan struct{}), stop: make(chan struct{})}
	for i, n := range nodes {
		p := publisher(t, n)
		f.wg.Go(func() {
			for k := 0; ; k++ {
				select {
				case <-f.stop:
					return
				case <-time.After(50 * time.Millisecond): // the pace of a service
				}
				f.publish(p, fmt.Sprintf("%s: %d of %d", to.Channel, k, i))
			}
		})
	}
	t.Cleanup(f.end)
	return f
}

// each fails the test unless the client of several topics gets what each of
// them has, in its order, each message with an id.
func (r *rider) each(total map[string][]string, topics []string) {
	r.t.Helper()
	all := 0
	for _, topic := range topics {
		all += len(total[topic])
	}
	got := map[string][]string{}
	long := 0 // as ids are while what makes them short is being stored
	for _, ev := range r.await(all) {
		name, _, _ := strings.Cut(strings.Trim(ev.Data, `"`), ":")
		got["channel/"+name] = append(got["channel/"+name], ev.Data)
		switch {
		case ev.ID == "":
			r.t.Errorf("%s has no id", ev.Data)
		case len(ev.ID) > 64:
			long++
		}
	}
	for _, topic := range topics {
		sameData(r.t, fmt.Sprintf("%s of %.30s after %d connections", topic, r.path, r.count()), got[topic], total[topic])
	}
	r.t.Logf("%.30s: %d of %d ids are long, in %d connections", r.path, long, all, r.count())
	if r.stay == nil && long > all/4 {
		r.t.Errorf("%.30s: %d of %d ids are long", r.path, long, all)
	}
	if gaps := r.toldGaps(); len(gaps) > 0 {
		r.t.Errorf("%.30s: told of gaps: %q", r.path, gaps)
	}
}

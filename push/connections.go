package push

import (
	"errors"
	"net/http"
	"net/url"
	"slices"
	"sort"
	"strconv"
	"strings"
	"sync"
	"time"

	"ssegate/cluster"
	"ssegate/registry"
	"ssegate/sse"
)

// connection is a client connection as the API tells of it.
type connection struct {
	ID     string    `json:"id"`
	Node   string    `json:"node"`
	Topics []string  `json:"topics"`
	Stream string    `json:"stream,omitempty"` // of a backend's answer that is followed
	User   string    `json:"user,omitempty"`
	Remote string    `json:"remote"`
	Since  time.Time `json:"since"`
}

func tell(c *registry.Connection) connection {
	out := connection{ID: c.ID, Node: c.Node, Topics: c.Topics, User: c.User, Remote: c.Remote, Since: c.Since}
	if out.Topics == nil {
		out.Topics = []string{}
	}
	if c.Stream != (sse.StreamID{}) && len(c.Topics) == 0 {
		out.Stream = c.Stream.String()
	}
	return out
}

// userOf is the user whose connection it is: who was verified, or whose topic
// it follows.
func userOf(c *registry.Connection) string {
	if c.User != "" {
		return c.User
	}
	for _, t := range c.Topics {
		if name, ok := strings.CutPrefix(t, "user/"); ok {
			return name
		}
	}
	return ""
}

func (c *call) needAdmin() *refusal {
	if c.who.Admin {
		return nil
	}
	return &refusal{status: http.StatusForbidden, reason: "forbidden", detail: "this is for administrators"}
}

// listing returns the cluster's connections as they are now.
func (c *call) listing(age time.Duration) (*listing, *refusal) {
	ctx, cancel := c.within()
	defer cancel()
	l, err := c.conns.get(ctx, age)
	if err != nil {
		return nil, unavailable("the registry could not be reached, so it cannot be told who is connected")
	}
	return l, nil
}

// Page sizes of lists.
const (
	defaultPage = 100
	maxPage     = 1000
)

// connections is GET /api/v1/connections?user=&node=&topic=&limit=&cursor=.
// The cursor is the id behind which a page begins.
func (c *call) connections() {
	if bad := c.needAdmin(); bad != nil {
		c.refuse(bad)
		return
	}
	q, limit, bad := c.filters()
	if bad != nil {
		c.refuse(bad)
		return
	}
	user, node, topic := q["user"], q["node"], q["topic"]
	l, bad := c.listing(freshList)
	if bad != nil {
		c.refuse(bad)
		return
	}
	out := struct {
		Connections []connection `json:"connections"`
		Total       int          `json:"total"` // that match, on all pages
		Next        string       `json:"next,omitempty"`
	}{Connections: []connection{}}
	after := q["cursor"]
	begin := sort.Search(len(l.list), func(i int) bool { return l.list[i].ID > after })
	for i := range l.list {
		conn := &l.list[i]
		if user != "" && userOf(conn) != user && !slices.Contains(conn.Topics, User.topic(user)) ||
			node != "" && conn.Node != node || topic != "" && !slices.Contains(conn.Topics, topic) {
			continue
		}
		if out.Total++; i < begin {
			continue
		}
		if len(out.Connections) == limit {
			out.Next = out.Connections[limit-1].ID
			continue
		}
		out.Connections = append(out.Connections, tell(conn))
	}
	c.answer(http.StatusOK, out)
}

// filters reads what a list of connections is asked to have. All that is wrong
// is told, for a filter that is passed over lists more than was asked for.
func (c *call) filters() (q map[string]string, limit int, bad *refusal) {
	q, bad = c.query("user", "node", "topic", "limit", "cursor")
	if bad != nil {
		return nil, 0, bad
	}
	var p problems
	limit = defaultPage
	for _, name := range []string{"user", "node", "topic", "limit", "cursor"} {
		text, there := q[name]
		wrong := ""
		switch {
		case !there:
		case name == "limit":
			n, err := strconv.Atoi(text)
			if limit = n; err != nil || n < 1 || n > maxPage {
				wrong = "is no number from 1 to " + strconv.Itoa(maxPage)
			}
		case name == "cursor" && text == "": // the first page
		case text == "":
			wrong = "is empty: give it a value or leave it out"
		case name == "topic":
			var place Place
			if place, wrong = ParsePlace(text); wrong != "" && place == (Place{}) || place.Kind == Connection {
				wrong = "is no topic: write user/{id}, channel/{name} or service/{name}"
			}
		default:
			wrong = wrongName(text)
		}
		if wrong != "" {
			p.add(name, wrong)
		}
	}
	if p.any() {
		bad = invalid(&p)
		bad.reason = "invalid_query"
	}
	return q, limit, bad
}

// query reads these parameters; others pass. Each may be there once.
func (c *call) query(names ...string) (map[string]string, *refusal) {
	q, err := url.ParseQuery(c.r.URL.RawQuery)
	if err != nil {
		return nil, invalidQuery("query", "is not well escaped: write names and values percent-encoded, with & between")
	}
	out := make(map[string]string, len(names))
	for _, name := range names {
		switch all := q[name]; len(all) {
		case 0:
		case 1:
			out[name] = all[0]
		default:
			return nil, invalidQuery(name, "is there twice: give it once")
		}
	}
	return out, nil
}

func invalidQuery(field, problem string) *refusal {
	f := invalid(&problems{list: []Problem{{field, problem}}})
	f.reason = "invalid_query"
	return f
}

// connectionStats is GET /api/v1/connections/stats.
func (c *call) connectionStats() {
	if bad := c.needAdmin(); bad != nil {
		c.refuse(bad)
		return
	}
	l, bad := c.listing(freshList)
	if bad != nil {
		c.refuse(bad)
		return
	}
	out := struct {
		Total  int            `json:"total"`
		Users  int            `json:"users"`
		Topics int            `json:"topics"` // different ones that are followed
		Nodes  map[string]int `json:"nodes"`  // connections of each
		Kinds  map[Kind]int   `json:"kinds"`  // connections that follow a topic of that kind
		Proxy  int            `json:"streams"`
	}{Total: len(l.list), Nodes: map[string]int{}, Kinds: map[Kind]int{User: 0, Channel: 0, Service: 0}}
	for id := range c.cfg.Cluster.Peers() {
		out.Nodes[id] = 0
	}
	users, topics := map[string]bool{}, map[string]bool{}
	for i := range l.list {
		conn := &l.list[i]
		out.Nodes[conn.Node]++
		if u := userOf(conn); u != "" {
			users[u] = true
		}
		if len(conn.Topics) == 0 {
			out.Proxy++
		}
		seen := map[Kind]bool{}
		for _, t := range conn.Topics {
			topics[t] = true
			kind, _, _ := strings.Cut(t, "/")
			if !seen[Kind(kind)] {
				seen[Kind(kind)] = true
				out.Kinds[Kind(kind)]++
			}
		}
	}
	out.Users, out.Topics = len(users), len(topics)
	c.answer(http.StatusOK, out)
}

// disconnect is DELETE /api/v1/connections/{id}.
func (c *call) disconnect() {
	bad := c.needAdmin()
	id := c.r.PathValue("id")
	if wrong := wrongName(id); bad == nil && wrong != "" {
		bad = invalidQuery("connection_id", wrong)
	}
	if bad == nil {
		bad = c.kick(id)
	}
	if bad != nil {
		c.refuse(bad)
		return
	}
	c.answer(http.StatusOK, struct {
		ID     string `json:"id"`
		Status string `json:"status"`
	}{id, "closed"})
}

func (c *call) kick(id string) *refusal {
	ctx, cancel := c.within()
	defer cancel()
	switch err := c.cfg.Cluster.Kick(ctx, id); {
	case errors.Is(err, cluster.ErrUnknown):
		return &refusal{status: http.StatusNotFound, reason: "unknown_connection", detail: "no node has a connection of this id"}
	case err != nil:
		return unavailable("not every node could be asked; the connection may still be there")
	}
	return nil
}

// ofUser returns the connections that follow a user's topic.
func (c *call) ofUser(user string, age time.Duration) ([]*registry.Connection, *refusal) {
	l, bad := c.listing(age)
	if bad != nil {
		return nil, bad
	}
	var out []*registry.Connection
	topic := User.topic(user)
	for i := range l.list {
		if slices.Contains(l.list[i].Topics, topic) {
			out = append(out, &l.list[i])
		}
	}
	return out, nil
}

// userParam is the user that a path of the seed's names.
func (c *call) userParam() (string, *refusal) {
	user := c.r.PathValue("userId")
	if wrong := wrongName(user); wrong != "" {
		return "", invalidQuery("userId", wrong)
	}
	return user, nil
}

// status is GET /api/sse/status/{userId}.
func (c *call) status() {
	user, bad := c.userParam()
	if bad == nil && !c.who.Admin && !c.who.MayPublish(User.topic(user)) && !c.who.MayFollow(User.topic(user)) {
		bad = forbidden("userId", "is somebody whom you may not ask about")
	}
	var conns []*registry.Connection
	if bad == nil {
		conns, bad = c.ofUser(user, freshList)
	}
	if bad != nil {
		c.refuse(bad)
		return
	}
	out := struct {
		UserID      string       `json:"userId"`
		Connected   bool         `json:"connected"`
		Node        string       `json:"node,omitempty"` // of the newest connection
		Nodes       []string     `json:"nodes"`
		Connections int          `json:"connections"`
		List        []connection `json:"list"`
	}{UserID: user, Connected: len(conns) > 0, Nodes: []string{}, Connections: len(conns), List: []connection{}}
	var newest time.Time
	for _, conn := range conns {
		if !slices.Contains(out.Nodes, conn.Node) {
			out.Nodes = append(out.Nodes, conn.Node)
		}
		if out.Node == "" || conn.Since.After(newest) {
			out.Node, newest = conn.Node, conn.Since
		}
		if len(out.List) < maxPage {
			out.List = append(out.List, tell(conn))
		}
	}
	c.answer(http.StatusOK, out)
}

// closeUser is POST /api/sse/close/{userId}: it ends the connections that
// follow the user's topic. What a body says is not looked at.
func (c *call) closeUser() {
	user, bad := c.userParam()
	if bad == nil && c.r.ContentLength != 0 {
		bad = c.wantJSON()
	}
	if bad == nil && !c.who.Admin && !c.who.MayPublish(User.topic(user)) {
		bad = forbidden("userId", "is somebody whose connections you may not close")
	}
	var conns []*registry.Connection
	if bad == nil {
		conns, bad = c.ofUser(user, 0)
	}
	if bad != nil {
		c.refuse(bad)
		return
	}
	var mu sync.Mutex
	closed := 0
	var wg sync.WaitGroup
	const kickers = 8
	for k := range min(kickers, len(conns)) {
		wg.Go(func() {
			for i := k; i < len(conns); i += kickers {
				f := c.kick(conns[i].ID)
				mu.Lock()
				switch {
				case f == nil:
					closed++
				case f.status != http.StatusNotFound: // else it has left by itself
					bad = f
				}
				mu.Unlock()
			}
		})
	}
	wg.Wait()
	out := struct {
		UserID string `json:"userId"`
		Closed int    `json:"closed"`
	}{user, closed}
	if bad != nil {
		bad.more = out
		c.refuse(bad)
		return
	}
	c.answer(http.StatusOK, out)
}

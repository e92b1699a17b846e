package push

import (
	"context"
	"encoding/json"
	"errors"
	"net/http"
	"slices"
	"strconv"
	"strings"
	"sync"
	"time"

	"ssegate/cluster"
	"ssegate/reconnect"
	"ssegate/registry"
	"ssegate/sse"
)

const (
	// maxReceipts is how many receipts a node keeps of what it took itself.
	maxReceipts = 100_000
	// inGroup is how many messages without an id of their own share a note:
	// their ids are numbered, so that the note of one is found by its id.
	inGroup = 64
	// maxGroups is how many groups are kept that may still grow.
	maxGroups = 256
	// gatherReceipts is how long a node gathers receipts before it writes
	// them where the others find them.
	gatherReceipts = 5 * time.Millisecond
	// maxUnwritten is how many notes may wait to be written.
	maxUnwritten = 10_000
	// noteWait bounds the writing of one of them.
	noteWait = 2 * time.Second
	// awaitReceipt is how long an id is looked for that nobody knows: another
	// node may have answered for it just now, and be about to write.
	awaitReceipt = 250 * time.Millisecond
)

// receipts keeps what was taken: the newest here, and all for a time in the
// registry, as notes. Nobody waits for that to be written. Of an id that came
// several times, to several targets or on several nodes, all is kept.
type receipts struct {
	a    *API
	wake chan struct{}

	mu     sync.Mutex
	byID   map[string]*receipt
	ring   []*receipt // in the order in which they came
	next   int
	groups map[string]*group // by the name of their notes
	order  []string          // names of groups that may grow
	dirty  []*group
}

// group is what one note holds: of ids that were made here; or, of an id that
// is its sender's, what is to be gathered with what other nodes know of it.
type group struct {
	name  string
	own   bool
	list  []*receipt
	dirty bool
}

func (rs *receipts) init(a *API) {
	rs.a, rs.wake = a, make(chan struct{}, 1)
	rs.byID, rs.groups = make(map[string]*receipt), make(map[string]*group)
}

// keep keeps a receipt. It does not wait.
func (rs *receipts) keep(r *receipt) {
	rs.mu.Lock()
	defer rs.mu.Unlock()
	part := r
	if had := rs.known(r.ID); had != nil {
		all, news := merged(had, r)
		if !news {
			return
		}
		r = all
	}
	if len(rs.ring) < maxReceipts {
		rs.ring = append(rs.ring, r)
	} else {
		if old := rs.ring[rs.next]; rs.byID[old.ID] == old {
			delete(rs.byID, old.ID)
		}
		rs.ring[rs.next] = r
		rs.next = (rs.next + 1) % maxReceipts
	}
	rs.byID[r.ID] = r
	if rs.a.opt.Load().Alone {
		return
	}
	if len(rs.dirty) == maxUnwritten {
		rs.a.stats.lost.Add(1)
		return
	}
	g := &group{name: part.ID, own: true}
	if !part.own {
		g = rs.group(groupOf(part.ID))
	}
	g.list = append(g.list, part)
	if !g.dirty {
		g.dirty, rs.dirty = true, append(rs.dirty, g)
		select {
		case rs.wake <- struct{}{}:
		default:
		}
	}
}

// life is since when what was published is remembered.
func (rs *receipts) life() time.Time { return time.Now().Add(-rs.a.opt.Load().ReceiptTTL) }

// known is the receipt of an id on this node, nil if there is none any more.
// The caller holds mu.
func (rs *receipts) known(id string) *receipt { return rs.byID[id].since(rs.life()) }

// group is a group of ids that are made here. The caller holds mu.
func (rs *receipts) group(name string) *group {
	g := rs.groups[name]
	if g == nil {
		g = &group{name: name}
		rs.groups[name] = g
		if rs.order = append(rs.order, name); len(rs.order) > maxGroups {
			delete(rs.groups, rs.order[0])
			rs.order = rs.order[1:]
		}
	}
	return g
}

// groupOf is the name of the note that has a message's receipt, if its id is
// one that an API made; else "".
func groupOf(id string) string {
	name, ok := strings.CutPrefix(id, "msg_")
	if !ok || len(name) < nonceText+1 {
		return ""
	}
	n, err := strconv.ParseUint(name[nonceText:], 36, 64)
	if err != nil {
		return ""
	}
	return "msg_" + name[:nonceText] + ":" + strconv.FormatUint(n/inGroup, 36)
}

func noteName(group string) string { return "push:" + group }

// run writes notes until ctx is done, and what is left then.
func (rs *receipts) run(ctx context.Context) error {
	for {
		select {
		case <-ctx.Done():
			last, cancel := context.WithTimeout(context.WithoutCancel(ctx), noteWait)
			defer cancel()
			rs.write(last)
			return nil
		case <-rs.wake:
		}
		pause(ctx, gatherReceipts)
		rs.write(ctx)
	}
}

// write writes what is not written. What cannot be is counted, and found on
// this node only.
func (rs *receipts) write(ctx context.Context) {
	type note struct {
		name string
		own  bool
		list []*receipt
	}
	rs.mu.Lock()
	notes := make([]note, len(rs.dirty))
	for i, g := range rs.dirty {
		g.dirty = false
		notes[i] = note{g.name, g.own, g.list} // lists only grow
	}
	rs.dirty = nil
	rs.mu.Unlock()
	ttl := rs.a.opt.Load().ReceiptTTL
	var wg sync.WaitGroup
	const writers = 4
	for w := range writers {
		wg.Go(func() {
			for i := w; i < len(notes); i += writers {
				value, _ := json.Marshal(notes[i].list) // texts and numbers
				once, cancel := context.WithTimeout(ctx, noteWait)
				put := rs.a.cfg.Registry.PutNote
				if notes[i].own {
					put = rs.a.cfg.Registry.Gather
				}
				err := put(once, noteName(notes[i].name), value, ttl)
				cancel()
				if err != nil {
					rs.a.stats.lost.Add(uint64(len(notes[i].list)))
				}
			}
		})
	}
	wg.Wait()
}

// find returns the receipt of a message, nil if none is known any more. It asks
// again for awaitReceipt before it says so, if there are other nodes.
func (rs *receipts) find(ctx context.Context, id string) (*receipt, error) {
	r, err := rs.look(ctx, id)
	left := awaitReceipt
	if rs.a.opt.Load().Alone {
		left = 0
	}
	for again := 2 * gatherReceipts; r == nil && err == nil && left > 0; again *= 2 {
		again = min(again, left)
		left -= again
		if pause(ctx, again); ctx.Err() != nil {
			break
		}
		r, err = rs.look(ctx, id)
	}
	return r, err
}

// look is find, once.
func (rs *receipts) look(ctx context.Context, id string) (*receipt, error) {
	rs.mu.Lock()
	here := rs.known(id)
	rs.mu.Unlock()
	var all []*receipt
	var err error
	if !rs.a.opt.Load().Alone {
		if all, err = rs.noted(ctx, id); here == nil && err != nil {
			return nil, err
		}
	}
	if here != nil {
		all = append(all, here)
	}
	byTime(all)
	r, _ := merged(all...)
	if r != nil {
		r.partial = err != nil
	}
	return r, nil
}

// noted are the receipts of an id that the nodes have put into the registry.
func (rs *receipts) noted(ctx context.Context, id string) (all []*receipt, err error) {
	reg := rs.a.cfg.Registry
	lists, err := reg.Gathered(ctx, noteName(id))
	if err != nil {
		return nil, err
	}
	if name := groupOf(id); name != "" {
		switch note, err := reg.GetNote(ctx, noteName(name)); {
		case err == nil:
			lists = append(slices.Clip(lists), note)
		case !errors.Is(err, registry.ErrUnknown):
			return nil, err
		}
	}
	for _, value := range lists {
		var list []*receipt
		if json.Unmarshal(value, &list) != nil {
			continue
		}
		for _, r := range list {
			if r = r.since(rs.life()); r != nil && r.ID == id {
				all = append(all, r)
			}
		}
	}
	return all, nil
}

// far is how far a message has got at one target.
type far struct {
	Target   string   `json:"target"`
	Position uint64   `json:"position"`
	Routed   []string `json:"routed"` // nodes
	// Written counts connections that were handed it, Following those that
	// are there now.
	Written   int  `json:"written"`
	Following int  `json:"following"`
	Passed    bool `json:"passed"`           // a client resumed or acknowledged beyond it
	Silent    int  `json:"silent,omitempty"` // nodes that did not answer
}

// receipt is GET /api/v1/messages/{id}. With ?target=user/alice it is found in
// the target's log, however long ago its receipt was forgotten.
func (c *call) receipt() {
	id := c.r.PathValue("id")
	if wrong := wrongID(id); wrong != "" {
		c.refuse(invalid(&problems{list: []Problem{{"id", wrong}}}))
		return
	}
	ctx, cancel := c.within()
	defer cancel()
	var r *receipt
	var err error
	q, bad := c.query("target")
	if bad != nil {
		c.refuse(bad)
		return
	}
	if target, there := q["target"]; there {
		p, wrong := ParsePlace(target)
		if wrong == "" && p.Kind == Connection {
			wrong = "is a connection: name the topic that it follows"
		}
		if wrong != "" {
			c.refuse(invalid(&problems{list: []Problem{{"target", wrong}}}))
			return
		}
		if bad := c.may("target", []Place{p}); bad != nil && !c.who.Admin {
			c.refuse(bad)
			return
		}
		r, err = c.inLog(ctx, id, target)
	} else {
		r, err = c.receipts.find(ctx, id)
	}
	switch {
	case err != nil:
		c.refuse(unavailable("what became of the message cannot be told now"))
		return
	case r == nil:
		c.refuse(&refusal{status: http.StatusNotFound, reason: "unknown_message",
			detail: "no message of this id is known, or it was too long ago; with ?target=user/{id} its log is searched"})
		return
	}
	if !c.who.Admin {
		r = r.only(func(t *receiptTarget) bool { return c.who.MayPublish(t.Topic) || c.who.MayPublish(t.Target) })
		if r == nil {
			c.refuse(forbidden("id", "is of a message to others, to whom you may not publish"))
			return
		}
	}
	c.answer(http.StatusOK, c.howFar(ctx, r))
}

// inLog makes a receipt of what a topic's log says.
func (c *call) inLog(ctx context.Context, id, topic string) (*receipt, error) {
	stream := cluster.TopicOf(topic).ID
	pos, err := c.cfg.Log.Find(ctx, stream, []byte(id))
	if errors.Is(err, reconnect.ErrUnknown) {
		return nil, nil
	}
	if err != nil {
		return nil, err
	}
	f, err := c.cfg.at(ctx, stream, pos)
	if err != nil || f == nil {
		return nil, err
	}
	return &receipt{ID: id, Time: f.Time, Targets: []receiptTarget{{Target: topic, Topic: topic, Epoch: pos.Epoch, Seq: pos.Seq, Meta: f.Meta}}}, nil
}

// at reads one frame, nil if it is not kept any more.
func (cfg *Config) at(ctx context.Context, stream sse.StreamID, pos sse.Pos) (*sse.Frame, error) {
	frames, err := cfg.Log.Read(ctx, stream, sse.Pos{Epoch: pos.Epoch, Seq: pos.Seq - 1}, 1)
	if err != nil && !errors.Is(err, reconnect.ErrGap) && !errors.Is(err, reconnect.ErrUnknown) {
		return nil, err
	}
	if len(frames) == 0 || frames[0].Pos != pos {
		return nil, nil
	}
	return &frames[0], nil
}

// howFar asks the cluster how far a message has got.
func (c *call) howFar(ctx context.Context, r *receipt) any {
	list := make([]far, len(r.Targets))
	var wg sync.WaitGroup
	for i := range r.Targets {
		wg.Go(func() {
			t := &r.Targets[i]
			topic, pos := cluster.TopicOf(t.Topic), sse.Pos{Epoch: t.Epoch, Seq: t.Seq}
			d := c.cfg.Cluster.Written(ctx, topic, pos, t.Meta)
			list[i] = far{Target: t.Target, Position: t.Seq, Routed: t.Nodes, Written: d.Written, Following: d.Connections, Silent: d.Silent}
			if list[i].Routed == nil {
				list[i].Routed = []string{}
			}
			passed, err := c.cfg.Log.Passed(ctx, topic.ID)
			list[i].Passed = err == nil && passed.Seq >= t.Seq
		})
	}
	wg.Wait()
	out := struct {
		ID       string   `json:"id"`
		Accepted string   `json:"accepted"` // when the log took it
		Routed   []string `json:"routed"`
		Written  int      `json:"written"`
		Passed   bool     `json:"passed"`
		Targets  []far    `json:"targets"`
		More     int      `json:"more_targets,omitempty"`
		Partial  bool     `json:"incomplete,omitempty"`
	}{Partial: r.partial, ID: r.ID, Accepted: time.UnixMilli(r.Time).UTC().Format(timeFormat), Routed: []string{}, Targets: list, More: r.More}
	for _, f := range list {
		out.Written += f.Written
		out.Passed = out.Passed || f.Passed
		for _, n := range f.Routed {
			if !slices.Contains(out.Routed, n) {
				out.Routed = append(out.Routed, n)
			}
		}
	}
	slices.Sort(out.Routed)
	return out
}

package push

import (
	"context"
	"encoding/json"
	"errors"
	"net/http"
	"sync"
	"time"

	"ssegate/cluster"
	"ssegate/registry"
)

const (
	// openPause is how long at least lies between two notes of what is open.
	openPause = 100 * time.Millisecond
	// openRetry is how long after a failure it is tried again.
	openRetry = time.Second
	// openRenew is how often a note is written again that has not changed, and
	// openKept how long it is kept.
	openRenew = 20 * time.Minute
	openKept  = time.Hour
	// openOnce is how long the log knows that an end or a cut was told.
	openOnce = 10 * time.Minute
)

// nodeLost is the cause of the end of a stream whose followers were told that
// its node died. It did not: it stood still, or was cut off.
var nodeLost = &refusal{status: http.StatusConflict, reason: "node_lost",
	detail: "this node was taken for dead, and the followers were told that the stream was cut; send it again"}

// openStreams notes with the registry which streams this node is publishing, so
// that the others can tell their followers of the cut when it dies, and tells
// the followers of those of the dead.
//
// One note a node holds all of its streams: what begins and ends between two
// notes costs nothing. A stream that began less than openPause before its node
// was killed may be in none.
type openStreams struct {
	a    *API
	wake chan struct{}

	asking chan struct{} // full while the note is read
	asked  time.Time     // when it last was, and what it said is known; under mu

	mu    sync.Mutex
	all   map[string]*openEntry
	noted bool                 // the note says what all does
	owing int                  // of all, how many owe a cut
	owes  chan struct{}        // wakes who pays
	gone  map[string]time.Time // nodes that may be dead, and when to see to that
}

// openEntry is a stream of this node. It is under mu.
type openEntry struct {
	openStream
	halt  context.CancelCauseFunc
	noted time.Time // when a note was first written that has it
	owed  *Mark     // the cut that the log has not taken yet
	until time.Time // it is offered
}

// openStream is a stream that has begun, as it is noted.
type openStream struct {
	Kind    string       `json:"k"`
	Targets []openTarget `json:"t"`
}

type openTarget struct {
	Topic string `json:"t"`
	Meta  []byte `json:"m,omitempty"`
}

func (o *openStreams) init(a *API) {
	o.a, o.wake, o.noted = a, make(chan struct{}, 1), true
	o.owes, o.asking = make(chan struct{}, 1), make(chan struct{}, 1)
	o.all, o.gone = map[string]*openEntry{}, map[string]time.Time{}
}

// add notes that a stream begins; ended that its followers know of its end.
func (o *openStreams) add(p *pipe) {
	s := &openEntry{openStream: openStream{Kind: p.mark.Kind}, halt: p.halt}
	for i := range p.targets {
		if t := &p.targets[i]; t.Status != notConnected {
			s.Targets = append(s.Targets, openTarget{t.topic.Name, t.meta})
		}
	}
	o.mu.Lock()
	o.all[p.id], o.noted = s, false
	o.mu.Unlock()
	o.look()
}

func (o *openStreams) ended(id string) {
	o.mu.Lock()
	if e := o.all[id]; e != nil && e.owed == nil {
		delete(o.all, id)
		o.noted = false
	}
	o.mu.Unlock()
	o.look()
}

// look has run look at once.
func (o *openStreams) look() {
	select {
	case o.wake <- struct{}{}:
	default:
	}
}

// Gone tells the API that a node may have died: after Config.Gone, unless the
// node is back by then, the followers of what it was publishing are told that
// it was cut. It may be told several times, and by every node.
func (a *API) Gone(node string) {
	o := &a.open
	o.mu.Lock()
	if _, known := o.gone[node]; !known && node != a.cfg.Cluster.ID() {
		o.gone[node] = time.Now().Add(a.cfg.Gone)
	}
	o.mu.Unlock()
	o.look()
}

func openNote(node string) string { return "push:open:" + node }

// run writes notes, sees to the dead and pays what is owed until ctx is done.
// What is open or owed then is left noted: whoever is left tells of it.
func (o *openStreams) run(ctx context.Context) error {
	return errors.Join(run(ctx, o.watch, o.pay)...)
}

func (o *openStreams) watch(ctx context.Context) error {
	failing := false
	for renew := time.Now().Add(openRenew); ctx.Err() == nil; {
		next := renew
		o.sureOf(ctx, o.a.cfg.Gone/2) // before a note is written again that somebody took
		err := o.write(ctx, time.Now().After(renew))
		if time.Now().After(renew) {
			renew = time.Now().Add(openRenew)
		}
		due := o.see(ctx)
		if o.any() {
			due = min(due, o.a.cfg.Gone/2)
		}
		if err != nil {
			due = openRetry
			if !failing && ctx.Err() == nil {
				o.a.cfg.Report("it cannot be noted which streams are being published", err)
			}
		}
		failing = err != nil
		pause(ctx, openPause)
		timer := time.NewTimer(min(due, time.Until(next)))
		select {
		case <-ctx.Done():
		case <-o.wake:
			if failing {
				pause(ctx, openRetry)
			}
		case <-timer.C:
		}
		timer.Stop()
	}
	return nil
}

// write writes the note, if it says something else than the last one or if it
// has to be renewed.
func (o *openStreams) write(ctx context.Context, renew bool) error {
	o.mu.Lock()
	if o.noted && (!renew || len(o.all) == 0) {
		o.mu.Unlock()
		return nil
	}
	note := mustJSON(o.all)
	none := len(o.all) == 0
	var fresh []*openEntry
	for _, e := range o.all {
		if e.noted.IsZero() {
			fresh = append(fresh, e)
		}
	}
	o.noted = true
	o.mu.Unlock()
	now := time.Now()
	ctx, cancel := context.WithTimeout(ctx, o.a.opt.Load().Wait)
	defer cancel()
	reg, name := o.a.cfg.Registry, openNote(o.a.cfg.Cluster.ID())
	var err error
	if none {
		if _, err = reg.TakeNote(ctx, name); errors.Is(err, registry.ErrUnknown) {
			err = nil
		}
	} else {
		err = reg.PutNote(ctx, name, note, openKept)
	}
	o.mu.Lock()
	defer o.mu.Unlock()
	if err != nil {
		o.noted = false
		return err
	}
	for _, e := range fresh {
		e.noted = now
	}
	return nil
}

// see sees to the nodes whose time has come, and returns when the next one's
// comes.
func (o *openStreams) see(ctx context.Context) (next time.Duration) {
	peers := o.a.cfg.Cluster.Peers()
	_, self := peers[o.a.cfg.Cluster.ID()]
	now := time.Now()
	next = openRenew
	o.mu.Lock()
	var dead []string
	for node, at := range o.gone {
		_, alive := peers[node]
		switch {
		case alive:
			delete(o.gone, node)
		case now.Before(at):
			next = min(next, at.Sub(now))
		case !self: // the registry has forgotten all of us: nobody is dead because of that
			o.gone[node] = now.Add(o.a.cfg.Gone)
			next = min(next, o.a.cfg.Gone)
		default:
			dead = append(dead, node)
		}
	}
	o.mu.Unlock()
	for _, node := range dead {
		if o.cut(ctx, node) != nil {
			next = min(next, openRetry)
			continue
		}
		o.mu.Lock()
		delete(o.gone, node)
		o.mu.Unlock()
	}
	return next
}

// cut tells the followers of a dead node's streams. Every node does, rather
// than nobody: the log takes it once.
func (o *openStreams) cut(ctx context.Context, node string) error {
	opt := o.a.opt.Load()
	ctx, cancel := context.WithTimeout(ctx, opt.Wait)
	defer cancel()
	note, err := o.a.cfg.Registry.GetNote(ctx, openNote(node))
	if errors.Is(err, registry.ErrUnknown) {
		return nil // nothing was open, or all has been told
	}
	if err != nil {
		return err
	}
	var all map[string]openStream
	if err := json.Unmarshal(note, &all); err != nil {
		o.a.cfg.Report("the note of a dead node's streams cannot be read", err)
		return nil
	}
	var posts []cluster.Outgoing
	for id, s := range all {
		posts = s.last(posts, &Mark{Stream: id, State: "cut", Kind: s.Kind, Reason: nodeLost.reason}, opt)
	}
	for _, got := range o.a.cfg.Cluster.Publish(ctx, posts) {
		if got.Err != nil {
			return got.Err
		}
	}
	if _, err := o.a.cfg.Registry.TakeNote(ctx, openNote(node)); err != nil && !errors.Is(err, registry.ErrUnknown) {
		return err
	}
	return nil
}

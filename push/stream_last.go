package push

import (
	"context"
	"encoding/json"
	"errors"
	"strconv"
	"time"

	"ssegate/cluster"
	"ssegate/reconnect"
	"ssegate/registry"
)

const (
	// openOwed is how many streams of a node may owe their followers a cut, and
	// oweFor how long it is offered to a log that does not take it.
	openOwed = 10_000
	oweFor   = time.Hour
	// owePause is between the first offer and the second; each further pause is
	// twice as long, up to oweMost.
	owePause = time.Second
	oweMost  = 15 * time.Second
	// owePosts is how many marks are offered at once, or a few more.
	owePosts = 1000
	// sureWait bounds what a stream waits for the note of its node.
	sureWait = time.Second
)

// lastID is the id of a stream's last mark at its nth target, whoever tells it:
// of an end, a cut and another node's word that its node is lost, the log takes
// what comes first.
func lastID(stream string, nth int) []byte {
	return strconv.AppendInt([]byte(stream+"-cut-"), int64(nth), 10)
}

// last adds a stream's last mark for all of its targets to posts.
func (s *openStream) last(posts []cluster.Outgoing, m *Mark, opt *settings) []cluster.Outgoing {
	block, err := eventBlock(StreamEvent, mustJSON(m))
	if err != nil {
		return posts // not of ours
	}
	for i, t := range s.Targets {
		posts = append(posts, cluster.Outgoing{
			Topic: cluster.TopicOf(t.Topic), ID: lastID(m.Stream, i), Once: openOnce,
			Meta: t.Meta, Block: block, Limits: opt.limits(0),
		})
	}
	return posts
}

// owe has pay offer a cut to the log that did not take it. Of too many the
// newest is given up.
func (o *openStreams) owe(id string, m *Mark) {
	o.mu.Lock()
	defer o.mu.Unlock()
	e := o.all[id]
	if e == nil || o.owing == openOwed {
		o.a.stats.cutsLost.Add(1)
		return
	}
	e.owed, e.until = m, time.Now().Add(oweFor)
	o.owing++
	select {
	case o.owes <- struct{}{}:
	default:
	}
}

// pay offers the cuts that are owed until the log takes them, or until ctx is
// done.
func (o *openStreams) pay(ctx context.Context) error {
	for again := owePause; ctx.Err() == nil; {
		o.mu.Lock()
		none := o.owing == 0
		o.mu.Unlock()
		if none {
			again = owePause
			select {
			case <-ctx.Done():
				return nil
			case <-o.owes:
			}
		}
		if pause(ctx, again); o.offer(ctx) {
			again = owePause
		} else {
			again = min(2*again, oweMost)
		}
	}
	return nil
}

// offer offers what is owed, and reports whether the log took any of it.
func (o *openStreams) offer(ctx context.Context) (some bool) {
	opt := o.a.opt.Load()
	var posts []cluster.Outgoing
	var ids []string // of the stream of each post
	now := time.Now()
	o.mu.Lock()
	for id, e := range o.all {
		switch {
		case e.owed == nil, len(posts) >= owePosts:
		case now.After(e.until):
			o.a.stats.cutsLost.Add(1)
			o.paid(id)
		default:
			posts = e.last(posts, e.owed, opt)
			for len(ids) < len(posts) {
				ids = append(ids, id)
			}
		}
	}
	o.mu.Unlock()
	if len(posts) > 0 {
		ctx, cancel := context.WithTimeout(ctx, opt.Wait)
		defer cancel()
		left := make(map[string]bool)
		for i, got := range o.a.cfg.Cluster.Publish(ctx, posts) {
			left[ids[i]] = left[ids[i]] || got.Err != nil
		}
		o.mu.Lock()
		for id, still := range left {
			if !still {
				o.paid(id)
				some = true
			}
		}
		o.mu.Unlock()
	}
	o.look()
	return some
}

// paid forgets a stream that owed its cut. The caller holds mu.
func (o *openStreams) paid(id string) {
	delete(o.all, id)
	o.owing--
	o.noted = false
}

func (o *openStreams) any() bool {
	o.mu.Lock()
	defer o.mu.Unlock()
	return len(o.all) > 0
}

// sure makes sure, now and then, that nobody has told of p's cut: who does takes
// the note of its node away. The others wait Config.Gone before they do, so that
// a node that stood still looks before it goes on: each of its streams, also while
// another one is looking. If p was cut it is halted.
func (o *openStreams) sure(p *pipe) {
	if !p.marks {
		return
	}
	o.mu.Lock()
	e := o.all[p.id]
	old := e != nil && !e.noted.IsZero() && since(e.noted) > o.a.cfg.Gone && since(o.asked) > o.a.cfg.Gone
	o.mu.Unlock()
	if old {
		ctx, cancel := context.WithTimeout(p.ctx, sureWait)
		defer cancel()
		o.sureOf(ctx, o.a.cfg.Gone)
	}
}

// since is how long ago t was, also where the machine slept meanwhile and one of
// its clocks with it.
func since(t time.Time) time.Duration { return max(time.Since(t), time.Since(t.Round(0))) }

// sureOf reads the node's note, if that has not been done for so long, and halts
// the streams whose cut was told. A registry that cannot say halts nobody, and is
// asked again by the next who wants to be sure.
func (o *openStreams) sureOf(ctx context.Context, age time.Duration) {
	select {
	case o.asking <- struct{}{}: // who comes meanwhile wants to hear the answer, too
		defer func() { <-o.asking }()
	case <-ctx.Done():
		return
	}
	now := time.Now()
	noted := make(map[string]*openEntry)
	o.mu.Lock()
	if since(o.asked) <= age {
		o.mu.Unlock()
		return
	}
	for id, e := range o.all {
		if !e.noted.IsZero() && e.owed == nil && since(e.noted) > age {
			noted[id] = e
		}
	}
	o.mu.Unlock()
	if len(noted) == 0 {
		return
	}
	ctx, cancel := context.WithTimeout(ctx, o.a.opt.Load().Wait)
	defer cancel()
	note, err := o.a.cfg.Registry.GetNote(ctx, openNote(o.a.cfg.Cluster.ID()))
	if err != nil && !errors.Is(err, registry.ErrUnknown) {
		return
	}
	var there map[string]json.RawMessage
	_ = json.Unmarshal(note, &there) // what cannot be read is missing
	missing, all := false, true
	for id, e := range noted {
		if there[id] != nil {
			continue
		}
		told, err := o.told(ctx, id, e)
		if told {
			e.halt(nodeLost)
		}
		missing, all = true, all && err == nil
	}
	if !all {
		return
	}
	o.mu.Lock()
	o.asked = now                 // as of when it was asked, once its answer counts
	o.noted = o.noted && !missing // where the registry has forgotten it is told again
	o.mu.Unlock()
}

// told reports whether the log has the last mark of a stream.
func (o *openStreams) told(ctx context.Context, id string, e *openEntry) (bool, error) {
	for i, t := range e.Targets {
		_, err := o.a.cfg.Log.Find(ctx, cluster.TopicOf(t.Topic).ID, lastID(id, i))
		switch {
		case err == nil:
			return true, nil
		case !errors.Is(err, reconnect.ErrUnknown):
			return false, err
		}
	}
	return false, nil
}

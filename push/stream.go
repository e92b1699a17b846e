package push

import (
	"bytes"
	"context"
	"crypto/rand"
	"errors"
	"io"
	"net/http"
	"slices"
	"strconv"
	"strings"
	"sync"
	"time"

	"ssegate/cluster"
	"ssegate/sse"
)

const (
	// PieceSize is how many bytes of what is no event stream go into one
	// event at most; all but the last have as many where the length is known.
	PieceSize = 64 << 10
	// StreamEvent is the name of the events that say where a stream begins and
	// how it ends, PieceEvent of those that carry a piece of one.
	StreamEvent = "ssegate.stream"
	PieceEvent  = "ssegate.piece"

	streamBatch = 256 << 10        // bytes that are published at once
	streamOnce  = time.Minute      // how long the log knows what it took of one
	streamWait  = 10 * time.Second // for a log that does not answer
	streamBye   = 2 * time.Second  // to tell of a cut
)

// Mark is the data of a StreamEvent.
type Mark struct {
	Stream string `json:"stream"`
	State  string `json:"state"` // begin, end or cut
	Kind   string `json:"kind"`  // events or pieces
	// Of begin:
	Type string `json:"content_type,omitempty"`
	Name string `json:"name,omitempty"` // of a file, as the publisher calls it
	// Of begin where it is known, and of end: pieces and bytes of it all.
	Total int   `json:"total,omitempty"`
	Bytes int64 `json:"bytes,omitempty"`
	// Of end and cut: how many events came before it.
	Events int    `json:"events,omitempty"`
	SHA256 string `json:"sha256,omitempty"` // of all bytes, at the end
	Reason string `json:"reason,omitempty"` // of a cut
}

// Piece is the data of a PieceEvent.
type Piece struct {
	Stream string `json:"stream"`
	Index  int    `json:"index"`           // from 0
	Total  int    `json:"total,omitempty"` // pieces, where the length is known
	Offset int64  `json:"offset"`          // of its first byte
	Data   []byte `json:"data"`            // base64
}

// pipe is a publisher's stream on its way to its targets.
type pipe struct {
	c *call
	// ctx does not end with the publisher: what has been read of it is published,
	// each time no longer than streamWait.
	ctx context.Context
	// live is the request's until the stream has to end early: a *refusal is its
	// cause then, unless the publisher is gone.
	live    context.Context
	halt    context.CancelCauseFunc
	reading sync.Mutex // over deadlines of the body, and done
	done    bool       // the body is nobody's to read any more

	id      string
	mark    Mark // what begin said
	marks   bool
	over    bool // its cut is being told, whatever has expired
	closing bool // what waits is the last mark
	lost    bool // another node has told of its cut
	targets []pipeTarget
	conns   audience // of the targets, those that are connections
	blocks  [][]byte // to be published
	size    int      // of blocks
	number  int      // of the next event, marks included
}

type pipeTarget struct {
	result
	topic cluster.Topic
	meta  []byte
	nth   int    // of those that are there
	conn  string // of which the topic is one, "" for none: the target is the topic
}

// piped is the answer to a stream.
type piped struct {
	Stream string `json:"stream"`
	State  string `json:"state"` // end or cut
	Kind   string `json:"kind"`
	Events int    `json:"events"` // or pieces
	Bytes  int64  `json:"bytes"`
	SHA256 string `json:"sha256,omitempty"`
	// Unfinished is how many bytes at the end belong to an event that no blank
	// line ended. It is not published, as no client would read it.
	Unfinished int      `json:"unfinished,omitempty"`
	Targets    []result `json:"targets"`
}

// stream is POST /api/v1/streams/{kind}/{name}?to=user/a,user/b.
func (c *call) stream() {
	p, bad := c.openPipe()
	if bad != nil {
		c.refuse(bad)
		return
	}
	c.stats.streams.Add(1)
	answer := piped{Stream: p.id, Kind: p.mark.Kind}
	finish := p.start()
	defer finish()
	if p.marks {
		c.open.add(p)
		defer c.open.ended(p.id)
	}
	bad = p.begin()
	if bad == nil && p.mark.Kind == "events" {
		bad = p.events(&answer)
	} else if bad == nil {
		bad = p.pieces(&answer)
	}
	end := Mark{Stream: p.id, State: "end", Kind: p.mark.Kind, Events: answer.Events, Bytes: answer.Bytes, SHA256: answer.SHA256}
	if p.mark.Kind == "pieces" {
		end.Total = answer.Events
	}
	if bad == nil {
		p.closing = true
		if bad = p.say(p.ctx, &end); bad == nil && p.lost {
			bad = nodeLost
		}
	}
	if why := p.halted(); bad != nil && why != nil {
		bad = new(*why) // in place of what came of it
	}
	finish()
	if bad != nil {
		c.stats.cutShort.Add(1)
		end.State, end.Reason, end.Total, end.SHA256 = "cut", bad.reason, 0, ""
		ctx, cancel := context.WithTimeout(p.ctx, streamBye)
		defer cancel()
		p.blocks, p.size, p.over, p.closing = nil, 0, true, true
		if p.say(ctx, &end) != nil && p.marks {
			c.open.owe(p.id, &end)
		}
	}
	answer.State = end.State
	p.conns.settle(p.ctx)
	for i := range p.targets {
		answer.Targets = append(answer.Targets, p.targets[i].result)
	}
	if bad != nil {
		bad.more = answer
		c.refuse(bad)
		return
	}
	c.answer(http.StatusOK, answer)
}

// openPipe reads where a stream goes and what it is.
func (c *call) openPipe() (*pipe, *refusal) {
	p := &pipe{c: c, ctx: context.WithoutCancel(c.r.Context()), id: "str_" + rand.Text()}
	q, bad := c.query("to", "marks", "session_id", "kb_id", "task_id")
	if bad != nil {
		return nil, bad
	}
	switch marks, said := q["marks"]; {
	case !said || marks == "on":
		p.marks = true
	case marks != "off":
		return nil, invalidQuery("marks", "is "+quote(marks)+": write on or off")
	}
	to, said := q["to"]
	if said && to == "" {
		return nil, invalidQuery("to", "is empty: name targets as user/alice,channel/news, or leave it away")
	}
	places, bad := c.pipePlaces(to)
	if bad == nil {
		bad = c.streamType(p)
	}
	if bad != nil {
		return nil, bad
	}
	var meta cluster.Meta
	for field, to := range map[string]*string{"session_id": &meta.Session, "kb_id": &meta.KB, "task_id": &meta.Task} {
		var said bool
		if *to, said = q[field]; said {
			if wrong := wrongName(*to); wrong != "" {
				return nil, invalidQuery(field, wrong)
			}
		}
	}
	there := 0
	for _, place := range places {
		t := pipeTarget{result: result{Target: place.String()}}
		topic, with := t.Target, meta
		if place.Kind == Connection {
			ctx, cancel := c.within()
			conn, err := c.conns.find(ctx, place.Name)
			cancel()
			if err != nil {
				return nil, unavailable("where the connection is cannot be told now; nothing was read")
			}
			if conn == nil || len(conn.Topics) == 0 {
				t.Status = notConnected
				p.targets = append(p.targets, t)
				continue
			}
			topic, with.Connection = conn.Topics[0], place.Name
			t.conn, t.node = place.Name, conn.Node
		}
		t.topic, t.meta, t.nth = cluster.TopicOf(topic), with.Encode(), there
		p.targets = append(p.targets, t)
		there++
	}
	if there == 0 {
		return nil, &refusal{status: http.StatusNotFound, reason: "unknown_connection", detail: "no node has such a connection; nothing was read"}
	}
	return p, nil
}

func (c *call) pipePlaces(to string) ([]Place, *refusal) {
	var places []Place
	texts := []string{c.r.PathValue("kind") + "/" + c.r.PathValue("name")}
	fields := []string{"target"}
	if to != "" {
		for i, text := range strings.Split(to, ",") {
			texts, fields = append(texts, text), append(fields, "to["+strconv.Itoa(i)+"]")
		}
	}
	var wrongs problems
	for i, text := range texts {
		place, wrong := ParsePlace(text)
		if wrong != "" {
			wrongs.add(fields[i], wrong)
			continue
		}
		if bad := c.may(fields[i], []Place{place}); bad != nil {
			return nil, bad
		}
		if !slices.Contains(places, place) {
			places = append(places, place)
		}
	}
	switch {
	case wrongs.any():
		f := invalid(&wrongs)
		f.reason = "invalid_target"
		return nil, f
	case len(places) > c.opt.Targets:
		return nil, &refusal{status: http.StatusRequestEntityTooLarge, reason: "too_many", fields: []Problem{{"to", "names too many"}},
			detail: "to names more than the " + strconv.Itoa(c.opt.Targets) + " targets that one stream may have"}
	}
	return places, nil
}

// streamType finds out what the body is. Types that any page may send without
// asking are no stream's, unless whoever sends it shows a token as no page can
// make a browser do.
func (c *call) streamType(p *pipe) *refusal {
	t := c.mediaType()
	byHand := c.r.Header.Get("Authorization") != "" || c.r.Header.Get("X-Api-Key") != ""
	switch t {
	case "":
		return &refusal{status: http.StatusUnsupportedMediaType, reason: "unsupported_media_type",
			detail: "say what the body is: Content-Type: text/event-stream for events, application/octet-stream or its own type for bytes"}
	case "text/plain", "multipart/form-data", "application/x-www-form-urlencoded":
		if !byHand {
			return &refusal{status: http.StatusUnsupportedMediaType, reason: "unsupported_media_type",
				detail: "a body of type " + t + " is taken with Authorization or X-Api-Key only; send it as application/octet-stream"}
		}
	}
	if e := c.r.Header.Get("Content-Encoding"); e != "" && e != "identity" {
		return &refusal{status: http.StatusUnsupportedMediaType, reason: "unsupported_encoding", detail: "send the body as it is, without Content-Encoding"}
	}
	p.mark = Mark{Stream: p.id, State: "begin", Kind: "pieces", Type: t, Name: fileName(c.r.Header.Get("Content-Disposition"))}
	if t == "text/event-stream" {
		p.mark.Kind = "events"
	} else if n := c.r.ContentLength; n >= 0 {
		p.mark.Bytes, p.mark.Total = n, int((n+PieceSize-1)/PieceSize)
	}
	return nil
}

func (p *pipe) begin() *refusal { return p.say(p.ctx, &p.mark) }

// say publishes a mark, and what waits before it.
func (p *pipe) say(ctx context.Context, m *Mark) *refusal {
	if p.marks {
		block, err := eventBlock(StreamEvent, mustJSON(m))
		if err != nil {
			return badRequest("invalid_stream", err.Error())
		}
		p.put(block)
	}
	return p.flush(ctx)
}

func (p *pipe) put(block []byte) {
	p.blocks = append(p.blocks, block)
	p.size += len(block)
}

// flush publishes what waits and returns when the log has it, so that the
// publisher is read no faster than the log takes it.
func (p *pipe) flush(ctx context.Context) *refusal {
	if len(p.blocks) == 0 {
		return nil
	}
	if !p.over {
		if why := p.halted(); why != nil {
			return why
		}
		if !p.pace(p.live) {
			return badRequest("body_cut", "the body did not arrive whole")
		}
	}
	posts := make([]cluster.Outgoing, 0, len(p.blocks)*len(p.targets))
	at := make([]int, 0, cap(posts)) // the target of each
	for i := range p.targets {
		t := &p.targets[i]
		if t.Status == notConnected || p.conns.gone[i].Load() {
			continue
		}
		for j, block := range p.blocks {
			at = append(at, i)
			id, once := strconv.AppendInt([]byte(p.id+"-"), int64(p.number+j), 10), streamOnce
			switch {
			case p.closing: // the log takes one, of us or of who takes us for dead
				id, once = lastID(p.id, t.nth), openOnce
			case t.conn != "": // one of several that follow this topic, maybe
				id = strconv.AppendInt(append(id, '-'), int64(i), 10)
			}
			posts = append(posts, cluster.Outgoing{
				Topic: t.topic, ID: id, Once: once, Meta: t.meta, Block: block, Limits: p.c.opt.limits(0),
			})
		}
	}
	if len(posts) > 0 {
		if bad := p.publish(ctx, posts, at); bad != nil {
			return bad
		}
	}
	p.number += len(p.blocks)
	p.blocks, p.size = p.blocks[:0], 0
	return nil
}

// pace holds a publisher back that is faster than its rate allows.
func (p *pipe) pace(ctx context.Context) bool {
	for p.c.opt.Rate > 0 {
		n := min(len(p.blocks), p.c.opt.Burst)
		wait := p.c.rate.Take(p.c.publisher(), n, p.c.opt.Rate, p.c.opt.Burst, time.Now())
		if wait == 0 {
			return true
		}
		if pause(ctx, wait); ctx.Err() != nil {
			return false
		}
	}
	return true
}

// publish publishes and, what found no log, again for a while: the log takes
// each of them once. Each time it makes sure first that the stream is not cut:
// this node may have stood still in any wait until here.
func (p *pipe) publish(ctx context.Context, posts []cluster.Outgoing, at []int) *refusal {
	give := time.Now().Add(streamWait)
	for again := 50 * time.Millisecond; ; again *= 2 {
		if !p.over {
			p.c.open.sure(p)
			if p.halted() == nodeLost {
				return nodeLost
			}
		}
		once, cancel := context.WithTimeout(ctx, p.c.opt.Wait)
		got := p.c.cfg.Cluster.Publish(once, posts)
		cancel()
		left := 0
		for i := range got {
			if got[i].Err != nil {
				posts[left], at[left] = posts[i], at[i]
				left++
				continue
			}
			t := &p.targets[at[i]].result
			p.c.outcome(t, &got[i])
			t.Duplicate = false
			if p.closing && got[i].Dup && !p.over {
				// Another's, or ours whose answer was lost.
				f, err := p.c.cfg.at(ctx, posts[i].Topic.ID, got[i].Pos)
				if err != nil {
					return unavailable("the log took the end, or a cut; which of them it does not say now")
				}
				p.lost = p.lost || f != nil && bytes.Contains(f.Block, []byte(`"state":"cut"`))
			}
		}
		if posts, at = posts[:left], at[:left]; left == 0 {
			return nil
		}
		if pause(ctx, again); ctx.Err() != nil || time.Now().After(give) {
			p.c.stats.failed.Add(uint64(left))
			return unavailable("the log could not be reached; what was published is said in result, of what came next the fate is unknown")
		}
	}
}

// events publishes the events of the body as they arrive.
func (p *pipe) events(answer *piped) *refusal {
	dec := sse.NewDecoder(p.c.opt.EventSize)
	buf := make([]byte, 32<<10)
	var ev sse.Event
	waiting := 0
	flush := func() *refusal {
		if bad := p.flush(p.ctx); bad != nil {
			return bad
		}
		answer.Events += waiting
		p.c.stats.events.Add(uint64(waiting))
		waiting = 0
		return nil
	}
	for {
		n, err := p.read(buf)
		answer.Bytes += int64(n)
		p.c.stats.bytes.Add(uint64(n))
		dec.Feed(buf[:n])
		for {
			ok, tooLarge := dec.Next(&ev)
			if tooLarge != nil {
				return orFirst(flush(), &refusal{status: http.StatusRequestEntityTooLarge, reason: "too_large", fields: []Problem{{"body", "has an event that is too large"}},
					detail: "an event is larger than the " + strconv.Itoa(p.c.opt.EventSize) + " bytes that are allowed"})
			}
			if !ok {
				break
			}
			if !ev.HasData {
				continue // no client would see it
			}
			if wrong := wrongEvent(ev.Name); wrong != "" {
				field := "event[" + strconv.Itoa(answer.Events+waiting) + "]"
				return orFirst(flush(), &refusal{status: http.StatusBadRequest, reason: "invalid_event", detail: field + " " + wrong, fields: []Problem{{field, wrong}}})
			}
			block, _ := eventBlock(string(ev.Name), ev.Data) // the name is sound
			p.put(block)
			if waiting++; p.size >= streamBatch {
				if bad := flush(); bad != nil {
					return bad
				}
			}
		}
		if bad := flush(); bad != nil {
			return bad
		}
		switch {
		case errors.Is(err, io.EOF):
			answer.Unfinished = dec.Buffered()
			return nil
		case err != nil:
			return cut(err)
		}
	}
}

// orFirst is first, unless it is nil.
func orFirst(first, second *refusal) *refusal {
	if first != nil {
		return first
	}
	return second
}

// wrongEvent says why an event of a stream cannot have this name.
func wrongEvent(name []byte) string {
	switch {
	case len(name) > MaxName:
		return "has a name longer than " + strconv.Itoa(MaxName) + " bytes"
	case !sse.ValidName(name):
		return "has a name that " + errName.Error()
	case strings.HasPrefix(string(name), ours):
		return "has a name that begins with " + ours + ", as only events of ssegate do"
	}
	return ""
}

package redislog_test

import (
	"errors"
	"strings"
	"testing"
	"time"

	"ssegate/internal/gatetest/service"
	"ssegate/reconnect"
	"ssegate/reconnect/redislog"
	"ssegate/sse"
)

// reading is a topic as somebody sees it who comes back to it.
type reading struct {
	*testing.T
	log *redislog.Log
	id  sse.StreamID
}

// from reads on from a position to the end, and wants these ids; a gap is a "!".
func (r reading) from(after sse.Pos, want string) {
	r.Helper()
	var got strings.Builder
	pos := after
	for range 20 {
		frames, err := r.log.Read(r.Context(), r.id, pos, 2)
		if gap, ok := errors.AsType[*reconnect.Gap](err); ok {
			if gap.From != pos.Seq+1 || len(frames) > 0 && frames[0].Pos.Seq != gap.To+1 {
				r.Errorf("behind %v: %v, and then %v", pos, err, frames)
			}
			got.WriteString("!")
			pos.Seq = gap.To
		} else if err != nil {
			r.Fatal(err)
		} else if len(frames) == 0 {
			break
		}
		for _, f := range frames {
			got.Write(f.ID)
			pos = f.Pos
		}
	}
	if got.String() != want {
		r.Errorf("behind %v: %q, want %q", after, got.String(), want)
	}
}

// opened opens the topic behind what the caller knows, and wants its numbering
// to begin in a later epoch than that, with so many numbers given out.
func (r reading) opened(known, before sse.Pos, given uint64) sse.Pos {
	r.Helper()
	tails, err := r.log.Open(r.Context(), []reconnect.OpenTopic{{Stream: r.id, After: known, TTL: time.Hour}})
	if err != nil {
		r.Fatal(err)
	}
	if tails[0].Epoch <= before.Epoch || tails[0].Seq != reconnect.Origin(tails[0].Epoch).Seq+given {
		r.Errorf("opened at %v, with %v before; want %d given out", tails[0], before, given)
	}
	return tails[0]
}

func restart(p *service.Proc) {
	p.Kill()
	p.Start()
}

// TestRestartAllKept: a Redis that comes back with all that it had gives no
// number out again, and nobody is told of a gap: who is at the end, behind it, or
// comes back later, whether there were messages and whether the log has them
// still, and after how many restarts.
func TestRestartAllKept(t *testing.T) {
	p := service.Redis(t)
	p.KeepData = true
	log, prefix := open(t, connect(t, p))
	busy, quiet, empty, past := sse.NewStreamID(), sse.NewStreamID(), sse.NewStreamID(), sse.NewStreamID()
	read := func(id sse.StreamID) reading { return reading{t, log, id} }
	first := mustPublish(t, log, note(busy, 0, "a", "b", "c"))
	last := mustPublish(t, log, note(busy, 0, "d", "e")).Pos[1]
	said := mustPublish(t, log, note(quiet, 0, "a")).Pos[0]
	begun := read(empty).opened(sse.Pos{}, sse.Pos{}, 0)
	expired := mustPublish(t, log, note(past, 0, "a", "b"))
	if err := connect(t, p).Del(t.Context(), keyOf(prefix, past)).Err(); err != nil { // as its TTL does
		t.Fatal(err)
	}
	restart(p)

	d := mustPublish(t, log, note(busy, 0, "f"))
	if d.Pos[0].Epoch <= last.Epoch || d.Pos[0].Seq != reconnect.Origin(d.Pos[0].Epoch).Seq+1 {
		t.Fatalf("published at %v, at %v before", d.Pos, last)
	}
	read(busy).from(first.Pos[0], "bcdef")
	read(busy).from(last, "f")
	read(busy).from(reconnect.Origin(d.Pos[0].Epoch), "f")
	read(busy).from(sse.Pos{Seq: last.Seq + 1}, "!f") // whoever has that
	if again := mustPublish(t, log, note(busy, 0, "g")); again.Pos[0].Seq != d.Pos[0].Seq+1 {
		t.Errorf("published at %v, then at %v", d.Pos, again.Pos)
	}
	if tail := read(busy).opened(last, last, 2); tail.Epoch != d.Pos[0].Epoch { // who had all of it has nothing to say
		t.Errorf("published at %v, opened at %v", d.Pos, tail)
	}

	// What is quiet goes over several restarts.
	at := map[sse.StreamID][]sse.Pos{quiet: {said}, empty: {begun}, past: {expired.Pos[1]}}
	for range 3 {
		for id, known := range at {
			before := known[len(known)-1]
			at[id] = append(known, read(id).opened(before, before, 0))
		}
		restart(p)
	}
	for id, known := range at {
		for _, pos := range known {
			read(id).from(pos, "")
		}
		mustPublish(t, log, note(id, 0, "x"))
		for _, pos := range known {
			read(id).from(pos, "x")
		}
	}
	read(past).from(expired.Pos[0], "!x")
	read(busy).from(first.Pos[2], "defg")
	mustPublish(t, log, note(busy, 0, "h"))
	read(busy).from(first.Pos[2], "defgh")

	// When their log is gone too, only the very end is known to be one.
	if err := connect(t, p).Del(t.Context(), keyOf(prefix, busy)).Err(); err != nil {
		t.Fatal(err)
	}
	read(busy).from(last, "!")
	read(busy).from(d.Pos[0], "!")
	read(busy).from(sse.Pos{Seq: d.Pos[0].Seq + 1}, "!")
	mustPublish(t, log, note(busy, 0, "i"))
	read(busy).from(sse.Pos{Seq: d.Pos[0].Seq + 1}, "!i")
}

// TestRestartLastLost: a Redis that comes back without the last messages. Who
// has one of them is told of a gap; so is who is behind them, if it is known that
// there were any: by who publishes first, by who opens the topic first, or by who
// opens it later.
func TestRestartLastLost(t *testing.T) {
	p := service.Redis(t)
	p.KeepData = true
	c := connect(t, p)
	log, _ := open(t, c)
	nobody, publisher, opener, late := sse.NewStreamID(), sse.NewStreamID(), sse.NewStreamID(), sse.NewStreamID()
	kept, lost := map[sse.StreamID]sse.Pos{}, map[sse.StreamID]sse.Pos{}
	all := []sse.StreamID{nobody, publisher, opener, late}
	for _, id := range all {
		kept[id] = mustPublish(t, log, note(id, 0, "a", "b")).Pos[1]
	}
	// What is written from here on never gets to the disk.
	if err := c.ConfigSet(t.Context(), "appendonly", "no").Err(); err != nil {
		t.Fatal(err)
	}
	for _, id := range all {
		lost[id] = mustPublish(t, log, note(id, 0, "c", "d")).Pos[1]
	}
	restart(p)

	read := func(id sse.StreamID) reading { return reading{t, log, id} }
	published := func(id sse.StreamID, after sse.Pos, name string, n uint64) {
		t.Helper()
		posts := note(id, 0, name)
		posts[0].After = after
		d := mustPublish(t, log, posts)
		if origin := reconnect.Origin(d.Pos[0].Epoch); d.Pos[0].Seq != origin.Seq+n || origin.Epoch <= lost[id].Epoch {
			t.Errorf("published at %v, at %v before", d.Pos, lost[id])
		}
	}
	published(nobody, sse.Pos{}, "e", 1)
	read(nobody).from(lost[nobody], "!e")
	read(nobody).from(sse.Pos{Seq: lost[nobody].Seq - 1}, "!e")

	published(publisher, lost[publisher], "e", 2)
	read(opener).opened(lost[opener], lost[opener], 1)
	for _, id := range []sse.StreamID{publisher, opener} {
		read(id).opened(lost[id], lost[id], map[sse.StreamID]uint64{publisher: 2, opener: 1}[id])
		read(id).from(kept[id], map[sse.StreamID]string{publisher: "!e", opener: "!"}[id])
	}
	published(opener, lost[opener], "e", 2)
	for _, id := range []sse.StreamID{publisher, opener} {
		read(id).from(kept[id], "!e")
		read(id).from(lost[id], "!e")
		read(id).from(sse.Pos{Seq: kept[id].Seq - 1}, "b!e")
	}

	published(late, kept[late], "e", 1)
	read(late).from(kept[late], "e")
	before := read(late).opened(kept[late], kept[late], 1)
	after := read(late).opened(lost[late], before, 1)
	if again := read(late).opened(lost[late], before, 1); again != after {
		t.Errorf("opened at %v, then at %v", after, again)
	}
	read(late).from(kept[late], "e!")
	restart(p) // a hole is one until something is behind it
	published(late, sse.Pos{}, "f", 2)
	read(late).from(kept[late], "e!f")
	read(late).from(lost[late], "!e!f")
	read(late).from(after, "!f")
	restart(p)
	published(late, sse.Pos{}, "g", 1)
	read(late).from(kept[late], "e!fg")
}

// TestRestartEmpty: a Redis that comes back with nothing gives no number out
// again, and everybody is told of a gap.
func TestRestartEmpty(t *testing.T) {
	p := service.Redis(t)
	log, _ := open(t, connect(t, p))
	id, quiet := sse.NewStreamID(), sse.NewStreamID()
	d := mustPublish(t, log, note(id, 0, "a", "b", "c"))
	last := mustPublish(t, log, note(quiet, 0, "a")).Pos[0]
	restart(p)
	d2 := mustPublish(t, log, note(id, 0, "d"))
	if d2.Pos[0].Epoch <= d.Pos[0].Epoch {
		t.Errorf("published at %v, at %v before", d2.Pos, d.Pos)
	}
	for _, pos := range append(d.Pos, reconnect.Origin(d.Pos[0].Epoch)) {
		reading{t, log, id}.from(pos, "!d")
	}
	reading{t, log, quiet}.opened(sse.Pos{}, last, 0)
	reading{t, log, quiet}.from(last, "!")
}

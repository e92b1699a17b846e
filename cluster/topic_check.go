package cluster

import (
	"context"
	"maps"
	"slices"
	"time"

	"ssegate/reconnect"
	"ssegate/sse"
)

// check compares topics with the log until ctx is done: in turns while the bus
// carries, all of them when it may have lost something, and often while it is
// away, which is how clients are fed then.
func (ts *topics) check(ctx context.Context) {
	const fast, slow = 15 * time.Millisecond, 200 * time.Millisecond
	const tailCost = 50 * time.Microsecond // so that thousands of topics do not keep the log busy
	pace, tick := fast, time.Now()
	for ctx.Err() == nil {
		up := ts.n.busUp.Load()
		ts.mu.Lock()
		waiting, doubts, topics := len(ts.suspects) > 0, ts.doubtAll, len(ts.all)
		ts.mu.Unlock()
		wait := time.Until(tick.Add(ts.n.cfg.TailCheck))
		switch {
		case waiting || doubts:
			wait = min(wait, fast)
			if ts.isAway() {
				wait = slow
			}
		case !up && topics > 0:
			wait = min(wait, max(pace, time.Duration(topics)*tailCost))
		}
		nap(ctx, wait, ts.checkWake)
		ticked := time.Since(tick) >= ts.n.cfg.TailCheck
		if ticked {
			tick = time.Now()
			ts.tick(ctx, tick)
		}
		var part []*topic
		if !up || ts.doubted() {
			part = ts.everything()
		} else {
			part = ts.some(ticked)
		}
		if ts.compare(ctx, part) {
			pace = fast
		} else {
			pace = min(2*pace, slow)
		}
	}
}

// nap waits for d, or less when wake says so; but never less than a moment, so
// that what is asked for ten times at once is done once.
func nap(ctx context.Context, d time.Duration, wake chan struct{}) {
	const least = 5 * time.Millisecond
	t := time.NewTimer(max(d, least))
	defer t.Stop()
	select {
	case <-ctx.Done():
	case <-t.C:
	case <-wake:
		if d > least {
			sleep(ctx, least)
		}
	}
}

// doubted reports whether all topics are to be looked at, and takes note.
func (ts *topics) doubted() bool {
	ts.mu.Lock()
	defer ts.mu.Unlock()
	was := ts.doubtAll
	ts.doubtAll = false
	return was
}

func (ts *topics) everything() []*topic {
	ts.mu.Lock()
	defer ts.mu.Unlock()
	clear(ts.suspects)
	return slices.Collect(maps.Values(ts.all))
}

// some are the topics that are suspected of something and, at a tick, those
// whose turn it is.
func (ts *topics) some(tick bool) []*topic {
	ts.mu.Lock()
	defer ts.mu.Unlock()
	var part []*topic
	for t := range ts.suspects {
		part = append(part, t)
	}
	defer clear(ts.suspects)
	if !tick {
		return part
	}
	if len(ts.turn) == 0 {
		ts.turn = slices.AppendSeq(ts.turn[:0], maps.Values(ts.all))
	}
	n := min(len(ts.turn), max(topicFew, len(ts.all)/topicTurns+1))
	for _, t := range ts.turn[len(ts.turn)-n:] {
		if ts.all[t.ID] == t && !ts.suspects[t] {
			part = append(part, t)
		}
	}
	clear(ts.turn[len(ts.turn)-n:])
	ts.turn = ts.turn[:len(ts.turn)-n]
	return part
}

// tick tells registry and log that topics are still wanted.
func (ts *topics) tick(ctx context.Context, now time.Time) {
	ts.wire.announce()
	var touch, number []*topic
	ts.mu.Lock()
	ts.recent.forget(now)
	for _, t := range ts.all {
		numbering := reconnect.NumberingTTL(t.limits.TTL)
		switch {
		case !t.followed:
		case now.Sub(t.touched) > ts.n.renewal() && len(touch) < 2*topicPart:
			touch = append(touch, t)
		case numbering > 0 && now.Sub(t.numbered) > numbering/4 && len(number) < topicPart:
			number = append(number, t)
		}
	}
	ts.mu.Unlock()
	if len(touch) > 0 {
		tctx, cancel := context.WithTimeout(ctx, topicWait)
		err := ts.n.cfg.Registry.Touch(tctx, topicIDs(touch), ts.n.keeps())
		cancel()
		ts.mu.Lock()
		for _, t := range touch {
			if err == nil {
				t.touched = now
			}
		}
		ts.mu.Unlock()
		if err != nil {
			ts.n.count.registryErrors.Add(1)
		}
	}
	if len(number) > 0 {
		_ = ts.open(ctx, number) // else at the next tick
	}
}

// compare brings topics up to where their logs end; moved reports whether any
// was behind. A log that ends before a topic has forgotten, and is told to
// number anew above it; one that numbers anew is told what is known here.
func (ts *topics) compare(ctx context.Context, all []*topic) (moved bool) {
	for part := range slices.Chunk(all, topicPart) {
		var open []*topic
		var before []sse.Pos
		for _, t := range part {
			if tail, is, _ := t.position(); is {
				open, before = append(open, t), append(before, tail)
			}
		}
		if len(open) == 0 {
			continue
		}
		tctx, cancel := context.WithTimeout(ctx, topicWait)
		tails, err := ts.n.cfg.Journal.Tails(tctx, topicIDs(open))
		cancel()
		if err != nil {
			_ = ts.away(err)
			ts.mu.Lock()
			for _, t := range open {
				if ts.all[t.ID] == t {
					ts.suspects[t] = true
				}
			}
			ts.mu.Unlock()
			continue
		}
		var forgotten, anew []*topic
		for i, t := range open {
			tail, _, stuck := t.position()
			switch {
			case tails[i].Pos.Seq < before[i].Seq, t.newest().Seq > tail.Seq && tails[i].Pos.Epoch == tail.Epoch:
				forgotten = append(forgotten, t)
			case tails[i].Pos.Seq > tail.Seq && tails[i].Pos.Epoch > tail.Epoch, t.missed():
				// What is known here may be news to who began the numbering.
				moved = true
				anew = append(anew, t)
			case tails[i].Pos.Seq > tail.Seq:
				moved = true
				if ts.n.busUp.Load() {
					ts.n.count.foundByCheck.Add(1)
				}
				ts.read(t)
			case stuck && tails[i].Pos.Seq == tail.Seq && tail == before[i]:
				t.forgive()
			}
		}
		if len(forgotten) > 0 {
			ts.n.cfg.Report(Report{What: "the log has forgotten topics; numbering begins anew", Stream: forgotten[0].ID})
		}
		if anew = append(anew, forgotten...); len(anew) > 0 {
			ts.n.sent.tell(ts)
			if ts.open(ctx, anew) != nil {
				for _, t := range anew {
					ts.look(t)
				}
			}
		}
	}
	return moved
}

// read feeds a topic from the log until it has reached its end, soon and once
// at a time.
func (ts *topics) read(t *topic) {
	if t.reading.Swap(true) {
		return
	}
	done := ts.spawn(func() {
		select {
		case ts.reads <- struct{}{}:
		case <-ts.n.ctx.Done():
			return
		}
		defer func() { <-ts.reads }()
		failed := ts.readOn(t)
		t.reading.Store(false)
		if _, _, stuck := t.position(); failed || stuck {
			ts.look(t)
		}
	})
	if !done {
		t.reading.Store(false)
	}
}

// readOn reads page after page; failed when the log could not be reached.
func (ts *topics) readOn(t *topic) (failed bool) {
	ctx, cancel := context.WithTimeout(ts.n.ctx, topicWait)
	defer cancel()
	for {
		tail, _, _ := t.position()
		frames, gap, err := t.read(ctx, tail, 512)
		if err != nil {
			return true
		}
		if !t.fromLog(tail, frames, gap) {
			return false
		}
	}
}

func topicIDs(all []*topic) []sse.StreamID {
	out := make([]sse.StreamID, len(all))
	for i, t := range all {
		out[i] = t.ID
	}
	return out
}

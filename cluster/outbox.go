package cluster

import (
	"context"
	"errors"
	"sync"
	"time"

	"ssegate/bus"
	"ssegate/reconnect"
	"ssegate/sse"
)

const (
	outboxFrames = 1024                 // of one stream in one batch
	outboxHurry  = 256                  // frames that do not wait for others, see Config.Linger
	outboxBytes  = 256 << 10            // of one stream in one batch
	outboxPart   = 4 << 20              // of all batches that are written at once, and one more
	outboxMost   = 1024                 // frames of the same: what the processor still has at hand when the log takes them
	outboxTurn   = 5 * time.Millisecond // see Config.Linger: streams in turn, so that a round is short
	outboxTurns  = 16
	outboxWait   = 2 * time.Second
	outboxPause  = time.Second // at most, between two tries: whoever hops waits for the log
)

// outbox tells the log, and then the nodes that follow, what owned streams
// have appended. It holds no frames: a stream that has news stands in its
// list once, and the news are read from the stream's ring when their turn
// comes. So a slow Redis makes batches larger, not the pump slower.
type outbox struct {
	n     *Node
	mu    sync.Mutex
	lists [][]*Stream // where many may linger they take their turn, not all at once
	at    int         // of the list that streams are added to; the one behind it is the oldest
	wake  chan struct{}
	hurry chan struct{} // ends the wait for others
	busy  sync.Mutex    // held while a round is under way; over what follows

	runs    []sse.Run
	batches []reconnect.Batch
	from    []*Stream
}

func (o *outbox) init(n *Node) {
	o.n = n
	o.wake = make(chan struct{}, 1)
	o.hurry = make(chan struct{}, 1)
	o.lists = make([][]*Stream, max(1, min(n.cfg.Linger/outboxTurn, outboxTurns)))
}

// add puts a stream on the list, without waiting.
func (o *outbox) add(s *Stream) {
	if !s.queued.Swap(true) {
		o.mu.Lock()
		o.lists[o.at] = append(o.lists[o.at], s)
		o.mu.Unlock()
		poke(o.wake)
	}
	if o.n.cfg.Linger > 0 && s.pressing() {
		poke(o.hurry)
	}
}

// pressing reports whether what s has to tell should not wait for others: a
// node listens, it has ended, or it is much.
func (s *Stream) pressing() bool {
	return s.wanted.Load() || s.over.Load() || s.hub.Tail().Seq-s.logged.Load() >= outboxHurry
}

func poke(c chan struct{}) {
	select {
	case c <- struct{}{}:
	default:
	}
}

// take returns the streams of the oldest list, or of all, and whether there are
// more.
func (o *outbox) take(into []*Stream, all bool) (list []*Stream, more bool) {
	o.mu.Lock()
	defer o.mu.Unlock()
	into = into[:0]
	o.at = (o.at + 1) % len(o.lists)
	for i := range o.lists {
		if l := o.lists[i]; all || i == o.at {
			into = append(into, l...)
			clear(l)
			o.lists[i] = l[:0]
		} else {
			more = more || len(l) > 0
		}
	}
	for _, s := range into {
		s.queued.Store(false) // before its ring is read: what comes now queues it again
	}
	return into, more
}

// look has the log looked at, whether it still has what it was given.
func (o *outbox) look(s *Stream) {
	s.probe.Store(true)
	o.add(s)
}

// waiting is how many streams have news.
func (o *outbox) waiting() (n int) {
	o.mu.Lock()
	defer o.mu.Unlock()
	for _, l := range o.lists {
		n += len(l)
	}
	return n
}

func (o *outbox) run(ctx context.Context) {
	var list []*Stream
	var turn *time.Timer
	if o.n.cfg.Linger > 0 {
		turn = time.NewTimer(o.n.cfg.Linger)
		defer turn.Stop()
	}
	wait := reconnect.Backoff{Max: outboxPause}
	for more := false; ; {
		if !more {
			select {
			case <-ctx.Done():
				return
			case <-o.wake:
			}
		}
		all := turn == nil
		if turn != nil {
			turn.Reset(o.n.cfg.Linger / time.Duration(len(o.lists)))
			select {
			case <-ctx.Done():
				return
			case <-o.hurry:
				all = true
			case <-turn.C:
			}
		}
		list, more = o.take(list, all)
		if err := o.round(ctx, list); err != nil {
			o.n.cfg.Report(Report{What: "log not written; frames wait in memory", Err: err})
			sleep(ctx, wait.Next(time.Now()))
			for _, s := range list {
				o.add(s)
			}
		} else {
			wait.Good(time.Now())
		}
		clear(list)
	}
}

// drain writes what is due once more, within ctx, at the end of Run.
func (o *outbox) drain(ctx context.Context) {
	for ctx.Err() == nil {
		list, _ := o.take(nil, true)
		// Also without news: a round that had begun is waited for.
		if o.round(ctx, list) != nil || len(list) == 0 {
			return
		}
	}
}

// round writes one batch of each stream to the log and sends it on, a part of
// them at a time: what is due after the log was away must not be more than it
// can take within outboxWait. The error is the log's, when it could not be
// reached.
func (o *outbox) round(ctx context.Context, list []*Stream) error {
	o.busy.Lock()
	defer o.busy.Unlock()
	for len(list) > 0 {
		n, err := o.part(ctx, list)
		if err != nil {
			return err
		}
		list = list[n:]
	}
	return nil
}

// part is a round of the first n streams of the list.
func (o *outbox) part(ctx context.Context, list []*Stream) (n int, err error) {
	all, batches, from := o.runs[:0], o.batches[:0], o.from[:0]
	defer func() {
		clear(all)
		clear(batches)
		clear(from)
		o.runs, o.batches, o.from = all, batches, from
	}()
	bytes, frames := 0, 0
	for ; n < len(list) && bytes < outboxPart && frames < outboxMost; n++ {
		s := list[n]
		if !s.owned.Load() {
			continue
		}
		had, logged, probe := len(all), s.logged.Load(), s.probe.Swap(false)
		all = s.hub.AppendRuns(all, logged, outboxFrames, outboxBytes)
		if probe && logged > 0 && len(all) == had {
			all = s.hub.AppendRuns(all, logged-1, 1, outboxBytes) // once more what the log has, or had
		}
		all = all[:had+together(all[had:])]
		b := reconnect.Batch{Stream: s.ID, Limits: s.spec.Limits, Runs: all[had:len(all):len(all)], Follows: logged > 0}
		if len(b.Runs) == 0 {
			o.send(ctx, s)
			continue
		}
		for i := range b.Runs {
			bytes += int(b.Runs[i].Size())
			frames += b.Runs[i].Len()
		}
		batches = append(batches, b)
		from = append(from, s)
	}
	if len(batches) == 0 {
		return n, nil
	}
	actx, cancel := context.WithTimeout(ctx, outboxWait)
	errs := o.n.cfg.Log.Append(actx, batches)
	cancel()
	for i, s := range from {
		var failed error
		if errs != nil {
			failed = errs[i]
		}
		b := &batches[i]
		last := b.Last().Seq
		switch {
		case failed == nil:
			if s.logged.Swap(last) < last {
				o.n.count.logged.Add(uint64(b.Len()))
			}
			s.hub.Flushed(last)
			o.send(ctx, s)
			if s.hub.Tail().Seq > last {
				o.add(s)
			}
		case errors.Is(failed, reconnect.ErrFenced):
			s.fenced()
		case errors.Is(failed, reconnect.ErrUnknown):
			// The log was emptied. It gets again what the ring has, from the
			// beginning, before anything newer: else others would see a gap where
			// nothing is lost.
			s.logged.Store(0)
			o.n.count.rewritten.Add(1)
			o.add(s)
		case errors.Is(failed, reconnect.ErrBatch), errors.Is(failed, reconnect.ErrBroken):
			// To try again is no use. Whoever reads on is told of the gap.
			o.n.cfg.Report(Report{What: "frames could not be logged", Stream: s.ID, Err: failed})
			o.n.count.logErrors.Add(1)
			s.logged.Store(last)
			s.hub.Flushed(last)
		default:
			err = failed
			o.n.count.logErrors.Add(1)
			s.probe.Store(true)
		}
	}
	return n, err
}

// together is how many of the runs make one batch: from the beginning of a ring
// on there may be several epochs, and holes.
func together(runs []sse.Run) int {
	for i := 1; i < len(runs); i++ {
		next := runs[i-1].Last()
		next.Seq++
		if runs[i].First() != next {
			return i
		}
	}
	return len(runs)
}

// send brings each following node up to what the log has.
func (o *outbox) send(ctx context.Context, s *Stream) {
	logged := s.logged.Load()
	s.mu.Lock()
	var to []string
	var at []uint64
	for id, in := range s.nodes {
		if in.sent < logged {
			to, at = append(to, id), append(at, in.sent)
			in.sent = logged // what is lost on the way is found in the log
		}
	}
	s.mu.Unlock()
	for i, id := range to {
		for after := at[i]; after < logged; {
			frames := s.hub.Frames(after, outboxFrames, outboxBytes)
			for len(frames) > 0 && frames[len(frames)-1].Pos.Seq > logged {
				frames = frames[:len(frames)-1]
			}
			if len(frames) == 0 {
				break // gone from the ring: the follower reads the log
			}
			after = frames[len(frames)-1].Pos.Seq
			msg := bus.Message{From: o.n.ID(), Kind: kindFrames, Stream: s.ID, Body: bus.AppendFrames(nil, frames)}
			if !o.n.sendTo(ctx, id, msg) {
				break
			}
			o.n.count.sent.Add(uint64(len(frames)))
		}
	}
}

// sleep waits for d or until ctx is done.
func sleep(ctx context.Context, d time.Duration) {
	t := time.NewTimer(d)
	defer t.Stop()
	select {
	case <-ctx.Done():
	case <-t.C:
	}
}

// ids lists the streams' ids.
func ids(streams []*Stream) []sse.StreamID {
	out := make([]sse.StreamID, len(streams))
	for i, s := range streams {
		out[i] = s.ID
	}
	return out
}

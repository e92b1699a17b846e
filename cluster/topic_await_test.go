package cluster

import (
	"context"
	"errors"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"
)

// Who has waited for its topics gets what is published from then on, however
// long the log has taken to open them.
func TestAwaitTopics(t *testing.T) {
	inWorld(t, func(w *world) {
		n := w.join(nil, "a", "b")
		w.log.set(func(ctx context.Context, op string) error {
			if op == "open" {
				sleep(ctx, 100*time.Millisecond)
			}
			return ctx.Err()
		})
		for _, topics := range [][]string{{"user/u1"}, {"channel/a", "channel/b"}} {
			ctx, cancel := context.WithTimeout(w.Context(), time.Second)
			var ts []Topic
			for _, name := range topics {
				ts = append(ts, TopicOf(name))
			}
			begin := time.Now()
			n[0].Await(ctx, ts, SubscribeOptions{Limits: topicLimits})
			if took := time.Since(begin); took < 100*time.Millisecond || took > 300*time.Millisecond {
				w.Errorf("%v: waited %v", topics, took)
			}
			r := n[0].subscribe(CursorFrom{}, nil, topics...)
			n[1].publish(topics[0], "at once")
			time.Sleep(time.Second)
			r.says("at once")
			cancel()
		}
	})
}

// Nobody waits longer than it wants to, nor for a log that is known to be away.
func TestAwaitIsBounded(t *testing.T) {
	inWorld(t, func(w *world) {
		n := w.join(nil, "a")[0]
		await := func(topic string) time.Duration {
			ctx, cancel := context.WithTimeout(w.Context(), 250*time.Millisecond)
			defer cancel()
			begin := time.Now()
			n.Await(ctx, []Topic{TopicOf(topic)}, SubscribeOptions{Limits: topicLimits})
			return time.Since(begin)
		}
		w.log.set(hung)
		if took := await("user/1"); took > 250*time.Millisecond {
			w.Errorf("waited %v", took)
		}
		w.log.set(func(context.Context, string) error { return errors.New("away") })
		time.Sleep(5 * time.Second)
		if took := await("user/2"); took > 250*time.Millisecond {
			w.Errorf("waited %v", took)
		}
		if took := await("user/3"); took != 0 {
			w.Errorf("waited %v for a log that is away", took)
		}
	})
}

// However many come back at once, the log is told once or twice what they have,
// and it is the furthest place that stays.
func TestComingBackIsNoted(t *testing.T) {
	inWorld(t, func(w *world) {
		n := w.join(nil, "a")[0]
		first := n.subscribe(CursorFrom{}, nil, "channel/a")
		time.Sleep(time.Second)
		receipts := n.publish("channel/a", count(1, 50)...)
		synctest.Wait()
		all, _ := first.messages()
		if len(all) != 50 {
			w.Fatalf("%d messages", len(all))
		}
		var calls atomic.Int32
		w.log.set(func(ctx context.Context, op string) error {
			if op == "pass" {
				calls.Add(1)
				sleep(ctx, 10*time.Millisecond)
			}
			return nil
		})
		for i := range 40 {
			n.subscribe(CursorFrom{ID: []byte(all[i].id)}, nil, "channel/a")
		}
		time.Sleep(time.Second)
		topic := TopicOf("channel/a")
		pos, err := w.log.now.Passed(w.Context(), topic.ID)
		if err != nil || pos != receipts[39].Pos {
			w.Errorf("passed %v (%v), want %v", pos, err, receipts[39].Pos)
		}
		if c := calls.Load(); c < 1 || c > 3 {
			w.Errorf("the log was told %d times", c)
		}
		// By word of mouth, and of several topics.
		if err := n.Acknowledge(w.Context(), []Topic{topic}, []byte(all[45].id), time.Hour); err != nil {
			w.Error(err)
		}
		if pos, _ := w.log.now.Passed(w.Context(), topic.ID); pos != receipts[45].Pos {
			w.Errorf("passed %v, want %v", pos, receipts[45].Pos)
		}
		both := n.subscribe(CursorFrom{}, nil, "channel/a", "channel/b")
		time.Sleep(time.Second)
		last := n.publish("channel/b", "x")[0]
		time.Sleep(time.Second)
		ts := []Topic{TopicOf("channel/b"), topic}
		if err := n.Acknowledge(w.Context(), ts, both.lastID(), time.Hour); err != nil {
			w.Error(err)
		}
		if pos, _ := w.log.now.Passed(w.Context(), ts[0].ID); pos.Seq != last.Pos.Seq {
			w.Errorf("passed %v, want %v", pos, last.Pos)
		}
		for _, bad := range []struct {
			ts []Topic
			id string
		}{{ts[:1], string(both.lastID())}, {ts[:1], all[1].id}, {ts, "nonsense"}, {nil, ""}} {
			if err := n.Acknowledge(w.Context(), bad.ts, []byte(bad.id), time.Hour); !errors.Is(err, ErrUnknown) {
				w.Errorf("%v %q: %v", bad.ts, bad.id, err)
			}
		}
	})
}

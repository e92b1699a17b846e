package cluster

import (
	"fmt"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"ssegate/hub"
	"ssegate/reconnect"
	"ssegate/sse"
)

// told checks that the client was told of one gap, for this reason.
func (c *client) told(reason string) {
	c.w.Helper()
	if gaps := c.gaps(); len(gaps) != 1 || !strings.Contains(gaps[0], fmt.Sprintf("%q", reason)) {
		c.w.Fatalf("gaps %q, want one: %s", gaps, reason)
	}
}

// saysAfterGap checks what the client got, and that it was told of one gap.
func (c *client) saysAfterGap(reason string, want ...string) {
	c.w.Helper()
	c.told(reason)
	if got := c.said(); fmt.Sprint(got) != fmt.Sprint(want) {
		c.w.Fatalf("got %q, want %q", cut(got), cut(want))
	}
}

func short(o *SubscribeOptions) {
	o.Limits, o.RingEvents = reconnect.Limits{Length: 5, TTL: time.Hour}, 4
}

// shortly publishes to a topic whose log keeps five messages.
func (n *node) shortly(topic string, data ...string) {
	n.w.Helper()
	for _, d := range data {
		m := message(topic, d)
		m.Limits.Length = 5
		if r := n.Publish(n.w.Context(), []Outgoing{m}); r[0].Err != nil {
			n.w.Fatal(r[0].Err)
		}
	}
}

// TestTopicGaps: who comes back behind what the log still has, with an id of
// another topic, or with none of ours, is told of a gap before anything else;
// who does not want to be told is cut.
func TestTopicGaps(t *testing.T) {
	inWorld(t, func(w *world) {
		n := w.join(nil, "a", "b")
		first := n[0].subscribe(CursorFrom{}, short, "user/1")
		other := n[0].subscribe(CursorFrom{}, nil, "user/2")
		wait(50 * time.Millisecond)
		n[0].shortly("user/1", count(1, 2)...)
		n[0].publish("user/2", "x")
		synctest.Wait()
		id, foreign := first.lastID(), other.lastID()
		n[0].shortly("user/1", count(3, 50)...)
		wait(time.Second)
		first.says(count(1, 50)...)

		for _, n := range n {
			for what, id := range map[string][]byte{
				"another topic's": foreign, "nobody's": []byte("17"), "damaged": id[:len(id)-1],
				"several topics'": reconnect.AppendCursor(nil, reconnect.CursorSet{1}, []uint64{1 << 50, 1 << 50}),
			} {
				r := n.subscribe(CursorFrom{ID: id}, short, "user/1")
				wait(time.Second)
				r.saysAfterGap(reconnect.GapUnknown)
				n.shortly("user/1", what)
				wait(time.Second)
				r.saysAfterGap(reconnect.GapUnknown, what)
				r.leave()
			}
			n.shortly("user/1", "a", "b", "c", "d", "e")
			back := n.subscribe(CursorFrom{ID: id}, short, "user/1")
			wait(time.Second)
			back.told(reconnect.GapTrimmed)
			if said := back.said(); len(said) < 5 || said[len(said)-1] != "e" {
				t.Errorf("behind the gap: %q", said)
			}
			for _, id := range [][]byte{id, foreign} {
				cut := n.subscribe(CursorFrom{ID: id}, func(o *SubscribeOptions) { short(o); o.CutGap = true }, "user/9", "user/1")
				wait(time.Second)
				cut.leftFor(hub.ReasonGap)
			}
		}
	})
}

// TestTopicForgotten: a log that was emptied numbers anew, above all that was;
// every client is told of a gap at once, and none misses or repeats what comes
// then. So it is when only the end of the log was lost, and whoever publishes
// first.
func TestTopicForgotten(t *testing.T) {
	for _, quiet := range []bool{true, false} {
		t.Run(fmt.Sprint("quiet ", quiet), func(t *testing.T) {
			inWorld(t, func(w *world) {
				n := w.join(nil, "a", "b")
				var all []*reader
				for i := range 4 {
					all = append(all, n[i%2].subscribe(CursorFrom{}, nil, "user/1"))
					all = append(all, n[i%2].subscribe(CursorFrom{}, nil, "user/1", "user/2"))
				}
				wait(50 * time.Millisecond)
				n[0].publish("user/1", "1", "2")
				n[0].publish("user/2", "x")
				wait(time.Second)
				id, ids := all[0].lastID(), all[1].lastID()
				w.log.forget()
				if quiet {
					wait(5 * time.Second) // the check finds it
				}
				n[1].publish("user/1", "3", "4")
				n[0].publish("user/1", "5")
				wait(5 * time.Second)
				for i, r := range all {
					said := strings.Join(r.said(), " ")
					if want := "1 2 3 4 5"; strings.ReplaceAll(said, "x ", "") != want || len(r.gaps()) == 0 {
						t.Errorf("%d: said %q, gaps %q", i, said, r.gaps())
					}
				}
				for i, n := range n {
					back := n.subscribe(CursorFrom{ID: id}, nil, "user/1")
					several := n.subscribe(CursorFrom{ID: ids}, nil, "user/2", "user/1")
					wait(time.Second)
					back.saysAfterGap(reconnect.GapTrimmed, "3", "4", "5")
					if said := several.said(); fmt.Sprint(said) != "[3 4 5]" {
						t.Errorf("back on %d: %q %q", i, said, several.gaps())
					}
				}
			})
		})
	}
}

// TestTopicLostItsEnd: a log that has lost its newest messages, as a Redis that
// failed over. Who publishes next tells it so, and no number is given out twice;
// and where somebody who does not know does get one of those, nobody takes that
// message for what they have. A gap is told in both cases.
func TestTopicLostItsEnd(t *testing.T) {
	for _, knows := range []bool{true, false} {
		t.Run(fmt.Sprint("publisher knows ", knows), func(t *testing.T) {
			inWorld(t, func(w *world) {
				n := w.join(nil, "a", "b")
				near, far := n[0].subscribe(CursorFrom{}, nil, "user/1"), n[1].subscribe(CursorFrom{}, nil, "user/1")
				wait(50 * time.Millisecond)
				n[0].publish("user/1", "1", "2")
				wait(time.Second)
				w.log.cut("user/1", topicLimits, "1")
				other, want := message("user/1", "other 2"), []string{"1", "2", "3"}
				if knows {
					want = []string{"1", "2", "other 2", "3"}
					n[0].publish("user/1", "other 2")
				} else {
					posted := w.log.Publish(t.Context(), []reconnect.Posts{{
						Stream: other.Topic.ID, Limits: topicLimits, Posts: []reconnect.Post{{Block: other.Block}},
					}})
					n[0].topics.get(other.Topic.ID).receive([]sse.Frame{{Kind: sse.KindEvent, Pos: posted[0].Pos[0], Block: other.Block}})
				}
				wait(5 * time.Second)
				n[0].publish("user/1", "3")
				wait(5 * time.Second)
				for _, r := range []*reader{near, far} {
					r.saysAfterGap(reconnect.GapTrimmed, want...)
				}
				if a, b := n[0].Stats(), n[1].Stats(); !knows && a.Renumbered+b.Renumbered == 0 {
					t.Errorf("stats %+v, %+v", a, b)
				}
			})
		})
	}
}

// TestTopicLostUnfollowed: messages that nobody followed are lost by the log. The
// node that published them is the only one that knows, and says so, with its next
// message or without one; who comes back is told of the gap.
func TestTopicLostUnfollowed(t *testing.T) {
	for _, publishes := range []bool{true, false} {
		t.Run(fmt.Sprint("publishes ", publishes), func(t *testing.T) {
			inWorld(t, func(w *world) {
				n := w.join(nil, "a", "b")
				first := n[1].subscribe(CursorFrom{}, nil, "user/1")
				wait(50 * time.Millisecond)
				n[0].publish("user/1", "1")
				wait(time.Second)
				id := first.lastID()
				first.leave()
				wait(2 * topicGrace)
				n[0].publish("user/1", "2", "3")
				n[0].publish("user/2", "x")
				w.log.cut("user/1", topicLimits, "1")
				if publishes {
					n[0].publish("user/1", "4")
				} else {
					n[0].sent.tell(&n[0].topics) // as when the bus comes back
					wait(2 * sentPause)
					n[1].publish("user/1", "4")
				}
				back := n[1].subscribe(CursorFrom{ID: id}, nil, "user/1")
				wait(time.Second)
				back.saysAfterGap(reconnect.GapTrimmed, "4")
			})
		})
	}
}

// TestTopicFrom: the newest so many messages, or those since a time, come
// first, and then what follows them.
func TestTopicFrom(t *testing.T) {
	inWorld(t, func(w *world) {
		n := w.join(nil, "a", "b")
		var half time.Time
		for i := range 2000 {
			if i == 1000 {
				time.Sleep(time.Second)
				half = time.Now()
			}
			n[0].publish("user/1", fmt.Sprint(i))
		}
		n[0].publish("user/2", "x")
		var lasts, sinces, all []*reader
		for _, n := range n {
			for range 2 { // before and after the topic is open
				lasts = append(lasts, n.subscribe(CursorFrom{Last: 3}, nil, "user/1"))
				sinces = append(sinces, n.subscribe(CursorFrom{Since: half}, nil, "user/1"))
				all = append(all, n.subscribe(CursorFrom{Last: 1 << 20}, nil, "user/1"))
				wait(time.Second)
			}
		}
		several := n[1].subscribe(CursorFrom{Last: 2}, nil, "user/3", "user/1", "user/2")
		none := n[0].subscribe(CursorFrom{Last: 2}, nil, "user/4")
		old := n[0].subscribe(CursorFrom{Since: half}, nil, "user/4")
		wait(time.Second)
		n[1].publish("user/1", "2000")
		wait(time.Second)
		for i := range lasts {
			lasts[i].says(count(1997, 2000)...)
			sinces[i].says(count(1000, 2000)...)
			all[i].says(count(0, 2000)...)
		}
		if said := strings.Join(several.said(), " "); len(several.gaps()) > 0 || said != "1998 1999 x 2000" && said != "x 1998 1999 2000" {
			t.Errorf("of several: %q %q", said, several.gaps())
		}
		none.says()
		old.says()
	})
}

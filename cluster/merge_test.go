package cluster

import (
	"context"
	"fmt"
	"math/rand/v2"
	"runtime"
	"slices"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"ssegate/hub"
	"ssegate/reconnect"
)

// names are so many topics.
func names(n int) (all []string) {
	for i := range n {
		all = append(all, fmt.Sprint("channel/", i))
	}
	return all
}

// whole checks that events, `topic:number` each, are those of all topics, each
// topic's in order and from 0 to below upTo.
func whole(t *testing.T, events []string, topics, upTo int) {
	t.Helper()
	next := map[string]int{}
	for i, e := range events {
		topic, number, _ := strings.Cut(e, ":")
		if number != fmt.Sprint(next[topic]) {
			t.Fatalf("event %d is %s, want number %d", i, e, next[topic])
		}
		next[topic]++
	}
	for i := range topics {
		if got := next[fmt.Sprint("channel/", i)]; got != upTo {
			t.Fatalf("%d events of channel/%d, want %d", got, i, upTo)
		}
	}
}

// TestMergeHops: who follows several topics, few or many, over one connection
// comes back to any node with one short id, also when the node that it was on
// was killed, and gets each topic's messages once and in order.
func TestMergeHops(t *testing.T) {
	for _, topics := range []int{2, 4, 100} {
		t.Run(fmt.Sprint(topics), func(t *testing.T) {
			inWorld(t, func(w *world) {
				n := w.join(nil, "a", "b", "c", "d", "e")
				pub, n := n[0], slices.Clone(n[1:])
				rng := rand.New(rand.NewPCG(uint64(topics), 1))
				names := names(topics)
				numbers := make([]int, topics)
				r := n[0].subscribe(CursorFrom{}, nil, names...)
				wait(100 * time.Millisecond)
				var events []string
				var id []byte
				at := 0
				long := 0
				for hop := range 24 {
					for range 30 {
						i := rng.IntN(topics)
						if rng.IntN(2) == 0 {
							i = rng.IntN(min(topics, 3))
						}
						pub.publish(names[i], fmt.Sprintf("%s:%d", names[i], numbers[i]))
						numbers[i]++
						if rng.IntN(3) == 0 {
							time.Sleep(time.Duration(rng.IntN(100)) * time.Millisecond)
						}
					}
					if hop%2 == 0 {
						synctest.Wait()
					}
					if hop%8 == 7 {
						n[at].kill()
						n = slices.Delete(n, at, at+1)
						at = 0
					}
					r.leave()
					synctest.Wait()
					got, _ := r.messages()
					for _, g := range got {
						events = append(events, g.data)
						if len(g.id) > 64 {
							long++
						}
						id = []byte(g.id)
					}
					at = (at + 1) % len(n)
					shuffled := slices.Clone(names) // the order does not matter
					rng.Shuffle(topics, func(i, j int) { shuffled[i], shuffled[j] = shuffled[j], shuffled[i] })
					r = n[at].subscribe(CursorFrom{ID: id}, nil, shuffled...)
				}
				most := slices.Max(numbers)
				for i := range names {
					for ; numbers[i] < most; numbers[i]++ {
						pub.publish(names[i], fmt.Sprintf("%s:%d", names[i], numbers[i]))
					}
				}
				wait(5 * time.Second)
				events = append(events, r.said()...)
				whole(t, events, topics, most)
				if gaps := r.gaps(); len(gaps) > 0 {
					t.Errorf("gaps: %q", gaps)
				}
				if topics <= idsAlone && long > 0 || long > len(events)/4 {
					t.Errorf("%d of %d ids are long", long, len(events))
				}
			})
		})
	}
}

// TestMergeShortIDs: once the registry has a base, ids are short however many
// topics are followed; while it is away they are long, and mean what they say.
func TestMergeShortIDs(t *testing.T) {
	inWorld(t, func(w *world) {
		n := w.join(nil, "a", "b")
		names := names(100)
		r := n[0].subscribe(CursorFrom{}, nil, names...)
		wait(100 * time.Millisecond)
		n[0].publish("channel/0", "channel/0:0")
		wait(100 * time.Millisecond)
		for i := range 1000 {
			n[0].publish(names[i%7], fmt.Sprintf("%s:%d", names[i%7], (i+6)/7))
			wait(10 * time.Millisecond)
		}
		all, _ := r.messages()
		for _, m := range all { // the first as well
			if len(m.id) > 64 {
				t.Fatalf("%s has %d characters", m.id, len(m.id))
			}
		}
		w.reg.set(away("putnote"))
		for i := range 100 {
			n[0].publish(names[i], fmt.Sprintf("away %d", i))
		}
		wait(time.Second)
		id := r.lastID()
		n[0].publish("channel/99", "last")
		w.reg.set(nil)
		back := n[1].subscribe(CursorFrom{ID: id}, nil, names...)
		wait(time.Second)
		back.says("last")
		if len(id) <= 64 {
			t.Errorf("%s is short", id)
		}
		// A base is kept for as long as the connection is, and as the log.
		wait(100 * time.Millisecond)
		for range 2 {
			n[0].publish("channel/5", "once more")
			wait(100 * time.Millisecond)
		}
		wait(40 * time.Minute)
		id = r.lastID()
		if len(id) > 64 {
			t.Errorf("%s has %d characters", id, len(id))
		}
		r.leave()
		wait(25 * time.Minute)
		again := n[1].subscribe(CursorFrom{ID: id}, nil, names...)
		wait(time.Second)
		n[0].publish("channel/5", "the end")
		wait(time.Second)
		again.says("the end")
	})
}

// TestMergeFrom: ids of one of the topics count for that one; ids of other
// topics, and bases that nobody knows, are a gap, told once.
func TestMergeFrom(t *testing.T) {
	inWorld(t, func(w *world) {
		n := w.join(nil, "a", "b")
		one := n[0].subscribe(CursorFrom{}, nil, "channel/0")
		few := n[0].subscribe(CursorFrom{}, nil, "channel/0", "channel/1")
		many := n[0].subscribe(CursorFrom{}, nil, names(30)...)
		wait(100 * time.Millisecond)
		n[0].publish("channel/0", "1")
		wait(time.Second)
		n[0].publish("channel/0", "2")
		wait(time.Second)
		first, _ := one.messages()
		r := n[1].subscribe(CursorFrom{ID: []byte(first[0].id)}, nil, "channel/1", "channel/0")
		wait(time.Second)
		r.saysAfterGap(reconnect.GapUnknown, "2")
		for what, id := range map[string][]byte{
			"other topics": few.lastID(), "a base of others": many.lastID(), "none": []byte("x"),
			"no base": reconnect.AppendBasedCursor(nil, reconnect.NewCursorBase(), nil, nil),
		} {
			r := n[1].subscribe(CursorFrom{ID: id}, nil, "channel/0", "channel/2", "channel/3")
			wait(time.Second)
			r.saysAfterGap(reconnect.GapUnknown)
			n[0].publish("channel/2", what)
			wait(time.Second)
			r.saysAfterGap(reconnect.GapUnknown, what)
			r.leave()
		}
	})
}

// TestMergeSlow: a client that follows several topics and does not read costs
// what is on its way to it and no more, and gets everything when it reads.
func TestMergeSlow(t *testing.T) {
	inWorld(t, func(w *world) {
		n := w.join(nil, "a")
		const messages = 1500
		names := names(5)
		var all []*reader
		for range 20 {
			r := n[0].subscribe(CursorFrom{}, func(o *SubscribeOptions) {
				o.WriteTimeout = time.Hour
				o.Limits = reconnect.Limits{Length: messages, TTL: time.Hour}
			}, names...)
			all = append(all, r)
		}
		wait(100 * time.Millisecond)
		for _, r := range all {
			r.reads(false)
		}
		before := ringBytes(n[0])
		long := strings.Repeat("x", 1000)
		for i := range messages {
			m := message(names[i%5], fmt.Sprintf("%s:%d:%s", names[i%5], i/5, long))
			m.Limits = reconnect.Limits{Length: messages, TTL: time.Hour}
			if r := n[0].Publish(context.Background(), []Outgoing{m}); r[0].Err != nil {
				t.Fatal(r[0].Err)
			}
		}
		wait(time.Second)
		// Five rings are full; the connections have theirs.
		if grown := ringBytes(n[0]) - before; grown > 5*(256<<10)*5/4+20*3*mergeBytes {
			t.Errorf("the rings have grown by %d bytes", grown)
		}
		for _, r := range all {
			r.reads(true)
		}
		wait(10 * time.Second)
		for _, r := range all {
			var said []string
			for _, s := range r.said() {
				said = append(said, strings.TrimSuffix(s, ":"+long))
			}
			whole(t, said, 5, messages/5)
		}
	})
}

func ringBytes(n *node) int64 { return n.hub.Stats().RingBytes }

// TestMergeFair: a busy topic does not keep the others of a connection
// waiting.
func TestMergeFair(t *testing.T) {
	inWorld(t, func(w *world) {
		n := w.join(nil, "a")
		for i := range 2000 {
			n[0].publish("channel/0", fmt.Sprint(i))
		}
		n[0].publish("channel/1", "here")
		r := n[0].subscribe(CursorFrom{Last: 2000}, nil, "channel/0", "channel/1")
		wait(5 * time.Second)
		if at := slices.Index(r.said(), "here"); at < 0 || at > 2*mergePage {
			t.Errorf("it stands at %d", at)
		}
	})
}

// TestMergeLeaves: nothing is left of connections that followed several
// topics, nor when the node ends under them.
func TestMergeLeaves(t *testing.T) {
	inWorld(t, func(w *world) {
		n := w.join(nil, "a")
		before := runtime.NumGoroutine()
		var all []*reader
		for i := range 100 {
			all = append(all, n[0].subscribe(CursorFrom{}, nil, "channel/0", fmt.Sprint("channel/", i), "channel/x"))
		}
		wait(time.Second)
		n[0].publish("channel/x", "1")
		wait(time.Second)
		for _, r := range all[:99] {
			r.leave()
		}
		wait(topicGrace + 2*tailCheck)
		if got := runtime.NumGoroutine(); got > before+2 {
			t.Errorf("%d goroutines, %d before", got, before)
		}
		if st := n[0].Stats(); st.Topics != 3 || st.Subscriptions != 1 {
			t.Errorf("%d topics and %d subscriptions are left", st.Topics, st.Subscriptions)
		}
		n[0].leave()
		if closed, _, why := all[99].ended(); !closed || why != hub.ReasonClosed {
			t.Errorf("the last one is closed: %v, %q", closed, why)
		}
	})
}

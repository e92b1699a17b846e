package cluster

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"slices"
	"strconv"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"ssegate/bus"
	"ssegate/hub"
	"ssegate/reconnect"
	"ssegate/sse"
)

var topicLimits = reconnect.Limits{Length: 10_000, TTL: time.Hour}

// reader is a client of topics.
type reader struct {
	*client
	s *Subscription
}

// got is an event as a client saw it.
type got struct{ id, data string }

// options are those of a reader.
func (r *reader) options(n *node, change func(*SubscribeOptions)) SubscribeOptions {
	o := SubscribeOptions{
		ID: "conn-" + strconv.Itoa(rand.Int()), Head: []byte("head\n\n"), Heartbeat: 15 * time.Second, HeartbeatText: []byte(":\n"),
		Limits: topicLimits, Tag: r,
		Left: func(s *Subscription, why hub.Reason) {
			c := s.Tag().(*reader).client
			c.mu.Lock()
			c.why = why
			c.mu.Unlock()
		},
	}
	if change != nil {
		change(&o)
	}
	return o
}

// subscribe attaches a client to topics, behind the id that it comes back with.
func (n *node) subscribe(from CursorFrom, change func(*SubscribeOptions), topics ...string) *reader {
	n.w.Helper()
	r := &reader{client: &client{w: n.w}}
	var ts []Topic
	for _, name := range topics {
		ts = append(ts, TopicOf(name))
	}
	s, err := n.SubscribeAll(ts, from, r.client, r.options(n, change))
	if err != nil {
		n.w.Fatalf("%s: %v", n.ID(), err)
	}
	r.s = s
	return r
}

// messages are the events so far, and everything else: heartbeats, gaps.
func (c *client) messages() (all []got, rest []string) {
	text, _ := strings.CutPrefix(c.text(), "head\n\n")
	for block := range strings.SplitAfterSeq(text, "\n\n") {
		for strings.HasPrefix(block, ":\n") {
			block = block[2:]
			rest = append(rest, ":")
		}
		if block == "" {
			continue
		}
		id, data, ok := strings.Cut(strings.TrimSuffix(block, "\n\n"), "\ndata: ")
		if id, isID := strings.CutPrefix(id, "id: "); ok && isID {
			all = append(all, got{id, data})
		} else {
			rest = append(rest, block)
		}
	}
	return all, rest
}

// gaps are what the client was told of gaps.
func (c *client) gaps() (gaps []string) {
	_, rest := c.messages()
	for _, r := range rest {
		if strings.HasPrefix(r, "event: ssegate.gap") {
			gaps = append(gaps, r)
		}
	}
	return gaps
}

// said is the data of the events so far.
func (c *client) said() (data []string) {
	all, _ := c.messages()
	for _, m := range all {
		data = append(data, m.data)
	}
	return data
}

// lastID is what the client comes back with.
func (c *client) lastID() []byte {
	all, _ := c.messages()
	if len(all) == 0 {
		return nil
	}
	return []byte(all[len(all)-1].id)
}

// says checks what the client got so far, and that no gap was told.
func (c *client) says(want ...string) {
	c.w.Helper()
	if got := c.said(); !slices.Equal(got, want) {
		c.w.Fatalf("got %d events %q\nwant %d %q", len(got), cut(got), len(want), cut(want))
	}
	if gaps := c.gaps(); len(gaps) > 0 {
		c.w.Fatalf("gaps: %q", gaps)
	}
}

func cut(all []string) []string {
	if len(all) > 40 {
		return append(all[:20:20], append([]string{"…"}, all[len(all)-20:]...)...)
	}
	return all
}

// message is one to be published.
func message(topic, data string) Outgoing {
	return Outgoing{Topic: TopicOf(topic), Block: []byte("data: " + data + "\n\n"), Limits: topicLimits}
}

// publish publishes messages to a topic, and fails the test if one is not
// taken.
func (n *node) publish(topic string, data ...string) []Receipt {
	n.w.Helper()
	var posts []Outgoing
	for _, d := range data {
		posts = append(posts, message(topic, d))
	}
	receipts := n.Publish(context.Background(), posts)
	for _, r := range receipts {
		if r.Err != nil {
			n.w.Fatalf("%s publishes: %v", n.ID(), r.Err)
		}
	}
	return receipts
}

// count is from..to as texts.
func count(from, to int) (out []string) {
	for i := from; i <= to; i++ {
		out = append(out, strconv.Itoa(i))
	}
	return out
}

// TestTopic: who follows a topic on any node gets what is published on any
// node, once, with the same ids everywhere, and nothing of other topics.
func TestTopic(t *testing.T) {
	inWorld(t, func(w *world) {
		n := w.join(nil, "a", "b", "c")
		var all []*reader
		for _, n := range n {
			all = append(all, n.subscribe(CursorFrom{}, nil, "user/1"))
		}
		other := n[0].subscribe(CursorFrom{}, nil, "user/2")
		wait(50 * time.Millisecond)
		for i, n := range n {
			r := n.publish("user/1", strconv.Itoa(i))
			if !slices.Equal(slices.Sorted(slices.Values(r[0].Nodes)), []string{"a", "b", "c"}) || r[0].Local != 1 {
				t.Errorf("receipt %+v", r[0])
			}
			wait(time.Millisecond)
		}
		for _, r := range all {
			r.says(count(0, 2)...)
			if id, _ := reconnect.ParseEdgeID(r.lastID()); id.Stream != TopicOf("user/1").ID || id.Pos != all[0].pos() {
				t.Errorf("the last id is %+v", id)
			}
		}
		other.says()
		if got := all[1].s.Pos(TopicOf("user/1")).Seq; got != all[0].pos().Seq {
			t.Errorf("Pos is %d, want %d", got, all[0].pos().Seq)
		}
	})
}

// pos is the position in the client's last id.
func (c *client) pos() (p struct{ Epoch, Seq uint64 }) {
	id, err := reconnect.ParseEdgeID(c.lastID())
	if err != nil {
		c.w.Fatal(err)
	}
	p.Epoch, p.Seq = id.Pos.Epoch, id.Pos.Seq
	return p
}

// TestTopicOrder: several nodes publish at once to one topic, over a bus that
// loses and holds back, while clients follow everywhere and hop. Each sees all
// of it, once, in the log's order.
func TestTopicOrder(t *testing.T) {
	for seed := range uint64(4) {
		t.Run(fmt.Sprint(seed), func(t *testing.T) {
			inWorld(t, func(w *world) {
				n := w.join(nil, "a", "b", "c")
				rng := rand.New(rand.NewPCG(seed, 1))
				var mu sync.Mutex
				if seed > 0 {
					w.bus.Drop(func(string, string, bus.Message) bool {
						mu.Lock()
						defer mu.Unlock()
						return rng.IntN(5) == 0
					})
				}
				var readers []*reader
				for i := range 6 {
					readers = append(readers, n[i%3].subscribe(CursorFrom{}, nil, "channel/x"))
				}
				// One that hops all the time, from before the first message on: it has
				// no claim to what was said before it came, nor, as long as it has no
				// id to come back with, to what is said while it is away.
				var hopped []string
				hop := n[0].subscribe(CursorFrom{}, nil, "channel/x")
				wait(50 * time.Millisecond)
				var wg sync.WaitGroup
				const each = 200
				for _, n := range n {
					wg.Go(func() {
						for i := range each {
							n.publish("channel/x", fmt.Sprintf("%s%d", n.ID(), i))
							time.Sleep(time.Duration(i%7) * time.Millisecond)
						}
					})
				}
				var id []byte
				for i := range 40 {
					time.Sleep(20 * time.Millisecond)
					if id == nil && hop.lastID() == nil {
						continue
					}
					hop.leave()
					synctest.Wait()
					hopped = append(hopped, hop.said()...)
					if last := hop.lastID(); last != nil {
						id = last
					}
					hop = n[i%3].subscribe(CursorFrom{ID: id}, nil, "channel/x")
				}
				wg.Wait()
				wait(5 * time.Second)
				want := w.log.text("channel/x")
				if len(want) != 3*each {
					t.Fatalf("the log has %d messages", len(want))
				}
				for _, r := range readers {
					r.says(want...)
				}
				hopped = append(hopped, hop.said()...)
				if !slices.Equal(hopped, want) {
					t.Errorf("the one that hopped got %d: %q", len(hopped), cut(hopped))
				}
				for _, n := range n {
					if st := n.Stats(); st.Gaps > 0 || st.Garbage > 0 {
						t.Errorf("stats %+v", st)
					}
				}
			})
		})
	}
}

// text is the data of all messages that the log has of a topic.
func (l *shakyLog) text(topic string) (data []string) {
	id := TopicOf(topic).ID
	at, err := l.now.Back(context.Background(), id, 1<<30)
	for err == nil {
		var frames []sse.Frame
		frames, err = l.now.Read(context.Background(), id, at, 1000)
		if len(frames) == 0 {
			break
		}
		for _, f := range frames {
			data = append(data, string(bytes.TrimSuffix(bytes.TrimPrefix(f.Block, []byte("data: ")), []byte("\n\n"))))
			at = f.Pos
		}
	}
	return data
}

// TestTopicsWithoutBus: while the bus is away clients are fed by watching the
// log, and soon.
func TestTopicsWithoutBus(t *testing.T) {
	inWorld(t, func(w *world) {
		n := w.join(nil, "a", "b")
		near, far := n[0].subscribe(CursorFrom{}, nil, "user/1"), n[1].subscribe(CursorFrom{}, nil, "user/1")
		wait(50 * time.Millisecond)
		w.bus.Cut("b")
		for i := range 20 {
			n[0].publish("user/1", strconv.Itoa(i))
			synctest.Wait()
			near.says(count(0, i)...)
			wait(250 * time.Millisecond)
			far.says(count(0, i)...)
		}
		w.bus.Heal("b")
		wait(time.Second)
		n[0].publish("user/1", "20")
		synctest.Wait()
		far.says(count(0, 20)...)
	})
}

// TestTopicsLogAway: while the log is away who comes is held, with its head and
// heartbeats, nobody is cut, publishing fails and says how, and everything goes
// on when it is back.
func TestTopicsLogAway(t *testing.T) {
	for name, ask := range map[string]func(context.Context, string) error{"refused": away(), "hung": hung} {
		t.Run(name, func(t *testing.T) {
			inWorld(t, func(w *world) {
				n := w.join(nil, "a", "b")
				before := n[0].subscribe(CursorFrom{}, nil, "user/1")
				far := n[1].subscribe(CursorFrom{}, nil, "user/1")
				wait(50 * time.Millisecond)
				n[0].publish("user/1", "0", "1")
				synctest.Wait()
				id := before.lastID()
				n[0].publish("user/1", "2")
				wait(time.Second)
				w.log.set(ask)
				new := n[0].subscribe(CursorFrom{}, nil, "user/2")
				back := n[1].subscribe(CursorFrom{ID: id}, nil, "user/1")
				several := n[1].subscribe(CursorFrom{}, nil, "user/1", "user/2")
				held := n[0].subscribe(CursorFrom{Last: 1}, nil, "user/1")
				synctest.Wait()
				for _, r := range []*reader{new, back, several, held} {
					if !strings.HasPrefix(r.text(), "head\n\n") {
						t.Fatal("the head waits for the log")
					}
				}
				for range 10 {
					ctx, cancel := context.WithTimeout(context.Background(), 5*time.Second)
					r := n[0].Publish(ctx, []Outgoing{message("user/1", "lost")})
					cancel()
					if !errors.Is(r[0].Err, ErrFate) {
						t.Fatalf("published: %+v", r[0])
					}
					wait(5 * time.Second)
				}
				ctx, cancel := context.WithCancel(context.Background())
				cancel()
				if r := n[0].Publish(ctx, []Outgoing{message("user/1", "lost")}); !errors.Is(r[0].Err, ErrNotStored) || !errors.Is(r[0].Err, context.Canceled) {
					t.Errorf("published with a context that is done: %v", r[0].Err)
				}
				for _, r := range []*reader{new, back, several, held, before, far} {
					if closed, _, why := r.ended(); closed {
						t.Fatalf("cut: %q", why)
					}
					if _, rest := r.messages(); !slices.Contains(rest, ":") {
						t.Fatalf("no heartbeats: %q", rest)
					}
				}
				w.log.set(nil)
				wait(3 * time.Second)
				n[0].publish("user/1", "3")
				n[1].publish("user/2", "4")
				wait(time.Second)
				before.says("0", "1", "2", "3")
				far.says("0", "1", "2", "3")
				back.says("2", "3")
				held.says("2", "3")
				new.says("4")
				if got := several.said(); len(got) != 2 || len(several.gaps()) > 0 {
					t.Errorf("with two topics: %q, %q", got, several.gaps())
				}
			})
		})
	}
}

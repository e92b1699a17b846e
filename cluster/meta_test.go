package cluster

import (
	"testing"
	"testing/synctest"
	"time"

	"ssegate/hub"
)

// decodeMeta reads what Encode wrote; nil is the zero Meta.
func decodeMeta(b []byte) (m Meta, ok bool) {
	if b == nil {
		return m, true
	}
	var v metaView
	if !v.read(b) {
		return m, false
	}
	m = Meta{
		Expires: v.expires, Session: string(v.session), KB: string(v.kb), Task: string(v.task),
		Connection: string(v.connection), Primary: v.flags&metaPrimary != 0,
	}
	switch {
	case v.flags&metaLow != 0:
		m.Priority = PriorityLow
	case v.flags&metaHigh != 0:
		m.Priority = PriorityHigh
	}
	return m, true
}

// TestMeta: what a Meta says comes back, and bytes that are none are told.
func TestMeta(t *testing.T) {
	for _, m := range []Meta{
		{}, {Priority: PriorityLow}, {Priority: PriorityHigh, Primary: true}, {Expires: 1}, {Session: "s"}, {KB: "k"}, {Task: "t"},
		{Connection: "c"}, {Priority: PriorityLow, Expires: 1 << 50, Session: "s1", KB: "k1", Task: "t1", Connection: "c1", Primary: true},
	} {
		b := m.Encode()
		if (b == nil) != (m == Meta{}) {
			t.Errorf("%+v is %q", m, b)
		}
		got, ok := decodeMeta(b)
		if !ok || got != m {
			t.Errorf("%+v came back as %+v, %v", m, got, ok)
		}
		for i := range b {
			if got, ok := decodeMeta(b[:i]); i > 0 && ok {
				t.Errorf("%q, cut to %d bytes, is %+v", b, i, got)
			}
		}
		if b != nil {
			if got, ok := decodeMeta(append(b, 0)); ok {
				t.Errorf("%q with a byte more is %+v", b, got)
			}
		}
	}
}

func FuzzMeta(f *testing.F) {
	m := Meta{Priority: PriorityLow, Expires: 1 << 50, Session: "s1", KB: "k1", Task: "t1", Connection: "c1", Primary: true}
	f.Add(m.Encode())
	f.Fuzz(func(t *testing.T, b []byte) {
		filter := Filter{Session: "s1"}
		if _, ok := decodeMeta(b); !ok && b != nil && filter.Takes(b, time.Now()) {
			t.Errorf("%q is taken", b)
		}
	})
}

// TestFilter: who gets what.
func TestFilter(t *testing.T) {
	now := time.UnixMilli(1000)
	for _, c := range []struct {
		what string
		m    Meta
		f    Filter
		want bool
	}{
		{"everybody's", Meta{}, Filter{Session: "s1"}, true},
		{"the session's", Meta{Session: "s1"}, Filter{Session: "s1"}, true},
		{"another session's", Meta{Session: "s2"}, Filter{Session: "s1"}, false},
		{"a session's, for who has asked for none", Meta{Session: "s2"}, Filter{}, true},
		{"another knowledge base's", Meta{Session: "s1", KB: "b"}, Filter{Session: "s1", KB: "a"}, false},
		{"another task's", Meta{Task: "b"}, Filter{Task: "a"}, false},
		{"the connection's", Meta{Connection: "c"}, Filter{Connection: "c"}, true},
		{"another connection's", Meta{Connection: "d"}, Filter{Connection: "c"}, false},
		{"primary, by the first topic", Meta{Primary: true}, Filter{}, true},
		{"primary, by another", Meta{Primary: true}, Filter{Secondary: true}, false},
		{"expired", Meta{Expires: 1000}, Filter{}, false},
		{"about to expire", Meta{Expires: 1001}, Filter{}, true},
		{"of high priority", Meta{Priority: PriorityHigh}, Filter{}, true},
	} {
		if got := c.f.Takes(c.m.Encode(), now); got != c.want {
			t.Errorf("%s: %v", c.what, got)
		}
	}
	low := Meta{Priority: PriorityLow}
	want := (&Filter{}).Want(100)
	for behind, is := range map[int]bool{0: true, 50: true, 51: false} {
		if want(hub.FrameMeta{Meta: low.Encode(), Behind: behind}) != is {
			t.Errorf("low priority, %d behind: %v", behind, !is)
		}
	}
	if (&Filter{}).Takes([]byte{99, 0}, now) {
		t.Error("what nobody can read is handed out")
	}
}

// TestNarrowed: messages reach the connections that they are for, on one topic
// and on several, now and when they come back; a broadcast to all of its topics
// reaches a connection once.
func TestNarrowed(t *testing.T) {
	inWorld(t, func(w *world) {
		n := w.join(nil, "a", "b")
		open := func(from CursorFrom, id, session string, topics ...string) *reader {
			return n[1].subscribe(from, func(o *SubscribeOptions) { o.ID, o.Filter.Session = id, session }, topics...)
		}
		publish := func(topic, data string, m Meta) {
			t.Helper()
			o := message(topic, data)
			o.Meta = m.Encode()
			if r := n[0].Publish(w.Context(), []Outgoing{o}); r[0].Err != nil {
				t.Fatal(r[0].Err)
			}
		}
		readers := map[string]*reader{
			"s1": open(CursorFrom{}, "c1", "s1", "user/1"), "none": open(CursorFrom{}, "c2", "", "user/1"),
			"s1 several": open(CursorFrom{}, "c3", "s1", "user/1", "channel/x"), "second": open(CursorFrom{}, "c4", "s1", "channel/x", "user/1"),
		}
		want := map[string][]string{}
		wait(50 * time.Millisecond)
		say := func(data string, m Meta, to ...string) {
			t.Helper()
			publish("user/1", data, m)
			for _, r := range to {
				want[r] = append(want[r], data)
			}
			wait(10 * time.Millisecond)
		}
		say("to all", Meta{}, "s1", "none", "s1 several", "second")
		wait(time.Second)
		ids := map[string][]byte{}
		for name, r := range readers {
			r.says("to all")
			ids[name] = r.lastID()
		}
		clear(want)
		say("s1", Meta{Session: "s1"}, "s1", "none", "s1 several", "second")
		say("s2", Meta{Session: "s2"}, "none")
		say("c3", Meta{Connection: "c3"}, "s1 several")
		say("broadcast", Meta{Primary: true}, "s1", "none", "s1 several")
		publish("channel/x", "broadcast", Meta{Primary: true})
		want["second"] = append(want["second"], "broadcast")
		say("soon over", Meta{Expires: time.Now().Add(time.Minute).UnixMilli()}, "s1", "none", "s1 several", "second")
		say("over", Meta{Expires: time.Now().UnixMilli()})
		say("the end", Meta{Priority: PriorityHigh}, "s1", "none", "s1 several", "second")
		wait(time.Second)
		for name, r := range readers {
			r.says(append([]string{"to all"}, want[name]...)...)
			r.leave()
		}
		synctest.Wait()
		wait(2 * time.Minute) // what was soon over is
		topics := map[string][]string{"s1": {"user/1"}, "none": {"user/1"}, "s1 several": {"user/1", "channel/x"}, "second": {"channel/x", "user/1"}}
		conns := map[string]string{"s1": "c1", "none": "c2", "s1 several": "c3", "second": "c4"}
		for name, id := range ids {
			session := "s1"
			if name == "none" {
				session = ""
			}
			r := open(CursorFrom{ID: id}, conns[name], session, topics[name]...)
			wait(time.Second)
			var still []string
			for _, s := range want[name] {
				if s != "soon over" {
					still = append(still, s)
				}
			}
			if got := r.said(); len(got) != len(still) {
				t.Errorf("%s came back and got %q, want %q", name, got, still)
			}
		}
	})
}

// TestLowPriority: a client that is far behind goes without what is of low
// priority, and gets all else.
func TestLowPriority(t *testing.T) {
	inWorld(t, func(w *world) {
		n := w.join(nil, "a")
		slow := n[0].subscribe(CursorFrom{}, func(o *SubscribeOptions) { o.RingEvents = 100 }, "user/1")
		quick := n[0].subscribe(CursorFrom{}, nil, "user/1")
		wait(50 * time.Millisecond)
		slow.reads(false)
		low := Meta{Priority: PriorityLow}
		for i := range 90 {
			o := message("user/1", "x")
			if i%2 == 0 {
				o.Meta = low.Encode()
			}
			n[0].Publish(w.Context(), []Outgoing{o})
		}
		synctest.Wait()
		if got := len(quick.said()); got != 90 {
			t.Errorf("who keeps up got %d", got)
		}
		slow.reads(true)
		synctest.Wait()
		// The first one was on its way to it before it was behind.
		if got := len(slow.said()); got != 45+26 {
			t.Errorf("who was behind got %d of 90", got)
		}
	})
}

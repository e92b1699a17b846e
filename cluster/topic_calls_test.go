package cluster

import (
	"context"
	"errors"
	"testing"
	"testing/synctest"
	"time"

	"ssegate/hub"
)

// TestKick: a connection is ended from any node, cleanly; what nobody has is
// unknown, and a node that does not answer in time is no proof.
func TestKick(t *testing.T) {
	inWorld(t, func(w *world) {
		other := ""
		n := w.join(func(c *Config) {
			if c.Self.ID == "c" {
				c.KickOther = func(id string) bool { other = id; return id == "stream" }
			}
		}, "a", "b", "c")
		one := n[1].subscribe(CursorFrom{}, nil, "user/1")
		several := n[0].subscribe(CursorFrom{}, nil, "user/1", "user/2")
		for _, r := range []*reader{one, several} {
			if err := n[0].Kick(w.Context(), r.s.ID()); err != nil {
				t.Fatal(err)
			}
			synctest.Wait()
			r.leftFor(ReasonKicked)
			if _, how, _ := r.ended(); how != hub.CloseFlush && how != hub.CloseReset {
				t.Errorf("closed %v", how)
			}
			if err := n[2].Kick(w.Context(), r.s.ID()); !errors.Is(err, ErrUnknown) {
				t.Errorf("once more: %v", err)
			}
		}
		if err := n[0].Kick(w.Context(), "stream"); err != nil || other != "stream" {
			t.Errorf("a stream's: %v, %q", err, other)
		}
		w.bus.Cut("c")
		began := time.Now()
		if err := n[0].Kick(w.Context(), "nobody"); !errors.Is(err, ErrUnavailable) {
			t.Errorf("while a node is away: %v", err)
		}
		if took := time.Since(began); took > time.Second {
			t.Errorf("it took %v", took)
		}
	})
}

// TestWritten: how many connections have a message, on all nodes, with those
// that left and without those for whom it is not or that wait for it.
func TestWritten(t *testing.T) {
	inWorld(t, func(w *world) {
		n := w.join(nil, "a", "b", "c")
		slow := n[0].subscribe(CursorFrom{}, nil, "user/1")
		slowToo := n[1].subscribe(CursorFrom{}, nil, "user/2", "user/1")
		gone := n[1].subscribe(CursorFrom{}, nil, "user/1")
		goneToo := n[1].subscribe(CursorFrom{}, nil, "user/1", "user/2")
		n[1].subscribe(CursorFrom{}, nil, "user/1")
		n[2].subscribe(CursorFrom{}, nil, "user/1", "user/2")
		n[2].subscribe(CursorFrom{}, func(o *SubscribeOptions) { o.Filter.Session = "s2" }, "user/1")
		n[2].subscribe(CursorFrom{}, nil, "user/2")
		wait(50 * time.Millisecond)
		slow.reads(false)
		slowToo.reads(false)
		m := Meta{Session: "s1"}
		o := message("user/1", "x")
		o.Meta = m.Encode()
		r := n[0].Publish(w.Context(), []Outgoing{o})[0]
		wait(50 * time.Millisecond)
		gone.leave()
		goneToo.leave()
		late := n[0].subscribe(CursorFrom{}, nil, "user/1")
		wait(50 * time.Millisecond)
		check := func(what string, from *node, want Delivery) {
			t.Helper()
			if got := from.Written(context.Background(), o.Topic, r.Pos, o.Meta); got != want {
				t.Errorf("%s: %+v, want %+v", what, got, want)
			}
		}
		for _, n := range n {
			check("at first", n, Delivery{Connections: 5, Written: 4, Nodes: 3})
		}
		slow.reads(true)
		slowToo.reads(true)
		synctest.Wait()
		check("all read", n[0], Delivery{Connections: 5, Written: 6, Nodes: 3})
		late.leave()
		wait(2 * departed)
		check("later", n[1], Delivery{Connections: 4, Written: 4, Nodes: 3})
		w.bus.Cut("c")
		check("without a node", n[1], Delivery{Connections: 3, Written: 3, Nodes: 3, Silent: 1})
		back := n[0].subscribe(CursorFrom{Last: 1}, nil, "user/1")
		wait(time.Second)
		back.says("x")
		check("who gets it late", n[1], Delivery{Connections: 4, Written: 4, Nodes: 3, Silent: 1})
	})
}

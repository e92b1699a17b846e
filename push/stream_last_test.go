package push

import (
	"errors"
	"io"
	"slices"
	"testing"
	"testing/synctest"
	"time"

	"ssegate/registry"
)

// count is how many streams owe a cut, and how many there are.
func (o *openStreams) count() (owing, open int) {
	o.mu.Lock()
	defer o.mu.Unlock()
	return o.owing, len(o.all)
}

// TestCutIsOwed: the cut of a stream that broke off because the log was away is
// told when it is back, once, whether the log had taken it or not.
func TestCutIsOwed(t *testing.T) {
	for _, took := range []bool{false, true} {
		inWorld(t, Config{}, func(w *world, n ...*node) {
			c, d := n[1].follow(all, "user/u"), n[0].follow(all, "channel/v")
			body, done := n[0].upload("/api/v1/streams/user/u?to=connection/none,channel/v", "text/event-stream")
			io.WriteString(body, "data: x\n\n")
			wait(time.Second)
			w.log.fails(errAway, false)
			io.WriteString(body, "data: y\n\n")
			wait(streamWait - time.Second)
			w.log.fails(errAway, took)
			a := w.is(<-done, 503)
			body.Close()
			if a.at("error", "reason") != "unavailable" || a.at("result", "state") != "cut" {
				t.Errorf("%s", a.raw)
			}
			wait(5 * time.Minute)
			if _, err := w.reg.GetNote(w.Context(), openNote("a")); err != nil {
				t.Errorf("what is owed is not noted: %v", err)
			}
			w.log.fails(nil, false)
			wait(time.Minute)
			for _, f := range []*client{c, d} {
				marks, got := f.marks()
				if len(marks) != 2 || marks[1].State != "cut" || marks[1].Reason != "unavailable" || marks[1].Stream != marks[0].Stream || marks[1].Events != 1 || got[0].data != "x" {
					t.Errorf("took %v: %s was told %+v and %q", took, f.id, marks, got)
				}
			}
			if _, err := w.reg.GetNote(w.Context(), openNote("a")); !errors.Is(err, registry.ErrUnknown) {
				t.Errorf("still noted: %v", err)
			}
			if owing, open := n[0].api.open.count(); owing != 0 || open != 0 {
				t.Errorf("still owed: %d of %d", owing, open)
			}
		}, "a", "b")
	}
}

// TestOwedCutOfDeadNode: when the node dies that owes a cut, another tells of it.
// One that lives offers it no longer than an hour.
func TestOwedCutOfDeadNode(t *testing.T) {
	inWorld(t, Config{Gone: 2 * time.Second}, func(w *world, n ...*node) {
		c := n[1].follow(all, "user/u")
		owed := func(n *node) {
			body, done := n.upload("/api/v1/streams/user/u", "text/event-stream")
			wait(time.Second)
			w.log.fails(errAway, false)
			io.WriteString(body, "data: x\n\n")
			w.is(<-done, 503)
			body.Close()
		}
		owed(n[0])
		n[0].Abort()
		n[0].leave()
		wait(10 * time.Minute)
		w.log.fails(nil, false)
		wait(time.Minute)
		if marks, _ := c.marks(); len(marks) != 2 || marks[1].State != "cut" || marks[1].Reason != "node_lost" {
			t.Errorf("%+v", marks)
		}
		owed(n[1])
		wait(oweFor - time.Minute)
		if owing, _ := n[1].api.open.count(); owing != 1 {
			t.Errorf("%d are owed", owing)
		}
		wait(2 * time.Minute)
		if owing, open := n[1].api.open.count(); owing != 0 || open != 0 {
			t.Errorf("offered for longer than an hour: %d of %d", owing, open)
		}
		if lost := n[1].api.Stats().CutsLost; lost != 1 {
			t.Errorf("%d cuts are counted as lost", lost)
		}
	}, "a", "b")
}

// stood is what a node finds that goes on after a minute in which it was stopped.
func (o *openStreams) stood() {
	o.mu.Lock()
	defer o.mu.Unlock()
	o.asked = time.Now().Add(-time.Minute)
	for _, e := range o.all {
		e.noted = o.asked
	}
}

// TestStreamsAfterStandingStill: a node that stood still while the others told of
// its streams' cut publishes nothing more of any of them, wherever in publishing it
// was stopped.
func TestStreamsAfterStandingStill(t *testing.T) {
	const streams = 3
	inWorld := func(what string, o Options, then func(w *world, n []*node, late func())) {
		inWorld(t, Config{Options: o, Gone: 2 * time.Second}, func(w *world, n ...*node) {
			var follow []*client
			var bodies []*io.PipeWriter
			var done []chan answer
			for i := range streams {
				topic := "user/" + string(rune('a'+i))
				follow = append(follow, n[1].follow(all, topic))
				b, d := n[0].upload("/api/v1/streams/"+topic, "text/event-stream")
				io.WriteString(b, "data: x\n\n")
				bodies, done = append(bodies, b), append(done, d)
			}
			wait(10 * time.Second)
			then(w, n, func() {
				for _, b := range bodies {
					io.WriteString(b, "data: late\n\n")
				}
			})
			wait(time.Second)
			for i, b := range bodies {
				b.Close()
				if a := <-done[i]; a.status != 409 || a.at("error", "reason") != "node_lost" || a.at("result", "events").(float64) != 1 {
					t.Errorf("%s: %d %s", what, a.status, a.raw)
				}
			}
			wait(time.Second)
			for _, f := range follow {
				if marks, got := f.marks(); len(marks) != 2 || marks[1].State != "cut" || !slices.Equal(got, []told{{"", "x"}}) {
					t.Errorf("%s: %s was told %+v and %q", what, f.id, marks, got)
				}
			}
		}, "a", "b")
	}
	stop := func(w *world, n []*node) {
		if err := n[1].api.open.cut(w.Context(), "a"); err != nil {
			t.Error(err)
		}
		n[0].api.open.stood()
	}
	inWorld("in silence", Options{}, func(w *world, n []*node, late func()) {
		stop(w, n)
		w.reg.mu.Lock()
		w.reg.slow = 100 * time.Millisecond // while one of them looks, the others have read on
		w.reg.mu.Unlock()
		late()
	})
	inWorld("at its rate", Options{Rate: 20, Burst: 1}, func(w *world, n []*node, late func()) {
		more, done := n[0].upload("/api/v1/streams/user/more?marks=off", "text/event-stream")
		io.WriteString(more, "data: all that the rate allows for now\n\n")
		late()
		stop(w, n)
		more.Close()
		<-done
	})
	inWorld("while the log was away", Options{}, func(w *world, n []*node, late func()) {
		w.log.fails(errAway, false)
		late()
		wait(10 * time.Millisecond)
		w.log.fails(nil, false)
		stop(w, n)
	})
}

// TestStreamOfNodeTakenForDead: when the others have told that a stream was cut,
// its node, which lives after all, adds no end to it, and its publisher learns of
// the cut: at its end, at once after the node stood still, and while it is silent.
func TestStreamOfNodeTakenForDead(t *testing.T) {
	for what, then := range map[string]func(*node, *io.PipeWriter){
		"ends": func(_ *node, body *io.PipeWriter) { body.Close() },
		"goes on": func(n *node, body *io.PipeWriter) {
			n.api.open.stood()
			io.WriteString(body, "data: late\n\n")
		},
		"is silent": func(*node, *io.PipeWriter) { wait(2 * time.Second) },
	} {
		inWorld(t, Config{Gone: 2 * time.Second}, func(w *world, n ...*node) {
			c := n[1].follow(all, "user/u")
			e := n[1].follow(all, "user/e")
			body, done := n[0].upload("/api/v1/streams/connection/none?to=user/u,connection/"+e.id, "text/event-stream")
			io.WriteString(body, "data: x\n\n")
			wait(10 * time.Second)
			if err := n[1].api.open.cut(w.Context(), "a"); err != nil {
				t.Fatal(err)
			}
			then(n[0], body)
			synctest.Wait()
			select {
			case a := <-done:
				if a.status != 409 || a.at("error", "reason") != "node_lost" || a.at("result", "state") != "cut" || a.at("result", "events").(float64) != 1 {
					t.Errorf("%s: %d %s", what, a.status, a.raw)
				}
			default:
				t.Errorf("%s: the publisher was not told", what)
				body.Close()
				<-done
			}
			body.Close()
			wait(time.Minute)
			for _, f := range []*client{c, e} {
				marks, got := f.marks()
				if len(marks) != 2 || marks[1].State != "cut" || marks[1].Reason != "node_lost" || !slices.Equal(got, []told{{"", "x"}}) {
					t.Errorf("%s: %s was told %+v and %q", what, f.id, marks, got)
				}
			}
		}, "a", "b")
	}
}

// TestNoteForgotten: a registry that has forgotten what a node publishes cuts
// nothing, and is told again; an end whose answer was lost is an end.
func TestNoteForgotten(t *testing.T) {
	inWorld(t, Config{Gone: 2 * time.Second}, func(w *world, n ...*node) {
		c := n[0].follow(all, "user/u")
		body, done := n[0].upload("/api/v1/streams/user/u", "text/event-stream")
		wait(time.Second)
		if _, err := w.reg.TakeNote(w.Context(), openNote("a")); err != nil {
			t.Fatal(err)
		}
		wait(10 * time.Second)
		if _, err := w.reg.GetNote(w.Context(), openNote("a")); err != nil {
			t.Errorf("not noted again: %v", err)
		}
		io.WriteString(body, "data: x\n\n")
		wait(time.Second)
		w.log.fails(errAway, true)
		body.Close()
		wait(3 * time.Second)
		w.log.fails(nil, false)
		w.is(<-done, 200)
		wait(5 * time.Second)
		if marks, got := c.marks(); len(marks) != 2 || marks[1].State != "end" || len(got) != 1 {
			t.Errorf("%+v %q", marks, got)
		}
	}, "a")
}

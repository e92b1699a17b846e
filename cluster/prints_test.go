package cluster

import (
	"context"
	"errors"
	"testing"
	"testing/synctest"
	"time"
)

// TestPrintsWithoutRegistry: while the registry is away, that no stream has an
// id is said only where every peer's memory could tell.
func TestPrintsWithoutRegistry(t *testing.T) {
	inWorld(t, func(w *world) {
		n := w.join(nil, "a", "b", "c")
		whole := n[0].begin(nil)
		whole.SetUpstreamIDs("whole")
		whole.send(10)
		trimmed := n[0].begin(func(spec *Spec) { spec.Local.RingEvents = 20 })
		trimmed.SetUpstreamIDs("trimmed")
		for range 10 {
			trimmed.send(100)
			wait(tailCheck) // the log has them: memory may let them go
		}
		synctest.Wait()
		w.log.set(hung)
		w.reg.set(hung)
		stranger := w.start("d", nil) // has never learned who the others are
		w.nodes = append(w.nodes, stranger)
		for _, c := range []struct {
			n         *node
			print, id string
			want      error
		}{
			{n[1], "whole", "u9", nil},
			{n[1], "whole", "u11", ErrUnknown},
			{n[0], "whole", "u11", ErrUnknown},
			{n[1], "another", "u9", ErrUnknown},
			{n[1], "trimmed", "u1000", nil},
			{n[1], "trimmed", "u3", ErrUnavailable}, // only the log had it
			{n[0], "trimmed", "u3", ErrUnavailable},
			{stranger, "whole", "u9", ErrUnavailable},
		} {
			if _, err := c.n.ByPrint(context.Background(), c.print, []byte(c.id)); !errors.Is(err, c.want) {
				t.Errorf("%s: %s of %s: %v, want %v", c.n.ID(), c.id, c.print, err, c.want)
			}
		}
		n[2].kill() // it may have had a stream of the request
		if _, err := n[1].ByPrint(context.Background(), "another", []byte("u9")); !errors.Is(err, ErrUnavailable) {
			t.Errorf("with a peer that does not answer: %v", err)
		}
		if _, err := n[1].ByPrint(context.Background(), "whole", []byte("u9")); err != nil {
			t.Errorf("what one peer has, with another that does not answer: %v", err)
		}
	})
}

// TestPrintAheadOfLog: who comes back with an id that its dead node had not yet
// written to the log waits until the node is known to be dead, and no longer.
func TestPrintAheadOfLog(t *testing.T) {
	inWorld(t, func(w *world) {
		n := w.join(nil, "a", "b")
		s := n[0].begin(nil)
		s.SetUpstreamIDs("p")
		s.send(19)
		wait(tailCheck)
		w.log.set(hung)
		s.send(1)
		n[0].kill()
		w.log.set(nil)
		ask := func(id string) error {
			_, err := n[1].ByPrint(context.Background(), "p", []byte(id))
			return err
		}
		if err := ask("u20"); !errors.Is(err, ErrPending) && !errors.Is(err, ErrUnknown) { // it may be dead by then
			t.Errorf("while its node may live: %v", err)
		}
		wait(deadAfter + 3*checkEvery)
		if err := ask("u20"); !errors.Is(err, ErrUnknown) {
			t.Errorf("when its node is dead: %v", err)
		}
		if err := ask("u19"); err != nil {
			t.Errorf("what the log has: %v", err)
		}
	})
}

// TestPrintBetweenOwners: a stream whose owner is dead, and that nobody could take
// over before the registry went away, too, is not said not to be.
func TestPrintBetweenOwners(t *testing.T) {
	inWorld(t, func(w *world) {
		n := w.join(takesOver(w), "a", "b", "c")
		s := n[0].begin(func(spec *Spec) { spec.Request = []byte("again") })
		s.SetUpstreamIDs("p")
		s.send(5)
		n[1].open(s.ID, "a", 0)
		wait(time.Second)
		n[0].kill()
		w.reg.set(away("claim"))
		wait(deadAfter + checkEvery)
		w.reg.set(hung)
		for _, one := range n[1:] {
			if _, err := one.ByPrint(context.Background(), "p", []byte("u3")); !errors.Is(err, ErrUnavailable) {
				t.Errorf("%s: %v", one.ID(), err)
			}
		}
	})
}

// TestPrintOfEmptied: a registry that was just emptied does not know that there
// is no stream, where a node that may own it cannot be asked; who comes back
// then has nothing asked of the service a second time. Otherwise an id that
// leads nowhere is told at once, by young nodes too.
func TestPrintOfEmptied(t *testing.T) {
	inWorld(t, func(w *world) {
		n := w.join(nil, "a", "b")
		s := n[0].begin(nil)
		s.SetUpstreamIDs("p")
		s.send(5)
		synctest.Wait()
		ask := func(id string) error {
			at, err := n[1].ByPrint(context.Background(), "p", []byte(id))
			if err == nil && at.Stream != s.ID {
				t.Errorf("%s leads to %v", id, at)
			}
			return err
		}
		if err := ask("u9"); !errors.Is(err, ErrUnknown) {
			t.Errorf("an id that is nobody's: %v", err)
		}
		w.bus.Cut("a")
		w.reg.set(func(_ context.Context, op string) error {
			if op == "put" || op == "addprint" {
				return errors.New("late")
			}
			return nil
		})
		w.reg.forget()
		w.log.forget()
		for i := range 5 { // before b knows that the registry has forgotten, and when it does
			if err := ask("u3"); !errors.Is(err, ErrUnavailable) && !errors.Is(err, ErrPending) {
				t.Errorf("look %d, while a cannot be asked: %v", i, err)
			}
			wait(checkEvery / 2)
		}
		w.reg.set(nil)
		w.bus.Heal("a")
		wait(deadAfter)
		if err := ask("u3"); err != nil {
			t.Errorf("when all is there again: %v", err)
		}
		wait(deadAfter)
		if err := ask("u9"); !errors.Is(err, ErrUnknown) {
			t.Errorf("an id that is nobody's: %v", err)
		}
	})
}

// TestPrintAtSucceededOwner: who was taken for dead, and goes on before it knows,
// does not say of an id of its successor's that there is none.
func TestPrintAtSucceededOwner(t *testing.T) {
	inApart(t, func(w *apart) {
		w.s.SetUpstreamIDs("p")
		wait(time.Second)
		w.cut()
		f := w.succeed()
		f.send(5)
		wait(tailCheck)
		w.heal() // and before a's next beat
		at, err := w.n[0].ByPrint(context.Background(), "p", []byte("u103"))
		if err != nil || at.Stream != w.s.ID {
			t.Errorf("u103 leads to %v, %v", at, err)
		}
		w.hop(w.n[0], 5).gets("", 101, 102, 103, 104, 105)
	})
}

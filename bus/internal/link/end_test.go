package link

import (
	"errors"
	"testing"
	"testing/synctest"
	"time"

	"ssegate/bus"
)

// The handler's first call is Up(true): what was sent to us before that is
// lost, as Up(true) says.
func TestUpComesFirst(t *testing.T) {
	b := &broker{silent: true}
	linked(t, b, func(t *testing.T, l *Link, h *handler, _ func()) {
		synctest.Wait()
		b.last().from("you", stamp{1, 1}, "early")
		h.saw(t)
		b.set(func() { b.silent = false })
		time.Sleep(l.opt.Stall + l.opt.MaxWait)
		b.last().from("you", stamp{1, 1}, "late")
		h.saw(t, "up true", "you: late")
	})
}

// A broker that routes our own messages to nobody has forgotten us.
func TestForgotten(t *testing.T) {
	b := new(broker)
	linked(t, b, func(t *testing.T, l *Link, h *handler, _ func()) {
		h.saw(t, "up true")
		b.last().s.Lost("me", bus.LostUnroutable)
		h.saw(t, "up false") // a lost probe is nobody's loss
		time.Sleep(time.Second)
		h.saw(t, "up true")
		say(t, l, "me", "note")
		h.saw(t, "me: note")
		b.last().s.Lost("me", bus.LostUnroutable)
		h.sawSome(t, "lost me: unroutable", "up false")
	})
}

// Run ends in a bounded time, whatever the connection does.
func TestEndsWhileStuck(t *testing.T) {
	b := new(broker)
	linked(t, b, func(t *testing.T, l *Link, h *handler, stop func()) {
		h.saw(t, "up true")
		b.set(func() { b.stuck = true })
		say(t, l, "you", "last words")
		began := time.Now()
		stop()
		if took := time.Since(began); took > l.opt.Linger {
			t.Fatalf("Run ended after %v", took)
		}
		if err := l.Send(t.Context(), "you", []bus.Message{{}}); !errors.Is(err, bus.ErrClosed) {
			t.Fatal(err)
		}
	})
}

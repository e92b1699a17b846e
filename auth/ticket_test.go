package auth

import (
	"context"
	"errors"
	"reflect"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"
)

func withNotes(t *testing.T) (*Authenticator, *notes) {
	t.Helper()
	n := new(notes)
	a, err := New(Config{Secrets: [][]byte{secret}}, Options{Notes: n})
	if err != nil {
		t.Fatal(err)
	}
	return a, n
}

func TestTicketWorksOnceUnderARace(t *testing.T) {
	a, _ := withNotes(t)
	b, err := New(Config{}, Options{Notes: a.opts.Notes}) // another node, which knows no keys
	if err != nil {
		t.Fatal(err)
	}
	for range 20 {
		ticket, err := a.Issue(t.Context(), &Identity{Subject: "alice", Follow: []Pattern{"channel/x"}}, time.Minute)
		if err != nil {
			t.Fatal(err)
		}
		var got, refused atomic.Int32
		var wg sync.WaitGroup
		for i := range 16 {
			wg.Go(func() {
				id, err := []*Authenticator{a, b}[i%2].Identify(t.Context(), Credentials{Ticket: ticket})
				switch {
				case err == nil && id.Subject == "alice" && id.MayFollow("channel/x"):
					got.Add(1)
				case reason(err) == BadTicket:
					refused.Add(1)
				}
			})
		}
		wg.Wait()
		if got.Load() != 1 || refused.Load() != 15 {
			t.Fatalf("%d got in, %d were refused", got.Load(), refused.Load())
		}
	}
}

func TestTicketIsLessThanItsToken(t *testing.T) {
	a, n := withNotes(t)
	exp := time.Now().Add(time.Hour).Round(0)
	full := &Identity{Subject: "alice", Follow: []Pattern{"channel/*"}, Publish: []Pattern{Everything}, Admin: true, Expires: exp, Key: "k"}
	ticket, err := a.Issue(t.Context(), full, time.Minute)
	if err != nil {
		t.Fatal(err)
	}
	for name, kept := range n.kept {
		if strings.Contains(name+string(kept.value), ticket) {
			t.Error("who reads the registry can use the ticket")
		}
	}
	id, err := a.Identify(t.Context(), Credentials{Ticket: ticket})
	want := &Identity{Subject: "alice", Follow: []Pattern{"channel/*"}, Expires: exp, Key: "k", Ticket: true}
	if err != nil || !id.Expires.Equal(exp) {
		t.Fatal(id, err)
	}
	if id.Expires = exp; !reflect.DeepEqual(id, want) {
		t.Errorf("%+v, want %+v", id, want)
	}
}

// A ticket of seconds would else be one for ever.
func TestTicketMakesNoTicket(t *testing.T) {
	a, n := withNotes(t)
	ticket, err := a.Issue(t.Context(), &Identity{Key: "billing", Follow: []Pattern{Everything}}, time.Second)
	if err != nil {
		t.Fatal(err)
	}
	id, err := a.Identify(t.Context(), Credentials{Ticket: ticket})
	if err != nil {
		t.Fatal(err)
	}
	if again, err := a.Issue(t.Context(), id, time.Hour); !errors.Is(err, ErrTicket) || again != "" || len(n.kept) > 0 {
		t.Errorf("%q, %v, %d kept", again, err, len(n.kept))
	}
}

func TestTicketEnds(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		a, n := withNotes(t)
		f := func(tokenFor, ticketFor, wait time.Duration, want Reason) {
			t.Helper()
			ticket, err := a.Issue(t.Context(), &Identity{Subject: "alice", Expires: time.Now().Add(tokenFor)}, ticketFor)
			if err != nil {
				t.Fatal(err)
			}
			time.Sleep(wait)
			if _, err := a.Identify(t.Context(), Credentials{Ticket: ticket}); reason(err) != want {
				t.Errorf("%v, want %q", err, want)
			}
		}
		f(time.Hour, 30*time.Second, 30*time.Second-1, "")
		f(time.Hour, 30*time.Second, 30*time.Second, BadTicket)
		f(20*time.Second, 30*time.Second, 20*time.Second, Expired)

		for _, ticket := range []string{"x", strings.Repeat("A", 43), strings.Repeat("A", 42) + "=", strings.Repeat("é", 43), strings.Repeat("A", 1<<16)} {
			if _, err := a.Identify(t.Context(), Credentials{Ticket: ticket}); reason(err) != BadTicket {
				t.Errorf("%.50q: %v", ticket, err)
			}
		}
		// What somebody else left under such a name lets nobody in.
		for _, value := range []string{"", "{", "{}", `{"admin":true}`, "null"} {
			ticket := strings.Repeat("A", 43)
			n.PutNote(t.Context(), ticketNote(ticket), []byte(value), time.Minute)
			if id, err := a.Identify(t.Context(), Credentials{Ticket: ticket}); reason(err) != BadTicket {
				t.Errorf("%q: %+v, %v", value, id, err)
			}
		}
	})
}

func TestTicketsWithoutARegistry(t *testing.T) {
	a, n := withNotes(t)
	ticket, err := a.Issue(t.Context(), &Identity{Subject: "alice"}, time.Minute)
	if err != nil {
		t.Fatal(err)
	}
	n.err = context.DeadlineExceeded
	if _, err := a.Issue(t.Context(), &Identity{Subject: "alice"}, time.Minute); !errors.Is(err, ErrUnavailable) || !errors.Is(err, n.err) {
		t.Error(err)
	}
	if _, err := a.Identify(t.Context(), Credentials{Ticket: ticket}); !errors.Is(err, ErrUnavailable) || errors.Is(err, ErrBad) {
		t.Error(err)
	}
	none := newAuth(t, Config{})
	if _, err := none.Issue(t.Context(), &Identity{Subject: "alice"}, time.Minute); !errors.Is(err, ErrUnavailable) {
		t.Error(err)
	}
	if _, err := none.Identify(t.Context(), Credentials{Ticket: ticket}); reason(err) != BadTicket {
		t.Error(err)
	}
}

//go:build linux

package load

import (
	"errors"
	"fmt"
	"io"
	"runtime/debug"
	"time"

	"golang.org/x/sys/unix"
)

// MaxFiles is how many descriptors a process of the benchmarks may have.
const MaxFiles = 20000

// LimitFiles sets this process's limit to MaxFiles. Its children inherit it.
func LimitFiles() error {
	var had unix.Rlimit
	if err := unix.Getrlimit(unix.RLIMIT_NOFILE, &had); err != nil {
		return err
	}
	want := unix.Rlimit{Cur: min(MaxFiles, had.Max), Max: had.Max}
	if err := unix.Setrlimit(unix.RLIMIT_NOFILE, &want); err != nil {
		return fmt.Errorf("limit of open files: %w", err)
	}
	return nil
}

// Main does one plan that it is told over in, and reports over out. It returns
// when the work is done or the conductor is gone; work that fails is reported
// and no error here.
func Main(in io.Reader, out io.Writer) error {
	debug.SetGCPercent(1000) // it makes next to no garbage; let none of its time be measured
	talk := NewTalk(in, out)
	plan, err := talk.plan()
	if err != nil {
		return err
	}
	w, err := newWork(plan, talk)
	if err != nil {
		return talk.result(Result{}, err)
	}
	defer w.close()
	return talk.result(w.do())
}

// work is one plan being done.
type work struct {
	plan    Plan
	talk    *Talk
	back    *loop // the service and the publishers
	fore    *loop // the clients
	up      *upstream
	crowd   *crowd
	front   Front
	addrs   []*unix.SockaddrInet4
	clients []*client
	press   *press
	since   int64  // when the mark "begin" was
	seen    Result // at the mark "end"
}

func newWork(plan Plan, talk *Talk) (*work, error) {
	w := &work{plan: plan, talk: talk}
	c := clock(time.Now())
	var err error
	if w.back, err = newLoop(c); err != nil {
		return nil, err
	}
	if w.fore, err = newLoop(c); err != nil {
		w.back.close()
		return nil, err
	}
	w.crowd = &crowd{l: w.fore, sources: 1}
	return w, nil
}

// close cuts whatever is left.
func (w *work) close() {
	w.fore.close()
	w.back.close()
}

func (w *work) do() (Result, error) {
	var err error
	hold := w.plan.Kind != Short && w.plan.Kind != Replay
	if w.up, err = newUpstream(w.back, w.plan, hold); err != nil {
		return Result{}, err
	}
	if w.front, err = w.talk.listens(w.up.addr); err != nil {
		return Result{}, err
	}
	for _, a := range w.front.Clients {
		addr, err := address(a)
		if err != nil {
			return Result{}, err
		}
		w.addrs = append(w.addrs, addr)
	}
	kinds := map[Kind]func() error{
		Proxied: w.stream, Joined: w.stream, Short: w.short, Glance: w.short,
		Fan: w.fan, Idle: w.idle, Resume: w.resume, Replay: w.replay,
	}
	f, ok := kinds[w.plan.Kind]
	if !ok {
		return Result{}, fmt.Errorf("no such work: %q", w.plan.Kind)
	}
	err = f()
	r := w.seen
	w.fore.call(func() {
		c := w.crowd
		r.faults, r.Told, r.Refused, r.Cut = c.faults, c.told, c.refused, int64(c.cut)
		err = errors.Join(err, c.err)
	})
	if w.press != nil {
		w.back.call(func() {
			r.Answer = w.press.answer.times()
			r.Refused += w.press.refused
			err = errors.Join(err, w.press.err)
		})
	}
	return r, err
}

// begin is where measuring begins.
func (w *work) begin() error {
	if err := w.talk.mark("begin"); err != nil {
		return err
	}
	w.fore.call(func() {
		w.crowd.clear()
		w.since = w.fore.now()
	})
	return nil
}

// end is where it ends. What arrives later is checked, but not counted. With
// a known number of events, the last of them was the end.
func (w *work) end() error {
	w.fore.call(func() {
		if w.plan.Events == 0 {
			w.crowd.lastAt = w.fore.now()
		}
		w.seen = w.crowd.result(w.since)
	})
	return w.talk.mark("end")
}

// await waits until it is ok, asked in the thread of the clients, or until a
// response made no sense.
func (w *work) await(what string, ok func() bool) error {
	deadline := time.Now().Add(w.plan.Patience)
	for {
		var yes bool
		var state string
		w.fore.call(func() {
			if yes = ok() || w.crowd.err != nil; !yes {
				c := w.crowd
				state = fmt.Sprintf("%d answered, %d with a first event, %d at the end, %d cut, %d refused, %d events",
					c.heads, c.primed, c.ended, c.cut, c.refused, c.events)
			}
		})
		if yes {
			return nil
		}
		if time.Now().After(deadline) {
			return fmt.Errorf("waited %v for %s: %s", w.plan.Patience, what, state)
		}
		time.Sleep(3 * time.Millisecond)
	}
}

// rush is how many clients may be on their way in at the same time: fewer than
// any listener's backlog.
const rush = 128

// enter connects clients first to last, each asking for what path says, and
// waits until each has an answer.
func (w *work) enter(clients []*client, path func(*client) string) error {
	var heads int
	w.fore.call(func() { heads = w.crowd.heads + w.crowd.cut })
	for i := 0; i < len(clients); i += rush {
		group := clients[i:min(i+rush, len(clients))]
		var err error
		w.fore.call(func() {
			for j, cl := range group {
				n := (i + j) % len(w.addrs)
				if err = cl.connect(w.addrs[n], request(w.front.Clients[n], path(cl), nil)); err != nil {
					return
				}
			}
		})
		if err != nil {
			return err
		}
		want := heads + i + len(group)
		if err := w.await("answers", func() bool { return w.crowd.heads+w.crowd.cut >= want }); err != nil {
			return err
		}
	}
	return nil
}

// primed waits until every one of n clients has its first events.
func (w *work) primed(n int) error {
	return w.await("first events", func() bool { return w.crowd.primed >= n || w.crowd.cut+w.crowd.ended > 0 })
}

func ownStream(cl *client) string { return fmt.Sprintf("/s/%d", cl.src) }

func (w *work) subscription(*client) string { return w.front.Subscribe }

// make makes n clients, with streams of their own, or following what is
// published.
func (w *work) make(n int, own bool) []*client {
	clients := make([]*client, n)
	w.fore.call(func() {
		for i := range clients {
			src := i
			if !own {
				src = -1
			}
			clients[i] = w.crowd.newClient(src)
		}
	})
	return clients
}

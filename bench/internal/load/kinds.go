//go:build linux

package load

import (
	"errors"
	"fmt"
	"time"
)

// stream has each client follow a stream of the service: its own (Proxied), or
// the one that all join (Joined).
func (w *work) stream() error {
	w.clients = w.make(w.plan.Clients, true)
	if w.plan.Kind == Joined {
		for _, cl := range w.clients {
			cl.src = 0
		}
	}
	if err := w.enter(w.clients, ownStream); err != nil {
		return err
	}
	if err := w.primed(len(w.clients)); err != nil {
		return err
	}
	if w.plan.Events > 0 {
		if err := w.begin(); err != nil {
			return err
		}
		if err := w.up.start(); err != nil {
			return err
		}
		if err := w.ended(len(w.clients)); err != nil {
			return err
		}
		return errors.Join(w.end(), w.complete())
	}
	if err := w.up.start(); err != nil {
		return err
	}
	time.Sleep(w.plan.Warm)
	if err := w.begin(); err != nil {
		return err
	}
	time.Sleep(w.plan.Lasts)
	return errors.Join(w.end(), w.complete())
}

// ended waits until n clients are at their end, or cut.
func (w *work) ended(n int) error {
	return w.await("the end of all streams", func() bool { return w.crowd.ended+w.crowd.cut >= n })
}

// complete ends the streams of the service and looks whether every client got
// all of its own.
func (w *work) complete() error {
	had := w.up.stop()
	err := w.ended(len(w.clients))
	w.fore.call(func() {
		for _, cl := range w.clients {
			cl.end(0, had[cl.src], &w.crowd.faults)
		}
	})
	return err
}

// short asks for stream after stream, each over a connection of its own, or
// for subscription after subscription (Glance).
func (w *work) short() error {
	total := w.plan.Streams
	begun := 0
	var failed error
	c := w.crowd
	ask := func(cl *client) {
		cl.expect(1)
		path := w.front.Subscribe
		if w.plan.Kind == Short {
			cl.src = begun
			path = ownStream(cl)
		}
		n := begun % len(w.addrs)
		begun++
		if err := cl.connect(w.addrs[n], request(w.front.Clients[n], path, nil)); err != nil {
			failed = errors.Join(failed, err)
		}
	}
	if w.plan.Kind == Glance {
		c.until = func(cl *client) bool { return cl.resp.headed() }
	}
	c.left = func(cl *client) {
		now := c.l.now()
		c.whole.Add(now - cl.begun)
		c.lastAt = now
		if w.plan.Kind == Short {
			cl.end(0, uint32(w.plan.Events), &c.faults)
		}
		if begun < total && failed == nil {
			ask(cl)
		}
	}
	w.clients = w.make(min(w.plan.Clients, total), w.plan.Kind == Short)
	if err := w.begin(); err != nil {
		return err
	}
	w.fore.call(func() {
		for _, cl := range w.clients {
			ask(cl)
		}
	})
	err := w.await("the end of all streams", func() bool {
		return c.ended+c.cut >= total || failed != nil
	})
	return errors.Join(err, failed, w.end())
}

// fan publishes to subscribers.
func (w *work) fan() error {
	if err := w.subscribe(w.plan.Clients); err != nil {
		return err
	}
	c := w.crowd
	start := func() (err error) {
		w.back.call(func() { err = w.press.start() })
		return err
	}
	if w.plan.Events == 0 {
		if err := start(); err != nil {
			return err
		}
		time.Sleep(w.plan.Warm)
	}
	if err := w.begin(); err != nil {
		return err
	}
	if w.plan.Events > 0 {
		if err := start(); err != nil {
			return err
		}
		want := int64(w.press.each()) * int64(w.plan.Publishers) * int64(len(w.clients))
		if err := w.await("all that was published", func() bool {
			return c.events >= want || c.cut > 0 || c.any() || w.failed() // what is lost will not come
		}); err != nil {
			return err
		}
		if w.failed() {
			return errPublish
		}
		return w.end()
	}
	time.Sleep(w.plan.Lasts)
	return errors.Join(w.end(), w.drained())
}

// failed says whether a publisher failed.
func (w *work) failed() (yes bool) {
	w.back.call(func() { yes = w.press.err != nil })
	return yes
}

// subscribe has n clients subscribe, and publishes the first events, which all
// of them must get.
func (w *work) subscribe(n int) error {
	if err := w.enterAll(n); err != nil {
		return err
	}
	return w.prime(n)
}

// enterAll has n clients subscribe.
func (w *work) enterAll(n int) error {
	w.plan.Publishers = max(w.plan.Publishers, 1)
	w.fore.call(func() { w.crowd.sources, w.crowd.primed = w.plan.Publishers, 0 })
	w.clients = w.make(n, false)
	return w.enter(w.clients, w.subscription)
}

// prime publishes the first events and waits until n subscribers have them.
func (w *work) prime(n int) error {
	if err := w.openPress(); err != nil { // not before: a server may close connections that stay silent at first
		return err
	}
	w.back.call(func() {
		for _, pub := range w.press.pubs {
			pub.seq = 0 // there may have been subscribers before these
		}
		w.press.prime()
	})
	err := w.await("first events", func() bool {
		return w.crowd.primed >= n || w.crowd.cut > 0 || w.failed()
	})
	if err == nil && w.failed() {
		return errPublish // the press knows more
	}
	return err
}

// errPublish means that a publisher failed.
var errPublish = errors.New("publishing failed")

// openPress connects the publishers, unless that is done.
func (w *work) openPress() (err error) {
	if w.press != nil {
		return nil
	}
	w.back.call(func() { w.press, err = newPress(w.back, w.plan, w.front) })
	return err
}

// drained stops the publishers and waits until every subscriber has all that
// was published.
func (w *work) drained() error {
	had := make([]uint32, len(w.press.pubs))
	idle := func() (yes bool) {
		w.back.call(func() {
			w.press.stop()
			yes = true
			for i, pub := range w.press.pubs {
				had[i] = pub.seq
				yes = yes && pub.sent == 0
			}
		})
		return yes
	}
	if err := w.await("the answers to publishes", func() bool { return idle() || w.failed() }); err != nil {
		return err
	}
	if w.failed() {
		return errPublish
	}
	err := w.await("all that was published", func() bool {
		for _, cl := range w.clients {
			for i, n := range had {
				if cl.next[i] < n {
					return false
				}
			}
		}
		return true
	})
	w.fore.call(func() {
		for _, cl := range w.clients {
			for i, n := range had {
				cl.end(i, n, &w.crowd.faults)
			}
		}
	})
	return err
}

// idle lets a first round of clients come and go, and looks at the program with
// no clients, with all of them, and when each of them got a message; where each
// has a stream of its own, the first event comes with the answer.
func (w *work) idle() error {
	enter := w.enterAll
	if !w.plan.Published {
		enter = w.enterStreams
	}
	first := max(w.plan.Clients/8, 1)
	if err := enter(first); err != nil {
		return fmt.Errorf("first round: %w", err)
	}
	var err error
	if w.plan.Published {
		err = w.prime(first)
		w.fore.call(func() {
			for _, cl := range w.clients {
				cl.close()
			}
		})
	} else {
		err = w.complete() // ended, so that nothing is kept for who may come back
	}
	if err != nil {
		return fmt.Errorf("first round: %w", err)
	}
	w.fore.call(func() { w.crowd.ended, w.crowd.cut = 0, 0 })
	time.Sleep(w.plan.Settle)
	if err := w.talk.mark("empty"); err != nil {
		return err
	}
	if err := enter(w.plan.Clients); err != nil {
		return err
	}
	time.Sleep(w.plan.Settle)
	if err := w.talk.mark("full"); err != nil || !w.plan.Published {
		return err
	}
	if err := w.prime(w.plan.Clients); err != nil {
		return err
	}
	time.Sleep(w.plan.Settle)
	return w.talk.mark("used")
}

// enterStreams has n clients begin streams of their own, each with a first
// event.
func (w *work) enterStreams(n int) error {
	w.fore.call(func() { w.crowd.primed = 0 })
	w.clients = w.make(n, true)
	if err := w.enter(w.clients, ownStream); err != nil {
		return err
	}
	return w.primed(n)
}

// resume cuts all clients at once and has them come back elsewhere, where they
// must miss nothing.
func (w *work) resume() error {
	c := w.crowd
	c.keepIDs = true
	back, err := address(w.front.Back)
	if err != nil {
		return err
	}
	w.clients = w.make(w.plan.Clients, true)
	if err := w.enter(w.clients, ownStream); err != nil {
		return err
	}
	if err := w.primed(len(w.clients)); err != nil {
		return err
	}
	if err := w.up.start(); err != nil {
		return err
	}
	time.Sleep(w.plan.Warm)
	w.fore.call(func() {
		for _, cl := range w.clients {
			cl.close()
			cl.newID = cl.newID[:0] // an event that was begun counts for nothing
		}
	})
	time.Sleep(w.plan.Away)
	if err := w.begin(); err != nil {
		return err
	}
	w.fore.call(func() {
		for _, cl := range w.clients {
			if err = cl.connect(back, request(w.front.Back, ownStream(cl), cl.lastID)); err != nil {
				return
			}
		}
	})
	if err != nil {
		return err
	}
	time.Sleep(w.plan.Lasts)
	err = w.await("everybody's first event", func() bool {
		return c.first.Count() >= int64(len(w.clients)) || c.cut > 0
	})
	w.fore.call(func() {
		for _, cl := range w.clients {
			if cl.lastOld > cl.begun {
				c.whole.Add(cl.lastOld - cl.begun)
			}
		}
	})
	return errors.Join(err, w.end(), w.complete())
}

// replay makes a past of many events, and then has clients ask for it: all of a
// stream behind its first event, or all that was published.
func (w *work) replay() error {
	past := w.past
	if w.plan.Published {
		past = w.publishedPast
	}
	ask, err := past()
	if err != nil {
		return err
	}
	c := w.crowd
	c.left = func(cl *client) {
		c.whole.Add(c.l.now() - cl.begun)
		cl.end(0, uint32(w.plan.Events), &c.faults)
	}
	c.until = func(cl *client) bool { return int(cl.next[0]) >= w.plan.Events }
	w.fore.call(func() { c.ended = 0 })
	if err := w.begin(); err != nil {
		return err
	}
	w.fore.call(func() {
		for i := range w.plan.Clients {
			cl, n := c.newClient(0), i%len(w.addrs)
			if err = ask(cl, n); err != nil {
				return
			}
		}
	})
	if err != nil {
		return err
	}
	return errors.Join(w.ended(w.plan.Clients), w.end())
}

// past lets a first client read a whole stream, and returns how others ask for
// what follows its first event.
func (w *work) past() (func(cl *client, n int) error, error) {
	w.crowd.keepIDs = true
	first := w.make(1, true)
	if err := w.enter(first, ownStream); err != nil {
		return nil, err
	}
	if err := w.ended(1); err != nil {
		return nil, err
	}
	w.crowd.keepIDs = false
	id := first[0].firstID
	if len(id) == 0 {
		return nil, errors.New("the events have no ids")
	}
	return func(cl *client, n int) error {
		cl.next[0] = 1
		return cl.connect(w.addrs[n], request(w.front.Clients[n], ownStream(cl), id))
	}, nil
}

// publishedPast publishes what nobody follows, and returns how to ask for all
// of it.
func (w *work) publishedPast() (func(cl *client, n int) error, error) {
	w.plan.Publishers = 1
	if err := w.openPress(); err != nil {
		return nil, err
	}
	var err error
	w.back.call(func() { err = w.press.start() })
	if err != nil {
		return nil, err
	}
	err = w.await("the answers to publishes", func() (yes bool) {
		w.back.call(func() {
			pub := w.press.pubs[0]
			yes = w.press.err != nil || int(pub.seq) >= w.plan.Events && pub.sent == 0
		})
		return yes
	})
	return func(cl *client, n int) error {
		return cl.connect(w.addrs[n], request(w.front.Clients[n], w.front.Past, nil))
	}, err
}

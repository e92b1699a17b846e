// Package discovertest is what every source of endpoints must keep, as tests.
package discovertest

import (
	"context"
	"runtime"
	"slices"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"ssegate/discover"
)

// World is a source whose services are known.
type World struct {
	Source discover.Source
	// Set makes these URLs the endpoints of a service.
	Set func(service string, urls ...string)
}

// patience bounds every wait of the suite: generous, for the machine is busy.
const patience = 30 * time.Second

// Run runs the suite. Each test opens a world of its own with these services.
func Run(t *testing.T, open func(t *testing.T, services map[string][]string) World) {
	services := map[string][]string{
		"one":  {"http://127.0.0.1:8001"},
		"many": {"http://127.0.0.1:8002", "http://[::1]:8003", "https://127.0.0.1:8004"},
	}
	for _, c := range []struct {
		name string
		test func(*testing.T, World)
	}{
		{"FirstList", firstList},
		{"EndsWithContext", endsWithContext},
		{"Unknown", unknown},
		{"TwoWatchers", twoWatchers},
		{"Changes", changes},
	} {
		t.Run(c.name, func(t *testing.T) {
			NoLeak(t)
			c.test(t, open(t, services))
		})
	}
}

// Watching is a Watch that goes on.
type Watching struct {
	t     testing.TB
	lists chan []discover.Endpoint
	ended chan error
	stop  context.CancelFunc
}

// Watch begins to watch; the test's end ends it.
func Watch(t testing.TB, s discover.Source, service string) *Watching {
	ctx, cancel := context.WithCancel(context.Background())
	w := &Watching{t: t, lists: make(chan []discover.Endpoint, 1000), ended: make(chan error, 1), stop: cancel}
	var in atomic.Int32
	go func() {
		err := s.Watch(ctx, service, func(list []discover.Endpoint) {
			if in.Add(1) != 1 {
				t.Error("two updates at a time")
			}
			runtime.Gosched()
			w.lists <- slices.Clone(list)
			in.Add(-1)
		})
		w.ended <- err
	}()
	t.Cleanup(func() { w.End() })
	return w
}

// End ends the Watch and returns its error. It may be called again.
func (w *Watching) End() error {
	w.t.Helper()
	w.stop()
	select {
	case err := <-w.ended:
		w.ended <- err
		return err
	case <-time.After(patience):
		w.t.Fatal("Watch goes on although its context is done")
		return nil
	}
}

// Want waits until the list has these URLs, in any order, and returns it.
func (w *Watching) Want(urls ...string) []discover.Endpoint {
	w.t.Helper()
	slices.Sort(urls)
	last := "none"
	timeout := time.After(patience)
	for {
		select {
		case list := <-w.lists:
			if last = strings.Join(sorted(list), " "); last == strings.Join(urls, " ") {
				return list
			}
		case err := <-w.ended:
			w.ended <- err
			w.t.Fatalf("Watch ended with %v; want a list of %q", err, urls)
		case <-timeout:
			w.t.Fatalf("last list: %s; want %q", last, urls)
		}
	}
}

// Next returns the next list, sorted, as one text.
func (w *Watching) Next() string {
	w.t.Helper()
	select {
	case list := <-w.lists:
		return strings.Join(sorted(list), " ")
	case err := <-w.ended:
		w.ended <- err
		w.t.Fatalf("Watch ended with %v", err)
	case <-time.After(patience):
		w.t.Fatal("no list")
	}
	return ""
}

// Quiet fails if a list is waiting.
func (w *Watching) Quiet() {
	w.t.Helper()
	select {
	case list := <-w.lists:
		w.t.Errorf("a list that nobody asked for: %v", list)
	default:
	}
}

func sorted(list []discover.Endpoint) []string {
	var urls []string
	for _, e := range list {
		urls = append(urls, e.URL)
	}
	slices.Sort(urls)
	return urls
}

func firstList(t *testing.T, w World) {
	one := Watch(t, w.Source, "one").Want("http://127.0.0.1:8001")
	if one[0].ID == "" {
		t.Error("an endpoint without an id")
	}
	many := Watch(t, w.Source, "many").Want("http://127.0.0.1:8002", "http://[::1]:8003", "https://127.0.0.1:8004")
	ids := map[string]bool{}
	for _, e := range many {
		ids[e.ID] = true
	}
	if len(ids) != len(many) {
		t.Errorf("ids are not unique: %v", many)
	}
}

func endsWithContext(t *testing.T, w World) {
	watch := Watch(t, w.Source, "one")
	watch.Want("http://127.0.0.1:8001")
	if err := watch.End(); err != nil {
		t.Errorf("Watch: %v, want nil", err)
	}
	watch.Quiet()

	done, cancel := context.WithCancel(t.Context())
	cancel()
	if err := w.Source.Watch(done, "one", func([]discover.Endpoint) { t.Error("an update after the end") }); err != nil {
		t.Errorf("Watch with a context that is done: %v", err)
	}
}

// unknown: a service that is not there yet has no endpoints.
func unknown(t *testing.T, w World) {
	watch := Watch(t, w.Source, "nowhere")
	watch.Want()
	w.Set("nowhere", "http://127.0.0.1:9")
	watch.Want("http://127.0.0.1:9")
}

func twoWatchers(t *testing.T, w World) {
	a, b := Watch(t, w.Source, "one"), Watch(t, w.Source, "one")
	a.Want("http://127.0.0.1:8001")
	b.Want("http://127.0.0.1:8001")
	if err := a.End(); err != nil {
		t.Error(err)
	}
	w.Set("one", "http://127.0.0.1:9")
	b.Want("http://127.0.0.1:9")
	a.Quiet()
}

func changes(t *testing.T, w World) {
	watch := Watch(t, w.Source, "one")
	first := watch.Want("http://127.0.0.1:8001")
	w.Set("one", "http://127.0.0.1:8001", "http://127.0.0.1:9001")
	for _, e := range watch.Want("http://127.0.0.1:8001", "http://127.0.0.1:9001") {
		if e.URL == first[0].URL && e.ID != first[0].ID {
			t.Errorf("the id of one that stayed was %s and is %s", first[0].ID, e.ID)
		}
	}
	w.Set("one")
	watch.Want()
	w.Set("many") // another service
	w.Set("one", "http://127.0.0.1:9002")
	watch.Want("http://127.0.0.1:9002")
}

// NoLeak fails the test if it leaves goroutines behind. It is called before
// anything that is ended by a Cleanup.
func NoLeak(t testing.TB) {
	before := runtime.NumGoroutine()
	t.Cleanup(func() {
		for end := time.Now().Add(patience / 3); runtime.NumGoroutine() > before; time.Sleep(time.Millisecond) {
			if time.Now().After(end) {
				buf := make([]byte, 1<<20)
				t.Errorf("%d goroutines, %d before:\n%s", runtime.NumGoroutine(), before, buf[:runtime.Stack(buf, true)])
				return
			}
		}
	})
}

package e2e

import (
	"fmt"
	"net/http"
	"net/http/httptest"
	"net/url"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	. "ssegate/internal/gatetest"
	"ssegate/internal/gatetest/browser"
	"ssegate/internal/gatetest/built"
	"ssegate/internal/gatetest/service"
)

// example is the folder of an example.
func example(t *testing.T, name string) string {
	t.Helper()
	root, err := built.Root()
	if err != nil {
		t.Fatal(err)
	}
	return filepath.Join(root, "examples", name)
}

// page is the example page in a browser.
type page struct {
	*browser.Browser
	t *testing.T
}

// start opens the page and presses Start.
func (p page) start(site, stream string) {
	p.t.Helper()
	p.Go(site + "/?url=" + url.QueryEscape(stream))
	p.Until(fmt.Sprintf("document.querySelector('#url')?.value === %q", stream))
	p.press("form button")
}

func (p page) press(button string) {
	p.t.Helper()
	p.Until(fmt.Sprintf("document.querySelector(%q)?.disabled === false", button))
	browser.Value[any](p.Browser, fmt.Sprintf("document.querySelector(%q).click()", button))
}

// seen are the events that the page shows, the oldest first.
func (p page) seen() []string {
	p.t.Helper()
	return browser.Value[[]string](p.Browser, "[...document.querySelectorAll('#events li')].map(li => li.lastChild.textContent).reverse()")
}

// shows waits until the page shows so many events.
func (p page) shows(n int) {
	p.t.Helper()
	p.Until(fmt.Sprintf("document.querySelectorAll('#events li').length >= %d", n))
}

func (p page) text(selector string) string {
	p.t.Helper()
	return browser.Value[string](p.Browser, fmt.Sprintf("document.querySelector(%q).textContent", selector))
}

// over waits until the browser has given up, and sees to it that it asks no more.
func (p page) over(line *wire) {
	p.t.Helper()
	p.Until("state.textContent === 'over' && source.readyState === EventSource.CLOSED")
	asked := len(line.asked("/"))
	time.Sleep(time.Second) // several times what it waits before it comes back
	if again := len(line.asked("/")) - asked; again > 0 {
		p.t.Errorf("the browser asked %d times more", again)
	}
}

// TestBrowser reads through ssegate with the EventSource of a real Chromium, on
// the page of examples/eventsource.
func TestBrowser(t *testing.T) {
	tab := browser.Open(t)
	files := httptest.NewServer(http.FileServer(http.Dir(example(t, "eventsource"))))
	t.Cleanup(files.Close)
	t.Cleanup(func() {
		for _, e := range tab.Thrown() {
			t.Errorf("the page threw %s", e)
		}
	})
	toml, err := os.ReadFile(filepath.Join(example(t, "eventsource"), "ssegate.toml"))
	if err != nil {
		t.Fatal(err)
	}
	// site is the example's own configuration, in front of our backend.
	site := func(b *Backend) string {
		c := strings.NewReplacer("http://127.0.0.1:9000", files.URL, "http://127.0.0.1:8000", b.URL,
			`path = "/events"`, `path = "/hold"`, `retry = "1s"`, `retry = "300ms"`).Replace(string(toml))
		if strings.Count(c, files.URL) != 1 || strings.Count(c, b.URL) != 1 || !strings.Contains(c, "/hold") || !strings.Contains(c, "300ms") {
			t.Fatalf("the example's configuration is another one:\n%s", c)
		}
		return c
	}

	t.Run("line cut", func(t *testing.T) {
		b := NewBackend(t)
		n := Start(t, bin, "one", site(b))
		line := newWire(t, n.URL)
		p := page{tab, t}
		p.start(line.URL, "/hold")
		run := b.Next()
		run.Head()
		sent := 0
		send := func(count int) {
			for range count {
				sent++
				run.Send(fmt.Sprintf("data: %d\n\n", sent))
			}
		}
		for range 3 {
			send(5)
			p.shows(sent)
			asked := len(line.asked("/hold"))
			hints := regexp.MustCompile(`\nretry: (\d+)`).FindAllSubmatch(line.since(0), -1)
			cut := time.Now()
			line.Cut()
			send(5) // nobody is there
			p.shows(sent)
			back := line.asked("/hold")[asked].at.Sub(cut)
			// Each answer tells it once how long to wait. Its own idea is 3 s.
			if len(hints) != asked {
				t.Fatalf("%d answers had %d retry hints", asked, len(hints))
			}
			told, _ := strconv.Atoi(string(hints[asked-1][1]))
			if wait := time.Duration(told) * time.Millisecond; wait < 150*time.Millisecond || wait > 450*time.Millisecond {
				t.Errorf("told to wait %v, want 300ms ± 50%%", wait)
			} else if back < wait-5*time.Millisecond || back > wait+2*time.Second {
				t.Errorf("came back after %v, and was told to wait %v", back, wait)
			}
		}
		if last := p.text("#last"); !strings.HasPrefix(last, "sg1.") {
			t.Errorf("the last id is %q", last)
		}
		run.Send("data: [DONE]\n\n")
		run.End()
		p.over(line)
		if got := p.seen(); !slices.Equal(got, Numbers(1, sent, true)) {
			t.Errorf("the page shows %q", got)
		}
		if runs := b.Runs("/hold"); runs != 1 {
			t.Errorf("the backend ran %d times", runs)
		}
	})

	t.Run("left, reloaded", func(t *testing.T) {
		b := NewBackend(t)
		n := Start(t, bin, "one", site(b))
		line := newWire(t, n.URL)
		p := page{tab, t}
		p.start(line.URL, "/hold")
		run := b.Next()
		run.Head()
		run.Send("data: 1\n\ndata: 2\n\n")
		p.shows(2)
		p.press("#leave")
		run.Send("data: 3\n\n")
		p.press("#back")
		p.shows(3)
		run.Send("data: 4\n\n")
		p.shows(4)
		if got := p.seen(); !slices.Equal(got, Numbers(1, 4, false)) {
			t.Errorf("the page shows %q", got)
		}
		p.Reload()
		p.Until("document.querySelector('#events li')?.lastChild.textContent === 'page loaded again'")
		p.Until("state.textContent === 'open'")
		run.Send("data: 5\n\n")
		p.shows(2)
		line.Cut() // now the header has a newer id than the query
		run.Send("data: [DONE]\n\n")
		run.End()
		p.over(line)
		if got, want := p.seen(), []string{"page loaded again", "5", "[DONE]"}; !slices.Equal(got, want) {
			t.Errorf("the page shows %q, want %q", got, want)
		}
		if runs := b.Runs("/hold"); runs != 1 {
			t.Errorf("the backend ran %d times", runs)
		}
	})

	t.Run("node killed", func(t *testing.T) {
		w := &world{redis: service.Redis(t), backend: NewBackend(t)}
		cluster := strings.TrimSuffix(w.together(""), config(w.backend.URL, ""))
		conf := cluster + strings.NewReplacer(`"/hold"`, `"/count"`, "retry =", "takeover = \"last-event-id\"\nretry =").Replace(site(w.backend))
		a, b := Start(t, bin, "a", conf), Start(t, bin, "b", conf)
		acquainted(t, a, b)
		line := newWire(t, a.URL)
		p := page{tab, t}
		p.start(line.URL, "/count?n=200&every=20ms&ids=1")
		p.shows(20)
		line.Lead(b.URL) // as a load balancer does that sees a die
		a.Kill()
		p.over(line)
		if got := p.seen(); !slices.Equal(got, Numbers(1, 200, true)) {
			t.Errorf("the page shows %q", got)
		}
		if id := p.text("#last"); id != "201" {
			t.Errorf("the last id is %q, want the backend's own", id)
		}
		if runs := w.backend.Runs("/count"); runs != 2 {
			t.Errorf("the backend ran %d times, want 2: from the start, and from where the dead node was", runs)
		}
	})

	t.Run("node leaves", func(t *testing.T) {
		w := &world{redis: service.Redis(t), backend: NewBackend(t)}
		cluster := strings.TrimSuffix(w.together(""), config(w.backend.URL, ""))
		conf := cluster + strings.ReplaceAll(site(w.backend), `"/hold"`, `"/count"`)
		a, b := Start(t, bin, "a", conf), Start(t, bin, "b", conf)
		acquainted(t, a, b)
		line := newWire(t, a.URL)
		p := page{tab, t}
		p.start(line.URL, "/count?n=200&every=20ms")
		p.shows(20)
		line.Lead(b.URL)
		a.Term()
		p.over(line)
		if got := p.seen(); !slices.Equal(got, Numbers(1, 200, true)) {
			t.Errorf("the page shows %q", got)
		}
		if runs := w.backend.Runs("/count"); runs != 1 {
			t.Errorf("the backend ran %d times", runs)
		}
		if code := a.Exited(); code != 0 {
			t.Errorf("the node that left ended with %d", code)
		}
	})

	// The page is from somewhere else, and the backend allows it to read.
	t.Run("another origin", func(t *testing.T) {
		b := NewBackend(t)
		n := Start(t, bin, "one", site(b))
		line := newWire(t, n.URL)
		for _, how := range []struct {
			name, allow string
			credentials bool
		}{{"any", "*", false}, {"this one, with cookies", files.URL, true}} {
			t.Run(how.name, func(t *testing.T) {
				p := page{tab, t}
				p.Go(files.URL + "/")
				p.Until("document.readyState === 'complete' && location.origin === '" + files.URL + "'")
				mode := "same-origin"
				kv := []string{"Access-Control-Allow-Origin", how.allow}
				if how.credentials {
					mode = "include"
					kv = append(kv, "Access-Control-Allow-Credentials", "true", "Access-Control-Expose-Headers", "X-Other", "X-Other", "it")
				}
				// By fetch, which may read the name of the stream, and come back by it.
				browser.Value[any](tab, fmt.Sprintf(`window.answer = fetch(%q, { credentials: %q }); null`, line.URL+"/hold", mode))
				run := b.Next()
				run.Head(kv...)
				run.Send("data: 1\n\n")
				name := browser.Value[string](tab, "answer.then((a) => a.headers.get('Ssegate-Stream'))")
				if name == "" {
					t.Error("fetch cannot read Ssegate-Stream")
				}
				if other := browser.Value[string](tab, "answer.then((a) => a.headers.get('X-Other') ?? '')"); how.credentials != (other == "it") {
					t.Errorf("fetch reads X-Other: %q", other)
				}
				run.Send("data: [DONE]\n\n")
				run.End()
				if text := browser.Value[string](tab, "answer.then((a) => a.text())"); strings.Count(text, "data: ") != 2 {
					t.Errorf("fetch reads %q", text)
				}

				// By EventSource, cut once, and to its end.
				browser.Value[any](tab, fmt.Sprintf(`{
					window.got = []
					window.theirs = new EventSource(%q, { withCredentials: %v })
					theirs.onmessage = (e) => { got.push(e.data) }
					null
				}`, line.URL+"/hold?by=eventsource", how.credentials))
				run = b.Next()
				run.Head(kv...)
				run.Send("data: 1\n\n")
				tab.Until("got.length === 1")
				line.Cut()
				run.Send("data: 2\n\ndata: [DONE]\n\n")
				run.End()
				tab.Until("theirs.readyState === EventSource.CLOSED")
				if got := browser.Value[[]string](tab, "got"); !slices.Equal(got, Numbers(1, 2, true)) {
					t.Errorf("EventSource got %q", got)
				}
				b.Idle()
			})
		}
	})
}

package e2e

import (
	"bytes"
	"fmt"
	"net"
	"regexp"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	. "ssegate/internal/gatetest"
	"ssegate/internal/gatetest/clients"
)

// wire is a relay in front of a node, so that a test sees the bytes that a
// client is sent, and can cut the line.
type wire struct {
	URL string
	t   testing.TB
	l   net.Listener
	wg  sync.WaitGroup

	mu   sync.Mutex
	to   string
	asks []ask
	open map[net.Conn]net.Conn // from client to node
	seen []byte                // what clients were sent
	more chan struct{}         // closed and replaced when something changes
}

// ask is one request on a wire.
type ask struct {
	head string
	at   time.Time
}

// newWire lays a wire to the host of url.
func newWire(t testing.TB, url string) *wire {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	w := &wire{URL: "http://" + l.Addr().String(), t: t, l: l, to: strings.TrimPrefix(url, "http://")}
	w.open, w.more = map[net.Conn]net.Conn{}, make(chan struct{})
	w.wg.Go(func() {
		for {
			c, err := l.Accept()
			if err != nil {
				return
			}
			w.wg.Go(func() { w.relay(c) })
		}
	})
	t.Cleanup(func() { l.Close(); w.Cut(); w.wg.Wait() })
	return w
}

func (w *wire) relay(client net.Conn) {
	defer client.Close()
	w.mu.Lock()
	to := w.to
	w.mu.Unlock()
	node, err := net.Dial("tcp", to)
	if err != nil {
		return
	}
	defer node.Close()
	w.change(func() { w.open[client] = node })
	defer w.change(func() { delete(w.open, client) })
	w.wg.Go(func() {
		defer node.Close() // a client that is gone is gone for good
		b := make([]byte, 32<<10)
		for {
			n, err := client.Read(b)
			if requestLine.Match(b[:n]) {
				w.change(func() { w.asks = append(w.asks, ask{string(b[:n]), time.Now()}) })
			}
			if _, werr := node.Write(b[:n]); err != nil || werr != nil {
				return
			}
		}
	})
	b := make([]byte, 32<<10)
	for {
		n, err := node.Read(b)
		client.Write(b[:n])
		w.change(func() { w.seen = append(w.seen, b[:n]...) })
		if err != nil {
			return
		}
	}
}

func (w *wire) change(what func()) {
	w.mu.Lock()
	defer w.mu.Unlock()
	what()
	close(w.more)
	w.more = make(chan struct{})
}

var requestLine = regexp.MustCompile(`^[A-Z]+ /\S* HTTP/1\.1\r\n`)

// Lead leads new connections to another node.
func (w *wire) Lead(url string) {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.to = strings.TrimPrefix(url, "http://")
}

// asked are the requests so far whose target begins with this.
func (w *wire) asked(target string) (asks []ask) {
	w.mu.Lock()
	defer w.mu.Unlock()
	for _, a := range w.asks {
		if _, rest, _ := strings.Cut(a.head, " "); strings.HasPrefix(rest, target) {
			asks = append(asks, a)
		}
	}
	return asks
}

// Cut ends all connections, as a network does that drops.
func (w *wire) Cut() {
	w.mu.Lock()
	defer w.mu.Unlock()
	for client, node := range w.open {
		client.Close()
		node.Close()
	}
}

// mark is where the wire is now, for Await.
func (w *wire) mark() int {
	w.mu.Lock()
	defer w.mu.Unlock()
	return len(w.seen)
}

// since is what clients were sent since mark.
func (w *wire) since(mark int) []byte {
	w.mu.Lock()
	defer w.mu.Unlock()
	return bytes.Clone(w.seen[mark:])
}

// Await waits until something has gone over the wire since mark, or nobody is
// there any more.
func (w *wire) Await(mark int, what *regexp.Regexp) {
	w.t.Helper()
	for bound := time.After(Patience); ; {
		w.mu.Lock()
		since, more, open := bytes.Clone(w.seen[mark:]), w.more, len(w.open)
		w.mu.Unlock()
		if what.Match(since) || open == 0 {
			return
		}
		select {
		case <-more:
		case <-bound:
			w.t.Fatalf("%q never went over the wire, but %q", what, since)
		}
	}
}

// beat is a heartbeat of ssegate's on the wire.
var beat = regexp.MustCompile(`[\r\n]:(\r\n|\r|\n)`)

// everything is a stream as a backend sends it, piece by piece, with all that
// a backend may do. "\n" stands for the line end, "@x " for an id of its own.
var everything = []string{
	": ping - 2026-11-22 10:00:00.000001+00:00\n\n",
	"@1 data: {\"n\":1}\n\n",
	": ping - 2026-11-22 10:00:00.000002+00:00\n\n",
	"@2 event: note\ndata: {\"n\":2,\"text\":\"\xe4\xb8", "\x96界 \u2028\"}\n\n",
	"@3 data:{\"n\":3}\n", "\n",
	"data: {\"n\":4,\ndata:  \"more\":[],\nda", "ta:\"x\":\"a: b\"}\n\n: ping\n\n",
	"retry: 1234\n@5 data: {\"n\":5}\n\n",
	": in the middle\n@6 data: {\"n\":6}\nunknown: x\nnonsense\n\n\n\n",
	"@seven-ü data: {\"n\":7}\n\ndata: {\"n\":8}\n\n@ data: {\"n\":9}\n\n",
}

var marker = []string{"@10 data: [DONE]\n\n"}

var ownID = regexp.MustCompile(`@(\S*) `)

// written is what a backend writes.
func written(eol string, ids bool, pieces ...[]string) []string {
	out := slices.Concat(pieces...)
	for i, p := range out {
		line := ""
		if ids {
			line = "id: $1\n"
		}
		out[i] = strings.ReplaceAll(ownID.ReplaceAllString(p, line), "\n", eol)
	}
	return out
}

// TestParsers: client libraries see through ssegate, with its ids and
// heartbeats on, what they see without it. Before each piece of the stream
// there is a heartbeat, so in the middle of what the backend writes as well.
func TestParsers(t *testing.T) {
	const bom, zero = "\ufeff", "@0 data: {\"n\":0}\n\n"
	first := []string{"@1 data: {\"n\":1}\n\n"}
	cases := []struct {
		name   string
		method string
		ids    bool // the backend's own
		cut    bool
		pieces []string
	}{
		{"LF", "GET", false, false, written("\n", false, everything, marker)},
		{"CRLF", "POST", false, false, written("\r\n", false, everything, marker)},
		{"CR", "POST", false, false, written("\r", false, everything, marker)},
		{"LF ids", "POST", true, false, written("\n", true, everything, marker)},
		{"CRLF ids", "GET", true, false, written("\r\n", true, everything, marker)},
		{"CR ids", "POST", true, false, written("\r", true, everything, marker)},
		{"BOM", "POST", false, false, written("\n", false, []string{bom[:1], bom[1:] + zero}, first)},
		{"BOM ids", "GET", true, false, written("\r\n", true, []string{bom + zero}, first)},
		{"cut", "POST", false, true, written("\r\n", false, everything)},
		{"cut ids", "GET", true, true, written("\n", true, everything)},
		{"cut in an event", "POST", false, true, written("\n", false, first, []string{"data: {\"n\":2}\nda"})},
		{"unfinished", "POST", false, false, written("\n", false, first, []string{"data: {\"n\":2}\n"})},
		{"unfinished ids", "GET", true, false, written("\r\n", true, first, []string{"@2 data: {\"n\":2}"})},
	}
	for _, library := range clients.All() {
		t.Run(library, func(t *testing.T) {
			t.Parallel()
			b := NewBackend(t)
			n := Start(t, bin, "one", config(b.URL, "heartbeat = \"20ms\"\n"))
			line := newWire(t, n.URL)
			for _, tt := range cases {
				t.Run(tt.name, func(t *testing.T) {
					opts := clients.Options{Types: []string{"note"}, Method: tt.method}
					if library == clients.EventSource || library == clients.Undici {
						opts.Method = "GET"
					} else if tt.method == "POST" {
						opts.Body, opts.Header = "{}", map[string]string{"Content-Type": "application/json"}
					}
					read := func(url string, before func()) (all []clients.Event) {
						r := clients.Open(t, library, url+"/hold", opts)
						run := b.Next()
						run.Head()
						for _, p := range tt.pieces {
							before()
							run.Send(p)
						}
						if tt.cut {
							run.Cut()
						} else {
							run.End()
						}
						for e, ok := r.Next(); ok; e, ok = r.Next() {
							all = append(all, e)
						}
						return all
					}
					without := read(b.URL, func() {})
					with := read(line.URL, func() { line.Await(line.mark(), beat) })
					if !tt.ids {
						with = edgeIDs(t, library, with, tt.name == "unfinished")
					}
					if library == clients.OpenAIPython && tt.name == "BOM" {
						// It trips over a BOM, which ssegate drops.
						without = slices.Concat([]clients.Event{{Type: "message", Data: `{"n":0}`}}, without)
					}
					if library == clients.FetchEventSource {
						without, with = fetched(t, tt.ids, without, with)
					}
					if !slices.Equal(without, with) {
						t.Errorf("without ssegate %+v\nwith ssegate    %+v", without, with)
					}
				})
			}
		})
	}
}

// edgeIDs wants an id of ssegate's on each event, another one each time, and
// returns the events without them.
func edgeIDs(t *testing.T, library string, events []clients.Event, unfinished bool) []clients.Event {
	t.Helper()
	seen := map[string]bool{}
	for i, e := range events {
		if library == clients.OpenAI || library == clients.OpenAIPython || e.Data == "" {
			continue // no event, or from a library that tells no ids
		}
		half := unfinished && i == len(events)-1 // it bears no id: nobody is to come back behind it
		if !half && (!strings.HasPrefix(e.ID, "sg1") || seen[e.ID]) {
			t.Errorf("event %d, %q, came with the id %q", i, e.Data, e.ID)
		}
		seen[e.ID] = true
		events[i].ID = ""
	}
	return events
}

// fetched takes out what fetch-event-source makes of nothing, which is an empty
// event, and the retry hint that ssegate adds for it. With ssegate there are
// fewer of the former, and none once its own ids are on.
func fetched(t *testing.T, ids bool, without, with []clients.Event) ([]clients.Event, []clients.Event) {
	t.Helper()
	count := func(events []clients.Event) (rest []clients.Event, empty int) {
		for _, e := range events {
			if e == (clients.Event{Type: "message"}) {
				empty++
				continue
			}
			rest = append(rest, e)
		}
		return rest, empty
	}
	without, before := count(without)
	with, after := count(with)
	if after > before || after > 0 && !ids {
		t.Errorf("%d empty events without ssegate, %d with it", before, after)
	}
	if len(with) > 0 && len(without) > 0 && without[0].Retry == 0 {
		with[0].Retry = 0
	}
	return without, with
}

// TestParsersComeBack: libraries that come back by themselves, after a line
// that was cut twice, see each event once, and then that it is over.
func TestParsersComeBack(t *testing.T) {
	for _, library := range []string{clients.EventSource, clients.Undici, clients.FetchEventSource, clients.SSEjs} {
		for _, own := range []bool{false, true} {
			t.Run(fmt.Sprintf("%s, ids %v", library, own), func(t *testing.T) {
				t.Parallel()
				b := NewBackend(t)
				n := Start(t, bin, "one", config(b.URL, "heartbeat = \"20ms\"\nretry = \"50ms\"\n"))
				line := newWire(t, n.URL)
				opts := clients.Options{Reconnects: 4}
				standard := library == clients.EventSource || library == clients.Undici
				if !standard {
					opts.Method, opts.Body = "POST", "{}"
					opts.Until = "[DONE]"
				}
				r := clients.Open(t, library, line.URL+"/hold", opts)
				run := b.Next()
				run.Head()
				i := 0
				send := func(count int) {
					for range count {
						i++
						if own {
							run.Send(fmt.Sprintf("id: own-%d\n", i))
						}
						run.Send(fmt.Sprintf("data: %d\n\n", i))
					}
				}
				var got []string
				next := func() (e clients.Event, ok bool) {
					for e, ok = r.Next(); ok && e.Error != "" && e.Data == "" && i < 30; e, ok = r.Next() {
						t.Logf("after %q: %s", got, e.Error)
					}
					got = append(got, e.Data)
					return e, ok
				}
				for range 3 {
					send(5)
					for len(got) < i {
						next()
					}
					line.Cut()
					send(5) // nobody is there
				}
				for len(got) < i {
					next()
				}
				if own {
					run.Send("id: own-end\n")
				}
				run.Send("data: [DONE]\n\n")
				run.End()
				next()
				if want := Numbers(1, 30, true); !slices.Equal(got, want) {
					t.Fatalf("saw %q\nwant %q", got, want)
				}
				if e, ok := r.Next(); standard && (!ok || e.Error == "" || library == clients.EventSource && e.Status != 204) {
					t.Errorf("at the end saw %+v, %v", e, ok)
				}
				if runs := b.Runs("/hold"); runs != 1 {
					t.Errorf("the backend ran %d times", runs)
				}
			})
		}
	}
}

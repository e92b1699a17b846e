package demo

import (
	"encoding/json"
	"fmt"
	"net"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"
	"time"

	"ssegate/internal/gatetest/browser"
)

// TestPage does in a real browser what a person would do: asks, cuts the
// connection and comes back, reloads, hops, kills the node that reads the
// model and then the one that serves the page, starts one again. Every word
// must come once, and the model be asked once.
func TestPage(t *testing.T) {
	for _, mode := range []string{"eventsource", "post"} {
		t.Run(mode, func(t *testing.T) {
			d := running(t)
			b := tab{browser.Open(t)}
			b.Go(d.URL())
			b.Until("document.querySelector('#ask')?.disabled === false") // the page is ready
			b.Click("input[value=" + mode + "]")
			b.Click("input[value='60']")
			words := func(n int) {
				b.Until(fmt.Sprintf("document.querySelector('#received')?.textContent >= %d", n))
			}
			b.Click("#ask")
			words(5)
			unwanted, _, _ := strings.Cut(b.text("#last-id"), ".")
			b.Until("document.querySelector('#stream').textContent !== 'none'")                                 // the page knows the stream's name
			b.Click("#ask")                                                                                     // again: the first answer is not wanted any more
			b.Until(fmt.Sprintf("!document.querySelector('#last-id').textContent.startsWith('%s.')", unwanted)) // another answer begins
			words(12)
			b.Until("document.querySelector('.node.n1.reads.serves')") // node 1 is seen to read and to serve

			b.Click("#cut")
			run, _, _ := strings.Cut(b.text("#last-id"), ".")
			received := b.text("#received")
			b.Until("document.querySelectorAll('.cell.waits').length > 5") // the page sees the model go on without it
			if now := b.text("#received"); now != received {
				t.Errorf("there were %s words at the cut, and %s later", received, now)
			}
			b.Click("#cut")                                               // which says "Come back" now
			b.Until("document.querySelectorAll('.cell.late').length > 5") // the missed words are there
			words(40)

			b.Reload()
			b.Until("log.textContent.includes('page loaded again')") // the page is there again and goes on
			words(55)

			b.Click(".node.n2 .hop")
			b.Until("document.querySelector('.node.n2.serves') && document.querySelector('.node.n1.reads')") // node 2 serves and node 1 reads
			words(70)

			b.Click(".node.n1 .kill")
			b.Until("document.querySelector('.node.n1.off')") // node 1 is down
			refused(t, "127.0.0.1:"+d.nodes.state()[0].Port)
			b.Until("document.querySelector('.node.reads:not(.n1)')") // another node has taken over
			words(90)

			// Just behind a word: one that the page has seen and the log has
			// not would have to be told twice.
			b.Until(fmt.Sprintf("received.textContent > %s", b.text("#received"))) // a word comes
			b.Click(".node.n2 .kill")
			b.Until("document.querySelector('.node.n3.serves')")    // the page has come back at node 3
			b.Click(".node.n1 .kill")                               // which says "Start" now
			b.Until("document.querySelector('.node.n1:not(.off)')") // node 1 is up
			b.Click(".node.n1 .hop")
			b.Until("document.querySelector('.node.n1.serves')") // node 1 serves again

			b.Until("document.querySelector('.story.good, .story.wrong')")                                             // the answer has ended
			b.Until(fmt.Sprintf("document.querySelector('#goes-on').textContent == %d", d.model.state(run).Continued)) // the page knows how often the model went on
			shown := browser.Value[[]string](b.Browser, "[...prose.querySelectorAll('span')].map(e => e.textContent)")
			if got, want := strings.Join(shown, " "), strings.Join(d.model.words, " "); got != want {
				t.Errorf("the page shows\n%s\nwant\n%s", got, want)
			}
			cells := browser.Value[int](b.Browser, "document.querySelectorAll('#ledger .cell:is(.n1, .n2, .n3):not(.wrong, .waits)').length")
			if cells != len(d.model.words) {
				t.Errorf("%d cells are filled, want %d", cells, len(d.model.words))
			}
			for id, want := range map[string]string{
				"#received": fmt.Sprint(len(d.model.words)), "#lost": "0", "#repeated": "0", "#runs": "1",
				"#story": fmt.Sprintf("All %d words, each once and in order.", len(d.model.words)),
			} {
				if got := b.text(id); !strings.HasPrefix(got, want) {
					t.Errorf("%s says %q, want %q", id, got, want)
				}
			}
			// Node 1 died as reader; node 2 only if it had taken over.
			if s := d.model.state(run); s.Started != 1 || s.Continued < 1 || s.Continued > 2 {
				t.Errorf("the model was asked %d times and went on %d times", s.Started, s.Continued)
			}
			if s := d.model.state(unwanted); s.Word == len(d.model.words) {
				t.Error("the model has written the whole of an answer that was not wanted any more")
			}
			if tried := browser.Value[int](b.Browser, "document.querySelectorAll('#try .done').length"); tried != 4 {
				t.Errorf("%d of 4 things count as tried", tried)
			}
			for _, e := range b.Thrown() {
				t.Errorf("the page threw %s", e)
			}
			if t.Failed() {
				t.Logf("the page's log:\n%s", b.log())
			}
		})
	}
}

// tab is the demo's page in a browser.
type tab struct{ *browser.Browser }

// text is the text of the first element that a selector finds.
func (b tab) text(selector string) string {
	return browser.Value[string](b.Browser, fmt.Sprintf("document.querySelector(%q)?.textContent ?? ''", selector))
}

// log is what the page has noted, newest first.
func (b tab) log() string {
	return browser.Value[string](b.Browser, "document.querySelector('#log').innerText")
}

// refused waits until nobody listens at an address any more.
func refused(t *testing.T, address string) {
	t.Helper()
	for end := time.Now().Add(5 * time.Second); ; {
		c, err := net.Dial("tcp", address)
		if err != nil {
			return
		}
		c.Close()
		if time.Now().After(end) {
			t.Fatalf("%s is still listened at", address)
		}
	}
}

// TestPageSeesFaults: the zeros of the counters mean something. A node that
// leaves words out, sends one twice and tells of a gap is found out.
func TestPageSeesFaults(t *testing.T) {
	nodes := http.NewServeMux()
	nodes.HandleFunc("/answer", func(w http.ResponseWriter, r *http.Request) {
		w.Header().Set("Access-Control-Allow-Origin", "*")
		w.Header().Set("Content-Type", "text/event-stream")
		for _, n := range []int{1, 2, 5, 6, 6, 7, 8} {
			data, _ := json.Marshal(word{n, fmt.Sprint("word", n), 1 << 50})
			fmt.Fprintf(w, "id: f.%d\ndata: %s\n\n", n, data)
		}
		fmt.Fprint(w, "event: ssegate.gap\ndata: {\"from\":3,\"to\":4}\n\nid: f.9\ndata: [DONE]\n\n")
	})
	node := httptest.NewServer(nodes)
	defer node.Close()
	port := node.URL[strings.LastIndex(node.URL, ":")+1:]
	pages := http.NewServeMux()
	pages.Handle("/", (&Demo{}).pages())
	pages.HandleFunc("/demo/state", func(w http.ResponseWriter, r *http.Request) {
		w.Header().Set("Content-Type", "text/event-stream")
		state, _ := json.Marshal(map[string]any{
			"now": 0, "words": 8, "run": runState{Started: 2, Word: 8},
			"nodes": []nodeState{{1, "node-1-x", port}, {2, "", port}, {3, "", port}},
		})
		fmt.Fprintf(w, "data: %s\n\n", state)
		http.NewResponseController(w).Flush()
		<-r.Context().Done()
	})
	front := httptest.NewServer(pages)
	defer front.Close()
	defer front.CloseClientConnections()

	b := tab{browser.Open(t)}
	b.Go(front.URL)
	b.Until("document.querySelector('#ask')?.disabled === false") // the page is ready
	b.Click("#ask")
	b.Until("document.querySelector('.story.wrong') && document.querySelector('.law.wrong #runs')") // there is a verdict
	for id, want := range map[string]string{"#received": "6", "#lost": "2", "#repeated": "1", "#runs": "2"} {
		if got := b.text(id); got != want {
			t.Errorf("%s says %q, want %q", id, got, want)
		}
	}
	wrong := browser.Value[[]string](b.Browser, "[...document.querySelectorAll('#ledger .wrong')].map(e => e.textContent)")
	if got := strings.Join(wrong, " "); got != "3 4 6" {
		t.Errorf("cells %s are red, want 3 4 6", got)
	}
	if v := b.text("#story"); !strings.Contains(v, "not as it should be") {
		t.Errorf("the verdict is %q", v)
	}
	if !strings.Contains(b.log(), "ssegate.gap") {
		t.Errorf("the gap is not in the log:\n%s", b.log())
	}
}

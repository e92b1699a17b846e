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
)

// TestPage does in a real browser what a person would do: asks, cuts the
// connection and comes back, reloads, hops, kills the node that reads the
// model and then the one that serves the page, starts one again. Every word
// must come once, and the model be asked once.
func TestPage(t *testing.T) {
	for _, mode := range []string{"eventsource", "post"} {
		t.Run(mode, func(t *testing.T) {
			d := running(t)
			b := openBrowser(t)
			b.open(d.URL())
			b.until("the page is ready", "document.querySelector('#ask')?.disabled === false")
			b.click("input[value=" + mode + "]")
			b.click("input[value='60']")
			words := func(n int) {
				b.until(fmt.Sprintf("word %d is there", n), fmt.Sprintf("document.querySelector('#received')?.textContent >= %d", n))
			}
			b.click("#ask")
			words(5)
			unwanted, _, _ := strings.Cut(b.text("#last-id"), ".")
			b.until("the page knows the stream's name", "document.querySelector('#stream').textContent !== 'none'")
			b.click("#ask") // again: the first answer is not wanted any more
			b.until("another answer begins", fmt.Sprintf("!document.querySelector('#last-id').textContent.startsWith('%s.')", unwanted))
			words(12)
			b.until("node 1 is seen to read and to serve", "document.querySelector('.node.n1.reads.serves')")

			b.click("#cut")
			run, _, _ := strings.Cut(b.text("#last-id"), ".")
			received := b.text("#received")
			b.until("the page sees the model go on without it", "document.querySelectorAll('.cell.waits').length > 5")
			if now := b.text("#received"); now != received {
				t.Errorf("there were %s words at the cut, and %s later", received, now)
			}
			b.click("#cut") // which says "Come back" now
			b.until("the missed words are there", "document.querySelectorAll('.cell.late').length > 5")
			words(40)

			b.call("Page.reload", nil, nil)
			b.until("the page is there again and goes on", "log.textContent.includes('page loaded again')")
			words(55)

			b.click(".node.n2 .hop")
			b.until("node 2 serves and node 1 reads", "document.querySelector('.node.n2.serves') && document.querySelector('.node.n1.reads')")
			words(70)

			b.click(".node.n1 .kill")
			b.until("node 1 is down", "document.querySelector('.node.n1.off')")
			refused(t, "127.0.0.1:"+d.nodes.state()[0].Port)
			b.until("another node has taken over", "document.querySelector('.node.reads:not(.n1)')")
			words(90)

			// Just behind a word: one that the page has seen and the log has
			// not would have to be told twice.
			b.until("a word comes", fmt.Sprintf("received.textContent > %s", b.text("#received")))
			b.click(".node.n2 .kill")
			b.until("the page has come back at node 3", "document.querySelector('.node.n3.serves')")
			b.click(".node.n1 .kill") // which says "Start" now
			b.until("node 1 is up", "document.querySelector('.node.n1:not(.off)')")
			b.click(".node.n1 .hop")
			b.until("node 1 serves again", "document.querySelector('.node.n1.serves')")

			b.until("the answer has ended", "document.querySelector('.story.good, .story.wrong')")
			b.until("the page knows how often the model went on", fmt.Sprintf("document.querySelector('#goes-on').textContent == %d", d.model.state(run).Continued))
			var shown []string
			if err := b.eval("[...prose.querySelectorAll('span')].map(e => e.textContent)", &shown); err != nil {
				t.Fatal(err)
			}
			if got, want := strings.Join(shown, " "), strings.Join(d.model.words, " "); got != want {
				t.Errorf("the page shows\n%s\nwant\n%s", got, want)
			}
			var cells int
			b.eval("document.querySelectorAll('#ledger .cell:is(.n1, .n2, .n3):not(.wrong, .waits)').length", &cells)
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
			var tried int
			b.eval("document.querySelectorAll('#try .done').length", &tried)
			if tried != 4 {
				t.Errorf("%d of 4 things count as tried", tried)
			}
			for _, e := range b.exceptions() {
				t.Errorf("the page threw %s", e)
			}
			if t.Failed() {
				t.Logf("the page's log:\n%s", b.log())
			}
		})
	}
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

	b := openBrowser(t)
	b.open(front.URL)
	b.until("the page is ready", "document.querySelector('#ask')?.disabled === false")
	b.click("#ask")
	b.until("there is a verdict", "document.querySelector('.story.wrong') && document.querySelector('.law.wrong #runs')")
	for id, want := range map[string]string{"#received": "6", "#lost": "2", "#repeated": "1", "#runs": "2"} {
		if got := b.text(id); got != want {
			t.Errorf("%s says %q, want %q", id, got, want)
		}
	}
	var wrong []string
	b.eval("[...document.querySelectorAll('#ledger .wrong')].map(e => e.textContent)", &wrong)
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

package demo

import (
	"context"
	"crypto/rand"
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"strconv"
	"strings"
	"sync"
	"time"
)

// answer is what the model says to everything.
const answer = `You are reading an answer that a small model writes word by word. It has never heard of clusters, of nodes,
or of you. It was asked once, and it says each word once. Between you and the model stand three edge nodes, and any of
them can hand you these words. Cut the connection now, and the model goes on writing, because the edge goes on reading.
Come back through any door with the last number you have seen, and you get what you missed, in order, and then the rest
as it is written. Reload the page. Walk over to another node. Kill a node in the middle of a sentence. If it was
the one that read the model, another takes its place, asks the model to go on behind the last word, and keeps the
count. Nothing is lost and nothing comes twice. Watch the numbers: every cell fills once, and none may ever turn red.`

const (
	defaultPace = 150 * time.Millisecond
	minPace     = 2 * time.Millisecond
	maxPace     = time.Second
	keptRuns    = 64 // counts of the newest answers; older ones are forgotten
)

// model is an ordinary backend: it streams an answer as server-sent events,
// each with an id of its own, and goes on behind the Last-Event-ID where it is
// given one. It knows nothing of ssegate. What a person wants to see of it, how
// often an answer was begun, it counts.
type model struct {
	words   []string
	changed func()

	mu    sync.Mutex
	runs  map[string]*runState
	order []string // keys of runs, oldest first
}

// runState is what the model has done for one answer.
type runState struct {
	Started   int `json:"started"`   // requests that began with the first word
	Continued int `json:"continued"` // requests that went on behind a word
	Word      int `json:"word"`      // the newest written; 0: none yet
}

func newModel(changed func()) *model {
	return &model{words: strings.Fields(answer), changed: changed, runs: map[string]*runState{}}
}

// state is what has been done for an answer so far.
func (m *model) state(run string) runState {
	m.mu.Lock()
	defer m.mu.Unlock()
	if s := m.runs[run]; s != nil {
		return *s
	}
	return runState{}
}

// note changes what is known of a run and tells it.
func (m *model) note(run string, change func(*runState)) {
	m.mu.Lock()
	s := m.runs[run]
	if s == nil {
		if len(m.order) == keptRuns {
			delete(m.runs, m.order[0])
			m.order = m.order[1:]
		}
		s = &runState{}
		m.runs[run] = s
		m.order = append(m.order, run)
	}
	change(s)
	m.mu.Unlock()
	m.changed()
}

// question is what the model is asked: in the query of a GET, or as the JSON
// body of a POST.
type question struct {
	Run  string `json:"run"`  // names the answer; "" = the model names it
	Pace int    `json:"pace"` // milliseconds between words; 0 = the model's own
}

func (m *model) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	w.Header().Set("Access-Control-Allow-Origin", "*")
	if r.URL.Path != "/answer" {
		http.NotFound(w, r)
		return
	}
	q, err := read(r)
	switch {
	case r.Method == http.MethodOptions:
		w.Header().Set("Access-Control-Allow-Methods", "GET, POST")
		w.Header().Set("Access-Control-Allow-Headers", "Content-Type, Last-Event-ID")
		w.Header().Set("Access-Control-Max-Age", "600")
		w.WriteHeader(http.StatusNoContent)
		return
	case r.Method != http.MethodGet && r.Method != http.MethodPost:
		w.Header().Set("Allow", "GET, POST, OPTIONS")
		http.Error(w, "ask with GET or POST", http.StatusMethodNotAllowed)
		return
	case err != nil:
		http.Error(w, err.Error(), http.StatusBadRequest)
		return
	}
	from := 0
	if last := r.Header.Get("Last-Event-ID"); last != "" {
		run, number, _ := strings.Cut(last, ".")
		n, err := strconv.Atoi(number)
		if err != nil || run != q.Run || n < 1 || n > len(m.words)+1 {
			http.Error(w, "this Last-Event-ID is not of this answer", http.StatusBadRequest)
			return
		}
		from = n
	}
	m.note(q.Run, func(s *runState) {
		if from == 0 {
			s.Started++
		} else {
			s.Continued++
		}
	})
	w.Header().Set("Content-Type", "text/event-stream")
	w.Header().Set("Cache-Control", "no-cache")
	m.write(r.Context(), w, q, from)
}

func read(r *http.Request) (question, error) {
	var q question
	if r.Method == http.MethodPost {
		err := json.NewDecoder(io.LimitReader(r.Body, 4<<10)).Decode(&q)
		if err != nil {
			return q, fmt.Errorf(`the body must be JSON, as {"run": "name"}: %w`, err)
		}
	} else {
		q.Run = r.URL.Query().Get("run")
		if text := r.URL.Query().Get("pace"); text != "" {
			pace, err := strconv.Atoi(text)
			if err != nil {
				return q, fmt.Errorf("pace: %w", err)
			}
			q.Pace = pace
		}
	}
	if q.Run == "" {
		q.Run = strings.ToLower(rand.Text()[:8])
	}
	if len(q.Run) > 32 || strings.Trim(q.Run, "abcdefghijklmnopqrstuvwxyz0123456789-") != "" {
		return q, fmt.Errorf("run: at most 32 of a-z, 0-9 and -")
	}
	return q, nil
}

// word is the data of an event.
type word struct {
	N    int    `json:"n"` // 1, 2, 3 …
	Word string `json:"word"`
	At   int64  `json:"at"` // when it was written, in ms of Unix time
}

// write streams the answer behind word number from, until it is whole or
// nobody reads it any more.
func (m *model) write(ctx context.Context, w http.ResponseWriter, q question, from int) {
	pace := defaultPace
	if q.Pace != 0 {
		pace = min(max(time.Duration(q.Pace)*time.Millisecond, minPace), maxPace)
	}
	tick := time.NewTicker(pace)
	defer tick.Stop()
	out := http.NewResponseController(w)
	for n := from + 1; n <= len(m.words); n++ {
		select {
		case <-ctx.Done():
			return
		case <-tick.C:
		}
		data, _ := json.Marshal(word{n, m.words[n-1], time.Now().UnixMilli()}) // always marshals
		if _, err := fmt.Fprintf(w, "id: %s.%d\ndata: %s\n\n", q.Run, n, data); err != nil {
			return
		}
		if out.Flush() != nil {
			return
		}
		m.note(q.Run, func(s *runState) { s.Word = max(s.Word, n) })
	}
	fmt.Fprintf(w, "id: %s.%d\ndata: [DONE]\n\n", q.Run, len(m.words)+1)
}

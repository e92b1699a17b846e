package demo

import (
	"context"
	"embed"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"net/http"
	"strconv"
	"time"
)

//go:embed page
var pageFiles embed.FS

// newsEvery is the least time between two messages about the same thing.
const newsEvery = 60 * time.Millisecond

// pages serves the page, tells it what becomes of nodes and model, and does
// what its buttons say. The answers themselves do not come through here: the
// page gets them from the nodes.
func (d *Demo) pages() http.Handler {
	files, err := fs.Sub(pageFiles, "page")
	if err != nil {
		panic(err) // the name is not a path: impossible once it has compiled
	}
	mux := http.NewServeMux()
	mux.Handle("GET /", http.FileServerFS(files))
	mux.HandleFunc("GET /demo/state", d.state)
	mux.HandleFunc("POST /demo/nodes/{number}/kill", d.order(d.nodes.kill))
	mux.HandleFunc("POST /demo/nodes/{number}/start", d.order(d.nodes.start))
	own := http.NewCrossOriginProtection().Handler(mux) // no other page kills our nodes
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		h := w.Header()
		h.Set("Content-Security-Policy",
			"default-src 'none'; script-src 'self'; style-src 'self'; img-src data:; connect-src *; base-uri 'none'; form-action 'none'; frame-ancestors 'none'")
		h.Set("X-Content-Type-Options", "nosniff")
		h.Set("Cache-Control", "no-cache")
		own.ServeHTTP(w, r)
	})
}

// order serves a button of a node.
func (d *Demo) order(do func(context.Context, int) error) http.HandlerFunc {
	return func(w http.ResponseWriter, r *http.Request) {
		number, _ := strconv.Atoi(r.PathValue("number"))
		ctx, cancel := context.WithTimeout(r.Context(), 5*time.Second)
		defer cancel()
		switch err := do(ctx, number); {
		case err == nil:
			w.WriteHeader(http.StatusNoContent)
		case errors.Is(err, errNoNode):
			http.Error(w, err.Error(), http.StatusNotFound)
		case errors.Is(err, errUp), errors.Is(err, errDown):
			http.Error(w, err.Error(), http.StatusConflict)
		default:
			http.Error(w, err.Error(), http.StatusServiceUnavailable)
		}
	}
}

// state is an event stream about the nodes and about one answer, as soon as
// something changes.
func (d *Demo) state(w http.ResponseWriter, r *http.Request) {
	w.Header().Set("Content-Type", "text/event-stream")
	run := r.URL.Query().Get("run")
	out := http.NewResponseController(w)
	pause := time.NewTicker(newsEvery)
	defer pause.Stop()
	for {
		changed := d.news.wait() // before looking, so that nothing is missed
		state, _ := json.Marshal(struct {
			Now   int64       `json:"now"`   // ms of Unix time
			Words int         `json:"words"` // of a whole answer
			Nodes []nodeState `json:"nodes"`
			Run   runState    `json:"run"`
		}{time.Now().UnixMilli(), len(d.model.words), d.nodes.state(), d.model.state(run)}) // always marshals
		if _, err := fmt.Fprintf(w, "data: %s\n\n", state); err != nil || out.Flush() != nil {
			return
		}
		select {
		case <-changed:
		case <-r.Context().Done():
			return
		}
		select {
		case <-pause.C:
		case <-r.Context().Done():
			return
		}
	}
}

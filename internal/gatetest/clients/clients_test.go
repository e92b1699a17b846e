//go:build unix

package clients

import (
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"slices"
	"strings"
	"sync/atomic"
	"testing"
)

// serve runs f for every request, and hands it a function that writes and flushes.
func serve(t *testing.T, f func(w http.ResponseWriter, r *http.Request, say func(string))) string {
	t.Helper()
	srv := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		w.Header().Set("Content-Type", "text/event-stream")
		f(w, r, func(s string) {
			if _, err := io.WriteString(w, s); err != nil {
				return // the client has seen enough
			}
			w.(http.Flusher).Flush()
		})
	}))
	t.Cleanup(srv.Close)
	return srv.URL
}

// datas is the data of every event, with errors in their places.
func datas(events []Event) (all []string) {
	for _, e := range events {
		switch {
		case e.Error != "":
			all = append(all, "error: "+e.Error)
		case e.Retry == 0 || e.Data != "":
			all = append(all, e.Data)
		}
	}
	return all
}

// TestRead: every library reads a plain stream, whatever the pieces it comes in, with the request as it was asked for.
func TestRead(t *testing.T) {
	const stream = "id: a\nretry: 50\ndata: {\"n\":1}\n\nid: b\ndata: {\"n\":2,\"text\":\"世界\"}\n\ndata: [DONE]\n\n"
	for _, library := range All() {
		t.Run(library, func(t *testing.T) {
			t.Parallel()
			openAI := strings.HasPrefix(library, "openai")
			opts := Options{Header: map[string]string{"X-Test": "yes"}, Until: "[DONE]"}
			method := http.MethodGet
			if library != EventSource && library != Undici {
				method = http.MethodPost
				opts.Method, opts.Body = method, `{"ask":1}`
				opts.Header["Content-Type"] = "application/json"
			}
			requests := make(chan string, 8)
			url := serve(t, func(_ http.ResponseWriter, r *http.Request, say func(string)) {
				body, _ := io.ReadAll(r.Body) // what is missing shows below
				requests <- fmt.Sprintf("%s %s %s", r.Method, r.Header.Get("X-Test"), strings.ReplaceAll(string(body), " ", ""))
				for _, b := range []byte(stream) {
					say(string([]byte{b}))
				}
			})
			events := Read(t, library, url, opts)

			want := []string{`{"n":1}`, `{"n":2,"text":"世界"}`, `[DONE]`}
			if openAI {
				want = want[:2] // it knows the mark
			}
			if got := datas(events); !slices.Equal(got, want) {
				t.Fatalf("saw %q, want %q", got, want)
			}
			var ids []string
			var retry int
			for _, e := range events {
				retry = max(retry, e.Retry)
				if e.ID != "" {
					ids = append(ids, e.ID)
				}
				if e.Type != "message" && e.Retry == 0 {
					t.Errorf("type %q", e.Type)
				}
			}
			switch library {
			case Undici, SSEjs:
				want = []string{"a", "b", "b"} // the last one seen, as the standard says
			case EventSource, Parser, FetchEventSource:
				want = []string{"a", "b"} // the event's own
			default:
				want = nil
			}
			if tells := library == Parser || library == FetchEventSource; tells && retry != 50 {
				t.Errorf("retry %d, want 50", retry)
			}
			if !slices.Equal(ids, want) {
				t.Errorf("ids %q, want %q", ids, want)
			}
			if got, want := <-requests, method+" yes "+opts.Body; got != want {
				t.Errorf("asked with %q, want %q", got, want)
			}
			if len(requests) != 0 {
				t.Error("asked more than once")
			}
		})
	}
}

// TestHabits: where the libraries part company. This is what makes reading with all of them worth the while.
func TestHabits(t *testing.T) {
	const dies = "error"
	tests := []struct {
		name, stream string
		want         []string            // of those not named below
		but          map[string][]string // the last may be dies
	}{
		{
			name:   "comment block after an id",
			stream: "id: a\ndata: 1\n\n: ping\n\ndata: 2\n\n",
			want:   []string{"1", "2"},
			but:    map[string][]string{OpenAIPython: {"1", dies}, FetchEventSource: {"1", "", "2"}},
		},
		{
			name:   "comment line after an id",
			stream: "id: a\ndata: 1\n\n: ping\nid: b\ndata: 2\n\n",
			want:   []string{"1", "2"},
		},
		{
			name:   "retry alone",
			stream: "retry: 2000\n\ndata: 1\n\n",
			want:   []string{"1"},
			but:    map[string][]string{OpenAIPython: {dies}},
		},
		{
			name:   "heartbeat as data",
			stream: "data: 1\n\ndata: heartbeat\n\ndata: 2\n\n",
			want:   []string{"1", "heartbeat", "2"},
			but:    map[string][]string{OpenAI: {"1", dies}, OpenAIPython: {"1", dies}},
		},
		{
			name:   "no blank line at the end",
			stream: "data: 1\n\ndata: 2\n",
			want:   []string{"1"},
			but:    map[string][]string{SSEjs: {"1", "2"}},
		},
		{
			name:   "named event",
			stream: "data: 1\n\nevent: other\ndata: 2\n\nevent: mine\ndata: 3\n\n",
			want:   []string{"1", "2", "3"},
			but:    map[string][]string{EventSource: {"1", "3"}, Undici: {"1", "3"}, SSEjs: {"1", "3"}},
		},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			url := serve(t, func(_ http.ResponseWriter, _ *http.Request, say func(string)) { say(tt.stream) })
			for _, library := range All() {
				t.Run(library, func(t *testing.T) {
					t.Parallel()
					want, ok := tt.but[library]
					if !ok {
						want = tt.want
					}
					got := datas(Read(t, library, url, Options{Types: []string{"mine"}}))
					for i, s := range got {
						if strings.HasPrefix(s, "error: ") {
							got[i] = dies
						}
					}
					if !slices.Equal(got, want) {
						t.Errorf("saw %q, want %q", got, want)
					}
				})
			}
		})
	}
}

// TestComesBack: the libraries that come back by themselves do so, with the last id that they saw.
func TestComesBack(t *testing.T) {
	for _, library := range []string{EventSource, Undici, FetchEventSource, SSEjs} {
		t.Run(library, func(t *testing.T) {
			t.Parallel()
			var asked atomic.Int32
			url := serve(t, func(w http.ResponseWriter, r *http.Request, say func(string)) {
				n := asked.Add(1)
				say(fmt.Sprintf("id: i%d\nretry: 10\ndata: %d after %q\n\n", n, n, r.Header.Get("Last-Event-ID")))
				panic(http.ErrAbortHandler) // a cut, not an end
			})
			events := Read(t, library, url, Options{Reconnects: 2})
			got := datas(slices.DeleteFunc(events, func(e Event) bool { return e.Error != "" }))
			want := []string{`1 after ""`, `2 after "i1"`, `3 after "i2"`}
			if !slices.Equal(got, want) {
				t.Errorf("saw %q, want %q", got, want)
			}
		})
	}
}

// TestHide: a hidden tab makes fetch-event-source send its request again, body and all, while the first still runs.
func TestHide(t *testing.T) {
	var asked atomic.Int32
	url := serve(t, func(_ http.ResponseWriter, r *http.Request, say func(string)) {
		n := asked.Add(1)
		body, _ := io.ReadAll(r.Body) // what is missing shows below
		say(fmt.Sprintf("id: i%d\ndata: %d %s %q\n\n", n, n, body, r.Header.Get("Last-Event-ID")))
		if n == 1 {
			<-r.Context().Done()
			return
		}
		say("data: end\n\n")
	})
	got := datas(Read(t, FetchEventSource, url, Options{Method: http.MethodPost, Body: "ask", Hide: 1}))
	if want := []string{`1 ask ""`, `2 ask "i1"`, "end"}; !slices.Equal(got, want) {
		t.Errorf("saw %q, want %q", got, want)
	}
}

// TestRefused: a status that is no stream is told, as far as the library tells it, and an EventSource gives up.
func TestRefused(t *testing.T) {
	url := serve(t, func(w http.ResponseWriter, _ *http.Request, _ func(string)) {
		w.WriteHeader(http.StatusServiceUnavailable)
	})
	for _, library := range []string{OpenAI, OpenAIPython, EventSource, Undici, Parser, SSEjs} {
		t.Run(library, func(t *testing.T) {
			t.Parallel()
			events := Read(t, library, url, Options{Reconnects: 0})
			if len(events) != 1 || events[0].Error == "" {
				t.Fatalf("saw %+v, want one error", events)
			}
			if got := events[0].Status; library != Undici && got != http.StatusServiceUnavailable {
				t.Errorf("status %d", got)
			}
		})
	}
}

// TestCut: a stream that is cut off is an error to those whose connection the application holds.
func TestCut(t *testing.T) {
	url := serve(t, func(_ http.ResponseWriter, _ *http.Request, say func(string)) {
		say("data: 1\n\n")
		panic(http.ErrAbortHandler)
	})
	for _, library := range []string{OpenAI, OpenAIPython, Parser, FetchEventSource, SSEjs} {
		t.Run(library, func(t *testing.T) {
			t.Parallel()
			events := Read(t, library, url, Options{})
			if len(events) != 2 || events[0].Data != "1" || events[1].Error == "" {
				t.Fatalf("saw %+v, want an event and an error", events)
			}
		})
	}
}

// TestOpen: events arrive while the stream runs, and Close leaves no process behind.
func TestOpen(t *testing.T) {
	more := make(chan string)
	gone := make(chan struct{})
	url := serve(t, func(_ http.ResponseWriter, r *http.Request, say func(string)) {
		for {
			select {
			case s := <-more:
				say("data: " + s + "\n\n")
			case <-r.Context().Done():
				close(gone)
				return
			}
		}
	})
	r := Open(t, Parser, url, Options{})
	for _, want := range []string{"1", "2"} {
		more <- want
		if e, ok := r.Next(); !ok || e.Data != want {
			t.Fatalf("saw %+v, %v", e, ok)
		}
	}
	r.Close()
	<-gone
	if r.cmd.ProcessState == nil {
		t.Error("its process was not waited for")
	}
}

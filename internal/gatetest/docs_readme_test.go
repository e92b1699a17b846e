package gatetest

import (
	"io"
	"net/http"
	"testing"
)

// What the README says that a client sees is what it sees.
func TestWhatAClientSees(t *testing.T) {
	var shown []string
	for _, b := range fencedIn(t, "README.md") {
		if b.section == "What a client sees" && b.kind == "text" {
			shown = append(shown, b.text)
		}
	}
	if len(shown) != 2 {
		t.Fatalf("%d blocks", len(shown))
	}
	b := NewBackend(t)
	public, _ := node(t, b.URL)
	type answer struct {
		stream string
		body   []byte
		err    error
	}
	answers := make(chan answer, 1)
	go func() {
		req, _ := http.NewRequestWithContext(t.Context(), "GET", public+"/hold", nil)
		req.Header.Set("Accept", "text/event-stream")
		client := &http.Client{Transport: &http.Transport{DisableKeepAlives: true}, Timeout: Patience}
		resp, err := client.Do(req)
		if err != nil {
			answers <- answer{err: err}
			return
		}
		defer resp.Body.Close()
		body, err := io.ReadAll(resp.Body)
		answers <- answer{resp.Header.Get("Ssegate-Stream"), body, err}
	}()
	run := b.Next()
	run.Head()
	run.Send(shown[0])
	run.End()
	got := <-answers
	if got.err != nil {
		t.Fatal(got.err)
	}
	if !pattern(shown[1]).Match(got.body) {
		t.Errorf("got:\n%s\nthe README says:\n%s", got.body, shown[1])
	}
	if len(got.stream) != 22 {
		t.Errorf("Ssegate-Stream: %q", got.stream)
	}
}

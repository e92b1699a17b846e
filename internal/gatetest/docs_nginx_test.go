//go:build unix

package gatetest

import (
	"regexp"
	"strings"
	"testing"

	"ssegate/internal/gatetest/service"
)

// Behind the nginx that docs/operations.md shows, each event arrives as it
// comes, and a client comes back.
func TestNginxInDocs(t *testing.T) {
	var text string
	for _, b := range fencedIn(t, "docs/operations.md") {
		if b.kind == "nginx" {
			text = b.text
		}
	}
	backend := NewBackend(t)
	public, _ := node(t, backend.URL)
	front := service.Nginx(t, func(addr string) string {
		text := regexp.MustCompile(`server 10[\d.:]+;`).ReplaceAllString(text, "server "+strings.TrimPrefix(public, "http://")+";")
		text = regexp.MustCompile(`(?m)^\s*ssl_.*$`).ReplaceAllString(text, "")
		return regexp.MustCompile(`listen 443 ssl http2;`).ReplaceAllString(text, "listen "+addr+";")
	})
	s := make(chan *Stream, 1)
	go func() {
		first, err := Try(t, Request{URL: front.URL + "/hold", Header: map[string]string{"Accept": "text/event-stream"}})
		if err != nil {
			t.Error(err)
		}
		s <- first
	}()
	run := backend.Next()
	if host := run.Request.Header.Get("X-Forwarded-Host"); host == "" {
		t.Error("the service is not told which host was asked for")
	}
	run.Head()
	client := <-s
	if client == nil {
		return
	}
	run.Send("data: 1\n\n")
	want(t, client.Take(1), "1") // the next is not written before this one is here
	run.Send("data: 2\n\n")
	want(t, client.Take(1), "2")
	client.Close()
	run.Send("data: 3\n\n")
	again := EventSource(t, front.URL+"/hold", client.LastID)
	want(t, again.Take(1), "3")
	run.Send("data: [DONE]\n\n")
	run.End()
	rest, clean := again.Rest()
	want(t, rest, "[DONE]")
	if !clean {
		t.Error("the end was not clean")
	}
	if n := backend.Runs("/hold"); n != 1 {
		t.Errorf("the service ran %d times", n)
	}
	over := EventSource(t, front.URL+"/hold", again.LastID)
	over.Close()
	if over.Resp.StatusCode != 204 {
		t.Errorf("a finished stream answers %d", over.Resp.StatusCode)
	}
}

func want(t *testing.T, got []Event, data string) {
	t.Helper()
	if len(got) != 1 || got[0].Data != data {
		t.Fatalf("got %+v, want %q", got, data)
	}
}

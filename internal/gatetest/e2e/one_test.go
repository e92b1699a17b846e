package e2e

import (
	"fmt"
	"slices"
	"strings"
	"testing"

	. "ssegate/internal/gatetest"
)

// want compares what a client got with what it should have.
func want(t *testing.T, got []Event, should []string) {
	t.Helper()
	if !slices.Equal(Data(got), should) {
		t.Fatalf("got %q\nwant %q", Data(got), should)
	}
}

func TestComeBack(t *testing.T) {
	b := NewBackend(t)
	n := Start(t, bin, "one", config(b.URL, ""))
	for _, own := range []string{"", "&ids=1"} {
		for _, cut := range []int{1, 7, 29} {
			t.Run(fmt.Sprintf("after %d%s", cut, own), func(t *testing.T) {
				before := b.Runs("/count")
				url := fmt.Sprintf("%s/count?n=30&every=5ms&c=%d%s", n.URL, cut, own)
				s := EventSource(t, url, "")
				first := s.Take(cut)
				want(t, first, Numbers(1, cut, false))
				if own != "" && first[cut-1].ID != fmt.Sprint(cut) {
					t.Fatalf("the backend's id arrived as %q, want %d", first[cut-1].ID, cut)
				}
				s.Close()
				again := EventSource(t, url, s.LastID)
				rest, clean := again.Rest()
				want(t, rest, Numbers(cut+1, 30, true))
				if !clean {
					t.Fatal("the end was not clean")
				}
				if runs := b.Runs("/count") - before; runs != 1 {
					t.Fatalf("the backend ran %d times", runs)
				}
				over := EventSource(t, url, again.LastID)
				if over.Resp.StatusCode != 204 {
					t.Fatalf("a finished stream answers %d to EventSource, want 204", over.Resp.StatusCode)
				}
			})
		}
	}
}

func TestPostComesBack(t *testing.T) {
	b := NewBackend(t)
	n := Start(t, bin, "one", config(b.URL, ""))
	post := func(lastID string) *Stream {
		h := map[string]string{"Content-Type": "application/json"}
		if lastID != "" {
			h["Last-Event-ID"] = lastID
		}
		return Do(t, Request{Method: "POST", URL: n.URL + "/count?n=30&every=5ms", Header: h, Body: `{"q":1}`})
	}
	s := post("")
	want(t, s.Take(7), Numbers(1, 7, false))
	for _, l := range s.Lines {
		if strings.HasPrefix(l, "retry") {
			t.Fatalf("a POST was sent %q", l)
		}
	}
	s.Close()
	again := post(s.LastID)
	rest, clean := again.Rest()
	want(t, rest, Numbers(8, 30, true))
	if !clean {
		t.Fatal("the end was not clean")
	}
	tail := post(again.LastID)
	if got, clean := tail.Rest(); len(got) > 0 || !clean || tail.Resp.StatusCode != 200 {
		t.Fatalf("a finished POST answers %d with %q, clean %v", tail.Resp.StatusCode, Data(got), clean)
	}
	if b.Runs("/count") != 1 {
		t.Fatalf("the backend ran %d times", b.Runs("/count"))
	}
}

func TestUpstreamCutIsClientCut(t *testing.T) {
	b := NewBackend(t)
	n := Start(t, bin, "one", config(b.URL, ""))
	s := EventSource(t, n.URL+"/count?n=30&cut=5", "")
	got, clean := s.Rest()
	want(t, got, Numbers(1, 5, false))
	if clean {
		t.Fatal("an upstream cut looked like a clean end")
	}
}

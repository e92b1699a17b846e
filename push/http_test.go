package push

import (
	"bufio"
	"bytes"
	"context"
	"io"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"

	"ssegate/cluster"
)

// tap is a cluster that tells what is published.
type tap struct {
	nowhere
	got chan string
}

func (c tap) Publish(ctx context.Context, posts []cluster.Outgoing) []cluster.Receipt {
	for _, p := range posts {
		c.got <- string(p.Block)
	}
	return c.nowhere.Publish(ctx, posts)
}

// Over real sockets: a stream is piped while it is still being sent, and who
// sends far too much hears why rather than of a broken connection.
func TestOverHTTP(t *testing.T) {
	taps := tap{got: make(chan string, 16)}
	a, err := New(Config{Cluster: taps, Options: Options{Alone: true, BodySize: 1 << 20}})
	if err != nil {
		t.Fatal(err)
	}
	s := httptest.NewServer(a)
	defer s.Close()

	r, w := io.Pipe()
	answers := make(chan string, 1)
	go func() {
		resp, err := http.Post(s.URL+"/api/v1/streams/user/u?marks=off", "text/event-stream", r)
		if err != nil {
			answers <- err.Error()
			return
		}
		defer resp.Body.Close()
		b, _ := io.ReadAll(resp.Body)
		answers <- resp.Status + " " + string(b)
	}()
	for _, text := range []string{"one", "two", "three"} {
		io.WriteString(w, "data: "+text+"\n\n")
		if got := <-taps.got; got != "data: "+text+"\n\n" {
			t.Errorf("published %q", got)
		}
	}
	w.Close()
	if got := <-answers; !strings.HasPrefix(got, "200 ") || !strings.Contains(got, `"events":3`) {
		t.Error(got)
	}

	for _, chunked := range []bool{false, true} {
		var body io.Reader = bytes.NewReader(make([]byte, 10<<20))
		if chunked {
			body = bufio.NewReader(body)
		}
		resp, err := http.Post(s.URL+"/api/v1/messages/send", "application/json", body)
		if err != nil {
			t.Fatal(err)
		}
		b, _ := io.ReadAll(resp.Body)
		resp.Body.Close()
		if resp.StatusCode != http.StatusRequestEntityTooLarge || !strings.Contains(string(b), `"too_large"`) {
			t.Errorf("%s %s", resp.Status, b)
		}
	}
}

package e2e

import (
	"compress/gzip"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync/atomic"
	"testing"

	. "ssegate/internal/gatetest"
)

// TestEndlessEvent: an upstream that sends 100 MB without an end of the event
// costs at most the size limit. The client is told why, and cut; events before
// and streams after it are unharmed.
func TestEndlessEvent(t *testing.T) {
	const much, limit = 100 << 20, 2 << 20
	var sent, begun atomic.Int64
	piece := map[string]string{
		"/data": "x", "/comment": "x", "/id": "x", "/binary": "\x00\xff\xfe", "/lines": "data: x\n", "/comments": ": x\n", "/ids": "id: 12345\n", "/gzip": "x",
	}
	start := map[string]string{"/data": "data: ", "/comment": ": ", "/id": "id: ", "/gzip": "data: "}
	srv := httptest.NewUnstartedServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		begun.Add(1)
		sent.Store(0)
		w.Header().Set("Content-Type", "text/event-stream")
		var out io.Writer = w
		if r.URL.Path == "/gzip" {
			w.Header().Set("Content-Encoding", "gzip")
			z, _ := gzip.NewWriterLevel(w, gzip.BestSpeed)
			defer z.Close()
			out = z
		}
		io.WriteString(out, "data: good\n\n"+start[r.URL.Path])
		part := []byte(strings.Repeat(piece[r.URL.Path], 64<<10/len(piece[r.URL.Path])))
		for sent.Load() < much {
			n, err := out.Write(part)
			sent.Add(int64(n))
			if err != nil {
				return
			}
		}
	}))
	srv.Config.ConnState = func(c net.Conn, s http.ConnState) {
		if s == http.StateNew {
			c.(*net.TCPConn).SetWriteBuffer(64 << 10) // what is sent is soon taken
		}
	}
	srv.Start()
	t.Cleanup(func() { srv.CloseClientConnections(); srv.Close() })
	n := Start(t, plain(t), "one", config(srv.URL, ""))
	p := processOf(t, n)
	fresh := p.resident()
	for path := range piece { // once, so that buffers and pages are there
		EventSource(t, n.URL+path, "").Rest()
	}
	t.Logf("resident at first %s, after %d endless events %s", mib(fresh), len(piece), mib(p.resident()))
	for path := range piece {
		t.Run(path[1:], func(t *testing.T) {
			before := p.resident()
			stop := p.peak()
			s := EventSource(t, n.URL+path, "")
			got, clean := s.Rest()
			grown := stop() - before
			if len(got) != 2 || got[0].Data != "good" || got[1].Name != "ssegate.error" || !strings.Contains(got[1].Data, "event_too_large") || clean {
				t.Errorf("the client got %.300v, clean %v", fmt.Sprint(got), clean)
			}
			if len(got) == 2 && got[1].ID != got[0].ID {
				t.Error("the error has an id of its own")
			}
			t.Logf("the upstream sent %s, memory grew by %s", mib(sent.Load()), mib(grown))
			if most := int64(limit + 16<<20); sent.Load() > most && path != "/gzip" {
				t.Errorf("the upstream could send %s", mib(sent.Load()))
			}
			// The limit itself, its copy while it grows, and the garbage.
			if grown > 8*limit {
				t.Errorf("memory grew by %s", mib(grown))
			}
		})
	}
}

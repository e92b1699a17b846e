package push

import (
	"bytes"
	"context"
	"errors"
	"math/rand/v2"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"
	"time"

	push "ssegate/push/client"
)

// direct is the way of a client to a node's API without a network.
type direct struct{ n *node }

func (d direct) RoundTrip(r *http.Request) (*http.Response, error) {
	in := httptest.NewRequest(r.Method, r.URL.String(), r.Body).WithContext(r.Context())
	in.Header, in.ContentLength = r.Header, r.ContentLength
	if r.ContentLength == 0 && r.Body != nil {
		in.ContentLength = -1
	}
	w := httptest.NewRecorder()
	d.n.api.ServeHTTP(w, in)
	return w.Result(), nil
}

// What the client helper sends is what the API takes, and what was sent in
// pieces is put together again.
func TestClient(t *testing.T) {
	inWorld(t, Config{Options: Options{Rate: 1000}}, func(w *world, n ...*node) {
		ctx := context.Background()
		p := push.Publisher{Base: "http://127.0.0.1:8089", HTTP: &http.Client{Transport: direct{n[0]}}}
		c := n[1].follow(all, "user/u v")
		a, err := p.Send(ctx, push.Message{ID: "m1", Type: "info", Target: push.Target{UserID: "u v"}, Data: 1, Metadata: &push.Metadata{Priority: "high", TTL: 60}})
		if err != nil || a.Status != "delivered" || a.ID != "m1" || len(a.Targets) != 1 {
			t.Errorf("%+v %v", a, err)
		}
		list, err := p.Batch(ctx, []push.Message{{Target: push.Target{UserID: "u v"}, Data: 2}, {Data: 3}})
		if err != nil || len(list) != 2 || list[0].Status != "delivered" || list[1].Status != "rejected" || list[1].Reason != "invalid_message" {
			t.Errorf("%+v %v", list, err)
		}
		a, err = p.SendTo(ctx, push.Message{Data: 4}, "user/u v", "connection/none")
		if err != nil || a.Targets[0].Status != "delivered" || a.Targets[1].Status != "not_connected" {
			t.Errorf("%+v %v", a, err)
		}
		_, err = p.Send(ctx, push.Message{Type: "shout", Target: push.Target{UserID: "u"}})
		if e, ok := errors.AsType[*push.Error](err); !ok || e.Status != 400 || e.Reason != "invalid_message" || !strings.Contains(e.Detail, "type") || e.RequestID == "" {
			t.Errorf("%v", err)
		}
		w.log.fails(errAway, false)
		_, err = p.Send(ctx, push.Message{ID: "m9", Target: push.Target{UserID: "u"}})
		if e, ok := errors.AsType[*push.Error](err); !ok || e.Status != 503 || e.RetryAfter <= 0 {
			t.Errorf("%v", err)
		}
		w.log.fails(nil, false)

		file := make([]byte, 200_000)
		for i := range file {
			file[i] = byte(rand.Uint32())
		}
		s, err := p.Stream(ctx, push.Body{Reader: bytes.NewReader(file), Type: "image/png", Name: "cat.png", Size: int64(len(file))}, "user/u v", "channel/c")
		if err != nil || s.State != "end" || s.Events != 4 || len(s.Targets) != 2 {
			t.Errorf("%+v %v", s, err)
		}
		wait(time.Second)
		var r push.Reassembler
		var files []*push.File
		for _, e := range c.events() {
			f, err := r.Take(e.name, []byte(e.data))
			if err != nil {
				t.Fatal(err)
			}
			if f != nil {
				files = append(files, f)
			}
		}
		if len(files) != 1 || !bytes.Equal(files[0].Data, file) || files[0].Name != "cat.png" || files[0].Type != "image/png" || files[0].SHA256 != s.SHA256 || files[0].Stream != s.Stream {
			t.Errorf("%d files", len(files))
		}
		c.got1With("data", "1", "2", "4")
	}, "a", "b")
}

// got1With checks a member of the data of all events that are messages.
func (c *client) got1With(member string, want ...string) {
	c.w.Helper()
	var got []string
	for i, e := range c.events() {
		if !strings.HasPrefix(e.name, ours) {
			got = append(got, c.datas(member)[i])
		}
	}
	if strings.Join(got, " ") != strings.Join(want, " ") {
		c.w.Errorf("got %q, want %q", got, want)
	}
}

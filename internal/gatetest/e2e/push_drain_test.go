package e2e

import (
	"fmt"
	"io"
	"testing"

	. "ssegate/internal/gatetest"
	"ssegate/internal/gatetest/service"
)

// TestPushStreamOverDrain: a node that leaves lets who publishes a stream
// finish it.
func TestPushStreamOverDrain(t *testing.T) {
	w := &world{redis: service.Redis(t), backend: NewBackend(t)}
	a, b := w.pair(t, pushes)
	s := EventSource(t, b.URL+"/sse/user/d", "")
	up := pipeTo(t, a, "/api/v1/streams/user/d")
	markIs(t, s.Take(1)[0], "begin")
	a.Term()
	a.Await("draining")
	for i := range 10 {
		fmt.Fprintf(up, "data: %d\n\n", i)
		want(t, s.Take(1), []string{fmt.Sprint(i)})
	}
	io.WriteString(up, "\n")
	up.Close()
	if out := up.answer(200); out["state"] != "end" || out["events"] != 10.0 {
		t.Errorf("%v", out)
	}
	markIs(t, s.Take(1)[0], "end")
	a.Exited()
}

package proxy

import (
	"cmp"
	"encoding/json"
	"net/http"
	"net/http/httptest"
	"testing"
	"time"
)

// A limit holds from when it is set, and 0 is none.
func TestRequestRate(t *testing.T) {
	var r requestRate
	now := time.Unix(1_000, 0)
	for _, most := range []int{0, 3, 10, 0} {
		r.second.Store(int64(most))
		now = now.Add(time.Second)
		passed := 0
		for range 20 {
			if r.take("a", now) == 0 {
				passed++
			}
		}
		if want := cmp.Or(most, 20); passed != want || r.on() != (most > 0) {
			t.Errorf("of %d a second %d pass", most, passed)
		}
		if wait := r.take("a", now); most > 0 && wait != time.Second/time.Duration(most) {
			t.Errorf("of %d a second one more waits %v", most, wait)
		}
	}
}

// Whom the limit of principals refuses is told which request it was, as with
// any other refusal.
func TestLimitPrincipalsTellsRequest(t *testing.T) {
	p, err := New(Config{})
	if err != nil {
		t.Fatal(err)
	}
	defer p.Close(t.Context())
	p.SetRates(0, 1)
	h := p.LimitPrincipals(http.NotFoundHandler(), func(*http.Request) string { return "somebody" })
	ask := func(id string) (status int, told, head string) {
		r := httptest.NewRequest("POST", "/", nil)
		if id != "" {
			r.Header.Set("X-Request-Id", id)
		}
		w := httptest.NewRecorder()
		h.ServeHTTP(w, r)
		var body struct {
			Error struct {
				RequestID string `json:"request_id"`
			} `json:"error"`
		}
		_ = json.Unmarshal(w.Body.Bytes(), &body)
		return w.Code, body.Error.RequestID, w.Header().Get("X-Request-Id")
	}
	if status, _, _ := ask(""); status != 404 {
		t.Fatalf("the first is answered %d", status)
	}
	for _, id := range []string{"", "mine", "no\"t <sane>"} {
		status, told, head := ask(id)
		if status != 429 || told == "" || told != head || (id == "mine") != (told == id) || told == "no\"t <sane>" {
			t.Errorf("with the id %q: %d, request_id %q, X-Request-Id %q", id, status, told, head)
		}
	}
}

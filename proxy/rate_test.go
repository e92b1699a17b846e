package proxy

import (
	"encoding/json"
	"net/http"
	"net/http/httptest"
	"testing"
)

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

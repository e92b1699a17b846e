//go:build unix

package consul_test

import (
	"fmt"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"
	"time"

	"ssegate/discover/consul"
	"ssegate/internal/gatetest/discovertest"
)

// TestIndex: what is asked after which answer. These answers come from a
// script, for a real Consul gives the odd ones only when its servers fail.
func TestIndex(t *testing.T) {
	for _, c := range []struct {
		name  string
		grace time.Duration
		// Each step is the index that is asked for, and the answer: status (late: 200, but when the time is over; away: 200, but another call has found nobody meanwhile),
		// its index, and the ports of the instances.
		steps []string
		lists []string // all that must be told
	}{
		{"moves on", -1, []string{
			"0: 200 10 1",
			"10: 200 11 1", // something else has changed: nothing to tell
			"11: 200 12 1 2",
			"12: 200 12",
		}, []string{"1", "1 2", ""}},
		{"goes back", -1, []string{
			"0: 200 10 1",
			"10: 200 5 2",
			"0: 200 5 2",
			"5: 200 6 3",
		}, []string{"1", "2", "3"}},
		{"is none", -1, []string{
			"0: 200 0 1",
			"1: 200 2 2",
		}, []string{"1", "2"}},
		{"is forgotten after an error", -1, []string{
			"0: 500 0",
			"0: 200 10 1",
			"10: 500 0",
			"0: 429 0",
			"0: 200 3 2",
			"3: 200 4 1",
		}, []string{"1", "2", "1"}},
		{"keeps for the grace", time.Hour, []string{
			"0: 200 10 1 2",
			"10: 500 0",
			"0: 200 3 3",
			"3: 200 4",
			"4: 200 5 2 4",
			"5: 200 2 2 4", // back
			"0: 200 2",
			"2: 200 3 5",
		}, []string{"1 2", "1 2 3", "1 2 3 4", "1 2 3 4 5"}},
		{"keeps what is missing when it went back", time.Hour, []string{
			"0: 200 10 1",
			"10: 200 5 2",
			"0: 200 5 2",
			"5: 200 6 3",
		}, []string{"1", "1 2", "1 2 3"}},
		{"keeps no longer than the grace", 10 * time.Millisecond, []string{
			"0: 200 10 1",
			"10: 500 0",
			"0: 200 11",
			"0: 200 11", // asked at once, although nothing has changed
			"11: 200 12 2",
		}, []string{"1", "", "2"}},
		{"keeps what is missing when another call found nobody", time.Hour, []string{
			"0: 200 10 1",
			"10: away 11",
			"11: 200 12 2",
		}, []string{"1", "1 2"}},
		// As Consul 1.13 does of a service that it has no instances of.
		{"keeps no longer though the index swings", 3 * time.Second, []string{
			"0: 200 10 1",
			"10: 500 0",
			"0: 200 16",
			"16: late 13",
			"0: 200 16",
			"16: 200 17 2",
		}, []string{"1", "", "2"}},
	} {
		t.Run(c.name, func(t *testing.T) {
			discovertest.NoLeak(t)
			step := make(chan string, len(c.steps))
			for _, s := range c.steps {
				step <- s
			}
			var client *consul.Consul
			srv := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
				if r.URL.Path != "/v1/health/service/svc" {
					panic(http.ErrAbortHandler) // nobody is there
				}
				select {
				case s := <-step:
					if strings.Contains(s, "away") {
						if _, err := client.Distances(r.Context()); err == nil {
							t.Error("somebody is there")
						}
						s = strings.Replace(s, "away", "200", 1)
					}
					play(t, w, r, s)
				case <-r.Context().Done():
				}
			}))
			t.Cleanup(srv.Close)
			var err error
			client, err = consul.New(consul.Config{Address: srv.URL, Grace: c.grace})
			check(t, err)
			t.Cleanup(client.Close)
			watch := discovertest.Watch(t, client, "svc")
			for i, want := range c.lists {
				got := strings.ReplaceAll(watch.Next(), "http://10.0.0.1:", "")
				if got != want {
					t.Fatalf("list %d: %q, want %q", i, got, want)
				}
			}
			check(t, watch.End())
			watch.Quiet()
			if len(step) != 0 {
				t.Errorf("%d steps were not asked for", len(step))
			}
		})
	}
}

// play gives one answer of a script.
func play(t *testing.T, w http.ResponseWriter, r *http.Request, step string) {
	index, answer, _ := strings.Cut(step, ": ")
	f := strings.Fields(answer)
	q := r.URL.Query()
	got := q.Get("index")
	if got == "" {
		got = "0"
	}
	if got != index || r.URL.Path != "/v1/health/service/svc" || q.Get("passing") != "1" {
		t.Errorf("asked %s, want index %s", r.URL, index)
	}
	if f[0] == "late" { // when nothing has come
		wait, err := time.ParseDuration(q.Get("wait"))
		check(t, err)
		time.Sleep(wait)
		f[0] = "200"
	}
	if f[0] != "200" {
		http.Error(w, "no cluster leader", map[string]int{"500": 500, "429": 429}[f[0]])
		return
	}
	w.Header().Set("X-Consul-Index", f[1])
	var list []string
	for _, port := range f[2:] {
		list = append(list, fmt.Sprintf(`{"Node":{"Node":"n"},"Service":{"ID":"svc%s","Address":"10.0.0.1","Port":%s}}`, port, port))
	}
	fmt.Fprintf(w, "[%s]", strings.Join(list, ","))
}

package discover_test

import (
	"context"
	"io"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"ssegate/discover"
	"ssegate/internal/gatetest/discovertest"
)

// roundTrip is a transport on fake time, where no socket may be.
type roundTrip func(*http.Request) (*http.Response, error)

func (f roundTrip) RoundTrip(r *http.Request) (*http.Response, error) { return f(r) }

func answer(status int) *http.Response {
	return &http.Response{StatusCode: status, Status: http.StatusText(status), Body: io.NopCloser(strings.NewReader("ok"))}
}

// TestCheckTimes: each endpoint is asked in each round, one that hangs holds
// no other up, and the state follows the answers.
func TestCheckTimes(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var mu sync.Mutex
		asked := map[string]int{}
		behave := map[string]string{"sick": "500", "slow": "hang"}
		transport := roundTrip(func(r *http.Request) (*http.Response, error) {
			mu.Lock()
			asked[r.URL.Host]++
			how := behave[r.URL.Host]
			mu.Unlock()
			if r.Method != http.MethodGet || r.URL.Path != "/healthz" || r.URL.RawQuery != "deep=1" || r.Host != "api.example.com" {
				t.Errorf("asked %s %s of %s", r.Method, r.URL, r.Host)
			}
			switch how {
			case "500":
				return answer(http.StatusInternalServerError), nil
			case "302":
				return answer(http.StatusFound), nil
			case "hang":
				<-r.Context().Done()
				return nil, r.Context().Err()
			}
			return answer(http.StatusNoContent), nil
		})
		b := discover.NewBalancer(discover.BalancerConfig{})
		b.Update(endpoints("well", "sick", "slow"))
		down := func() (list string) {
			for _, s := range b.Snapshot() {
				if s.Down {
					list += s.ID + " "
				}
			}
			return list
		}
		ctx, cancel := context.WithCancel(t.Context())
		var wg sync.WaitGroup
		wg.Go(func() {
			b.Check(ctx, discover.CheckConfig{
				Path: "/healthz?deep=1", Every: 10 * time.Second, Timeout: 5 * time.Second, Host: "api.example.com", Transport: transport,
			})
		})

		synctest.Wait()
		if got := down(); got != "" {
			t.Errorf("down after one missed check: %s", got)
		}
		time.Sleep(16500 * time.Millisecond) // the second round is at 14 to 16 s, for slow took 5 s of the first
		synctest.Wait()
		if got := down(); got != "sick " {
			t.Errorf("down: %q, want sick, for slow's second check still hangs", got)
		}
		time.Sleep(5 * time.Second)
		synctest.Wait()
		if got := down(); got != "sick slow " {
			t.Errorf("down: %q, want sick and slow", got)
		}
		for range 4 {
			p, err := b.Pick()
			if err != nil || p.ID != "well" {
				t.Fatalf("picked %v, %v; want well", p, err)
			}
		}
		if p, err := b.Pick("well"); err != nil {
			t.Errorf("none although all that is left is down: %v, %v", p, err)
		}

		mu.Lock()
		behave["sick"], behave["slow"] = "302", ""
		mu.Unlock()
		time.Sleep(11 * time.Second) // the third round
		synctest.Wait()
		if got := down(); got != "" {
			t.Errorf("down although all checks pass: %s", got)
		}

		mu.Lock()
		behave["well"] = "500"
		mu.Unlock()
		time.Sleep(22 * time.Second) // the fourth and the fifth
		if got := down(); got != "well " {
			t.Errorf("down: %q, want well", got)
		}
		cancel()
		wg.Wait()
		if got := down(); got != "" {
			t.Errorf("down when nobody looks any more: %s", got)
		}
		mu.Lock()
		defer mu.Unlock()
		for id, n := range asked {
			if n < 5 || n > 6 {
				t.Errorf("%s was asked %d times in 54.5 s, every 10 s and twice 5 s more", id, n)
			}
		}
	})
}

// TestDownIsTheLastResort: an endpoint that fails its checks is chosen after
// one that has failed requests.
func TestDownIsTheLastResort(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b := discover.NewBalancer(discover.BalancerConfig{MaxFails: 1, FailFor: time.Hour})
		b.Update(endpoints("down", "aside"))
		ctx, cancel := context.WithCancel(t.Context())
		var wg sync.WaitGroup
		wg.Go(func() {
			b.Check(ctx, discover.CheckConfig{Transport: roundTrip(func(r *http.Request) (*http.Response, error) {
				if r.URL.Host == "down" {
					return nil, errRefused
				}
				return answer(http.StatusOK), nil
			})})
		})
		time.Sleep(time.Minute)
		for range 3 {
			p, err := b.Pick()
			if err != nil || p.ID != "aside" {
				t.Fatalf("picked %v, %v; want the one that is aside", p, err)
			}
			p.Done(errRefused)
		}
		cancel()
		wg.Wait()
	})
}

// TestCheckReal: the same over sockets: a server that falls sick and gets
// well, one that is not there, and nothing left behind.
func TestCheckReal(t *testing.T) {
	discovertest.NoLeak(t)
	var sick atomic.Bool
	srv := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if sick.Load() || r.URL.Path != "/up" {
			w.WriteHeader(http.StatusServiceUnavailable)
		}
	}))
	t.Cleanup(srv.Close)
	gone := httptest.NewServer(nil)
	gone.Close()
	b := discover.NewBalancer(discover.BalancerConfig{})
	b.Update([]discover.Endpoint{{ID: "srv", URL: srv.URL}, {ID: "gone", URL: gone.URL}})
	ctx, cancel := context.WithCancel(t.Context())
	var wg sync.WaitGroup
	wg.Go(func() {
		b.Check(ctx, discover.CheckConfig{Path: "/up", Every: 5 * time.Millisecond, Timeout: 10 * time.Second})
	})
	t.Cleanup(wg.Wait)
	t.Cleanup(cancel)
	until := func(srv, gone bool) {
		t.Helper()
		for end := time.Now().Add(30 * time.Second); ; time.Sleep(time.Millisecond) {
			s := b.Snapshot()
			if s[0].Down == srv && s[1].Down == gone {
				return
			}
			if time.Now().After(end) {
				t.Fatalf("%+v; want down to be %t and %t", s, srv, gone)
			}
		}
	}
	until(false, true)
	sick.Store(true)
	until(true, true)
	sick.Store(false)
	until(false, true)
}

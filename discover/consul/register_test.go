//go:build unix

package consul_test

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"log"
	"net/http"
	"net/http/httptest"
	"net/http/httputil"
	"net/url"
	"slices"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/hashicorp/consul/api"

	"ssegate/discover"
	"ssegate/discover/consul"
	"ssegate/internal/gatetest/discovertest"
	"ssegate/internal/gatetest/service"
)

// peers waits until c sees these peers.
func peers(t *testing.T, c *consul.Consul, ids ...string) []discover.Peer {
	t.Helper()
	var mu sync.Mutex
	var seen []discover.Peer
	stop := running(t, func(ctx context.Context) error {
		return c.WatchPeers(ctx, func(list []discover.Peer) {
			mu.Lock()
			defer mu.Unlock()
			seen = list
		})
	})
	defer stop()
	eventually(t, func() string {
		mu.Lock()
		defer mu.Unlock()
		var got []string
		for _, p := range seen {
			got = append(got, p.ID)
		}
		if slices.Equal(got, ids) {
			return ""
		}
		return "peers " + strings.Join(got, " ") + ", want " + strings.Join(ids, " ")
	})
	return seen
}

// TestRegister: what others see of a node, for as long as it is there.
func TestRegister(t *testing.T) {
	p := service.Consul(t)
	discovertest.NoLeak(t)
	a, b := open(t, p, "a"), open(t, p, "b")
	adm := admin(t, p)
	instance(t, adm, "ssegate", "http://10.0.0.1:1") // not one of ours
	stopA, stopB := running(t, a.Register), running(t, b.Register)
	seen := peers(t, a, "a", "b")
	want := discover.Peer{ID: "b", Advertise: "https://b.example", Internal: "127.0.0.1:8089"}
	if seen[1] != want {
		t.Errorf("peer %+v, want %+v", seen[1], want)
	}
	entries, _, err := adm.Health().Service("ssegate", "", true, nil)
	check(t, err)
	i := slices.IndexFunc(entries, func(e *api.ServiceEntry) bool { return e.Service.ID == "ssegate-a" })
	if i < 0 || entries[i].Service.Address != "a.example" || entries[i].Service.Port != 443 {
		t.Errorf("registered as %+v", entries[i].Service)
	}
	// Consul forgets it: the next beat registers it again.
	check(t, adm.Agent().ServiceDeregister("ssegate-a"))
	peers(t, b, "a", "b")
	stopA()
	peers(t, b, "b")
	stopB()
	left, err := adm.Agent().Services()
	check(t, err)
	if len(left) != 1 {
		t.Errorf("left behind: %v", left)
	}
}

// TestDead: a node that beats no more is passed over when its time is up.
func TestDead(t *testing.T) {
	p := service.Consul(t)
	discovertest.NoLeak(t)
	a := open(t, p, "a")
	dead := open(t, p, "dead", func(c *consul.Config) { c.TTL, c.Beat = 2*time.Second, time.Hour })
	running(t, a.Register)
	running(t, dead.Register)
	peers(t, a, "a", "dead")
	peers(t, a, "a")
}

// TestAddress: what a node is registered under.
func TestAddress(t *testing.T) {
	p := service.Consul(t)
	discovertest.NoLeak(t)
	adm := admin(t, p)
	for _, c := range []struct{ advertise, internal, want string }{
		{"https://edge.example", "10.0.0.1:8089", "edge.example:443"},
		{"http://edge.example", "10.0.0.1:8089", "edge.example:80"},
		{"http://[2001:db8::1]:8080/x", "", "2001:db8::1:8080"},
		{"", "10.0.0.1:8089", "10.0.0.1:8089"},
		{"", ":8089", ":8089"},
		{"", "", ":0"},
	} {
		node := open(t, p, "n", func(cfg *consul.Config) {
			cfg.Self = discover.Peer{ID: "n", Advertise: c.advertise, Internal: c.internal}
		})
		stop := running(t, node.Register)
		eventually(t, func() string {
			s, _, err := adm.Agent().Service("ssegate-n", nil)
			if err != nil {
				return err.Error()
			}
			if got := s.Address + ":" + strconv.Itoa(s.Port); got != c.want {
				return "registered as " + got + ", want " + c.want
			}
			return ""
		})
		stop()
	}
}

// TestRegistration: how long a node may be silent and how long dead stands in
// what is sent; Consul tells nobody, and forgets a dead node after a minute at
// the earliest.
func TestRegistration(t *testing.T) {
	p := service.Consul(t)
	discovertest.NoLeak(t)
	to, err := url.Parse(p.URL)
	check(t, err)
	sent := make(chan string, 100)
	front := httputil.NewSingleHostReverseProxy(to)
	transport := &http.Transport{}
	front.Transport = transport
	front.ErrorLog = log.New(io.Discard, "", 0) // of the calls that the test's end cuts off
	srv := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		body, _ := io.ReadAll(r.Body)
		sent <- r.URL.Path + " " + string(body)
		r.Body = io.NopCloser(bytes.NewReader(body))
		front.ServeHTTP(w, r)
	}))
	t.Cleanup(transport.CloseIdleConnections)
	t.Cleanup(srv.Close)
	running(t, open(t, p, "a", func(c *consul.Config) { c.Address, c.Beat, c.DropAfter = srv.URL, time.Hour, 5*time.Minute }).Register)
	got := <-sent
	for _, want := range []string{
		"/v1/agent/service/register", `"TTL":"30s"`, `"DeregisterCriticalServiceAfter":"5m0s"`, `"Status":"passing"`, `"node":"a"`,
	} {
		if !strings.Contains(got, want) {
			t.Errorf("want %s in %s", want, got)
		}
	}
}

// TestDistances: by the coordinates that Consul keeps, where it has them.
func TestDistances(t *testing.T) {
	p := service.Consul(t)
	discovertest.NoLeak(t)
	adm := admin(t, p)
	a := open(t, p, "a")
	if d, err := a.Distances(t.Context()); err != nil || len(d) != 0 {
		t.Errorf("Distances of who is not registered: %v, %v", d, err)
	}
	running(t, a.Register)
	peers(t, a, "a")
	for _, id := range []string{"far", "nowhere"} {
		_, err := adm.Catalog().Register(&api.CatalogRegistration{
			Node: "machine-" + id, Address: "10.0.0.9",
			Service: &api.AgentService{ID: id, Service: "ssegate", Meta: map[string]string{"node": id}},
		}, nil)
		check(t, err)
	}
	peers(t, a, "a", "far", "nowhere")
	at := map[string]string{"gatetest": "0", "machine-far": "0.08"}
	eventually(t, func() string {
		// Again each time: the agent writes its own as well.
		for node, seconds := range at {
			var e api.CoordinateEntry
			check(t, json.Unmarshal([]byte(`{"Node":"`+node+`","Coord":{"Vec":[`+seconds+`,0,0,0,0,0,0,0],"Error":1.5}}`), &e))
			_, err := adm.Coordinate().Update(&e, nil)
			check(t, err)
		}
		d, err := a.Distances(t.Context())
		check(t, err)
		if _, known := d["nowhere"]; known || len(d) != 2 || d["a"] != 0 || d["far"].Round(time.Millisecond) != 80*time.Millisecond {
			return fmt.Sprintf("%v, want far to be 80 ms away and nowhere unknown", d)
		}
		return ""
	})
}

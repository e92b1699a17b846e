//go:build unix

package consul_test

import (
	"context"
	"net"
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

// patience bounds every wait: generous, for the machine is busy.
const patience = 30 * time.Second

// open returns a client of p for the node id.
func open(t *testing.T, p *service.Proc, id string, change ...func(*consul.Config)) *consul.Consul {
	t.Helper()
	cfg := consul.Config{
		Address: p.URL, Service: "ssegate",
		Self: discover.Peer{ID: id, Advertise: "https://" + id + ".example", Internal: "127.0.0.1:8089"},
		Beat: 20 * time.Millisecond, SessionTTL: time.Second,
	}
	for _, f := range change {
		f(&cfg)
	}
	c, err := consul.New(cfg)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(c.Close)
	return c
}

// admin is Consul's own client, with which the tests play the rest of the world.
func admin(t *testing.T, p *service.Proc) *api.Client {
	t.Helper()
	conf := api.DefaultNonPooledConfig()
	conf.Address = p.URL
	c, err := api.NewClient(conf)
	if err != nil {
		t.Fatal(err)
	}
	return c
}

func check(t *testing.T, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

// eventually waits until f answers nothing that is wrong.
func eventually(t *testing.T, f func() (wrong string)) {
	t.Helper()
	for end := time.Now().Add(patience); ; time.Sleep(5 * time.Millisecond) {
		wrong := f()
		if wrong == "" {
			return
		}
		if time.Now().After(end) {
			t.Fatal(wrong)
		}
	}
}

// running runs f until the returned function, or the end of the test.
func running(t *testing.T, f func(context.Context) error) (stop func()) {
	t.Helper()
	ctx, cancel := context.WithCancel(context.Background())
	var wg sync.WaitGroup
	wg.Go(func() {
		if err := f(ctx); err != nil {
			t.Error(err)
		}
	})
	stop = func() {
		cancel()
		wg.Wait()
	}
	t.Cleanup(stop)
	return stop
}

// instance registers one instance, without a check.
func instance(t *testing.T, a *api.Client, name, raw string) {
	t.Helper()
	u, err := url.Parse(raw)
	check(t, err)
	port, err := strconv.Atoi(u.Port())
	check(t, err)
	check(t, a.Agent().ServiceRegister(&api.AgentServiceRegistration{
		ID: name + u.Host, Name: name, Address: u.Hostname(), Port: port, Meta: map[string]string{"scheme": u.Scheme},
	}))
}

func TestSource(t *testing.T) {
	p := service.Consul(t)
	discovertest.Run(t, func(t *testing.T, services map[string][]string) discovertest.World {
		a := admin(t, p)
		set := func(name string, urls ...string) {
			t.Helper()
			all, err := a.Agent().Services()
			check(t, err)
			for id, s := range all {
				if s.Service == name && !slices.ContainsFunc(urls, func(u string) bool { return strings.HasSuffix(u, "//"+id[len(name):]) }) {
					check(t, a.Agent().ServiceDeregister(id))
				}
			}
			for _, u := range urls {
				instance(t, a, name, u)
			}
		}
		set("nowhere")
		for name, urls := range services {
			set(name, urls...)
		}
		// The catalog follows the agent's word: only then is the world as it is said to be.
		for name, urls := range services {
			eventually(t, func() string {
				list, _, err := a.Health().Service(name, "", true, nil)
				check(t, err)
				if len(list) != len(urls) {
					return name + " is not in the catalog"
				}
				return ""
			})
		}
		return discovertest.World{Source: open(t, p, "a"), Set: set}
	})
}

// TestHealth: what is critical is passed over, until it passes again; a
// warning is no pass.
func TestHealth(t *testing.T) {
	p := service.Consul(t)
	discovertest.NoLeak(t)
	a := admin(t, p)
	check(t, a.Agent().ServiceRegister(&api.AgentServiceRegistration{
		Name: "svc", Address: "10.0.0.1", Port: 80,
		Check: &api.AgentServiceCheck{CheckID: "up", TTL: "1h", Status: api.HealthPassing},
	}))
	check(t, a.Agent().ServiceRegister(&api.AgentServiceRegistration{ID: "other", Name: "svc", Port: 81}))
	// Without an address of its own an instance is where its agent is.
	w := discovertest.Watch(t, open(t, p, "a"), "svc")
	w.Want("http://10.0.0.1:80", "http://127.0.0.1:81")
	for _, status := range []string{api.HealthCritical, api.HealthWarning} {
		check(t, a.Agent().UpdateTTL("up", "", status))
		w.Want("http://127.0.0.1:81")
		check(t, a.Agent().UpdateTTL("up", "", api.HealthPassing))
		w.Want("http://10.0.0.1:80", "http://127.0.0.1:81")
	}
	w.Quiet()
}

func TestNew(t *testing.T) {
	f := func(address, want string) {
		t.Helper()
		c, err := consul.New(consul.Config{Address: address})
		switch {
		case want == "" && err != nil:
			t.Errorf("%s: %v", address, err)
		case want != "" && (err == nil || !strings.Contains(err.Error(), want)):
			t.Errorf("%s: %v, want %q", address, err, want)
		case err != nil && strings.Contains(err.Error(), "secret"):
			t.Errorf("%s: the error tells the password: %v", address, err)
		}
		if c != nil {
			c.Close()
		}
	}
	f("http://127.0.0.1:8500", "")
	f("https://consul.example", "")
	f("http://user:secret@127.0.0.1:8500", "")
	f("127.0.0.1:8500", "no URL")
	f("tcp://user:secret@host:1", "want http://host:8500")
	f("http://user:secret@host:port", "no URL")
	f("", "want http://host:8500")
}

// TestPassword: what the URL bears is sent as it should be.
func TestPassword(t *testing.T) {
	discovertest.NoLeak(t)
	l, err := net.Listen("tcp", "127.0.0.1:0")
	check(t, err)
	head := make(chan string, 1)
	var wg sync.WaitGroup
	wg.Go(func() {
		conn, err := l.Accept()
		if err != nil {
			head <- err.Error()
			return
		}
		defer conn.Close()
		buf := make([]byte, 4096)
		n, _ := conn.Read(buf)
		head <- string(buf[:n])
	})
	c, err := consul.New(consul.Config{Address: "http://user:secret@" + l.Addr().String() + "/consul", Token: "token"})
	check(t, err)
	defer c.Close()
	if _, err := c.Lead(t.Context()); err == nil {
		t.Error("no error from a Consul that hangs up")
	}
	wg.Wait()
	check(t, l.Close())
	got := <-head
	for _, want := range []string{"PUT /consul/v1/session/create", "Authorization: Basic dXNlcjpzZWNyZXQ=", "X-Consul-Token: token"} {
		if !strings.Contains(got, want) {
			t.Errorf("want %q in\n%s", want, got)
		}
	}
}

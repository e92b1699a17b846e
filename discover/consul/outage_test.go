//go:build unix

package consul_test

import (
	"context"
	"testing"
	"time"

	"ssegate/discover/consul"
	"ssegate/internal/gatetest/discovertest"
	"ssegate/internal/gatetest/service"
)

// TestPaused: a Consul that stands still (SIGSTOP) holds nobody up: the list
// stands, calls end, and when it goes on so does everything.
func TestPaused(t *testing.T) {
	p := service.Consul(t)
	discovertest.NoLeak(t)
	a := admin(t, p)
	instance(t, a, "svc", "http://10.0.0.1:80")
	c := open(t, p, "a")
	w := discovertest.Watch(t, c, "svc")
	w.Want("http://10.0.0.1:80")
	stop := running(t, c.Register)
	peers(t, open(t, p, "x"), "a")
	lead(t, c, true)

	p.Pause()
	began := time.Now()
	ctx, cancel := context.WithTimeout(t.Context(), 50*time.Millisecond)
	ok, err := c.Lead(ctx)
	cancel()
	if took := time.Since(began); ok || err == nil || took > 3*time.Second {
		t.Errorf("Lead of a Consul that stands still: %t, %v after %v", ok, err, took)
	}
	if c.Err() == nil {
		t.Error("Err is nil while Consul does not answer")
	}
	other := discovertest.Watch(t, c, "svc") // has no list, but ends when it is told to
	if err := other.End(); err != nil {
		t.Error(err)
	}
	began = time.Now()
	stop()
	if took := time.Since(began); took > 10*time.Second {
		t.Errorf("leaving took %v", took)
	}
	w.Quiet()

	p.Resume()
	instance(t, a, "svc", "http://10.0.0.2:80")
	w.Want("http://10.0.0.1:80", "http://10.0.0.2:80")
}

// TestRestartedEmpty: a Consul that was killed and has forgotten everything
// gets this node's registration and lock again; what it does not know yet is
// kept for a while, and no longer.
func TestRestartedEmpty(t *testing.T) {
	p := service.Consul(t)
	discovertest.NoLeak(t)
	instance(t, admin(t, p), "svc", "http://10.0.0.1:80")
	instance(t, admin(t, p), "svc", "http://10.0.0.2:80")
	// A query that was not under way when Consul was killed meets the new one
	// with an index from its future, and learns of it after Wait.
	grace := func(d time.Duration) func(*consul.Config) {
		return func(c *consul.Config) { c.Grace, c.Wait = d, time.Second }
	}
	c := open(t, p, "a", grace(time.Hour))
	patient := discovertest.Watch(t, c, "svc")
	hasty := discovertest.Watch(t, open(t, p, "b", grace(-1)), "svc")
	some := discovertest.Watch(t, open(t, p, "c", grace(300*time.Millisecond)), "svc")
	for _, w := range []*discovertest.Watching{patient, hasty, some} {
		w.Want("http://10.0.0.1:80", "http://10.0.0.2:80")
	}
	running(t, c.Register)
	peers(t, open(t, p, "x"), "a")
	lead(t, c, true)

	p.Kill()
	eventually(t, func() string {
		if c.Err() == nil {
			return "nobody noticed that Consul is gone"
		}
		return ""
	})
	for _, w := range []*discovertest.Watching{patient, hasty, some} {
		w.Quiet()
	}
	if err := p.Start(); err != nil {
		t.Fatal(err)
	}
	peers(t, open(t, p, "y"), "a")
	lead(t, c, true)
	hasty.Want()
	some.Want() // after its grace
	instance(t, admin(t, p), "svc", "http://10.0.0.3:80")
	hasty.Want("http://10.0.0.3:80")
	some.Want("http://10.0.0.3:80")
	// Never less than it had.
	if got, want := patient.Next(), "http://10.0.0.1:80 http://10.0.0.2:80 http://10.0.0.3:80"; got != want {
		t.Errorf("got %s, want %s", got, want)
	}
}

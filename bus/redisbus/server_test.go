package redisbus_test

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"strings"
	"testing"
	"time"

	"github.com/redis/go-redis/v9"

	"ssegate/bus"
	"ssegate/bus/redisbus"
	"ssegate/internal/gatetest/bustest"
)

func node(tb testing.TB, id string) *bustest.Node {
	tb.Helper()
	return bustest.Start(tb, redisbus.New(client(tb, server), prefix, id), id)
}

// Connections that go silent, both or one of them, are given up soon.
func TestSilentConnections(t *testing.T) {
	for what, n := range map[string]int{"both": -1, "the subscriber's": 0, "the publisher's": 1} {
		t.Run(what, func(t *testing.T) {
			bustest.NoLeak(t)
			cable := bustest.NewCable(t, server.Addr)
			c := redis.NewClient(&redis.Options{Addr: cable.Addr, ReadTimeout: time.Hour, MaxRetries: 10})
			t.Cleanup(func() { c.Close() })
			a, b := bustest.Start(t, redisbus.New(c, prefix, "a"), "a"), node(t, "b")
			a.Reach(t, b)
			b.Reach(t, a)
			cable.Silence(n)
			began := time.Now()
			a.WaitDown(t, 1)
			a.WaitUp(t, 2)
			if took := time.Since(began); took > 15*time.Second {
				t.Fatalf("back after %v", took)
			}
			a.Forget()
			b.Forget()
			a.Reach(t, b)
			b.Reach(t, a)
		})
	}
}

// What Redis does to slow subscribers, and operators to all.
func TestConnectionsKilled(t *testing.T) {
	for _, kind := range []string{"pubsub", "normal"} {
		t.Run(kind, func(t *testing.T) {
			bustest.NoLeak(t)
			a, b := node(t, "a"), node(t, "b")
			a.Reach(t, b)
			b.Reach(t, a)
			must(t, client(t, server).ClientKillByFilter(t.Context(), "TYPE", kind, "SKIPME", "yes").Err())
			for _, n := range []*bustest.Node{a, b} {
				n.WaitDown(t, 1)
				n.WaitUp(t, 2)
			}
			a.Forget()
			b.Forget()
			a.Reach(t, b)
		})
	}
}

func TestGarbage(t *testing.T) {
	bustest.NoLeak(t)
	bb := redisbus.New(client(t, server), prefix, "b")
	a, b := node(t, "a"), bustest.Start(t, bb, "b")
	c := client(t, server)
	garbage := []string{"", "hello", strings.Repeat("\x00", 100), "\x01" + strings.Repeat("\xff", 40)}
	for _, body := range garbage {
		must(t, c.Publish(t.Context(), prefix+":bus:b", body).Err())
	}
	deadline := time.Now().Add(time.Minute)
	for bb.Garbled() < uint64(len(garbage)) {
		if time.Now().After(deadline) {
			t.Fatalf("%d parcels counted of %d", bb.Garbled(), len(garbage))
		}
		time.Sleep(time.Millisecond)
	}
	a.Reach(t, b)
	if got := b.WaitMessages(t, 1); got[0].From != "a" {
		t.Fatalf("got %+v", got)
	}
}

func TestErr(t *testing.T) {
	bustest.NoLeak(t)
	c := redis.NewClient(&redis.Options{Addr: "127.0.0.1:1", Password: "geheim"})
	t.Cleanup(func() { c.Close() })
	b := redisbus.New(c, prefix, "a")
	bustest.StartDown(t, b, "a")
	deadline := time.Now().Add(time.Minute)
	for b.Err() == nil || !strings.Contains(b.Err().Error(), "refused") {
		if time.Now().After(deadline) {
			t.Fatalf("Err is %v", b.Err())
		}
		time.Sleep(time.Millisecond)
	}
	if strings.Contains(b.Err().Error(), "geheim") {
		t.Fatal(b.Err())
	}
}

func TestAnotherKindOfClient(t *testing.T) {
	c := redis.NewRing(&redis.RingOptions{Addrs: map[string]string{"one": server.Addr}})
	t.Cleanup(func() { c.Close() })
	b := redisbus.New(c, prefix, "a")
	if err := b.Run(t.Context(), nil); !errors.Is(err, redisbus.ErrClient) {
		t.Fatal(err)
	}
	if err := b.Send(t.Context(), "a", []bus.Message{{}}); !errors.Is(err, bus.ErrDown) {
		t.Fatal(err)
	}
}

// The options are those of the client, TLS and password included.
func TestTLSAndPassword(t *testing.T) {
	bustest.NoLeak(t)
	c := client(t, server)
	must(t, c.ConfigSet(t.Context(), "requirepass", "geheim").Err())
	t.Cleanup(func() { must(t, c.ConfigSet(context.Background(), "requirepass", "").Err()) })
	cert, trust := bustest.Certificate(t)
	pool := x509.NewCertPool()
	pool.AppendCertsFromPEM(trust)
	cable := bustest.NewCable(t, server.Addr, cert)
	o := &redis.Options{Addr: cable.Addr, Password: "geheim", TLSConfig: &tls.Config{RootCAs: pool}}
	with := redis.NewClient(o)
	t.Cleanup(func() { with.Close() })
	a := bustest.Start(t, redisbus.New(with, prefix, "a"), "a")
	a.Say(t, "a", bus.Message{Kind: 1, Body: make([]byte, bus.MaxBody)})
	a.WaitMessages(t, 1)
	cable.Silence(-1)
	a.WaitDown(t, 1)
	a.WaitUp(t, 2)
}

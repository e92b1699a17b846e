package rabbit_test

import (
	"errors"
	"net/url"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"testing"
	"time"

	amqp "github.com/rabbitmq/amqp091-go"

	"ssegate/bus"
	"ssegate/bus/rabbit"
	"ssegate/internal/gatetest/bustest"
)

// node starts a node of the broker.
func node(tb testing.TB, cfg rabbit.Config) *bustest.Node {
	tb.Helper()
	return bustest.Start(tb, open(tb, cfg), cfg.Node)
}

// While the broker has an alarm it takes nothing from publishers. That counts
// as down, but what it has is still delivered.
func TestAlarm(t *testing.T) {
	bustest.NoLeak(t)
	a, b := node(t, config(t, "a")), node(t, config(t, "b"))
	b.Hold()
	const count = 100 // more than the prefetch
	for range count {
		a.Say(t, "b", bus.Message{Kind: 1, Body: make([]byte, 300<<10)})
	}
	a.Reach(t, a) // behind all of them, so the broker has them
	ctl(t, "set_vm_memory_high_watermark", "0")
	lift := func() { ctl(t, "set_vm_memory_high_watermark", "0.4") }
	defer lift()
	a.WaitDown(t, 1)
	if err := a.Send(t.Context(), "b", []bus.Message{{Kind: 1}}); !errors.Is(err, bus.ErrDown) {
		t.Fatalf("Send during the alarm: %v", err)
	}
	if err := a.Err(); err == nil || !strings.Contains(err.Error(), "blocks publishers") {
		t.Fatalf("Err: %v", err)
	}
	b.Release()
	b.WaitMessages(t, count)
	b.WaitDown(t, 1)

	// Longer than any time limit: the connections must outlive it.
	time.Sleep(4 * time.Second)
	lift()
	a.WaitUp(t, 2)
	b.WaitUp(t, 2)
	b.Forget()
	a.Reach(t, b)
	if got := len(a.Ups()); got != 3 {
		t.Fatalf("ups: %v", a.Ups())
	}
}

// A node that begins while the broker has an alarm is not up, until it can be.
func TestBeginsInAlarm(t *testing.T) {
	bustest.NoLeak(t)
	ctl(t, "set_vm_memory_high_watermark", "0")
	lift := func() { ctl(t, "set_vm_memory_high_watermark", "0.4") }
	defer lift()
	a := bustest.StartDown(t, open(t, config(t, "a")), "a")
	deadline := time.Now().Add(time.Minute)
	for a.Err() == nil || !strings.Contains(a.Err().Error(), "blocks publishers") {
		if time.Now().After(deadline) {
			t.Fatalf("Err: %v", a.Err())
		}
		time.Sleep(10 * time.Millisecond)
	}
	if len(a.Ups()) != 0 {
		t.Fatalf("ups: %v", a.Ups())
	}
	lift()
	a.WaitUp(t, 1)
}

// A node that takes nothing fills its own queue to the limit, no more, and who
// sends to it is told.
func TestBrokerKeepsLittle(t *testing.T) {
	bustest.NoLeak(t)
	a := node(t, config(t, "a"))
	cfg := config(t, "b")
	cfg.BrokerBytes = 2 * bus.MaxBody
	b := node(t, cfg)
	b.Hold()
	for range 200 { // 100 MiB, of which the prefetch lets 32 through
		a.Say(t, "b", bus.Message{Kind: 1, Body: make([]byte, 512<<10)})
		a.Reach(t, a)
		a.Forget()
	}
	a.WaitLost(t, "b", bus.LostRefused)
	most := 0
	for _, line := range ctl(t, "list_queues", "--no-table-headers", "message_bytes_ready") {
		n, err := strconv.Atoi(line)
		must(t, err)
		most = max(most, n)
	}
	if most == 0 || most > cfg.BrokerBytes {
		t.Fatalf("the broker keeps %d bytes, the limit is %d", most, cfg.BrokerBytes)
	}
	b.Release()
	b.Forget()
	a.Reach(t, b)
	if len(b.Ups()) != 1 {
		t.Fatalf("ups: %v", b.Ups())
	}
}

// Connections that go silent, both or one of them, are given up soon, and the
// node is back at once, though the broker still thinks the old ones alive.
func TestSilentConnections(t *testing.T) {
	for what, n := range map[string]int{"both": -1, "the consumer's": 0, "the publisher's": 1} {
		t.Run(what, func(t *testing.T) {
			bustest.NoLeak(t)
			cable := bustest.NewCable(t, broker.Addr)
			cfg := config(t, "a")
			cfg.URL = "amqp://guest:guest@" + cable.Addr + "/"
			cfg.Heartbeat = time.Minute // it is not the heartbeat that notices
			a, b := node(t, cfg), node(t, config(t, "b"))
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

// What a connection that was given up still brings to the broker, minutes
// later perhaps, does not come behind what was sent since.
func TestLateBytes(t *testing.T) {
	bustest.NoLeak(t)
	cable := bustest.NewCable(t, broker.Addr)
	cfg := config(t, "a")
	cfg.URL = "amqp://guest:guest@" + cable.Addr + "/"
	a, b := node(t, cfg), node(t, config(t, "b"))
	a.Reach(t, b)
	b.Forget()
	release := cable.Hold(1) // the publisher's
	for i := range 50 {
		a.Say(t, "b", bus.Message{Kind: 1, Call: uint64(i + 1)})
	}
	a.WaitDown(t, 1)
	a.WaitLost(t, "b", bus.LostRefused)
	a.WaitUp(t, 2)
	a.Say(t, "b", bus.Message{Kind: 1, Call: 51})
	if got := b.WaitMessages(t, 1); got[0].Call != 51 {
		t.Fatalf("message %d", got[0].Call)
	}
	connections := func() int { return len(ctl(t, "list_connections", "--no-table-headers", "name")) }
	if n := connections(); n != 5 {
		t.Fatalf("the broker knows %d connections; it should have the one that was given up", n)
	}
	release()
	deadline := time.Now().Add(time.Minute)
	for connections() > 4 { // then it has read all of it
		if time.Now().After(deadline) {
			t.Fatal("the broker keeps the connection")
		}
	}
	a.Reach(t, b)
	for _, m := range b.WaitMessages(t, 2) {
		if m.Kind == 1 && m.Call < 51 {
			t.Fatalf("message %d came behind 51", m.Call)
		}
	}
}

func TestConnectionsCut(t *testing.T) {
	bustest.NoLeak(t)
	a, b := node(t, config(t, "a")), node(t, config(t, "b"))
	ctl(t, "close_all_connections", "maintenance")
	for _, n := range []*bustest.Node{a, b} {
		n.WaitDown(t, 1)
		n.WaitUp(t, 2)
	}
	a.Reach(t, b)
}

// somebody is another client of the broker.
func somebody(tb testing.TB) *amqp.Channel {
	tb.Helper()
	c, err := amqp.Dial(broker.URL)
	must(tb, err)
	tb.Cleanup(func() { c.Close() })
	ch, err := c.Channel()
	must(tb, err)
	return ch
}

// An exchange that somebody deletes is declared again.
func TestExchangeDeleted(t *testing.T) {
	bustest.NoLeak(t)
	a, b := node(t, config(t, "a")), node(t, config(t, "b"))
	must(t, somebody(t).ExchangeDelete("test", false, false))
	for _, n := range []*bustest.Node{a, b} {
		n.WaitDown(t, 1)
		n.WaitUp(t, 2)
	}
	a.Reach(t, b)
}

// What is not a node's parcel is counted and does no harm.
func TestGarbage(t *testing.T) {
	bustest.NoLeak(t)
	bb := open(t, config(t, "b"))
	a, b := node(t, config(t, "a")), bustest.Start(t, bb, "b")
	ch := somebody(t)
	garbage := []string{"", "hello", strings.Repeat("\x00", 100), "\x01" + strings.Repeat("\xff", 40)}
	for _, body := range garbage {
		must(t, ch.PublishWithContext(t.Context(), "test", "b", true, false, amqp.Publishing{Body: []byte(body)}))
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

// What an operator must know, and no password.
func TestErr(t *testing.T) {
	bustest.NoLeak(t)
	f := func(url, want string) {
		t.Helper()
		b := open(t, rabbit.Config{URL: url, Prefix: "test", Node: "a"})
		n := bustest.StartDown(t, b, "a")
		deadline := time.Now().Add(time.Minute)
		for b.Err() == nil || !strings.Contains(b.Err().Error(), want) {
			if time.Now().After(deadline) {
				t.Fatalf("Err is %v, want %q", b.Err(), want)
			}
			time.Sleep(time.Millisecond)
		}
		if strings.Contains(b.Err().Error(), "geheim") {
			t.Fatal(b.Err())
		}
		n.Stop(t)
		if !errors.Is(b.Err(), bus.ErrClosed) {
			t.Fatalf("after Run: %v", b.Err())
		}
	}
	f("amqp://guest:geheim@"+broker.Addr+"/", "username or password not allowed")
	f("amqp://guest:guest@"+broker.Addr+"/nothere", "vhost")
	f("amqp://guest:geheim@127.0.0.1:1/", "refused")
}

// TLS goes through the same sockets, and a certificate that nobody vouches for
// is refused.
func TestTLS(t *testing.T) {
	bustest.NoLeak(t)
	cert, trust := bustest.Certificate(t)
	file := filepath.Join(t.TempDir(), "ca.pem")
	must(t, os.WriteFile(file, trust, 0o600))
	cable := bustest.NewCable(t, broker.Addr, cert)
	cfg := config(t, "a")
	cfg.URL = "amqps://guest:guest@" + cable.Addr + "/?cacertfile=" + url.QueryEscape(file)
	a := node(t, cfg)
	a.Say(t, "a", bus.Message{Kind: 1, Body: make([]byte, bus.MaxBody)})
	a.WaitMessages(t, 1)
	cable.Silence(-1)
	a.WaitDown(t, 1)
	a.WaitUp(t, 2)

	cfg.URL = "amqps://guest:guest@" + cable.Addr + "/"
	b := bustest.StartDown(t, open(t, cfg), "a")
	deadline := time.Now().Add(time.Minute)
	for b.Err() == nil || !strings.Contains(b.Err().Error(), "certificate") {
		if time.Now().After(deadline) {
			t.Fatalf("Err is %v", b.Err())
		}
		time.Sleep(time.Millisecond)
	}
}

// A node id that AMQP has no room for is nobody's.
func TestEndlessNode(t *testing.T) {
	bustest.NoLeak(t)
	a := node(t, config(t, "a"))
	nobody := strings.Repeat("x", 1000)
	a.Say(t, nobody, bus.Message{Kind: 1})
	a.WaitLost(t, nobody, bus.LostUnroutable)
	a.Reach(t, a)
	if len(a.Ups()) != 1 {
		t.Fatalf("ups: %v", a.Ups())
	}
}

package rabbit_test

import (
	"errors"
	"fmt"
	"os"
	"strings"
	"testing"

	"ssegate/bus"
	"ssegate/bus/rabbit"
	"ssegate/internal/gatetest/bustest"
	"ssegate/internal/gatetest/service"
)

// broker is the one broker of this package's tests: it takes seconds to start.
var broker *service.Proc

func TestMain(m *testing.M) { os.Exit(run(m)) }

func run(m *testing.M) int {
	var err error
	if broker, err = service.StartRabbit(""); err != nil {
		fmt.Fprintln(os.Stderr, err)
		return 1
	}
	defer broker.Close()
	return m.Run()
}

// config is that of a node of the test tb alone.
func config(tb testing.TB, node string) rabbit.Config {
	return rabbit.Config{URL: broker.URL, Prefix: "test", Node: node}
}

func open(tb testing.TB, cfg rabbit.Config) *rabbit.Bus {
	tb.Helper()
	b, err := rabbit.New(cfg)
	if err != nil {
		tb.Fatal(err)
	}
	return b
}

func must(tb testing.TB, err error) {
	tb.Helper()
	if err != nil {
		tb.Fatal(err)
	}
}

func world() bustest.World {
	return bustest.World{
		Open: func(tb testing.TB, node string) bus.Bus { return open(tb, config(tb, node)) },
		Restart: func(tb testing.TB) {
			must(tb, broker.Kill())
			must(tb, broker.Start())
		},
		Pause:  func(tb testing.TB) { must(tb, broker.Pause()) },
		Resume: func(tb testing.TB) { must(tb, broker.Resume()) },
		Left:   queues,
	}
}

// ctl runs rabbitmqctl and returns the lines that it printed.
func ctl(tb testing.TB, args ...string) []string {
	tb.Helper()
	out, err := broker.Ctl(tb.Context(), args...)
	must(tb, err)
	return strings.FieldsFunc(out, func(r rune) bool { return r == '\n' })
}

func queues(tb testing.TB) []string {
	tb.Helper()
	return ctl(tb, "list_queues", "--no-table-headers", "name")
}

func TestRabbit(t *testing.T) { bustest.Run(t, world()) }

func TestConfig(t *testing.T) {
	good := rabbit.Config{URL: "amqp://user:geheim@127.0.0.1:1/", Node: "a"}
	if _, err := rabbit.New(good); err != nil {
		t.Fatal(err)
	}
	f := func(change func(*rabbit.Config)) {
		t.Helper()
		cfg := good
		change(&cfg)
		_, err := rabbit.New(cfg)
		if !errors.Is(err, rabbit.ErrConfig) {
			t.Fatalf("%+v: %v", cfg, err)
		}
		if strings.Contains(err.Error(), "geheim") {
			t.Fatalf("the error tells the password: %v", err)
		}
	}
	f(func(c *rabbit.Config) { c.URL = "" })
	f(func(c *rabbit.Config) { c.URL = "http://user:geheim@127.0.0.1/" })
	f(func(c *rabbit.Config) { c.URL = "amqp://user:geheim#x@127.0.0.1/" })
	f(func(c *rabbit.Config) { c.Node = "" })
	f(func(c *rabbit.Config) { c.Node = strings.Repeat("x", 250) })
	f(func(c *rabbit.Config) { c.Heartbeat = 1 })
	f(func(c *rabbit.Config) { c.StallAfter = -1 })
	f(func(c *rabbit.Config) { c.BrokerBytes = 1 })
}

func BenchmarkRabbit(b *testing.B) { bustest.Bench(b, world()) }

package redisbus_test

import (
	"fmt"
	"os"
	"strings"
	"testing"
	"time"

	"github.com/redis/go-redis/v9"

	"ssegate/bus"
	"ssegate/bus/redisbus"
	"ssegate/internal/gatetest/bustest"
	"ssegate/internal/gatetest/service"
)

// server and shard are the Redis servers of this package's tests: one alone,
// and one that is a Redis Cluster by itself.
var server, shard *service.Proc

func TestMain(m *testing.M) { os.Exit(run(m)) }

func run(m *testing.M) int {
	var err error
	if server, err = service.StartRedis(""); err != nil {
		fmt.Fprintln(os.Stderr, err)
		return 1
	}
	defer server.Close()
	if shard, err = service.StartRedis("", "--cluster-enabled", "yes"); err != nil {
		fmt.Fprintln(os.Stderr, err)
		return 1
	}
	defer shard.Close()
	return m.Run()
}

const prefix = "test"

// client connects as ssegate does, and counts on nothing in the options: what
// matters to the bus it sets itself.
func client(tb testing.TB, p *service.Proc) *redis.Client {
	tb.Helper()
	o, err := redis.ParseURL(p.URL)
	must(tb, err)
	c := redis.NewClient(o)
	tb.Cleanup(func() { c.Close() })
	return c
}

func must(tb testing.TB, err error) {
	tb.Helper()
	if err != nil {
		tb.Fatal(err)
	}
}

// world is a server as the suite sees it; connect makes a node's client.
func world(p *service.Proc, connect func(testing.TB) redis.UniversalClient, born func(testing.TB)) bustest.World {
	return bustest.World{
		Open: func(tb testing.TB, node string) bus.Bus {
			return redisbus.New(connect(tb), prefix, node)
		},
		Restart: func(tb testing.TB) {
			must(tb, p.Kill())
			must(tb, p.Start())
			born(tb)
		},
		Pause:  func(tb testing.TB) { must(tb, p.Pause()) },
		Resume: func(tb testing.TB) { must(tb, p.Resume()) },
		Left: func(tb testing.TB) []string {
			c := client(tb, p)
			var left []string
			for _, ask := range []*redis.StringSliceCmd{
				c.Keys(tb.Context(), "*"),
				c.PubSubChannels(tb.Context(), "*"),
				c.PubSubShardChannels(tb.Context(), "*"),
			} {
				list, err := ask.Result()
				must(tb, err)
				left = append(left, list...)
			}
			return left
		},
	}
}

func alone() bustest.World {
	return world(server,
		func(tb testing.TB) redis.UniversalClient { return client(tb, server) },
		func(testing.TB) {})
}

func TestRedis(t *testing.T) { bustest.Run(t, alone()) }

func TestRedisCluster(t *testing.T) {
	born := func(tb testing.TB) { // gives a new server all slots, and waits until it serves them
		c := client(tb, shard)
		for {
			info, err := c.ClusterInfo(tb.Context()).Result()
			must(tb, err)
			if strings.Contains(info, "cluster_state:ok") {
				return
			}
			if strings.Contains(info, "cluster_slots_assigned:0") {
				must(tb, c.ClusterAddSlotsRange(tb.Context(), 0, 16383).Err())
			}
			time.Sleep(10 * time.Millisecond)
		}
	}
	born(t)
	w := world(shard, func(tb testing.TB) redis.UniversalClient {
		c := redis.NewClusterClient(&redis.ClusterOptions{Addrs: []string{shard.Addr}})
		tb.Cleanup(func() { c.Close() })
		return c
	}, born)
	bustest.Run(t, w)
}

func BenchmarkRedis(b *testing.B) { bustest.Bench(b, alone()) }

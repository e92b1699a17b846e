package gate

import (
	"github.com/redis/go-redis/v9"

	"ssegate/bus"
)

func newRedisBus(client redis.UniversalClient, prefix, node string) bus.Bus { return bus.NewMemory().Node(node) }

func newRabbit(url, prefix, node string) (bus.Bus, error) { return bus.NewMemory().Node(node), nil }

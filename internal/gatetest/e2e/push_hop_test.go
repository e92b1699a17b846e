package e2e

import (
	"context"
	"fmt"
	"math/rand/v2"
	"sync"
	"testing"
	"time"

	. "ssegate/internal/gatetest"
	"ssegate/internal/gatetest/service"
	"ssegate/push/client"
)

// Publishers on all nodes and subscribers that hop at random: each of these
// sees every message once, and all see them in one and the same order.
func TestPushHop(t *testing.T) {
	t.Run("redis and rabbitmq", func(t *testing.T) {
		w := &world{redis: service.Redis(t), rabbit: service.Rabbit(t), backend: NewBackend(t)}
		hopping(t, 12*time.Second, w.trio(t, pushes))
	})
	t.Run("redis", func(t *testing.T) {
		w := &world{redis: service.Redis(t), backend: NewBackend(t)}
		hopping(t, 3*time.Second, w.trio(t, pushes))
	})
	t.Run("memory", func(t *testing.T) {
		hopping(t, 2*time.Second, []*Node{Start(t, bin, "one", pushes)})
	})
}

func hopping(t *testing.T, long time.Duration, nodes []*Node) {
	const publishers, subscribers = 20, 50
	path := fmt.Sprint("/sse/stream/all?since=", time.Now().Add(-time.Minute).UnixMilli())
	var riders []*rider
	for i := range subscribers {
		riders = append(riders, ride(t, path, i, often, nodes...))
	}
	for _, r := range riders {
		r.begun()
	}
	var l ledger
	var wg sync.WaitGroup
	begun := time.Now()
	for i := range publishers {
		rng := rand.New(rand.NewPCG(uint64(i), 19))
		p := publisher(t, nodes[i%len(nodes)])
		wg.Go(func() {
			for n := 0; time.Since(begun) < long; n++ {
				data := fmt.Sprintf(`"%d of %d"`, n, i)
				a, err := p.Send(context.Background(), client.Message{Target: client.Target{Channel: "all"}, Data: fmt.Sprintf("%d of %d", n, i)})
				if err != nil {
					t.Errorf("%s: %v", data, err)
					return
				}
				l.add(data, a.Targets[0].Position)
				time.Sleep(time.Duration(rng.IntN(200)) * time.Millisecond) // the pace of a service, not a wait
			}
		})
	}
	wg.Wait()
	should := l.inOrder()
	connections := 0
	for _, r := range riders {
		r.exactly(should)
		connections += r.count()
	}
	t.Logf("%d messages, %d connections, %d events", len(should), connections, len(should)*subscribers)
}

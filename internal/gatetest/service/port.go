//go:build unix

package service

import (
	"errors"
	"fmt"
	"math/rand/v2"
	"net"
	"strconv"
)

// Ports are drawn below the range from which Linux takes the ports of outgoing connections and of listeners on port 0,
// so that a service's port is still free when it is started again after a kill. 10 000 above each is a port as well:
// Redis Cluster's bus.
const (
	lowestPort  = 10000
	highestPort = 32000
)

// freePorts draws n ports of 127.0.0.1 that nobody uses, for TCP or UDP. Somebody else may be quicker to use them, so a
// service that ends at once is tried again with others.
func freePorts(n int) ([]int, error) {
	var ports []int
	var held []interface{ Close() error }
	defer func() {
		for _, h := range held {
			h.Close()
		}
	}()
	var errs []error
	for range 100 {
		if len(ports) == n {
			return ports, nil
		}
		port := lowestPort + rand.IntN(highestPort-lowestPort)
		l, err := net.Listen("tcp", addr(port))
		if err != nil {
			errs = append(errs, err)
			continue
		}
		held = append(held, l) // until all are drawn, so that no port is drawn twice
		u, err := net.ListenPacket("udp", addr(port))
		if err != nil {
			errs = append(errs, err)
			continue
		}
		held = append(held, u)
		ports = append(ports, port)
	}
	return nil, fmt.Errorf("service: no free ports: %w", errors.Join(errs...))
}

// addr is a port's address on this machine.
func addr(port int) string { return net.JoinHostPort("127.0.0.1", strconv.Itoa(port)) }

//go:build unix

package service

import (
	"context"
	"fmt"
	"io"
	"net"
	"strconv"
	"testing"
	"time"
)

// Redis starts a Redis server for t. URL is "redis://127.0.0.1:PORT/0". Arguments are handed to redis-server, such as
// "--replicaof", "127.0.0.1 6379".
//
// It writes its append-only file without waiting for the disk: that survives Kill, which KeepData needs.
func Redis(t testing.TB, args ...string) *Proc {
	t.Helper()
	return forTest(t, redis(args))
}

// StartRedis is [Redis] without a test; dir may be empty. The caller closes it.
func StartRedis(dir string, args ...string) (*Proc, error) { return start(nil, dir, redis(args)) }

func redis(args []string) service {
	return service{
		name:    "redis",
		ports:   1,
		timeout: time.Minute,
		url:     func(addr string) string { return "redis://" + addr + "/0" },
		setup: func(p *Proc) ([]step, error) {
			path, err := program("apt-get install redis-server", "redis-server")
			if err != nil {
				return nil, err
			}
			return []step{{
				path: path,
				args: append([]string{
					"--port", strconv.Itoa(p.ports[0]), "--bind", "127.0.0.1", "--dir", p.data(),
					"--save", "", "--appendonly", "yes", "--appendfsync", "no",
				}, args...),
				ready: func(ctx context.Context) error { return exchange(ctx, p.Addr, "PING\r\n", "+PONG\r\n") },
			}}, nil
		},
	}
}

// exchange connects to addr, says one thing and wants one answer, or the beginning of it.
func exchange(ctx context.Context, addr, say, want string) error {
	conn, err := new(net.Dialer).DialContext(ctx, "tcp", addr)
	if err != nil {
		return err
	}
	defer conn.Close()
	if deadline, ok := ctx.Deadline(); ok {
		if err := conn.SetDeadline(deadline); err != nil {
			return err
		}
	}
	if _, err := io.WriteString(conn, say); err != nil {
		return err
	}
	got := make([]byte, len(want))
	if _, err := io.ReadFull(conn, got); err != nil {
		return err
	}
	if string(got) != want {
		return fmt.Errorf("%s answers %q", addr, got)
	}
	return nil
}

//go:build unix

package service

import (
	"context"
	"errors"
	"fmt"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"testing"
	"time"
)

// Rabbit starts a RabbitMQ broker for t, without plugins. URL is "amqp://guest:guest@127.0.0.1:PORT/". It takes some
// seconds: start one a package, in TestMain, rather than one a test.
func Rabbit(t testing.TB) *Proc {
	t.Helper()
	return forTest(t, rabbit())
}

// StartRabbit is [Rabbit] without a test; dir may be empty. The caller closes it.
func StartRabbit(dir string) (*Proc, error) { return start(nil, dir, rabbit()) }

// The scripts that Debian puts in PATH change to the user rabbitmq and its folders, so those that they call come first.
const rabbitBin = "/usr/lib/rabbitmq/bin"

func rabbit() service {
	return service{
		name:    "rabbitmq",
		ports:   3,
		timeout: 3 * time.Minute,
		url:     func(addr string) string { return "amqp://guest:guest@" + addr + "/" },
		setup:   setupRabbit,
	}
}

func setupRabbit(p *Proc) ([]step, error) {
	const install = "apt-get install rabbitmq-server"
	server, err := program(install, filepath.Join(rabbitBin, "rabbitmq-server"), "rabbitmq-server")
	if err != nil {
		return nil, err
	}
	epmd, err := program(install, "epmd")
	if err != nil {
		return nil, err
	}
	// A nearly full disk is the machine's business, not the broker's.
	const conf = "disk_free_limit.absolute = 1MB\n"
	if err := os.WriteFile(filepath.Join(p.data(), "rabbitmq.conf"), []byte(conf), 0o600); err != nil {
		return nil, err
	}
	var (
		epmdPort = strconv.Itoa(p.ports[1])
		env      = rabbitEnv(p)
	)
	return []step{
		{ // the name server of Erlang nodes; left to itself the broker starts one that nobody owns
			path: epmd,
			args: []string{"-port", epmdPort, "-address", "127.0.0.1"},
			ready: func(ctx context.Context) error {
				conn, err := new(net.Dialer).DialContext(ctx, "tcp", addr(p.ports[1]))
				if err != nil {
					return err
				}
				return conn.Close()
			},
		},
		{
			path: server,
			env:  env,
			// A frame of type method on channel 0: the broker's connection.start.
			ready: func(ctx context.Context) error { return exchange(ctx, p.Addr, "AMQP\x00\x00\x09\x01", "\x01\x00\x00") },
		},
	}, nil
}

// rabbitEnv is what the broker and rabbitmqctl are told.
func rabbitEnv(p *Proc) []string {
	in := func(name string) string { return filepath.Join(p.data(), name) }
	return []string{
		"ERL_EPMD_PORT=" + strconv.Itoa(p.ports[1]),
		"ERL_EPMD_ADDRESS=127.0.0.1",
		"ERL_CRASH_DUMP_SECONDS=0",
		"RABBITMQ_NODENAME=gatetest@localhost",
		"RABBITMQ_NODE_IP_ADDRESS=127.0.0.1",
		"RABBITMQ_NODE_PORT=" + strconv.Itoa(p.ports[0]),
		"RABBITMQ_DIST_PORT=" + strconv.Itoa(p.ports[2]),
		"RABBITMQ_MNESIA_BASE=" + in("mnesia"),
		"RABBITMQ_LOG_BASE=" + in("log"),
		"RABBITMQ_CONF_ENV_FILE=" + in("none"),
		"RABBITMQ_CONFIG_FILE=" + in("rabbitmq"),
		"RABBITMQ_ENABLED_PLUGINS_FILE=" + in("plugins"),
		"RABBITMQ_SERVER_ADDITIONAL_ERL_ARGS=-start_epmd false -kernel inet_dist_use_interface {127,0,0,1}",
		"RUNNING_UNDER_SYSTEMD=true", // the script becomes the broker, rather than a shell that waits for it
	}
}

// Ctl runs rabbitmqctl on a broker, a second or two each time, and returns what it printed. For what AMQP itself cannot
// do, such as an alarm: p.Ctl(ctx, "set_vm_memory_high_watermark", "0").
func (p *Proc) Ctl(ctx context.Context, args ...string) (string, error) {
	if p.Name != "rabbitmq" {
		return "", errors.New("service: Ctl is RabbitMQ's")
	}
	path, err := program("apt-get install rabbitmq-server", filepath.Join(rabbitBin, "rabbitmqctl"), "rabbitmqctl")
	if err != nil {
		return "", err
	}
	cmd := exec.CommandContext(ctx, path, append([]string{"--quiet"}, args...)...)
	cmd.Env = append([]string{"PATH=" + os.Getenv("PATH"), "HOME=" + p.data(), "LC_ALL=C.UTF-8"}, rabbitEnv(p)...)
	cmd.WaitDelay = time.Second
	out, err := cmd.CombinedOutput()
	if err != nil {
		return "", fmt.Errorf("service: rabbitmqctl %q: %w: %s", args, err, out)
	}
	return string(out), nil
}

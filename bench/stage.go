//go:build linux

package main

import (
	"context"
	"errors"
	"fmt"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"time"

	"ssegate/bench/internal/load"
	"ssegate/internal/gatetest/service"
)

// stage is what all measurements of one run of the benchmarks share. It is used
// from one goroutine.
type stage struct {
	dir     string // for files; gone afterwards
	self    string // this program, which is the load as well
	ssegate string // the built command
	redis   *service.Proc
	rabbit  *service.Proc
	count   int // measurements so far, for names that must not be used twice
}

// tempPattern names the folder of a run, below the folder for such.
const tempPattern = "ssegate-bench-*"

// newStage makes the folder and builds ssegate.
func newStage(ctx context.Context) (*stage, error) {
	self, err := os.Executable()
	if err != nil {
		return nil, err
	}
	dir, err := os.MkdirTemp("", tempPattern)
	if err != nil {
		return nil, err
	}
	s := &stage{dir: dir, self: self, ssegate: filepath.Join(dir, "ssegate")}
	cmd := exec.CommandContext(ctx, "go", "build", "-o", s.ssegate, "ssegate/cmd/ssegate")
	cmd.Cancel = func() error { return cmd.Process.Signal(os.Interrupt) } // it ends what it has started
	cmd.WaitDelay = 10 * time.Second
	if out, err := cmd.CombinedOutput(); err != nil {
		return nil, errors.Join(fmt.Errorf("build ssegate: %w\n%s", err, out), s.close())
	}
	return s, nil
}

func (s *stage) close() error {
	var err error
	for _, p := range []*service.Proc{s.redis, s.rabbit} {
		if p != nil {
			err = errors.Join(err, p.Close())
		}
	}
	return errors.Join(err, os.RemoveAll(s.dir))
}

// services starts Redis and RabbitMQ, once, and empties Redis.
func (s *stage) services() (err error) {
	if s.redis == nil {
		dir := filepath.Join(s.dir, "redis")
		if err := os.Mkdir(dir, 0o700); err != nil {
			return err
		}
		// Debian's default is to write no append-only file.
		if s.redis, err = service.StartRedis(dir, "--appendonly", "no"); err != nil {
			return err
		}
	}
	if s.rabbit == nil {
		dir := filepath.Join(s.dir, "rabbitmq")
		if err := os.Mkdir(dir, 0o700); err != nil {
			return err
		}
		if s.rabbit, err = service.StartRabbit(dir); err != nil {
			return err
		}
	}
	return flush(s.redis.Addr)
}

// flush empties Redis.
func flush(addr string) error {
	conn, err := net.DialTimeout("tcp", addr, 5*time.Second)
	if err != nil {
		return err
	}
	defer conn.Close()
	if err := conn.SetDeadline(time.Now().Add(10 * time.Second)); err != nil {
		return err
	}
	if _, err := conn.Write([]byte("FLUSHALL\r\n")); err != nil {
		return err
	}
	b := make([]byte, 5)
	if n, err := conn.Read(b); err != nil || string(b[:n]) != "+OK\r\n" {
		return fmt.Errorf("redis: FLUSHALL: %q, %w", b[:n], err)
	}
	return nil
}

// play is a started program with all that belongs to it.
type play struct {
	front  load.Front
	server []*process       // the program itself
	others map[string][]int // services that it uses, by name: their processes
}

func (p *play) stop() error {
	var err error
	for _, proc := range p.server {
		err = errors.Join(err, proc.stop())
	}
	return err
}

func (p *play) pids() []int {
	var pids []int
	for _, proc := range p.server {
		pids = append(pids, proc.cmd.Process.Pid)
	}
	return pids
}

// sample is what everything used at one moment.
type sample struct {
	server usage
	others map[string]usage
	at     time.Time
}

func (p *play) sample() (sample, error) {
	s := sample{others: map[string]usage{}, at: time.Now()}
	var err error
	if s.server, err = usageOf(p.pids()); err != nil {
		return s, err
	}
	for name, pids := range p.others {
		if s.others[name], err = usageOf(pids); err != nil {
			return s, err
		}
	}
	return s, nil
}

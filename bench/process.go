//go:build linux

package main

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"net"
	"os/exec"
	"strings"
	"sync"
	"syscall"
	"time"
)

// process is a program that was started for one measurement. It is ended by
// its id.
type process struct {
	name string
	cmd  *exec.Cmd
	gone chan struct{}

	mu    sync.Mutex
	lines []string // the last that it printed
	more  chan struct{}
}

// keptLines is how much of what a program prints is kept to explain a failure.
const keptLines = 200

// startProcess starts a program. It dies with this one.
func startProcess(name, path string, args ...string) (*process, error) {
	p := &process{name: name, cmd: exec.Command(path, args...), gone: make(chan struct{}), more: make(chan struct{}, 1)}
	p.cmd.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGTERM}
	out, in := io.Pipe()
	p.cmd.Stdout, p.cmd.Stderr = in, in
	if err := p.cmd.Start(); err != nil {
		return nil, fmt.Errorf("%s: %w", name, err)
	}
	go func() {
		s := bufio.NewScanner(out)
		s.Buffer(nil, 1<<20)
		for s.Scan() {
			p.print(s.Text())
		}
		_, _ = io.Copy(io.Discard, out) // behind a line that is too long
	}()
	go func() {
		_ = p.cmd.Wait() // how it ended stays in cmd.ProcessState
		in.Close()
		close(p.gone)
	}()
	return p, nil
}

func (p *process) print(line string) {
	p.mu.Lock()
	p.lines = append(p.lines, line)
	if len(p.lines) > keptLines {
		p.lines = p.lines[1:]
	}
	p.mu.Unlock()
	select {
	case p.more <- struct{}{}:
	default:
	}
}

// printed is what it printed last.
func (p *process) printed() string {
	p.mu.Lock()
	defer p.mu.Unlock()
	return strings.Join(p.lines, "\n")
}

// await waits until the program prints a line with text in it.
func (p *process) await(ctx context.Context, text string) (string, error) {
	for {
		p.mu.Lock()
		for _, line := range p.lines {
			if strings.Contains(line, text) {
				p.mu.Unlock()
				return line, nil
			}
		}
		p.mu.Unlock()
		select {
		case <-p.more:
		case <-p.gone:
			return "", fmt.Errorf("%s: ended: %s\n%s", p.name, p.cmd.ProcessState, p.printed())
		case <-ctx.Done():
			return "", fmt.Errorf("%s: %w\n%s", p.name, ctx.Err(), p.printed())
		}
	}
}

// answers waits until it takes connections at addr.
func (p *process) answers(ctx context.Context, addr string) error {
	for {
		conn, err := new(net.Dialer).DialContext(ctx, "tcp", addr)
		if err == nil {
			return conn.Close()
		}
		select {
		case <-time.After(10 * time.Millisecond):
		case <-p.gone:
			return fmt.Errorf("%s: ended: %s\n%s", p.name, p.cmd.ProcessState, p.printed())
		case <-ctx.Done():
			return fmt.Errorf("%s: %w: %w\n%s", p.name, ctx.Err(), err, p.printed())
		}
	}
}

// stop ends it, and whatever it started, and waits until it is gone.
func (p *process) stop() error {
	family, err := withDescendants([]int{p.cmd.Process.Pid})
	for _, pid := range family {
		if e := syscall.Kill(pid, syscall.SIGKILL); e != nil && !errors.Is(e, syscall.ESRCH) {
			err = errors.Join(err, e)
		}
	}
	<-p.gone // SIGKILL cannot be refused
	return err
}

// freeAddr draws an address of this machine that nobody uses, below the range
// that the kernel takes the ports of outgoing connections from.
func freeAddr() (string, error) {
	const lowest, highest = 10000, 32000
	var err error
	for range 100 {
		var l net.Listener
		if l, err = net.Listen("tcp", fmt.Sprintf("127.0.0.1:%d", lowest+rand.IntN(highest-lowest))); err == nil {
			return l.Addr().String(), l.Close()
		}
	}
	return "", err
}

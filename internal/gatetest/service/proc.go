//go:build unix

package service

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"
)

// ErrNotInstalled means that the program is not on this machine. The error around it names what to install.
var ErrNotInstalled = errors.New("not installed")

// errRunning means Start on a Proc that was not killed before.
var errRunning = errors.New("already running")

// errClosed means that the Proc was closed.
var errClosed = errors.New("closed")

// tries is how many sets of ports are tried before a service is said not to start.
const tries = 3

// Proc is one service, started for a test. Its methods may be called from any goroutine, one call at a time.
//
// Where it was started for a test (not through a Start function), a failing method also fails that test, so a test
// need not look at the error.
type Proc struct {
	// Name is what the service is called, such as "redis".
	Name string
	// Addr is "127.0.0.1:PORT", and URL the address in the form that clients of this service take.
	// Both stay as they are over Kill and Start.
	Addr, URL string
	// Dir is the service's folder: its data and config, and "log" with all that it printed.
	Dir string
	// KeepData keeps what the service had written over Kill and Start. Without it Start begins with nothing.
	// Set it at any time before Start. Consul runs in memory and always begins with nothing.
	KeepData bool

	svc    service
	ports  []int
	tb     testing.TB // nil when started by a Start function
	rmDir  bool       // Dir was made here
	mu     sync.Mutex
	group  *group // nil while killed
	closed bool
}

// service says how one kind of service runs.
type service struct {
	name    string
	ports   int           // how many it needs; the first is Addr's
	timeout time.Duration // for one start, generous: the machine may be busy
	url     func(addr string) string
	// setup writes what the service needs below p.Dir/data and tells its processes, in order of start. Everything
	// below that folder is gone at a Start without KeepData.
	setup func(p *Proc) ([]step, error)
}

// step is one process of a service.
type step struct {
	path string
	args []string
	env  []string // besides PATH, HOME (the data folder) and LC_ALL; nothing else of the test's own is handed on
	// ready is asked again and again until it says nil. It is given a second at most each time.
	ready func(ctx context.Context) error
}

// start starts svc in dir, or in a temporary folder of its own when dir is empty.
func start(tb testing.TB, dir string, svc service) (*Proc, error) {
	p := &Proc{Name: svc.name, Dir: dir, svc: svc, tb: tb}
	if dir == "" {
		d, err := os.MkdirTemp("", "gatetest-"+svc.name+"-")
		if err != nil {
			return nil, err
		}
		p.Dir, p.rmDir = d, true
	}
	var err error
	for range tries {
		if p.ports, err = freePorts(svc.ports); err != nil {
			break
		}
		p.Addr = addr(p.ports[0])
		p.URL = svc.url(p.Addr)
		var exit *exitError
		if err = p.run(); !errors.As(err, &exit) {
			break // it runs, or fails in a way that other ports would not mend
		}
	}
	if err != nil {
		return nil, errors.Join(err, p.Close())
	}
	return p, nil
}

// forTest starts svc for tb, or fails tb.
func forTest(tb testing.TB, svc service) *Proc {
	tb.Helper()
	p, err := start(tb, tb.TempDir(), svc)
	if err != nil {
		tb.Fatal(err)
	}
	tb.Cleanup(func() {
		if tb.Failed() {
			tb.Logf("%s: the end of its log:\n%s", p.Name, p.logTail())
		}
		if err := p.Close(); err != nil {
			tb.Error(err)
		}
	})
	return p
}

// Start runs the service again after Kill, on the same ports, and returns when it serves. It begins with nothing
// unless KeepData is set.
func (p *Proc) Start() error {
	return p.do("start", func() error {
		if p.group != nil {
			return errRunning
		}
		return p.run()
	})
}

// Kill ends all processes of the service at once (SIGKILL) and returns when they are gone.
// It does nothing when they are gone already.
func (p *Proc) Kill() error { return p.do("kill", p.kill) }

// Pause stops all processes of the service where they stand (SIGSTOP): connections stay open, nobody answers.
func (p *Proc) Pause() error {
	return p.do("pause", func() error { return p.group.signal(syscall.SIGSTOP) })
}

// Resume lets a paused service go on (SIGCONT).
func (p *Proc) Resume() error {
	return p.do("resume", func() error { return p.group.signal(syscall.SIGCONT) })
}

// Close ends the service and removes the folder that was made for it. It may be called more than once.
func (p *Proc) Close() error {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.closed = true
	err := p.kill()
	if p.rmDir {
		err = errors.Join(err, os.RemoveAll(p.Dir))
	}
	if err != nil {
		return fmt.Errorf("service: %s: close: %w", p.Name, err)
	}
	return nil
}

// do runs one step of the service's life under the lock and reports its error to the test, if there is one.
func (p *Proc) do(what string, f func() error) error {
	p.mu.Lock()
	defer p.mu.Unlock()
	err := errClosed
	if !p.closed {
		err = f()
	}
	if err == nil {
		return nil
	}
	err = fmt.Errorf("service: %s: %s: %w", p.Name, what, err)
	if p.tb != nil {
		p.tb.Helper()
		p.tb.Error(err)
	}
	return err
}

// data is the folder for all that the service keeps.
func (p *Proc) data() string { return filepath.Join(p.Dir, "data") }

// run starts the service's processes in order, each when the one before is ready.
func (p *Proc) run() (err error) {
	if !p.KeepData {
		if err := os.RemoveAll(p.data()); err != nil {
			return err
		}
	}
	if err := os.MkdirAll(p.data(), 0o700); err != nil {
		return err
	}
	steps, err := p.svc.setup(p)
	if err != nil {
		return fmt.Errorf("service: %s: %w", p.Name, err)
	}
	log, err := os.OpenFile(filepath.Join(p.Dir, "log"), os.O_CREATE|os.O_WRONLY|os.O_APPEND, 0o600)
	if err != nil {
		return err
	}
	defer log.Close()

	ctx, cancel := context.WithTimeout(context.Background(), p.svc.timeout)
	defer cancel()
	if p.group, err = newGroup(); err != nil {
		return err
	}
	defer func() {
		if err != nil {
			err = errors.Join(fmt.Errorf("service: %s: %w\n%s", p.Name, err, p.logTail()), p.kill())
		}
	}()
	for _, s := range steps {
		cmd := exec.Command(s.path, s.args...)
		cmd.Dir = p.data()
		cmd.Env = append([]string{"PATH=" + os.Getenv("PATH"), "HOME=" + p.data(), "LC_ALL=C.UTF-8"}, s.env...)
		cmd.Stdout, cmd.Stderr = log, log
		gone, err := p.group.start(cmd)
		if err != nil {
			return err
		}
		if err := awaitReady(ctx, cmd, gone, s.ready); err != nil {
			return err
		}
	}
	return nil
}

func (p *Proc) kill() error {
	g := p.group
	p.group = nil
	return g.kill()
}

// logTail is the last few lines that the service printed.
func (p *Proc) logTail() string {
	f, err := os.Open(filepath.Join(p.Dir, "log"))
	if err != nil {
		return err.Error()
	}
	defer f.Close()
	const most = 4 << 10
	if st, err := f.Stat(); err == nil && st.Size() > most {
		if _, err := f.Seek(-most, io.SeekEnd); err != nil {
			return err.Error()
		}
	}
	b, err := io.ReadAll(f)
	if err != nil {
		return err.Error()
	}
	return strings.TrimSpace(string(b))
}

// awaitReady asks ready until it says yes. It ends early when the process does, and in any case with ctx.
func awaitReady(ctx context.Context, cmd *exec.Cmd, gone <-chan struct{}, ready func(context.Context) error) error {
	for {
		ask, cancel := context.WithTimeout(ctx, time.Second)
		err := ready(ask)
		cancel()
		select {
		case <-gone: // first, for another's service may have answered on the port
			return &exitError{cmd}
		default:
		}
		if err == nil {
			return nil
		}
		select {
		case <-gone:
			return &exitError{cmd}
		case <-ctx.Done():
			return fmt.Errorf("%s: not ready in time: %w", cmd.Path, err)
		case <-time.After(10 * time.Millisecond):
		}
	}
}

// exitError means that a process ended by itself before it was ready.
type exitError struct{ cmd *exec.Cmd }

func (e *exitError) Error() string {
	return fmt.Sprintf("%s: ended before it was ready: %s", e.cmd.Path, e.cmd.ProcessState)
}

// program finds the first of the candidates that can be run: a path as it is, a bare name through PATH.
func program(install string, candidates ...string) (string, error) {
	for _, c := range candidates {
		if c == "" {
			continue
		}
		if path, err := exec.LookPath(c); err == nil {
			return path, nil
		}
	}
	return "", fmt.Errorf("%s: %w: %s (./test.sh does it)", candidates[len(candidates)-1], ErrNotInstalled, install)
}

package e2e

import (
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	. "ssegate/internal/gatetest"
)

// plain is the ssegate command without the race detector, which would take
// many times the memory.
func plain(t *testing.T) string {
	t.Helper()
	path := filepath.Join(t.TempDir(), "ssegate")
	if out, err := exec.Command("go", "build", "-o", path, "ssegate/cmd/ssegate").CombinedOutput(); err != nil {
		t.Fatalf("go build: %v: %s", err, out)
	}
	return path
}

// process is a node as the system sees it.
type process struct {
	t   *testing.T
	pid int
}

// processOf finds the node's process by its configuration file, which no other
// process was started with.
func processOf(t *testing.T, n *Node) process {
	t.Helper()
	dirs, err := filepath.Glob("/proc/[0-9]*")
	if err != nil {
		t.Fatal(err)
	}
	for _, d := range dirs {
		args, err := os.ReadFile(filepath.Join(d, "cmdline"))
		if err == nil && slices.Contains(strings.Split(string(args), "\x00"), n.File) {
			pid, _ := strconv.Atoi(filepath.Base(d))
			return process{t, pid}
		}
	}
	t.Fatalf("no process of %s", n.Name)
	return process{}
}

// resident is the process's memory, in bytes.
func (p process) resident() int64 {
	p.t.Helper()
	status, err := os.ReadFile(fmt.Sprintf("/proc/%d/status", p.pid))
	if err != nil {
		p.t.Fatal(err)
	}
	_, rest, _ := strings.Cut(string(status), "VmRSS:")
	var kb int64
	if _, err := fmt.Sscan(rest, &kb); err != nil {
		p.t.Fatal(err)
	}
	return kb << 10
}

// sockets counts the process's TCP connections by the port of the other end;
// listeners are under 0.
func (p process) sockets() map[int]int {
	p.t.Helper()
	own := map[string]bool{}
	fds, err := os.ReadDir(fmt.Sprintf("/proc/%d/fd", p.pid))
	if err != nil {
		p.t.Fatal(err)
	}
	for _, fd := range fds {
		if to, err := os.Readlink(fmt.Sprintf("/proc/%d/fd/%s", p.pid, fd.Name())); err == nil {
			if inode, ok := strings.CutPrefix(to, "socket:["); ok {
				own[strings.TrimSuffix(inode, "]")] = true
			}
		}
	}
	ports := map[int]int{}
	for _, table := range []string{"tcp", "tcp6"} {
		b, err := os.ReadFile(fmt.Sprintf("/proc/%d/net/%s", p.pid, table))
		if err != nil {
			p.t.Fatal(err)
		}
		for line := range strings.Lines(string(b)) {
			f := strings.Fields(line)
			if len(f) < 10 || !own[f[9]] {
				continue
			}
			delete(own, f[9])
			_, port, _ := strings.Cut(f[2], ":")
			n, _ := strconv.ParseInt(port, 16, 32)
			ports[int(n)]++
		}
	}
	if len(own) > 0 {
		ports[-1] = len(own) // no TCP, or closed between the two looks
	}
	return ports
}

// files is how many descriptors the process has open.
func (p process) files() int {
	p.t.Helper()
	fds, err := os.ReadDir(fmt.Sprintf("/proc/%d/fd", p.pid))
	if err != nil {
		p.t.Fatal(err)
	}
	return len(fds)
}

// peak watches the process's memory until it is called, and returns the
// highest that it saw.
func (p process) peak() (stop func() int64) {
	done := make(chan struct{})
	var wg sync.WaitGroup
	var highest int64
	wg.Go(func() {
		for {
			highest = max(highest, p.resident())
			select {
			case <-done:
				return
			case <-time.After(20 * time.Millisecond):
			}
		}
	})
	return func() int64 { close(done); wg.Wait(); return highest }
}

// mib is bytes in MiB, for people.
func mib(bytes int64) string { return fmt.Sprintf("%.1f MiB", float64(bytes)/(1<<20)) }

// nothingLeft waits until a node has no client, no stream, no connection but
// the kept ones to its services, and no more goroutines than it had.
func nothingLeft(t *testing.T, n *Node, p process, goroutines float64) {
	t.Helper()
	var left string
	for end := time.Now().Add(Patience); ; time.Sleep(50 * time.Millisecond) {
		left = ""
		for name, most := range map[string]float64{
			"ssegate_connections": 0, `ssegate_streams{role="owner"}`: 0, `ssegate_streams{role="replica"}`: 0, "ssegate_followers": 0,
			"ssegate_outbox_streams": 0, "go_goroutines": goroutines,
		} {
			if v := n.Metric(name); v > most {
				left += fmt.Sprintf("%s is %v, ", name, v)
			}
		}
		if left == "" {
			return
		}
		if time.Now().After(end) {
			sockets := p.sockets()
			n.Signal(syscall.SIGQUIT) // for its stacks, in the log
			n.Exited()
			t.Fatalf("%s: %s sockets by port %v, goroutines at first %v", n.Name, left, sockets, goroutines)
		}
	}
}

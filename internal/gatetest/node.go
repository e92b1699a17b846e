package gatetest

import (
	"bufio"
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"
)

// Patience bounds every wait of a test: long enough for a busy machine.
const Patience = 30 * time.Second

// Build compiles the ssegate command with the race detector into dir and
// returns its path. Call it once, from TestMain.
func Build(dir string) (string, error) {
	bin := filepath.Join(dir, "ssegate")
	cmd := exec.Command("go", "build", "-race", "-o", bin, "ssegate/cmd/ssegate")
	cmd.Stdout, cmd.Stderr = os.Stderr, os.Stderr
	if err := cmd.Run(); err != nil {
		return "", fmt.Errorf("build ssegate: %w", err)
	}
	return bin, nil
}

// Node is one ssegate process.
type Node struct {
	t        testing.TB
	bin      string
	Name     string
	File     string // its configuration
	URL      string // of the public listener
	Internal string // URL of the internal listener
	ID       string // node id, boot nonce included

	cmd    *exec.Cmd
	exited chan struct{}
	mu     sync.Mutex
	lines  []string
	more   chan struct{} // closed and replaced at each line
}

// Start runs a node with this configuration (TOML). [node] id and [listen] are
// added: loopback, ports of its own. It returns when the node listens.
func Start(t testing.TB, bin, name, config string) *Node {
	t.Helper()
	n := &Node{t: t, bin: bin, Name: name, File: filepath.Join(t.TempDir(), name+".toml"), more: make(chan struct{})}
	n.Configure(config)
	n.Run()
	t.Cleanup(n.stop)
	return n
}

// Configure writes the node's configuration file anew.
func (n *Node) Configure(config string) {
	n.t.Helper()
	head := ""
	if !strings.Contains(config, "[node]") {
		head += fmt.Sprintf("[node]\nid = %q\n", n.Name)
	}
	public, internal := "127.0.0.1:0", "127.0.0.1:0"
	if n.URL != "" { // a restart or reload keeps its place
		public, internal = strings.TrimPrefix(n.URL, "http://"), strings.TrimPrefix(n.Internal, "http://")
	}
	head += fmt.Sprintf("[listen]\npublic = %q\ninternal = %q\n", public, internal)
	if err := os.WriteFile(n.File, []byte(head+config), 0o600); err != nil {
		n.t.Fatal(err)
	}
}

// Run starts the process, again after Kill or Term.
func (n *Node) Run() {
	n.t.Helper()
	n.cmd = exec.Command(n.bin, "-config", n.File)
	n.cmd.Env = append(os.Environ(), "GORACE=halt_on_error=1 exitcode=66")
	n.cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true}
	out, err := n.cmd.StderrPipe()
	if err != nil {
		n.t.Fatal(err)
	}
	n.mu.Lock()
	n.lines = nil
	n.mu.Unlock()
	if err := n.cmd.Start(); err != nil {
		n.t.Fatal(err)
	}
	n.exited = make(chan struct{})
	cmd, exited := n.cmd, n.exited
	go func() {
		n.read(out)
		cmd.Wait()
		close(exited)
		n.wake("")
	}()
	line := n.Await(`"msg":"started"`)
	var started struct{ Node, Public, Internal string }
	if err := json.Unmarshal([]byte(line), &started); err != nil {
		n.t.Fatalf("%s: %v in %q", n.Name, err, line)
	}
	n.ID, n.URL, n.Internal = started.Node, "http://"+started.Public, "http://"+started.Internal
}

func (n *Node) read(r io.Reader) {
	s := bufio.NewScanner(r)
	s.Buffer(nil, 1<<20)
	for s.Scan() {
		n.wake(s.Text())
	}
}

func (n *Node) wake(line string) {
	n.mu.Lock()
	defer n.mu.Unlock()
	if line != "" {
		n.lines = append(n.lines, line)
	}
	close(n.more)
	n.more = make(chan struct{})
}

// Await returns the first line of the node's log that has all these parts,
// waiting for it.
func (n *Node) Await(parts ...string) string {
	n.t.Helper()
	bound := time.After(Patience)
	for seen := 0; ; {
		n.mu.Lock()
		lines, more := n.lines, n.more
		n.mu.Unlock()
		for ; seen < len(lines); seen++ {
			if has(lines[seen], parts) {
				return lines[seen]
			}
		}
		select {
		case <-more:
		case <-bound:
			n.t.Fatalf("%s never logged %q; its log:\n%s", n.Name, parts, n.Log())
		}
		if n.hasExited() && seen == len(n.snapshot()) {
			n.t.Fatalf("%s ended without logging %q; its log:\n%s", n.Name, parts, n.Log())
		}
	}
}

// Logged reports whether the log has a line with all these parts by now.
func (n *Node) Logged(parts ...string) bool {
	for _, l := range n.snapshot() {
		if has(l, parts) {
			return true
		}
	}
	return false
}

func has(line string, parts []string) bool {
	for _, p := range parts {
		if !strings.Contains(line, p) {
			return false
		}
	}
	return true
}

func (n *Node) snapshot() []string {
	n.mu.Lock()
	defer n.mu.Unlock()
	return n.lines
}

// Log is all that the node has logged since it was run.
func (n *Node) Log() string { return strings.Join(n.snapshot(), "\n") }

// Signal sends a signal to the process.
func (n *Node) Signal(s syscall.Signal) {
	n.t.Helper()
	if err := n.cmd.Process.Signal(s); err != nil {
		n.t.Fatalf("%s: %v", n.Name, err)
	}
}

// Kill is kill -9; it returns when the process is gone.
func (n *Node) Kill() {
	n.Signal(syscall.SIGKILL)
	<-n.exited
}

// Term sends SIGTERM and does not wait; see Exited.
func (n *Node) Term() { n.Signal(syscall.SIGTERM) }

// Exited waits until the process has ended and returns its exit code.
func (n *Node) Exited() int {
	n.t.Helper()
	select {
	case <-n.exited:
		return n.cmd.ProcessState.ExitCode()
	case <-time.After(Patience):
		n.t.Fatalf("%s does not end; its log:\n%s", n.Name, n.Log())
		return -1
	}
}

func (n *Node) hasExited() bool {
	select {
	case <-n.exited:
		return true
	default:
		return false
	}
}

// stop ends the process at the end of the test, and fails the test when the
// race detector has spoken or the node has panicked.
func (n *Node) stop() {
	if !n.hasExited() {
		n.cmd.Process.Signal(syscall.SIGCONT)
		// Twice means now; two at once may arrive as one.
		again := time.NewTicker(50 * time.Millisecond)
		defer again.Stop()
		n.cmd.Process.Signal(syscall.SIGTERM)
		for bound := time.After(10 * time.Second); !n.hasExited(); {
			select {
			case <-n.exited:
			case <-again.C:
				n.cmd.Process.Signal(syscall.SIGTERM)
			case <-bound:
				n.cmd.Process.Signal(syscall.SIGKILL)
				<-n.exited
				n.t.Errorf("%s did not end on SIGTERM; its log:\n%s", n.Name, n.Log())
			}
		}
	}
	log := n.Log()
	if strings.Contains(log, "DATA RACE") || strings.Contains(log, "panic:") || strings.Contains(log, "panic in a request") || n.t.Failed() {
		n.t.Errorf("log of %s:\n%s", n.Name, log)
	}
}

// Ready is what /readyz answers.
type Ready struct {
	Ready        bool
	Draining     bool
	Node         string
	Dependencies map[string]string
	Nodes        []string
	Connections  int
	Streams      int
}

// Ready asks /readyz.
func (n *Node) Ready() (r Ready, status int) {
	n.t.Helper()
	resp, err := http.Get(n.Internal + "/readyz")
	if err != nil {
		n.t.Fatal(err)
	}
	defer resp.Body.Close()
	if err := json.NewDecoder(resp.Body).Decode(&r); err != nil {
		n.t.Fatal(err)
	}
	return r, resp.StatusCode
}

// Metric is the value of one metric, labels included in the name; -1 when it
// is not there.
func (n *Node) Metric(name string) float64 {
	n.t.Helper()
	resp, err := http.Get(n.Internal + "/metrics")
	if err != nil {
		n.t.Fatal(err)
	}
	defer resp.Body.Close()
	s := bufio.NewScanner(resp.Body)
	for s.Scan() {
		if rest, ok := strings.CutPrefix(s.Text(), name+" "); ok {
			var v float64
			fmt.Sscan(rest, &v)
			return v
		}
	}
	return -1
}

// Eventually waits until ok says true, asking again and again.
func Eventually(t testing.TB, what string, ok func() bool) {
	t.Helper()
	for end := time.Now().Add(Patience); ; time.Sleep(5 * time.Millisecond) {
		if ok() {
			return
		}
		if time.Now().After(end) {
			t.Fatalf("never happened: %s", what)
		}
	}
}

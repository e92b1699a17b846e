package e2e

import (
	"bytes"
	"encoding/json"
	"fmt"
	"math/rand/v2"
	"net"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"gopkg.in/yaml.v3"

	. "ssegate/internal/gatetest"
	"ssegate/internal/gatetest/service"
)

// ports finds the first of so many ports that nobody uses, and that are not
// given to anybody who asks for any port.
func ports(t *testing.T, offsets ...int) int {
	t.Helper()
	for range 100 {
		first := 10000 + rand.IntN(20000)
		var held []net.Listener
		for _, o := range offsets {
			if l, err := net.Listen("tcp", fmt.Sprintf("127.0.0.1:%d", first+o)); err == nil {
				held = append(held, l)
			}
		}
		for _, l := range held {
			l.Close()
		}
		if len(held) == len(offsets) {
			return first
		}
	}
	t.Fatal("no free ports")
	return 0
}

// lines keeps what a process prints.
type lines struct {
	mu sync.Mutex
	b  bytes.Buffer
}

func (l *lines) Write(p []byte) (int, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.b.Write(p)
}

func (l *lines) String() string {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.b.String()
}

// TestClusterExample runs examples/cluster/run.sh as its README says, hops
// among the three nodes, kills one, and ends the others with Ctrl-C.
func TestClusterExample(t *testing.T) {
	redis, rabbit, consul := service.Redis(t), service.Rabbit(t), service.Consul(t)
	b := NewBackend(t)
	port := ports(t, 0, 1, 2, 10, 11, 12)
	var out lines
	script := exec.Command("./run.sh")
	script.Dir = example(t, "cluster")
	script.Env = append(os.Environ(), "SSEGATE_CLUSTER_REDIS="+redis.URL, "SSEGATE_CLUSTER_RABBITMQ="+rabbit.URL,
		"SSEGATE_CLUSTER_CONSUL="+consul.URL, "SSEGATE_UPSTREAM="+b.URL, "PORT="+strconv.Itoa(port), "BIN="+bin,
		"GORACE=halt_on_error=1 exitcode=66")
	script.Stdout, script.Stderr = &out, &out
	script.SysProcAttr = &syscall.SysProcAttr{Setpgid: true}
	if err := script.Start(); err != nil {
		t.Fatal(err)
	}
	ended := make(chan error, 1)
	go func() { ended <- script.Wait() }()
	// leave presses Ctrl-C and waits until all are gone.
	leave := sync.OnceFunc(func() {
		script.Process.Signal(syscall.SIGINT)
		select {
		case err := <-ended:
			if err != nil {
				t.Errorf("run.sh: %v", err)
			}
		case <-time.After(Patience):
			script.Process.Signal(syscall.SIGTERM) // once more: now
			t.Errorf("run.sh did not end on Ctrl-C: %v", <-ended)
		}
	})
	t.Cleanup(func() {
		leave()
		if t.Failed() {
			t.Logf("run.sh:\n%s", out.String())
		}
	})

	var urls []string
	var pids []int
	for i := range 3 {
		urls = append(urls, fmt.Sprintf("http://127.0.0.1:%d", port+i))
		said := regexp.MustCompile(fmt.Sprintf(`node-%d is process (\d+): %s/`, i+1, urls[i]))
		Eventually(t, "run.sh tells of its nodes", func() bool { return said.MatchString(out.String()) })
		pid, _ := strconv.Atoi(said.FindStringSubmatch(out.String())[1])
		pids = append(pids, pid)
	}
	for i := range 3 {
		Eventually(t, fmt.Sprintf("node %d knows the others and all services", i+1), func() bool {
			resp, err := http.Get(fmt.Sprintf("http://127.0.0.1:%d/readyz", port+10+i))
			if err != nil {
				return false
			}
			defer resp.Body.Close()
			var r Ready
			if err := json.NewDecoder(resp.Body).Decode(&r); err != nil {
				t.Fatal(err)
			}
			for _, dependency := range []string{"redis", "rabbitmq", "consul"} {
				if r.Dependencies[dependency] != "up" {
					return false
				}
			}
			return r.Ready && len(r.Nodes) == 3
		})
	}

	hop := func(path string, urls ...string) {
		t.Helper()
		var got []Event
		id := ""
		for i := 0; len(got) < 121; i++ {
			s := EventSource(t, urls[i%len(urls)]+path, id)
			got = append(got, s.Take(min(15, 121-len(got)))...)
			id = s.LastID
			s.Close()
		}
		want(t, got, Numbers(1, 120, true))
		for _, url := range urls {
			// The end comes a moment behind the last event.
			Eventually(t, "a finished stream answers 204 at "+url, func() bool {
				s := EventSource(t, url+path, id)
				defer s.Close()
				return s.Resp.StatusCode == 204
			})
		}
	}
	hop("/count?n=120&every=5ms", urls...)
	if runs := b.Runs("/count"); runs != 1 {
		t.Errorf("the backend ran %d times", runs)
	}

	// One dies; the script and the others go on.
	if err := syscall.Kill(pids[2], syscall.SIGKILL); err != nil {
		t.Fatal(err)
	}
	hop("/count?n=120&every=5ms&again=1", urls[:2]...)
	if runs := b.Runs("/count"); runs != 2 {
		t.Errorf("the backend ran %d times", runs)
	}

	leave()
	if said := out.String(); !strings.Contains(said, "all nodes have left") || strings.Contains(said, "DATA RACE") {
		t.Errorf("run.sh:\n%s", said)
	}
	for _, url := range urls {
		if c, err := net.Dial("tcp", strings.TrimPrefix(url, "http://")); err == nil {
			c.Close()
			t.Errorf("%s is still there", url)
		}
	}
	for _, pid := range pids {
		if err := syscall.Kill(pid, 0); err == nil {
			t.Errorf("process %d is still there", pid)
		}
	}
}

// compose is as much of a compose file as ours uses; another key is a mistake.
type compose struct {
	Name     string                    `yaml:"name"`
	Node     yaml.Node                 `yaml:"x-node"` // merged into the nodes
	Services map[string]composeService `yaml:"services"`
}

type composeService struct {
	Build       string            `yaml:"build"`
	Image       string            `yaml:"image"`
	Command     []string          `yaml:"command"`
	Environment map[string]string `yaml:"environment"`
	Volumes     []string          `yaml:"volumes"`
	Ports       []string          `yaml:"ports"`
	DependsOn   []string          `yaml:"depends_on"`
	Restart     string            `yaml:"restart"`
	Grace       time.Duration     `yaml:"stop_grace_period"`
}

// TestComposeExample: no container runs here, but all that the compose file
// names is there, and ssegate takes the nodes' flags, variables and file.
func TestComposeExample(t *testing.T) {
	dir := example(t, "cluster")
	text, err := os.ReadFile(filepath.Join(dir, "compose.yaml"))
	if err != nil {
		t.Fatal(err)
	}
	var c compose
	d := yaml.NewDecoder(bytes.NewReader(text))
	d.KnownFields(true)
	if err := d.Decode(&c); err != nil {
		t.Fatal(err)
	}
	published := map[string]bool{}
	nodes := 0
	for name, s := range c.Services {
		if s.Image == "" || strings.HasSuffix(s.Image, ":latest") {
			t.Errorf("%s: image %q", name, s.Image)
		}
		for _, other := range s.DependsOn {
			if _, ok := c.Services[other]; !ok {
				t.Errorf("%s depends on %s, which is not there", name, other)
			}
		}
		for _, p := range s.Ports {
			if published[p[:strings.LastIndexByte(p, ':')]] {
				t.Errorf("%s: port %s is taken", name, p)
			}
			published[p[:strings.LastIndexByte(p, ':')]] = true
		}
		if s.Build != "" {
			copied(t, filepath.Join(dir, s.Build))
		}
		files := map[string]string{} // by path in the container
		for _, v := range s.Volumes {
			from, to, _ := strings.Cut(v, ":")
			to, _, _ = strings.Cut(to, ":")
			files[to] = filepath.Join(dir, from)
			if _, err := os.Stat(files[to]); err != nil {
				t.Errorf("%s: %v", name, err)
			}
		}
		// Each address that a variable names is a service, with its own port.
		for _, v := range s.Environment {
			for _, m := range regexp.MustCompile(`//(?:[^/@]*@)?([a-z0-9-]+):(\d+)`).FindAllStringSubmatch(v, -1) {
				listens := map[string]string{"redis": "6379", "rabbitmq": "5672", "consul": "8500", "backend": "8000"}
				if _, ok := c.Services[m[1]]; !ok || listens[m[1]] != m[2] {
					t.Errorf("%s: nobody listens at %s", name, m[0])
				}
			}
		}
		if !strings.HasPrefix(name, "node-") {
			continue
		}
		nodes++
		if !slices.Contains(s.Command, name) {
			t.Errorf("%s is called %q", name, s.Command)
		}
		if !strings.HasSuffix(s.Ports[0], s.Environment["SSEGATE_LISTEN_PUBLIC"]) {
			t.Errorf("%s listens on %s and publishes %s", name, s.Environment["SSEGATE_LISTEN_PUBLIC"], s.Ports)
		}
		if !strings.HasPrefix(s.Ports[0], strings.TrimPrefix(s.Command[len(s.Command)-1], "http://")+":") {
			t.Errorf("%s advertises %s and publishes %s", name, s.Command[len(s.Command)-1], s.Ports)
		}
		if s.Grace <= 10*time.Second {
			t.Errorf("%s has %v to leave", name, s.Grace)
		}
		args := []string{"check"}
		for _, a := range s.Command {
			if f, ok := files[a]; ok {
				a = f
			}
			args = append(args, a)
		}
		check := exec.Command(bin, args...)
		for k, v := range s.Environment {
			check.Env = append(check.Env, k+"="+v)
		}
		if out, err := check.CombinedOutput(); err != nil || strings.Contains(string(out), "note:") {
			t.Errorf("%s: ssegate check: %v: %s", name, err, out)
		}
	}
	if nodes != 3 {
		t.Errorf("%d nodes", nodes)
	}
}

// copied wants a Dockerfile in dir, and in dir all that it copies.
func copied(t *testing.T, dir string) {
	t.Helper()
	text, err := os.ReadFile(filepath.Join(dir, "Dockerfile"))
	if err != nil {
		t.Error(err)
		return
	}
	for line := range strings.Lines(string(text)) {
		words := strings.Fields(line)
		if len(words) < 3 || words[0] != "COPY" || strings.HasPrefix(words[1], "--from=") {
			continue
		}
		for _, from := range words[1 : len(words)-1] {
			if _, err := os.Stat(filepath.Join(dir, from)); err != nil {
				t.Errorf("Dockerfile: %v", err)
			}
		}
	}
}

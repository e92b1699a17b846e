//go:build unix

package service

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"
)

// brief is long enough for anything that answers at all on a busy machine to answer.
const brief = 2 * time.Second

// answers says whether the service answers now.
func answers(t *testing.T, p *Proc, ready func(context.Context) error) error {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), brief)
	defer cancel()
	return ready(ctx)
}

// life walks a service through its whole life. write leaves something in it, and has tells whether it is there; both
// may be nil. keeps is whether KeepData is of use.
func life(t *testing.T, p *Proc, ready, write func(context.Context) error, has func(context.Context) (bool, error), keeps bool) {
	t.Helper()
	hasNow := func(want bool) {
		t.Helper()
		if has == nil {
			return
		}
		got, err := has(t.Context())
		if err != nil {
			t.Fatal(err)
		}
		if got != want {
			t.Fatalf("what was written is there: %v, want %v", got, want)
		}
	}
	do := func(f func() error) {
		t.Helper()
		if err := f(); err != nil {
			t.Fatal(err)
		}
	}
	if err := answers(t, p, ready); err != nil {
		t.Fatalf("started: %v", err)
	}

	do(p.Pause)
	if err := answers(t, p, ready); !errors.Is(err, os.ErrDeadlineExceeded) && !errors.Is(err, context.DeadlineExceeded) {
		t.Fatalf("paused, it should be silent: %v", err)
	}
	do(p.Resume)
	if err := answers(t, p, ready); err != nil {
		t.Fatalf("resumed: %v", err)
	}

	if write != nil {
		if err := write(t.Context()); err != nil {
			t.Fatal(err)
		}
	}
	hasNow(write != nil)
	if keeps {
		p.KeepData = true
		do(p.Kill)
		do(p.Start)
		hasNow(true)
		p.KeepData = false
	}

	addr := p.Addr
	before := everyone(p)
	do(p.Kill)
	allGone(t, before)
	if err := answers(t, p, ready); !errors.Is(err, syscall.ECONNREFUSED) {
		t.Fatalf("killed, it should refuse: %v", err)
	}
	do(p.Kill) // twice is as good
	do(p.Start)
	if p.Addr != addr {
		t.Fatalf("started again at %s, want %s", p.Addr, addr)
	}
	if err := answers(t, p, ready); err != nil {
		t.Fatalf("started again: %v", err)
	}
	hasNow(false)

	// A paused one can be closed as well.
	do(p.Pause)
	before = everyone(p)
	do(p.Close)
	do(p.Close)
	allGone(t, before)
	p.tb = nil // the error is expected
	if err := p.Start(); !errors.Is(err, errClosed) {
		t.Fatalf("start after close: %v", err)
	}
}

// everyone is all processes of p, its guard and its grandchildren included.
func everyone(p *Proc) []process {
	var all []process
	var pids []int
	for _, cmd := range p.group.cmds {
		pids = append(pids, cmd.Process.Pid)
		if st, ok := stat(cmd.Process.Pid); ok {
			all = append(all, process{cmd.Process.Pid, st.started})
		}
	}
	return append(all, descendants(pids)...)
}

func allGone(t *testing.T, procs []process) {
	t.Helper()
	if len(procs) == 0 {
		t.Fatal("no process was there at all")
	}
	for _, p := range procs {
		if p.alive() {
			t.Errorf("process %d is still there", p.pid)
		}
	}
}

func TestRedis(t *testing.T) {
	p := Redis(t, "--maxclients", "77")
	if want := "redis://" + p.Addr + "/0"; p.URL != want {
		t.Fatalf("URL %q, want %q", p.URL, want)
	}
	say := func(say, want string) func(context.Context) error {
		return func(ctx context.Context) error { return exchange(ctx, p.Addr, say, want) }
	}
	if err := say("CONFIG GET maxclients\r\n", "*2\r\n$10\r\nmaxclients\r\n$2\r\n77\r\n")(t.Context()); err != nil {
		t.Fatal(err)
	}
	life(t, p,
		say("PING\r\n", "+PONG\r\n"),
		say("SET k v\r\n", "+OK\r\n"),
		func(ctx context.Context) (bool, error) {
			if err := say("EXISTS k\r\n", ":1\r\n")(ctx); err == nil {
				return true, nil
			}
			return false, say("EXISTS k\r\n", ":0\r\n")(ctx)
		}, true)
}

func TestRabbit(t *testing.T) {
	p := Rabbit(t)
	// All that it holds is on loopback: the broker, its name server and its port for other brokers.
	for _, port := range p.ports {
		conn, err := new(net.Dialer).DialContext(t.Context(), "tcp", addr(port))
		if err != nil {
			t.Fatal(err)
		}
		conn.Close()
	}
	life(t, p,
		func(ctx context.Context) error { return exchange(ctx, p.Addr, "AMQP\x00\x00\x09\x01", "\x01\x00\x00") },
		func(ctx context.Context) error { _, err := p.Ctl(ctx, "add_vhost", "mine"); return err },
		func(ctx context.Context) (bool, error) {
			out, err := p.Ctl(ctx, "list_vhosts", "--no-table-headers")
			return strings.Contains(out, "mine"), err
		}, true)
}

func TestConsul(t *testing.T) {
	p := Consul(t)
	put := func(ctx context.Context, path, body string) error {
		req, err := http.NewRequestWithContext(ctx, http.MethodPut, p.URL+path, strings.NewReader(body))
		if err != nil {
			return err
		}
		req.Close = true
		resp, err := http.DefaultClient.Do(req)
		if err != nil {
			return err
		}
		defer resp.Body.Close()
		answer, err := io.ReadAll(resp.Body)
		if err == nil && resp.StatusCode != http.StatusOK {
			err = fmt.Errorf("%s: %s", resp.Status, answer)
		}
		return err
	}
	if err := put(t.Context(), "/v1/session/create", `{"TTL": "1s"}`); err != nil {
		t.Fatalf("a session of one second: %v", err)
	}
	life(t, p, p.consulReady,
		func(ctx context.Context) error { return put(ctx, "/v1/kv/k", "v") },
		func(ctx context.Context) (bool, error) {
			var keys []string
			if err := getJSON(ctx, p.URL+"/v1/kv/?keys", &keys); err != nil {
				return false, nil // 404 while there is none
			}
			return len(keys) == 1 && keys[0] == "k", nil
		}, false)
}

func TestNginx(t *testing.T) {
	p := Nginx(t, func(addr string) string {
		return `server { listen ` + addr + `; location / { root ` + t.TempDir() + `; } location /hi { return 200 "hello"; } }`
	})
	life(t, p, func(ctx context.Context) error {
		return exchange(ctx, p.Addr, "GET /hi HTTP/1.0\r\n\r\n", "HTTP/1.1 200 OK\r\n")
	}, nil, nil, false)
}

// TestNothingOutlivesTheTest starts a service in a second test binary, which dies without closing it.
func TestNothingOutlivesTheTest(t *testing.T) {
	const env = "GATETEST_DIE"
	if how := os.Getenv(env); how != "" {
		p, err := StartRedis("")
		if err != nil {
			t.Fatal(err)
		}
		if how == "paused" {
			if err := p.Pause(); err != nil {
				t.Fatal(err)
			}
		}
		fmt.Printf("dir=%s\n", p.Dir)
		for _, proc := range everyone(p) {
			fmt.Printf("pid=%d %s\n", proc.pid, proc.started)
		}
		fmt.Println("end=")
		select {} // until killed
	}
	for _, how := range []string{"running", "paused"} {
		t.Run(how, func(t *testing.T) {
			cmd := exec.CommandContext(t.Context(), os.Args[0], "-test.run=^TestNothingOutlivesTheTest$")
			cmd.Env = append(os.Environ(), env+"="+how)
			out, err := cmd.StdoutPipe()
			if err != nil {
				t.Fatal(err)
			}
			if err := cmd.Start(); err != nil {
				t.Fatal(err)
			}
			var procs []process
			for sc := bufio.NewScanner(out); sc.Scan(); {
				key, value, _ := strings.Cut(sc.Text(), "=")
				if key == "end" {
					break
				}
				switch key {
				case "dir":
					t.Cleanup(func() { os.RemoveAll(value) })
				case "pid":
					pid, started, _ := strings.Cut(value, " ")
					n, err := strconv.Atoi(pid)
					if err != nil {
						t.Fatal(err)
					}
					procs = append(procs, process{n, started})
				}
			}
			if len(procs) != 2 { // the guard and Redis
				t.Errorf("%d processes, want 2", len(procs))
			}
			if err := cmd.Process.Kill(); err != nil {
				t.Fatal(err)
			}
			_ = cmd.Wait() // killed, as it was meant to be
			for deadline := time.Now().Add(goneWithin); time.Now().Before(deadline); time.Sleep(time.Millisecond) {
				if !anyAlive(procs) {
					return
				}
			}
			t.Errorf("still there: %v", procs)
		})
	}
}

func anyAlive(procs []process) bool {
	for _, p := range procs {
		if p.alive() {
			return true
		}
	}
	return false
}

func TestNotInstalled(t *testing.T) {
	t.Setenv("PATH", t.TempDir())
	_, err := StartRedis("")
	if !errors.Is(err, ErrNotInstalled) || !strings.Contains(err.Error(), "apt-get install redis-server") {
		t.Fatalf("the error does not tell what to do: %v", err)
	}
}

func TestPortInUse(t *testing.T) {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	svc := redis(nil)
	setup, asked := svc.setup, 0
	svc.setup = func(p *Proc) ([]step, error) {
		if asked++; asked < tries {
			p.ports[0] = l.Addr().(*net.TCPAddr).Port
			p.Addr = l.Addr().String()
		}
		return setup(p)
	}
	p, err := start(nil, "", svc)
	if err != nil {
		t.Fatal(err)
	}
	if asked != tries || p.Addr == l.Addr().String() {
		t.Errorf("started at try %d at %s", asked, p.Addr)
	}
	dir := p.Dir
	if err := p.Close(); err != nil {
		t.Fatal(err)
	}
	if _, err := os.Stat(filepath.Join(dir)); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("its own folder is still there: %v", err)
	}
}

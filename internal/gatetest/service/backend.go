//go:build unix

package service

import (
	"context"
	"os"
	"path/filepath"
	"strconv"
	"testing"
	"time"

	"ssegate/internal/gatetest/built"
)

// FastAPI starts examples/fastapi-deepsearch for t. URL is "http://127.0.0.1:PORT". Variables such as "PING=1" and
// "STEP_MS=20" are handed to it. GET /runs tells how often it ran; see [Report].
func FastAPI(t testing.TB, env ...string) *Proc {
	t.Helper()
	return forTest(t, fastAPI(env))
}

// Spring starts examples/spring-agent for t. URL is "http://127.0.0.1:PORT". Properties such as "--agent.heartbeat=1s"
// and "--agent.step=20ms" are handed to it. GET /runs tells how often it ran; see [Report]. It takes a few seconds.
func Spring(t testing.TB, args ...string) *Proc {
	t.Helper()
	return forTest(t, spring(args))
}

// Report is what the example backends tell at GET /runs: Spring's of /AutoAgent, FastAPI's by endpoint, under
// "deepsearch" and "events".
type Report struct {
	Started   int `json:"started"`   // requests whose stream was begun
	Running   int `json:"running"`   // of those, the ones that still stream
	Finished  int `json:"finished"`  // came to their end
	Cancelled int `json:"cancelled"` // were cut off by whoever read them
	// Requests counts the streams begun by the request id that was sent along.
	Requests map[string]int `json:"requests"`
	// LastEventID is what the newest request had in Last-Event-ID; nil when it had none.
	LastEventID *string `json:"last_event_id"`
}

// Venv is the folder of the Python environment that ./test.sh makes for the tests.
func Venv() (string, error) {
	return built.Path("venv", "",
		"examples/fastapi-deepsearch/requirements.txt", "examples/push-python/requirements.txt", "internal/gatetest/clients/requirements.txt")
}

func fastAPI(env []string) service {
	return service{
		name:    "fastapi",
		ports:   1,
		timeout: time.Minute,
		url:     func(addr string) string { return "http://" + addr },
		setup: func(p *Proc) ([]step, error) {
			venv, err := Venv()
			if err != nil {
				return nil, err
			}
			root, err := built.Root()
			if err != nil {
				return nil, err
			}
			return []step{{
				path: filepath.Join(venv, "bin", "python"),
				args: []string{
					"-m", "uvicorn", "app:app", "--app-dir", filepath.Join(root, "examples", "fastapi-deepsearch"),
					"--host", "127.0.0.1", "--port", strconv.Itoa(p.ports[0]), "--log-level", "warning",
				},
				env:   append([]string{"PYTHONDONTWRITEBYTECODE=1"}, env...),
				ready: p.tellsRuns,
			}}, nil
		},
	}
}

func spring(args []string) service {
	return service{
		name:    "spring",
		ports:   1,
		timeout: 2 * time.Minute,
		url:     func(addr string) string { return "http://" + addr },
		setup: func(p *Proc) ([]step, error) {
			jar, err := built.Path("spring", ".jar", "examples/spring-agent/pom.xml", "examples/spring-agent/src")
			if err != nil {
				return nil, err
			}
			var home string
			if h := os.Getenv("JAVA_HOME"); h != "" {
				home = filepath.Join(h, "bin", "java")
			}
			java, err := program("apt-get install openjdk-17-jdk-headless", home, "java")
			if err != nil {
				return nil, err
			}
			return []step{{
				path: java,
				args: append([]string{
					"-XX:TieredStopAtLevel=1", "-Xmx256m", "-Djava.io.tmpdir=" + p.data(), "-jar", jar,
					"--server.address=127.0.0.1", "--server.port=" + strconv.Itoa(p.ports[0]),
				}, args...),
				ready: p.tellsRuns,
			}}, nil
		},
	}
}

func (p *Proc) tellsRuns(ctx context.Context) error {
	var any map[string]any
	return getJSON(ctx, p.URL+"/runs", &any)
}

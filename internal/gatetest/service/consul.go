//go:build unix

package service

import (
	"context"
	"encoding/json"
	"fmt"
	"net/http"
	"os"
	"path/filepath"
	"strconv"
	"testing"
	"time"

	"ssegate/internal/gatetest/built"
)

// Consul starts a Consul agent and server for t, in memory. URL is "http://127.0.0.1:PORT". Sessions may have a TTL
// from one second. The program is the one that SSEGATE_TEST_CONSUL names, else the one in PATH, else the one that
// ./test.sh built in the user's cache folder.
func Consul(t testing.TB) *Proc {
	t.Helper()
	return forTest(t, consul())
}

func consul() service {
	return service{
		name:    "consul",
		ports:   4,
		timeout: time.Minute,
		url:     func(addr string) string { return "http://" + addr },
		setup: func(p *Proc) ([]step, error) {
			cache, err := built.Dir()
			if err != nil {
				return nil, err
			}
			path, err := program("build internal/gatetest/consul",
				os.Getenv("SSEGATE_TEST_CONSUL"), "consul", filepath.Join(cache, "consul"))
			if err != nil {
				return nil, err
			}
			args := []string{
				"agent", "-dev", "-node=gatetest", "-bind=127.0.0.1", "-client=127.0.0.1", "-log-level=warn",
				"-grpc-port=-1", "-dns-port=-1",
				"-hcl", `session_ttl_min = "1s"`, "-hcl", "disable_update_check = true",
			}
			for i, name := range []string{"http", "server", "serf-lan", "serf-wan"} {
				args = append(args, "-"+name+"-port="+strconv.Itoa(p.ports[i]))
			}
			return []step{{path: path, args: args, ready: p.consulReady}}, nil
		},
	}
}

// consulReady wants the agent's own node in the catalog: then there is a leader, and sessions can be made.
func (p *Proc) consulReady(ctx context.Context) error {
	var nodes []struct{ Node string }
	if err := getJSON(ctx, p.URL+"/v1/catalog/nodes", &nodes); err != nil {
		return err
	}
	if len(nodes) == 0 {
		return fmt.Errorf("%s: no node in the catalog", p.URL)
	}
	return nil
}

// getJSON wants 200 and a JSON body.
func getJSON(ctx context.Context, url string, into any) error {
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, url, nil)
	if err != nil {
		return err
	}
	req.Close = true // leaves no idle connection, and so no goroutine, behind in the test
	resp, err := http.DefaultClient.Do(req)
	if err != nil {
		return err
	}
	defer resp.Body.Close()
	if resp.StatusCode != http.StatusOK {
		return fmt.Errorf("%s: %s", url, resp.Status)
	}
	return json.NewDecoder(resp.Body).Decode(into)
}

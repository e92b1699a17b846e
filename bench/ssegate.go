//go:build linux

package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"ssegate/bench/internal/load"
)

// startSsegate starts nodes with the default configuration, but for addresses
// and what the workload needs. Clients go to the last node; what is published
// and what is cut go to the first.
func startSsegate(nodes int, clustered bool) func(context.Context, *stage, *workload, string) (*play, error) {
	return func(ctx context.Context, s *stage, w *workload, upstream string) (_ *play, err error) {
		p := &play{others: map[string][]int{}}
		defer func() {
			if err != nil {
				err = errors.Join(err, p.stop())
			}
		}()
		s.count++
		cluster := ""
		if clustered {
			if err := s.services(); err != nil {
				return nil, err
			}
			cluster = fmt.Sprintf("[cluster]\nredis = %q\nrabbitmq = %q\nprefix = \"bench%d\"\n", s.redis.URL, s.rabbit.URL, s.count)
			// Redis writes its address over its arguments.
			for name, text := range map[string]string{"redis": s.redis.Addr, "rabbitmq": s.rabbit.Dir} {
				if p.others[name], err = pidsNaming(text); err != nil {
					return nil, err
				}
			}
		}
		var public, internal []string
		for n := range nodes {
			file := filepath.Join(s.dir, fmt.Sprintf("ssegate-%d-%d.toml", s.count, n))
			text := fmt.Sprintf("[node]\nid = \"n%d\"\n[listen]\npublic = \"127.0.0.1:0\"\ninternal = \"127.0.0.1:0\"\n%s"+
				"[[upstream]]\nname = \"load\"\ntargets = [\"http://%s\"]\n[[route]]\npath = \"/\"\n%s", n+1, cluster, upstream, w.config)
			if err := os.WriteFile(file, []byte(text), 0o600); err != nil {
				return nil, err
			}
			proc, err := startProcess("ssegate", s.ssegate, "-config", file)
			if err != nil {
				return nil, err
			}
			p.server = append(p.server, proc)
			line, err := proc.await(ctx, `"msg":"started"`)
			if err != nil {
				return nil, err
			}
			var started struct{ Public, Internal string }
			if err := json.Unmarshal([]byte(line), &started); err != nil {
				return nil, fmt.Errorf("ssegate: %w in %q", err, line)
			}
			public, internal = append(public, started.Public), append(internal, started.Internal)
		}
		for n, addr := range internal {
			if err := acquainted(ctx, addr, nodes-1, n+1); err != nil {
				return nil, err
			}
		}
		p.front = load.Front{
			Clients:   public[nodes-1:],
			Back:      public[0],
			Subscribe: "/sse/stream/" + channel,
			Past:      "/sse/stream/" + channel + "?since=1",
		}
		p.front.Publish, p.front.Batch = pushPublish(internal[0])
		return p, nil
	}
}

// acquainted waits until a node knows so many others.
func acquainted(ctx context.Context, internal string, others, self int) error {
	for {
		var ready struct{ Nodes []string }
		err := getJSON(ctx, "http://"+internal+"/readyz", &ready)
		if err == nil {
			known := slices.DeleteFunc(ready.Nodes, func(id string) bool { return strings.HasPrefix(id, fmt.Sprintf("n%d-", self)) })
			if len(known) >= others {
				return nil
			}
			err = fmt.Errorf("node %d knows %q alone", self, ready.Nodes)
		}
		select {
		case <-time.After(50 * time.Millisecond):
		case <-ctx.Done():
			return fmt.Errorf("ssegate: %w: %w", ctx.Err(), err)
		}
	}
}

func getJSON(ctx context.Context, url string, into any) error {
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, url, nil)
	if err != nil {
		return err
	}
	req.Close = true
	resp, err := http.DefaultClient.Do(req)
	if err != nil {
		return err
	}
	defer resp.Body.Close()
	return json.NewDecoder(resp.Body).Decode(into)
}

// printedBy is what the nodes printed beside their start: warnings, mostly.
func printedBy(p *play) string {
	var out []string
	for _, proc := range p.server {
		for line := range strings.Lines(proc.printed()) {
			if !strings.Contains(line, `"level":"info"`) {
				out = append(out, strings.TrimSpace(line))
			}
		}
	}
	return strings.Join(out[:min(len(out), 20)], "\n")
}

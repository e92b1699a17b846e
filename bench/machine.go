//go:build linux

package main

import (
	"context"
	"fmt"
	"os"
	"os/exec"
	"regexp"
	"runtime"
	"strings"
)

// machine describes this machine, a line each.
func machine() []string {
	var out []string
	if b, err := os.ReadFile("/proc/cpuinfo"); err == nil {
		for line := range strings.Lines(string(b)) {
			if name, value, ok := strings.Cut(line, ":"); ok && strings.TrimSpace(name) == "model name" {
				out = append(out, fmt.Sprintf("%d × %s", runtime.NumCPU(), strings.TrimSpace(value)))
				break
			}
		}
	}
	if b, err := os.ReadFile("/proc/meminfo"); err == nil {
		var kb int
		if _, err := fmt.Sscanf(string(b), "MemTotal: %d kB", &kb); err == nil {
			out = append(out, fmt.Sprintf("%.0f GiB of memory", float64(kb)/(1<<20)))
		}
	}
	if b, err := os.ReadFile("/proc/sys/kernel/osrelease"); err == nil {
		out = append(out, "Linux "+strings.TrimSpace(string(b)))
	}
	if b, err := os.ReadFile("/etc/os-release"); err == nil {
		if m := regexp.MustCompile(`(?m)^PRETTY_NAME="?([^"\n]*)`).FindSubmatch(b); m != nil {
			out = append(out, string(m[1]))
		}
	}
	if b, err := os.ReadFile("/proc/cpuinfo"); err == nil && strings.Contains(string(b), " hypervisor ") {
		out = append(out, "a virtual machine")
	}
	return out
}

// versions asks programs which version they are.
func (s *stage) versions(ctx context.Context, progs []program) map[string]string {
	out := map[string]string{"Go": runtime.Version()}
	first := func(name string, args ...string) {
		if len(args) == 0 || args[0] == "" {
			return
		}
		b, err := exec.CommandContext(ctx, args[0], args[1:]...).CombinedOutput()
		if err != nil {
			return // a version more or less
		}
		line, _, _ := strings.Cut(strings.TrimSpace(string(b)), "\n")
		out[name] = line
	}
	debian := func(w ware) {
		first(w.pkg, "dpkg-query", "-W", "-f=${Version}", w.pkg)
	}
	first("ssegate", "git", "describe", "--always", "--dirty")
	for _, p := range progs {
		for _, w := range p.wares {
			debian(w)
		}
	}
	return out
}

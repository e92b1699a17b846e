//go:build linux

package main

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"time"
)

// profiler looks into ssegate between begin and end of each measurement, with
// perf: the binary stays as users run it. A nil profiler does nothing.
type profiler struct {
	dir  string
	cmd  *exec.Cmd
	file string
	said strings.Builder
}

func newProfiler(dir string) (*profiler, error) {
	if perfWare.path() == "" {
		return nil, fmt.Errorf("-profile: %w: apt-get install %s", errMissing, perfWare.pkg)
	}
	return &profiler{dir: dir}, os.MkdirAll(dir, 0o755)
}

// begin attaches to the processes.
func (p *profiler) begin(ctx context.Context, workload, program string, run int, pids []int) error {
	if p == nil {
		return nil
	}
	var list []string
	for _, pid := range pids {
		list = append(list, strconv.Itoa(pid))
	}
	p.file = filepath.Join(p.dir, fmt.Sprintf("%s-%s-%d.perf", workload, program, run))
	p.said.Reset()
	// The software clock: virtual machines often have no counters.
	p.cmd = exec.CommandContext(ctx, perfWare.path(), "record", "-q", "-e", "cpu-clock", "-F", "997", "--call-graph", "fp",
		"-o", p.file, "-p", strings.Join(list, ","))
	p.cmd.Stderr = &p.said
	if err := p.cmd.Start(); err != nil {
		p.cmd = nil
		return err
	}
	time.Sleep(300 * time.Millisecond) // it does not tell when it has attached
	return nil
}

// end detaches, and writes a summary as text beside the profile.
func (p *profiler) end() error {
	if p == nil || p.cmd == nil {
		return nil
	}
	cmd := p.cmd
	p.cmd = nil
	if err := cmd.Process.Signal(syscall.SIGINT); err != nil {
		return err
	}
	var exit *exec.ExitError
	if err := cmd.Wait(); err != nil && !errors.As(err, &exit) { // it ends by the signal
		return err
	}
	for name, args := range map[string][]string{
		"flat": {"-F", "overhead,sym", "--no-children", "-g", "none", "--percent-limit", "0.3"},
		"tree": {"--sort", "symbol", "--children", "-g", "caller,0.5,callee", "--percent-limit", "2"},
	} {
		out, err := exec.Command(perfWare.path(), append([]string{"report", "--stdio", "-i", p.file}, args...)...).Output()
		if err != nil {
			return fmt.Errorf("perf report: %w: %s", err, p.said.String())
		}
		if err := os.WriteFile(strings.TrimSuffix(p.file, ".perf")+"."+name+".txt", out, 0o644); err != nil {
			return err
		}
	}
	return nil
}

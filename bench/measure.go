//go:build linux

package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"strings"
	"syscall"
	"time"

	"ssegate/bench/internal/load"
)

// mostTime bounds one measurement.
const mostTime = 10 * time.Minute

// measure does one workload with one program: both are started for it, and
// ended. The error is for what ends the whole run; what a program cannot do is
// a fault in what is returned.
func (s *stage) measure(ctx context.Context, w *workload, p *program, run int, profile *profiler) (m measured, err error) {
	m = measured{Workload: w.name, Program: p.name, Run: run}
	ctx, cancel := context.WithTimeout(ctx, mostTime)
	defer cancel()
	l, err := startLoad(ctx, s.self)
	if err != nil {
		return m, err
	}
	defer func() { err = errors.Join(err, l.stop()) }()

	var on *play
	defer func() {
		if on != nil {
			m.Printed = printedBy(on)
			err = errors.Join(err, on.stop())
		}
	}()
	marks := map[string]sample{}
	start := func(service string) (load.Front, error) {
		ctx, cancel := context.WithTimeout(ctx, startWithin)
		defer cancel()
		var err error
		if on, err = p.start(ctx, s, w, service); err != nil {
			return load.Front{}, err
		}
		return on.front, nil
	}
	mark := func(name string) (err error) {
		if name == "end" {
			if marks[name], err = on.sample(); err != nil { // before the profiler adds to it
				return err
			}
			return profile.end()
		}
		if name == "begin" && !p.rival {
			if err := profile.begin(ctx, w.name, p.name, run, on.pids()); err != nil {
				return err
			}
		}
		marks[name], err = on.sample()
		return err
	}
	seen, failed := l.talk.Conduct(w.plan, start, mark)
	if err := profile.end(); err != nil {
		return m, err
	}
	if ctx.Err() != nil {
		return m, fmt.Errorf("%s: %w", m, ctx.Err())
	}
	m.Seen = seen
	switch {
	case failed != nil:
		m.Fault = failed.Error()
	case !seen.Sound():
		m.Fault = fmt.Sprintf("%d events lost, %d doubled, %d foreign; %d gaps or errors told; %d answers refused, %d connections cut",
			seen.Lost, seen.Doubled, seen.Foreign, seen.Told, seen.Refused, seen.Cut)
	}
	m.Figures = figuresOf(w, marks, seen)
	return m, nil
}

// loadProcess is the load, which is this program in another process.
type loadProcess struct {
	cmd  *exec.Cmd
	in   io.Closer
	talk *load.Talk
	errs strings.Builder
}

// loadVerb makes this program the load.
const loadVerb = "load"

func startLoad(ctx context.Context, self string) (*loadProcess, error) {
	l := &loadProcess{cmd: exec.CommandContext(ctx, self, loadVerb)}
	l.cmd.Env = append(os.Environ(), loadEnv+"=1")
	l.cmd.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL}
	l.cmd.Stderr = &l.errs
	in, err := l.cmd.StdinPipe()
	if err != nil {
		return nil, err
	}
	out, err := l.cmd.StdoutPipe()
	if err != nil {
		return nil, err
	}
	if err := l.cmd.Start(); err != nil {
		return nil, err
	}
	l.in, l.talk = in, load.NewTalk(out, in)
	return l, nil
}

// loadEnv says the same to a test binary, whose arguments are not ours.
const loadEnv = "SSEGATE_BENCH_LOAD"

// stop ends it.
func (l *loadProcess) stop() error {
	_ = l.in.Close()
	_ = l.cmd.Process.Kill() // it may have ended by itself
	err := l.cmd.Wait()
	var exit *exec.ExitError
	if errors.As(err, &exit) && l.errs.Len() > 0 {
		return fmt.Errorf("load: %w: %s", err, l.errs.String())
	}
	return nil
}

//go:build linux

// Bench measures what event streams cost: ssegate beside nginx, nchan and
// HAProxy, all with the same load in the same run, on this machine.
//
//	go run ./bench                            everything, which takes an hour
//	go run ./bench -only paced,full -runs 1 -scale 0.1
//	go run ./bench -list
//	make bench                                everything, and writes docs/benchmarks.md
//
// It wants Linux, and root if something must be installed first. Every program
// is started for each measurement and ended by its id; programs take turns, so
// that what else the machine does hits all alike. A lost or doubled event
// anywhere makes it exit with 1.
package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"io"
	"os"
	"os/signal"
	"slices"
	"strings"
	"syscall"
	"time"

	"ssegate/bench/internal/load"
)

func main() {
	if err := load.LimitFiles(); err != nil {
		fmt.Fprintln(os.Stderr, "bench:", err)
		os.Exit(1)
	}
	if len(os.Args) == 2 && os.Args[1] == loadVerb {
		if err := load.Main(os.Stdin, os.Stdout); err != nil {
			fmt.Fprintln(os.Stderr, "bench load:", err)
			os.Exit(1)
		}
		return
	}
	if len(os.Args) == 4 && os.Args[1] == floorVerb {
		fmt.Fprintln(os.Stderr, "bench floor:", runFloor(os.Args[2], os.Args[3]))
		os.Exit(1)
	}
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer stop()
	if err := run(ctx, os.Args[1:], os.Stdout); err != nil {
		fmt.Fprintln(os.Stderr, "bench:", err)
		stop()
		os.Exit(1)
	}
}

// errFaults means that events were lost or doubled, or that a program failed.
var errFaults = errors.New("there are faults")

func run(ctx context.Context, args []string, out io.Writer) error {
	o, err := parse(args)
	switch {
	case errors.Is(err, flag.ErrHelp):
		return nil
	case err != nil:
		return err
	}
	works, progs, err := choose(o.only, o.programs)
	if err != nil {
		return err
	}
	if o.list {
		list(out, works, progs)
		return nil
	}
	var r *results
	if o.from != "" {
		r, err = readResults(o.from)
	} else {
		r, err = measureAll(ctx, o, works, progs, out)
		if r != nil {
			r.Command = strings.TrimSpace("go run ./bench " + strings.Join(args, " "))
		}
	}
	if err != nil {
		return err
	}
	if len(r.Measured) == 0 {
		return errors.New("nothing was measured")
	}
	return errors.Join(publish(r, o, out), faulty(r))
}

// publish writes what was measured wherever it is wanted.
func publish(r *results, o options, out io.Writer) error {
	var err error
	if o.json != "" {
		err = errors.Join(err, r.write(o.json))
	}
	if o.docs != "" {
		err = errors.Join(err, document(r, o.docs))
	}
	fmt.Fprintln(out)
	if r.Scale != 1 {
		fmt.Fprintf(out, "Everything is scaled by %g: clients, events and time are not those that are named below.\n\n", r.Scale)
	}
	return errors.Join(err, tables(out, r, nil))
}

func faulty(r *results) error {
	var err error
	for _, m := range r.faults() {
		err = errors.Join(err, fmt.Errorf("%s: %s", m, m.Fault))
	}
	if err != nil {
		return fmt.Errorf("%w:\n%w", errFaults, err)
	}
	return nil
}

// choose picks workloads and programs by their names.
func choose(only, names string) ([]workload, []program, error) {
	works, progs := workloads(), programs()
	wanted := func(list string) []string {
		return strings.FieldsFunc(list, func(r rune) bool { return r == ',' || r == ' ' })
	}
	if want := wanted(only); len(want) > 0 {
		for _, name := range want {
			if !slices.ContainsFunc(works, func(w workload) bool { return w.name == name || w.family == name }) {
				return nil, nil, fmt.Errorf("no such workload: %q; -list shows all", name)
			}
		}
		works = slices.DeleteFunc(works, func(w workload) bool {
			return !slices.Contains(want, w.name) && !slices.Contains(want, w.family)
		})
	}
	if want := wanted(names); len(want) > 0 {
		for _, name := range want {
			if !slices.ContainsFunc(progs, func(p program) bool { return p.name == name }) {
				return nil, nil, fmt.Errorf("no such program: %q; -list shows all", name)
			}
		}
		progs = slices.DeleteFunc(progs, func(p program) bool { return !slices.Contains(want, p.name) })
	}
	if !slices.ContainsFunc(works, func(w workload) bool {
		return slices.ContainsFunc(progs, func(p program) bool { return slices.Contains(w.takers, p.name) })
	}) {
		return nil, nil, errors.New("nothing to measure: none of these programs does any of this work; -list shows who does what")
	}
	return works, progs, nil
}

func list(out io.Writer, works []workload, progs []program) {
	for _, p := range progs {
		fmt.Fprintf(out, "%-18s %s\n", p.name, p.about)
	}
	fmt.Fprintln(out)
	for _, w := range works {
		fmt.Fprintf(out, "%-18s %s\n%-18s (%s)\n", w.name, w.about, "", strings.Join(w.takers, ", "))
	}
}

// measureAll measures everything, programs in turn.
func measureAll(ctx context.Context, o options, works []workload, progs []program, out io.Writer) (_ *results, err error) {
	var wares []ware
	for _, p := range progs {
		if slices.ContainsFunc(works, func(w workload) bool { return slices.Contains(w.takers, p.name) }) {
			wares = append(wares, p.wares...)
		}
	}
	if err := install(ctx, wares, out); err != nil {
		return nil, err
	}
	var profile *profiler
	if o.profile != "" {
		if profile, err = newProfiler(o.profile); err != nil {
			return nil, err
		}
	}
	s, err := newStage(ctx)
	if err != nil {
		return nil, err
	}
	defer func() { err = errors.Join(err, s.close()) }()
	r := &results{When: time.Now(), Runs: o.runs, Scale: o.scale, Machine: machine(), Versions: s.versions(ctx, progs)}
	for _, w := range works {
		w = w.scaled(o.scale)
		for n := range w.runs(o.runs) {
			for _, p := range progs {
				if !slices.Contains(w.takers, p.name) {
					continue
				}
				m, err := s.measure(ctx, &w, &p, n+1, profile)
				if err != nil {
					return nil, err
				}
				r.Measured = append(r.Measured, m)
				say(out, &w, m)
				if o.json != "" { // kept even when the next one is the last
					if err := r.write(o.json); err != nil {
						return nil, err
					}
				}
			}
		}
	}
	return r, nil
}

// say tells one measurement in a line.
func say(out io.Writer, w *workload, m measured) {
	fmt.Fprintf(out, "%-16s %-16s %d", m.Workload, m.Program, m.Run)
	for _, name := range w.figures {
		if v, ok := m.Figures[name]; ok {
			f := figures[name]
			fmt.Fprintf(out, "  %s %.*f %s", f.title, f.decimals, v, f.unit)
		}
	}
	if m.Fault != "" {
		fmt.Fprintf(out, "  FAULT: %s", m.Fault)
	}
	fmt.Fprintln(out)
	if m.Printed != "" {
		fmt.Fprintln(out, m.Printed)
	}
}

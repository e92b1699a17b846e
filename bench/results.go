//go:build linux

package main

import (
	"encoding/json"
	"fmt"
	"os"
	"slices"
	"time"

	"ssegate/bench/internal/load"
)

// results are all that one run of the benchmarks measured. They are what -json
// writes and -from reads.
type results struct {
	When     time.Time
	Command  string
	Runs     int
	Scale    float64
	Machine  []string          // its description, a line each
	Versions map[string]string // by program
	Measured []measured
}

// measured is one program with one workload in one run.
type measured struct {
	Workload, Program string
	Run               int
	Figures           map[string]float64
	Seen              load.Result
	Fault             string `json:",omitempty"` // why it does not count
	Printed           string `json:",omitempty"` // warnings of the program
}

// of are the measurements of one program with one workload.
func (r *results) of(workload, program string) []measured {
	return slices.DeleteFunc(slices.Clone(r.Measured), func(m measured) bool {
		return m.Workload != workload || m.Program != program
	})
}

// byRun is one figure of one program with one workload, by run. What has a
// fault is not among it.
func (r *results) byRun(workload, program, figure string) map[int]float64 {
	out := map[int]float64{}
	for _, m := range r.of(workload, program) {
		if v, ok := m.Figures[figure]; ok && m.Fault == "" {
			out[m.Run] = v
		}
	}
	return out
}

// spread is one figure over all runs.
func (r *results) spread(workload, program, figure string) spread {
	var values []float64
	for _, v := range r.byRun(workload, program, figure) {
		values = append(values, v)
	}
	return spreadOf(values)
}

// ratio is the figure of one program as a multiple of another's, run by run.
func (r *results) ratio(workload, program, to, figure string) spread {
	return spreadOf(ratios(r.byRun(workload, program, figure), r.byRun(workload, to, figure)))
}

// faults are the measurements that do not count.
func (r *results) faults() []measured {
	return slices.DeleteFunc(slices.Clone(r.Measured), func(m measured) bool { return m.Fault == "" })
}

func (m measured) String() string {
	return fmt.Sprintf("%s with %s, run %d", m.Program, m.Workload, m.Run)
}

func readResults(file string) (*results, error) {
	b, err := os.ReadFile(file)
	if err != nil {
		return nil, err
	}
	r := new(results)
	if err := json.Unmarshal(b, r); err != nil {
		return nil, fmt.Errorf("%s: %w", file, err)
	}
	return r, nil
}

func (r *results) write(file string) error {
	b, err := json.MarshalIndent(r, "", "\t")
	if err != nil {
		return err
	}
	return os.WriteFile(file, append(b, '\n'), 0o644)
}

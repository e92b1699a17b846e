//go:build linux

package main

import (
	"errors"
	"math"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"ssegate/bench/internal/load"
)

func TestSpread(t *testing.T) {
	f := func(values []float64, want spread) {
		t.Helper()
		if got := spreadOf(values); got != want {
			t.Errorf("%v: %+v, want %+v", values, got, want)
		}
	}
	f(nil, spread{})
	f([]float64{3}, spread{3, 3, 3, 1})
	f([]float64{5, 1, 4}, spread{4, 1, 5, 3})
	f([]float64{4, 1, 2, 8}, spread{3, 1, 8, 4})
}

func TestRatios(t *testing.T) {
	got := slices.Sorted(slices.Values(ratios(map[int]float64{1: 10, 2: 30, 3: 5}, map[int]float64{1: 5, 2: 10, 4: 1, 5: 0})))
	if !slices.Equal(got, []float64{2, 3}) { // of the runs that both have
		t.Errorf("%v", got)
	}
}

func TestParseStat(t *testing.T) {
	const line = "4242 (a) b (c d) S 17 4242 4242 0 -1 4194560 1 2 3 4 150 50 7 3 20 0 9 0 100 1 2"
	st, err := parseStat([]byte(line))
	if err != nil || st.parent != 17 || math.Abs(st.cpu-2.1) > 1e-9 {
		t.Errorf("%+v, %v", st, err)
	}
	for _, bad := range []string{"", "1 (x) S", "1 (x) S y 1 1 1 1 1 1 1 1 1 1 1 1 1 1 1"} {
		if st, err := parseStat([]byte(bad)); err == nil {
			t.Errorf("%q is read as %+v", bad, st)
		}
	}
}

func TestParsePss(t *testing.T) {
	const text = "55d0 ---p 0 00:00 0 [rollup]\nRss:   9000 kB\nPss:   1234 kB\nPss_Dirty: 1 kB\n"
	if n, err := parsePss([]byte(text)); err != nil || n != 1234<<10 {
		t.Errorf("%d, %v", n, err)
	}
	if n, err := parsePss([]byte("Rss: 9000 kB\n")); err == nil {
		t.Errorf("without Pss: %d", n)
	}
}

// TestUsage lets a child of a child work, and finds its work.
func TestUsage(t *testing.T) {
	cmd := exec.Command("sh", "-c", `sh -c 'i=0; while [ $i -lt 200000 ]; do i=$((i+1)); done; echo done; read x'; :`)
	in, err := cmd.StdinPipe()
	if err != nil {
		t.Fatal(err)
	}
	out, err := cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	defer cmd.Wait()
	defer in.Close()
	if _, err := out.Read(make([]byte, 5)); err != nil {
		t.Fatal(err)
	}
	u, err := usageOf([]int{cmd.Process.Pid})
	if err != nil || u.cpu < 0.02 || u.cpu > 60 || u.resident < 10<<10 || u.resident > 100<<20 {
		t.Errorf("%+v, %v", u, err)
	}
	family, err := withDescendants([]int{cmd.Process.Pid})
	if err != nil || len(family) != 2 {
		t.Errorf("%v, %v, want two shells", family, err)
	}
	if pids, err := pidsNaming("i -lt 200000"); err != nil || !slices.Contains(pids, cmd.Process.Pid) {
		t.Errorf("%d is not among %v, %v", cmd.Process.Pid, pids, err)
	}
}

func TestFigures(t *testing.T) {
	at := func(cpu float64, resident int64, redis float64) sample {
		return sample{server: usage{cpu, resident}, others: map[string]usage{"redis": {cpu: redis}}}
	}
	f := func(w workload, marks map[string]sample, r load.Result, want map[string]float64) {
		t.Helper()
		got := figuresOf(&w, marks, r)
		for name, v := range want {
			if math.Abs(got[name]-v) > 1e-6 {
				t.Errorf("%s is %g, want %g", name, got[name], v)
			}
		}
		for name := range got {
			if _, ok := want[name]; !ok {
				t.Errorf("%s is %g, and should not be there", name, got[name])
			}
		}
		for name := range want {
			if figures[name].title == "" {
				t.Errorf("%s has no title", name)
			}
		}
	}
	f(workload{}, map[string]sample{"begin": at(1, 1e6, 5), "end": at(3, 2e6, 5.5)},
		load.Result{Events: 100000, Seconds: 4, Late: load.Times{P50: 1, P99: 2, Max: 3}},
		map[string]float64{cpuEvent: 20, perSecond: 25000, residentMB: 2, lateP50: 1, lateP99: 2, redisEvent: 5})
	f(workload{plan: load.Plan{Clients: 1000}}, map[string]sample{"empty": at(1, 1e6, 0), "full": at(3, 9e6, 0)},
		load.Result{}, map[string]float64{bytesClient: 8000, residentMB: 9})
	f(workload{plan: load.Plan{Clients: 1000}}, map[string]sample{"empty": at(1, 1e6, 0), "full": at(3, 3e6, 0), "used": at(3, 5e6, 0)},
		load.Result{}, map[string]float64{bytesClient: 2000, bytesUsed: 4000, residentMB: 5})
	f(workload{}, map[string]sample{"begin": at(1, 1e6, 0)}, load.Result{}, nil) // it failed in between
	f(workload{plan: load.Plan{Streams: 50}, rated: func(p load.Plan) float64 { return float64(p.Streams) }},
		map[string]sample{"begin": at(1, 1e6, 0), "end": at(2, 1e6, 0)}, load.Result{Seconds: 2},
		map[string]float64{cpuStream: 20000, streamsSecond: 25, residentMB: 1})
}

// example is results of two runs, in which one goal is reached, one is missed,
// and one measurement does not count.
func example() *results {
	r := &results{When: time.Date(2026, 11, 22, 0, 0, 0, 0, time.UTC), Command: "go run ./bench", Runs: 2, Scale: 1,
		Machine: []string{"2 × CPU"}, Versions: map[string]string{"Go": "go1.26"}}
	add := func(workload, program string, run int, cpu, late float64, fault string) {
		r.Measured = append(r.Measured, measured{Workload: workload, Program: program, Run: run, Fault: fault,
			Figures: map[string]float64{cpuEvent: cpu, lateP50: late / 2, lateP99: late}})
	}
	add("paced", "ssegate", 1, 10, 4, "")
	add("paced", "nginx", 1, 20, 2, "")
	add("paced", "ssegate", 2, 12, 6, "")
	add("paced", "nginx", 2, 20, 3, "")
	add("streams-100", "ssegate", 1, 5, 1, "")
	add("streams-500", "ssegate", 1, 6, 1, "")
	add("streams-500", "nginx", 1, 1, 1, "3 events lost")
	return r
}

func TestDocument(t *testing.T) {
	dir := t.TempDir()
	file := filepath.Join(dir, "results.json")
	if err := example().write(file); err != nil {
		t.Fatal(err)
	}
	var out strings.Builder
	err := run(t.Context(), []string{"-from", file, "-docs", dir}, &out)
	if !errors.Is(err, errFaults) || !strings.Contains(err.Error(), "nginx with streams-500, run 1: 3 events lost") {
		t.Errorf("the fault is not told: %v", err)
	}
	b, err := os.ReadFile(filepath.Join(dir, "benchmarks.md"))
	if err != nil {
		t.Fatal(err)
	}
	text := string(b)
	for _, want := range []string{
		"Command: `go run ./bench`", "22 November 2026", "2 × CPU", "- Go: go1.26", "median of 2 runs",
		"| ssegate | paced, CPU an event | ≤ 0.8 × nginx | 11.00 µs (10.00–12.00) | 0.55 | reached |",
		"| ssegate | paced, late, p99 | ≤ 1 × nginx | 5.00 ms (4.00–6.00) | 2.00 | missed |",
		"| ssegate | 11.00 µs (10.00–12.00) | 2.50 ms (2.00–3.00) | 5.00 ms (4.00–6.00) | 0.55 (0.50–0.60) |",
		"![Proxying, paced](benchmarks/paced.svg)", "![Cost by number of streams](benchmarks/streams.svg)",
		"| ssegate | 500 | 6.00 µs |", "**Does not count:** nginx with streams-500, run 1: 3 events lost",
		"## What it does not measure",
	} {
		if !strings.Contains(text, want) {
			t.Errorf("%q is missing", want)
		}
	}
	if strings.Contains(text, "| nginx | 500 | 1.00 µs") {
		t.Error("what does not count is shown as a figure")
	}
	for _, name := range []string{"paced", "streams"} {
		if b, err := os.ReadFile(filepath.Join(dir, "benchmarks", name+".svg")); err != nil || len(b) < 500 {
			t.Errorf("%s.svg: %d bytes, %v", name, len(b), err)
		}
	}
	if t.Failed() {
		t.Log(text)
	}
}

// TestNames looks whether what is named is there, and only once.
func TestNames(t *testing.T) {
	works, progs, err := choose("", "")
	if err != nil {
		t.Fatal(err)
	}
	seen := map[string]bool{}
	for _, w := range works {
		if seen[w.name] {
			t.Errorf("%s is there twice", w.name)
		}
		seen[w.name] = true
		for _, name := range append(slices.Clone(w.takers), w.rival) {
			if name != "" && !slices.ContainsFunc(progs, func(p program) bool { return p.name == name }) {
				t.Errorf("%s: there is no program %q", w.name, name)
			}
		}
		for _, f := range w.figures {
			if figures[f].title == "" {
				t.Errorf("%s: there is no figure %q", w.name, f)
			}
		}
		if w.rival != "" && !slices.Contains(w.takers, w.rival) {
			t.Errorf("%s is compared with %s, which is not measured", w.name, w.rival)
		}
		if p := w.scaled(0.001).plan; p.Clients < 1 || p.Events < 0 || p.Kind == load.Fan && p.Events > 0 && p.Events < p.Publishers*p.Batch {
			t.Errorf("%s is too small at a small scale: %+v", w.name, p)
		}
	}
	for _, g := range goals {
		if !seen[g.workload] {
			t.Errorf("a goal is of %q, which is not there", g.workload)
		}
	}
	if works, progs, err = choose("full,streams", "ssegate"); err != nil || len(works) != 4 || len(progs) != 1 {
		t.Errorf("%d workloads and %d programs, %v", len(works), len(progs), err)
	}
	for _, bad := range [][2]string{{"none", ""}, {"", "none"}} {
		if _, _, err := choose(bad[0], bad[1]); err == nil {
			t.Errorf("%q is taken", bad)
		}
	}
}

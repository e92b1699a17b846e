//go:build linux

package main

import (
	"bytes"
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"strings"
)

// usage is what processes have used so far, and hold now.
type usage struct {
	cpu      float64 // seconds, user and system
	resident int64   // bytes; what processes share is counted once
}

// ticks a second of the times in /proc/<pid>/stat: USER_HZ, which is 100 on
// every architecture that Go runs on.
const ticks = 100

// usageOf sums up processes and all that descend from them.
func usageOf(pids []int) (usage, error) {
	family, err := withDescendants(pids)
	if err != nil {
		return usage{}, err
	}
	var sum usage
	for _, pid := range family {
		b, err := os.ReadFile(fmt.Sprintf("/proc/%d/stat", pid))
		if err != nil {
			continue // a helper that has just ended
		}
		st, err := parseStat(b)
		if err != nil {
			return usage{}, err
		}
		sum.cpu += max(st.cpu, threads(pid))
		rollup, err := os.ReadFile(fmt.Sprintf("/proc/%d/smaps_rollup", pid))
		if err != nil {
			continue
		}
		n, err := parsePss(rollup)
		if err != nil {
			return usage{}, err
		}
		sum.resident += n
	}
	return sum, nil
}

// threads is the CPU time of a process's living threads in seconds, to the
// nanosecond; 0 where the kernel does not tell. The stat of the process knows
// it in ticks only, but also that of threads that have ended.
func threads(pid int) float64 {
	files, err := filepath.Glob(fmt.Sprintf("/proc/%d/task/[0-9]*/schedstat", pid))
	if err != nil {
		return 0
	}
	var sum int64
	for _, file := range files {
		b, err := os.ReadFile(file)
		if err != nil {
			continue // it has just ended
		}
		first, _, _ := strings.Cut(string(b), " ")
		n, err := strconv.ParseInt(first, 10, 64)
		if err != nil {
			return 0
		}
		sum += n
	}
	return float64(sum) / 1e9
}

// procStat is what is needed of /proc/<pid>/stat.
type procStat struct {
	parent int
	cpu    float64 // seconds, its own and of its children that have ended
}

// parseStat reads "pid (name) state parent …", where the name may hold
// anything.
func parseStat(b []byte) (procStat, error) {
	rest := b[bytes.LastIndexByte(b, ')')+1:]
	f := strings.Fields(string(rest))
	if len(f) < 15 {
		return procStat{}, fmt.Errorf("stat of a process: %q", b)
	}
	var n [5]int64
	for i, at := range []int{1, 11, 12, 13, 14} { // parent, utime, stime, cutime, cstime
		var err error
		if n[i], err = strconv.ParseInt(f[at], 10, 64); err != nil {
			return procStat{}, fmt.Errorf("stat of a process: %w", err)
		}
	}
	return procStat{parent: int(n[0]), cpu: float64(n[1]+n[2]+n[3]+n[4]) / ticks}, nil
}

// parsePss reads the proportional set size out of /proc/<pid>/smaps_rollup:
// resident bytes, where a page that n processes map counts for 1/n.
func parsePss(b []byte) (int64, error) {
	for line := range strings.Lines(string(b)) {
		if value, ok := strings.CutPrefix(line, "Pss:"); ok {
			n, err := strconv.ParseInt(strings.TrimSpace(strings.TrimSuffix(strings.TrimSpace(value), "kB")), 10, 64)
			return n << 10, err
		}
	}
	return 0, fmt.Errorf("no Pss in %q", b)
}

// withDescendants adds the children of processes, their children, and so on.
func withDescendants(pids []int) ([]int, error) {
	dirs, err := filepath.Glob("/proc/[0-9]*")
	if err != nil {
		return nil, err
	}
	children := map[int][]int{}
	for _, dir := range dirs {
		pid, err := strconv.Atoi(filepath.Base(dir))
		if err != nil {
			continue
		}
		b, err := os.ReadFile(filepath.Join(dir, "stat"))
		if err != nil {
			continue
		}
		if st, err := parseStat(b); err == nil {
			children[st.parent] = append(children[st.parent], pid)
		}
	}
	all := append([]int(nil), pids...)
	for i := 0; i < len(all); i++ {
		all = append(all, children[all[i]]...)
	}
	return all, nil
}

// pidsNaming finds the processes that have a text among their arguments: those
// of a service by the name of its folder.
func pidsNaming(text string) ([]int, error) {
	files, err := filepath.Glob("/proc/[0-9]*/cmdline")
	if err != nil {
		return nil, err
	}
	var pids []int
	for _, file := range files {
		b, err := os.ReadFile(file)
		if err != nil || !bytes.Contains(b, []byte(text)) {
			continue
		}
		pid, err := strconv.Atoi(filepath.Base(filepath.Dir(file)))
		if err == nil && pid != os.Getpid() {
			pids = append(pids, pid)
		}
	}
	return pids, nil
}

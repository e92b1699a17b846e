//go:build linux

package main

import "fmt"

// goal is what ssegate must reach: a figure that is no more than so many times
// another program's in the same run, or no more than a value, whichever is
// easier.
type goal struct {
	workload, program, figure string
	to                        string  // the other program
	times                     float64 // 0: no such bound
	most                      float64 // 0: no such bound
}

var goals = []goal{
	{"paced", "ssegate", cpuEvent, "nginx", 0.8, 0},
	{"paced", "ssegate", lateP99, "nginx", 1, 0},
	{"full", "ssegate", cpuEvent, "nginx", 0.4, 0.7},
	{"full-20", "ssegate", cpuEvent, "", 0, 0.35},
	{"fanout", "ssegate", cpuEvent, "nchan", 0.8, 0},
	{"fanout-full", "ssegate", cpuEvent, "nchan", 0.2, 0},
	{"idle-subscribers", "ssegate", bytesClient, "nchan", 0.4, 3000},
	{"idle-streams", "ssegate", bytesClient, "nginx", 1, 0},
	{"paced", "ssegate-cluster", cpuEvent, "ssegate", 2, 0},
	{"full", "ssegate-cluster", cpuEvent, "ssegate", 2, 0},
	{"full-20", "ssegate-cluster", cpuEvent, "ssegate", 2, 0},
	{"fanout", "ssegate-cluster", cpuEvent, "ssegate", 2, 0},
	{"fanout-full", "ssegate-cluster", cpuEvent, "ssegate", 2, 0},
}

func (g goal) String() string {
	f := figures[g.figure]
	times, most := fmt.Sprintf("%g × %s", g.times, g.to), fmt.Sprintf("%g %s", g.most, f.unit)
	switch {
	case g.most == 0:
		return "≤ " + times
	case g.times == 0:
		return "≤ " + most
	default:
		return "≤ " + times + " or " + most
	}
}

// reached compares it with what was measured. ok is false when nothing was.
func (g goal) reached(r *results) (value, ratio spread, reached, ok bool) {
	value = r.spread(g.workload, g.program, g.figure)
	ratio = r.ratio(g.workload, g.program, g.to, g.figure)
	byRatio := g.times > 0 && ratio.N > 0
	byValue := g.most > 0 && value.N > 0
	return value, ratio, byRatio && ratio.Median <= g.times || byValue && value.Median <= g.most, byRatio || byValue
}

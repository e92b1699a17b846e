//go:build linux

package main

import "slices"

// spread is a figure over several runs.
type spread struct {
	Median, Least, Most float64
	N                   int
}

func spreadOf(values []float64) spread {
	if len(values) == 0 {
		return spread{}
	}
	s := slices.Sorted(slices.Values(values))
	n := len(s)
	return spread{Median: (s[(n-1)/2] + s[n/2]) / 2, Least: s[0], Most: s[n-1], N: n}
}

// ratios are the quotients of what was measured in the same run.
func ratios(of, to map[int]float64) []float64 {
	var out []float64
	for run, v := range of {
		if d, ok := to[run]; ok && d > 0 {
			out = append(out, v/d)
		}
	}
	return out
}

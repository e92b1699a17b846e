//go:build linux

package main

import (
	"bytes"
	"fmt"
	"io"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"

	"ssegate/bench/internal/chart"
)

// document writes benchmarks.md, and its charts into a folder beside it.
func document(r *results, dir string) error {
	charts := filepath.Join(dir, "benchmarks")
	if err := os.MkdirAll(charts, 0o755); err != nil {
		return err
	}
	var b bytes.Buffer
	fmt.Fprintf(&b, foreword, r.Command, r.When.Format("2 January 2006"), strings.Join(r.Machine, "; "))
	for _, name := range slices.Sorted(maps.Keys(r.Versions)) {
		fmt.Fprintf(&b, "- %s: %s\n", name, r.Versions[name])
	}
	fmt.Fprintf(&b, "\nEach figure is the median of %s, with the least and the most in brackets.", times(r.Runs))
	if r.Runs > 1 {
		fmt.Fprintf(&b, " Of what no goal depends on there are %s.", times((&workload{}).runs(r.Runs)))
	}
	if r.Scale != 1 {
		fmt.Fprintf(&b, " **Everything is scaled by %g: clients, events and time are not those that are named below.**", r.Scale)
	}
	b.WriteString("\n\n## The programs\n\n")
	for _, p := range programs() {
		if slices.ContainsFunc(r.Measured, func(m measured) bool { return m.Program == p.name }) {
			fmt.Fprintf(&b, "- **%s**: %s\n", p.name, p.about)
		}
	}
	writeGoals(&b, r)
	err := tables(&b, r, func(name string, svg []byte) error {
		return os.WriteFile(filepath.Join(charts, name+".svg"), svg, 0o644)
	})
	if err != nil {
		return err
	}
	b.WriteString(afterword)
	return os.WriteFile(filepath.Join(dir, "benchmarks.md"), b.Bytes(), 0o644)
}

func times(n int) string {
	if n == 1 {
		return "one run"
	}
	return strconv.Itoa(n) + " runs"
}

func writeGoals(b *bytes.Buffer, r *results) {
	var rows [][]string
	for _, g := range goals {
		value, ratio, reached, ok := g.reached(r)
		if !ok {
			continue
		}
		said := "missed"
		if reached {
			said = "reached"
		}
		row := []string{g.program, g.workload + ", " + figures[g.figure].title, g.String(), shown(g.figure, value), "", said}
		if ratio.N > 0 {
			row[4] = fmt.Sprintf("%.2f", ratio.Median)
		}
		rows = append(rows, row)
	}
	if len(rows) == 0 {
		return
	}
	b.WriteString("\n## What was to be reached\n\nRatios are medians of ratios within one run.\n\n")
	table(b, []string{"program", "work", "goal", "measured", "ratio", ""}, rows)
}

// tables writes what was measured, a part for each workload or family of them.
// drawn is given the charts; nil: there are none.
func tables(out io.Writer, r *results, drawn func(name string, svg []byte) error) error {
	for _, group := range groups(r) {
		w := group[0]
		var b bytes.Buffer
		fmt.Fprintf(&b, "\n## %s\n\n%s\n\n", w.title, w.about)
		name := w.name
		if w.family != "" {
			name = w.family
		}
		if drawn != nil {
			svg := barsOf(r, w)
			if w.family != "" {
				svg = linesOf(r, group)
			}
			if svg != nil {
				if err := drawn(name, svg); err != nil {
					return err
				}
				fmt.Fprintf(&b, "![%s](benchmarks/%s.svg)\n\n", w.title, name)
			}
		}
		writeGroup(&b, r, group)
		if _, err := out.Write(b.Bytes()); err != nil {
			return err
		}
	}
	return nil
}

// groups are the workloads that were measured, families together.
func groups(r *results) [][]workload {
	var out [][]workload
	for _, w := range workloads() {
		if !slices.ContainsFunc(r.Measured, func(m measured) bool { return m.Workload == w.name }) {
			continue
		}
		if n := len(out); n > 0 && w.family != "" && out[n-1][0].family == w.family {
			out[n-1] = append(out[n-1], w)
		} else {
			out = append(out, []workload{w})
		}
	}
	return out
}

// takersOf are the programs that a workload was measured with, in order.
func takersOf(r *results, w workload) []string {
	var out []string
	for _, p := range programs() {
		if slices.Contains(w.takers, p.name) && len(r.of(w.name, p.name)) > 0 {
			out = append(out, p.name)
		}
	}
	return out
}

func writeGroup(b *bytes.Buffer, r *results, group []workload) {
	w := group[0]
	var shownFigures []string // those that somebody has
	for _, f := range w.figures {
		if slices.ContainsFunc(r.Measured, func(m measured) bool {
			_, ok := m.Figures[f]
			return ok && slices.ContainsFunc(group, func(w workload) bool { return w.name == m.Workload })
		}) {
			shownFigures = append(shownFigures, f)
		}
	}
	head := []string{"program"}
	if w.family != "" {
		head = append(head, w.family)
	}
	for _, f := range shownFigures {
		head = append(head, figures[f].title)
	}
	if w.rival != "" {
		head = append(head, "ratio to "+w.rival)
	}
	var rows [][]string
	for _, w := range group {
		for _, p := range takersOf(r, w) {
			row := []string{p}
			if w.family != "" {
				row = append(row, strconv.FormatFloat(w.x, 'f', -1, 64))
			}
			for _, f := range shownFigures {
				row = append(row, shown(f, r.spread(w.name, p, f)))
			}
			if w.rival != "" {
				ratio := ""
				if s := r.ratio(w.name, p, w.rival, w.figures[0]); s.N > 0 && p != w.rival {
					ratio = fmt.Sprintf("%.2f (%.2f–%.2f)", s.Median, s.Least, s.Most)
				}
				row = append(row, ratio)
			}
			rows = append(rows, row)
		}
	}
	table(b, head, rows)
	for _, m := range r.faults() {
		if slices.ContainsFunc(group, func(w workload) bool { return w.name == m.Workload }) {
			line, _, _ := strings.Cut(m.Fault, "\n")
			fmt.Fprintf(b, "\n**Does not count:** %s: %s\n", m, line)
		}
	}
}

// shown writes a figure with its spread.
func shown(figure string, s spread) string {
	if s.N == 0 {
		return "–"
	}
	f := figures[figure]
	n := func(v float64) string { return strconv.FormatFloat(v, 'f', f.decimals, 64) }
	out := n(s.Median)
	if f.unit != "" {
		out += " " + f.unit
	}
	if s.N > 1 {
		out += fmt.Sprintf(" (%s–%s)", n(s.Least), n(s.Most))
	}
	return out
}

func table(b *bytes.Buffer, head []string, rows [][]string) {
	line := func(cells []string) { fmt.Fprintf(b, "| %s |\n", strings.Join(cells, " | ")) }
	line(head)
	line(slices.Repeat([]string{"---"}, len(head)))
	for _, row := range rows {
		line(row)
	}
}

func ours(program string) bool { return strings.HasPrefix(program, "ssegate") }

func barsOf(r *results, w workload) []byte {
	f := figures[w.figures[0]]
	var bars []chart.Bar
	for _, p := range takersOf(r, w) {
		if s := r.spread(w.name, p, w.figures[0]); s.N > 0 {
			bars = append(bars, chart.Bar{Label: p, Median: s.Median, Least: s.Least, Most: s.Most, Ours: ours(p)})
		}
	}
	if len(bars) == 0 {
		return nil
	}
	return chart.Bars(w.title+": "+f.title, f.unit, f.decimals, bars)
}

func linesOf(r *results, group []workload) []byte {
	w := group[0]
	f := figures[w.figures[0]]
	var series []chart.Series
	for _, p := range w.takers {
		s := chart.Series{Label: p, Ours: p == "ssegate"}
		for _, w := range group {
			if v := r.spread(w.name, p, w.figures[0]); v.N > 0 {
				s.Points = append(s.Points, chart.Point{X: w.x, Median: v.Median, Least: v.Least, Most: v.Most})
			}
		}
		if len(s.Points) > 0 {
			series = append(series, s)
		}
	}
	if len(series) == 0 {
		return nil
	}
	return chart.Lines(w.title+": "+f.title, w.family, f.unit, series)
}

// Package chart draws bars and lines as SVG that is readable on light and on
// dark ground, without anything around it.
package chart

import (
	"bytes"
	"fmt"
	"html"
	"math"
	"strconv"
	"strings"
)

// Bar is one bar, from zero to a median, with a thin line for the spread.
type Bar struct {
	Label               string
	Median, Least, Most float64
	Ours                bool // drawn in the stronger colour
}

// Series is one line of a chart.
type Series struct {
	Label  string
	Points []Point
	Ours   bool
}

// Point is a median over an x, with its spread.
type Point struct {
	X, Median, Least, Most float64
}

// The widths are in SVG units; the text is 13 of them high.
const (
	width     = 720
	labelSide = 150
	valueSide = 90
	rowHeight = 30
	barHeight = 16
	headRoom  = 52
)

const style = `<style>
text{font:13px system-ui,sans-serif;fill:#24292f}
.t{font-size:15px;font-weight:600}
.m{fill:#57606a}
.g{stroke:#d0d7de;stroke-width:1}
.s{stroke:#24292f;stroke-width:1.5}
.o{fill:#0969da;stroke:#0969da}
.c0{fill:#8c959f;stroke:#8c959f}
.c1{fill:#bf8700;stroke:#bf8700}
.c2{fill:#8250df;stroke:#8250df}
.c3{fill:#1a7f37;stroke:#1a7f37}
polyline{fill:none!important;stroke-width:2}
@media(prefers-color-scheme:dark){
text{fill:#e6edf3}.m{fill:#9198a1}.g{stroke:#3d444d}.s{stroke:#e6edf3}
.o{fill:#4493f8;stroke:#4493f8}.c0{fill:#9198a1;stroke:#9198a1}.c1{fill:#d29922;stroke:#d29922}
.c2{fill:#ab7df8;stroke:#ab7df8}.c3{fill:#3fb950;stroke:#3fb950}}
</style>`

type drawing struct{ bytes.Buffer }

func begin(height int, title string) *drawing {
	d := new(drawing)
	fmt.Fprintf(d, `<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 %d %d" role="img" aria-label="%s">`+"\n%s\n",
		width, height, html.EscapeString(title), style)
	d.text(0, 18, "t", title)
	return d
}

func (d *drawing) end() []byte {
	d.WriteString("</svg>\n")
	return d.Bytes()
}

func (d *drawing) text(x, y float64, class, s string, attrs ...string) {
	more := ""
	if len(attrs) > 0 {
		more = " " + strings.Join(attrs, " ")
	}
	fmt.Fprintf(d, `<text x="%s" y="%s" class="%s"%s>%s</text>`+"\n", num(x), num(y), class, more, html.EscapeString(s))
}

func (d *drawing) line(x1, y1, x2, y2 float64, class string) {
	fmt.Fprintf(d, `<line x1="%s" y1="%s" x2="%s" y2="%s" class="%s"/>`+"\n", num(x1), num(y1), num(x2), num(y2), class)
}

// num writes a coordinate shortly.
func num(v float64) string { return strconv.FormatFloat(math.Round(v*10)/10, 'f', -1, 64) }

// Bars draws a bar below the other. Decimals are those of the values beside
// them.
func Bars(title, unit string, decimals int, bars []Bar) []byte {
	most := 0.0
	for _, b := range bars {
		most = max(most, b.Most)
	}
	top := ceiling(most)
	height := headRoom + rowHeight*len(bars) + 8
	d := begin(height, title)
	scale := float64(width-labelSide-valueSide) / top
	for _, v := range steps(top) {
		x := labelSide + v*scale
		d.line(x, headRoom-8, x, float64(height-8), "g")
		d.text(x, headRoom-12, "m", label(v)+unitAt(v, top, unit), `text-anchor="middle"`)
	}
	for i, b := range bars {
		y := float64(headRoom + rowHeight*i + rowHeight/2)
		d.text(labelSide-8, y+4, "", b.Label, `text-anchor="end"`)
		class := "c0"
		if b.Ours {
			class = "o"
		}
		fmt.Fprintf(d, `<rect x="%d" y="%s" width="%s" height="%d" class="%s"/>`+"\n",
			labelSide, num(y-barHeight/2), num(b.Median*scale), barHeight, class)
		if b.Most > b.Least {
			d.line(labelSide+b.Least*scale, y, labelSide+b.Most*scale, y, "s")
		}
		d.text(labelSide+max(b.Most, b.Median)*scale+6, y+4, "", strconv.FormatFloat(b.Median, 'f', decimals, 64))
	}
	return d.end()
}

// Lines draws series over a logarithmic x.
func Lines(title, xTitle, unit string, series []Series) []byte {
	const (
		height = 300
		left   = 56
		right  = width - labelSide
		low    = height - 44
	)
	var xs []float64
	most := 0.0
	least, last := math.Inf(1), math.Inf(-1)
	for _, s := range series {
		for _, p := range s.Points {
			most = max(most, p.Most)
			least, last = min(least, p.X), max(last, p.X)
			xs = append(xs, p.X)
		}
	}
	top := ceiling(most)
	xAt := func(x float64) float64 {
		if last <= least {
			return (left + right) / 2
		}
		return left + (right-left)*math.Log(x/least)/math.Log(last/least)
	}
	yAt := func(y float64) float64 { return low - (low-headRoom)*y/top }
	d := begin(height, title)
	for _, v := range steps(top) {
		d.line(left, yAt(v), right, yAt(v), "g")
		d.text(left-6, yAt(v)+4, "m", label(v), `text-anchor="end"`)
	}
	d.text(left-6, headRoom-14, "m", unit, `text-anchor="end"`)
	drawn := map[float64]bool{}
	for _, x := range xs {
		if !drawn[x] {
			drawn[x] = true
			d.text(xAt(x), low+18, "m", label(x), `text-anchor="middle"`)
		}
	}
	d.text((left+right)/2, height-6, "m", xTitle, `text-anchor="middle"`)
	others := 0
	var names []float64 // heights that are taken
	for _, s := range series {
		class := "o"
		if !s.Ours {
			class = fmt.Sprintf("c%d", others%4)
			others++
		}
		var points []string
		for _, p := range s.Points {
			points = append(points, num(xAt(p.X))+","+num(yAt(p.Median)))
			if p.Most > p.Least {
				d.line(xAt(p.X), yAt(p.Least), xAt(p.X), yAt(p.Most), class)
			}
			fmt.Fprintf(d, `<circle cx="%s" cy="%s" r="3.5" class="%s"/>`+"\n", num(xAt(p.X)), num(yAt(p.Median)), class)
		}
		fmt.Fprintf(d, `<polyline points="%s" class="%s"/>`+"\n", strings.Join(points, " "), class)
		if n := len(s.Points); n > 0 {
			y := free(names, yAt(s.Points[n-1].Median)+4)
			names = append(names, y)
			d.text(right+10, y, "", s.Label)
		}
	}
	return d.end()
}

// free moves a line of text away from those that are there.
func free(taken []float64, y float64) float64 {
	for again := true; again; {
		again = false
		for _, t := range taken {
			if math.Abs(t-y) < 15 {
				y, again = t+15, true
			}
		}
	}
	return y
}

// ceiling is a round number that is not less than v.
func ceiling(v float64) float64 {
	if v <= 0 {
		return 1
	}
	power := math.Pow(10, math.Floor(math.Log10(v)))
	for _, m := range []float64{1, 1.5, 2, 3, 4, 5, 6, 8, 10} {
		if v <= m*power*(1+1e-9) {
			return m * power
		}
	}
	return 10 * power
}

// steps are where lines are drawn: five of them at most, zero included.
func steps(top float64) []float64 {
	n := 4
	switch first := top / math.Pow(10, math.Floor(math.Log10(top)+1e-9)); math.Round(first*10) / 10 {
	case 1.5, 3, 6:
		n = 3
	case 5, 10, 1:
		n = 5
	}
	out := make([]float64, n+1)
	for i := range out {
		out[i] = top * float64(i) / float64(n)
	}
	return out
}

// label writes a number on an axis.
func label(v float64) string {
	switch {
	case v >= 1e6:
		return strconv.FormatFloat(v/1e6, 'g', 4, 64) + " M"
	case v >= 1e4:
		return strconv.FormatFloat(v/1e3, 'g', 4, 64) + " k"
	default:
		return strconv.FormatFloat(math.Round(v*1e4)/1e4, 'f', -1, 64)
	}
}

// unitAt names the unit once, at the last number.
func unitAt(v, top float64, unit string) string {
	if v < top || unit == "" {
		return ""
	}
	return " " + unit
}

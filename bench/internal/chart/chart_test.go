package chart

import (
	"encoding/xml"
	"errors"
	"io"
	"strings"
	"testing"
)

// wellFormed reads an SVG to its end and counts its elements.
func wellFormed(t *testing.T, svg []byte) map[string]int {
	t.Helper()
	n := map[string]int{}
	for d := xml.NewDecoder(strings.NewReader(string(svg))); ; {
		token, err := d.Token()
		if errors.Is(err, io.EOF) {
			return n
		}
		if err != nil {
			t.Fatalf("%v in\n%s", err, svg)
		}
		if e, ok := token.(xml.StartElement); ok {
			n[e.Name.Local]++
		}
	}
}

func TestBars(t *testing.T) {
	svg := Bars("CPU <an> event", "µs", 2, []Bar{
		{Label: "ours & others", Median: 5, Least: 4, Most: 7.5, Ours: true},
		{Label: "one run", Median: 10, Least: 10, Most: 10},
	})
	n := wellFormed(t, svg)
	if n["rect"] != 2 {
		t.Errorf("%d bars, want 2\n%s", n["rect"], svg)
	}
	for _, want := range []string{">5.00<", ">10.00<", ">10 µs<", "CPU &lt;an&gt; event", `width="240" height="16" class="o"`} {
		if !strings.Contains(string(svg), want) {
			t.Errorf("%q is missing in\n%s", want, svg)
		}
	}
	wellFormed(t, Bars("nothing at all", "", 0, []Bar{{Label: "zero"}}))
}

func TestLines(t *testing.T) {
	svg := Lines("Cost", "streams", "µs", []Series{
		{Label: "ours", Ours: true, Points: []Point{{100, 5, 4, 6}, {1000, 6, 6, 6}, {10000, 7, 7, 7}}},
		{Label: "theirs", Points: []Point{{100, 5, 5, 5}, {10000, 7, 7, 7}}},
	})
	n := wellFormed(t, svg)
	if n["circle"] != 5 || n["polyline"] != 2 {
		t.Errorf("%v\n%s", n, svg)
	}
	if strings.Count(string(svg), ">10 k<") != 1 {
		t.Errorf("an x is named twice, or not\n%s", svg)
	}
	wellFormed(t, Lines("one point", "x", "", []Series{{Label: "a", Points: []Point{{X: 1}}}}))
}

func TestCeiling(t *testing.T) {
	for v, want := range map[float64]float64{0: 1, 0.7: 0.8, 1: 1, 1.1: 1.5, 9.9: 10, 18: 20, 12033: 15000, 0.021: 0.03} {
		got := ceiling(v)
		if got < want*(1-1e-9) || got > want*(1+1e-9) {
			t.Errorf("ceiling of %g is %g, want %g", v, got, want)
		}
		if s := steps(got); s[0] != 0 || s[len(s)-1] != got || len(s) > 6 {
			t.Errorf("steps to %g: %v", got, s)
		}
	}
}

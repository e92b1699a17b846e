package load

import (
	"fmt"
	"testing"
)

func TestMark(t *testing.T) {
	m := mark{seq: 987654321, at: 123456789012, src: 54321}
	b := fill(64)
	m.put(b)
	if len(b) != 64 {
		t.Fatalf("%d bytes, want 64", len(b))
	}
	for _, line := range []string{string(b), " " + string(b), fmt.Sprintf(" %q", b), string(b[:MinSize])} {
		if got, ok := readMark([]byte(line)); !ok || got != m {
			t.Errorf("%q is read as %+v, %v", line, got, ok)
		}
	}
	for _, line := range []string{"", "@", string(b[:MinSize-1]), `{"far off":"` + string(b) + `"}`, "@x" + string(b[2:]), string(b[1:])} {
		if got, ok := readMark([]byte(line)); ok {
			t.Errorf("%q is read as %+v", line, got)
		}
	}
	if n := len(fill(1)); n != MinSize {
		t.Errorf("the least event has %d bytes, want %d", n, MinSize)
	}
}

func TestCheck(t *testing.T) {
	f := func(streams int, seen [][2]int, ended []uint32, want faults) {
		t.Helper()
		var c check
		var got faults
		c.expect(streams)
		for _, s := range seen {
			c.see(s[0], uint32(s[1]), &got)
		}
		for i, n := range ended {
			c.end(i, n, &got)
		}
		if got != want {
			t.Errorf("%v, ended %v: %+v, want %+v", seen, ended, got, want)
		}
	}
	f(1, [][2]int{{0, 0}, {0, 1}, {0, 2}}, []uint32{3}, faults{})
	f(1, [][2]int{{0, 0}, {0, 2}}, []uint32{3}, faults{Lost: 1})
	f(1, [][2]int{{0, 3}}, nil, faults{Lost: 3})
	f(1, [][2]int{{0, 0}, {0, 0}}, []uint32{1}, faults{Doubled: 1})
	f(1, [][2]int{{0, 0}, {0, 2}, {0, 1}}, nil, faults{Lost: 1, Doubled: 1}) // out of order
	f(1, [][2]int{{0, 0}}, []uint32{5}, faults{Lost: 4})
	f(1, nil, []uint32{2}, faults{Lost: 2})
	f(1, [][2]int{{1, 0}, {-1, 0}}, nil, faults{Foreign: 2})
	f(2, [][2]int{{1, 0}, {0, 0}, {1, 1}, {0, 1}}, []uint32{2, 2}, faults{})
	f(2, [][2]int{{1, 1}, {0, 0}}, []uint32{1, 2}, faults{Lost: 1})
}

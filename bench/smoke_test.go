//go:build linux

package main

import (
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"ssegate/bench/internal/load"
)

// TestMain lets the test binary be the load, as the command is.
func TestMain(m *testing.M) {
	if os.Getenv(loadEnv) != "" {
		if err := load.Main(os.Stdin, os.Stdout); err != nil {
			fmt.Fprintln(os.Stderr, err)
			os.Exit(1)
		}
		return
	}
	if len(os.Args) == 4 && os.Args[1] == floorVerb {
		fmt.Fprintln(os.Stderr, runFloor(os.Args[2], os.Args[3]))
		os.Exit(1)
	}
	os.Exit(m.Run())
}

// TestSmoke measures a real ssegate, and the floor, with one workload of each kind
// that needs nothing around it, at a tiny size.
func TestSmoke(t *testing.T) {
	before, err := filepath.Glob(filepath.Join(os.TempDir(), tempPattern))
	if err != nil {
		t.Fatal(err)
	}
	works := []string{"paced", "full-20", "short", "fanout", "fanout-full", "joined", "publish-100", "idle-streams", "subscribes", "past-100", "history-100"}
	file := filepath.Join(t.TempDir(), "results.json")
	var out strings.Builder
	err = run(t.Context(), []string{"-only", strings.Join(works, ","), "-programs", "ssegate,floor", "-runs", "1", "-scale", "0.01", "-json", file}, &out)
	if err != nil {
		t.Fatalf("%v\n%s", err, out.String())
	}
	r, err := readResults(file)
	if err != nil {
		t.Fatal(err)
	}
	if want := len(works) + 2; len(r.Measured) != want { // the floor has two of them
		t.Errorf("%d measurements, want %d\n%s", len(r.Measured), want, out.String())
	}
	for _, m := range r.Measured {
		if m.Fault != "" || m.Figures[residentMB] < 1 || !m.Seen.Sound() || m.Seen.Events == 0 && m.Workload != "idle-streams" && m.Workload != "subscribes" {
			t.Errorf("%s: %+v", m, m)
		}
	}
	after, err := filepath.Glob(filepath.Join(os.TempDir(), tempPattern))
	if err != nil || len(after) > len(before) {
		t.Errorf("left behind: %q, %v", after, err)
	}
}

// TestFlags: what cannot be meant is refused before anything is measured, all
// of it at once.
func TestFlags(t *testing.T) {
	dir := t.TempDir()
	file, empty := filepath.Join(dir, "file"), filepath.Join(dir, "empty.json")
	for name, text := range map[string]string{file: "", empty: "{}"} {
		if err := os.WriteFile(name, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	for _, c := range []struct {
		args string
		want []string // in the error
	}{
		{"-runs 0 -scale NaN extra", []string{"-runs 0", "-scale NaN", "extra"}},
		{"-scale -1 -runs -1", []string{"-scale -1", "-runs -1"}},
		{"-only none", []string{`"none"`, "-list"}},
		{"-programs none", []string{`"none"`, "-list"}},
		{"-only paced -docs " + file, []string{file}},
		{"-only paced -json " + filepath.Join(file, "x"), []string{file}},
		{"-from " + file, []string{file}},
		{"-from " + empty, []string{"nothing was measured"}},
		{"-from " + empty + " -only paced", []string{"-only"}},
		{"-only resume -programs floor", []string{"nothing to measure"}},
	} {
		var out strings.Builder
		err := run(t.Context(), strings.Fields(c.args), &out)
		if err == nil {
			t.Errorf("%s: no error; %s", c.args, out.String())
			continue
		}
		for _, want := range c.want {
			if !strings.Contains(err.Error(), want) {
				t.Errorf("%s: %q, which says nothing of %s", c.args, err, want)
			}
		}
	}
	var out strings.Builder
	if err := run(t.Context(), []string{"-list", "-only", "paced, full"}, &out); err != nil || !strings.Contains(out.String(), "500 clients") {
		t.Errorf("%v, %q", err, out.String())
	}
}

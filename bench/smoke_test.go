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

// TestSmoke measures a real ssegate with one workload of each kind that needs
// nothing around it, at a tiny size.
func TestSmoke(t *testing.T) {
	before, err := filepath.Glob(filepath.Join(os.TempDir(), tempPattern))
	if err != nil {
		t.Fatal(err)
	}
	works := []string{"paced", "full-20", "short", "fanout", "fanout-full", "joined", "publish-100", "idle-streams", "subscribes", "past-100", "history-100"}
	file := filepath.Join(t.TempDir(), "results.json")
	var out strings.Builder
	err = run(t.Context(), []string{"-only", strings.Join(works, ","), "-programs", "ssegate", "-runs", "1", "-scale", "0.01", "-json", file}, &out)
	if err != nil {
		t.Fatalf("%v\n%s", err, out.String())
	}
	r, err := readResults(file)
	if err != nil {
		t.Fatal(err)
	}
	if len(r.Measured) != len(works) {
		t.Errorf("%d measurements, want %d\n%s", len(r.Measured), len(works), out.String())
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

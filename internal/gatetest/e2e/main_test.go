// Package e2e proves from outside what ssegate promises: real processes, real
// sockets, real services.
package e2e

import (
	"fmt"
	"os"
	"syscall"
	"testing"

	"ssegate/internal/gatetest"
)

// bin is the ssegate command, built with the race detector.
var bin string

const hup = syscall.SIGHUP

func TestMain(m *testing.M) {
	dir, err := os.MkdirTemp("", "ssegate-e2e-")
	if err == nil {
		bin, err = gatetest.Build(dir)
	}
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
	code := m.Run()
	os.RemoveAll(dir)
	os.Exit(code)
}

// config is a node in front of one backend; more is put into its route.
func config(backend, more string) string {
	return fmt.Sprintf(`
[[upstream]]
name = "backend"
targets = [%q]

[[route]]
path = "/"
upstream = "backend"
%s
`, backend, more)
}

//go:build linux

package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"slices"
	"strings"
)

// ware is something that must be installed, and how it is known to be there.
type ware struct {
	pkg   string   // of Debian
	paths []string // any of these, or a program of this name in PATH
}

const nchanModule = "/usr/lib/nginx/modules/ngx_nchan_module.so"

var (
	nginxWare   = ware{"nginx", []string{"nginx", "/usr/sbin/nginx"}}
	nchanWare   = ware{"libnginx-mod-nchan", []string{nchanModule}}
	haproxyWare = ware{"haproxy", []string{"haproxy", "/usr/sbin/haproxy"}}
	redisWare   = ware{"redis-server", []string{"redis-server"}}
	rabbitWare  = ware{"rabbitmq-server", []string{"/usr/lib/rabbitmq/bin/rabbitmq-server", "rabbitmq-server"}}
	perfWare    = ware{"linux-perf", []string{"perf"}}
)

// path is where it is, or empty.
func (w ware) path() string {
	for _, p := range w.paths {
		if strings.HasSuffix(p, ".so") {
			if _, err := os.Stat(p); err == nil {
				return p
			}
		} else if found, err := exec.LookPath(p); err == nil {
			return found
		}
	}
	return ""
}

// errMissing means that Debian packages have to be installed first.
var errMissing = errors.New("not installed, and only root can install it")

// policyFile tells Debian's package scripts whether they may start services.
const policyFile = "/usr/sbin/policy-rc.d"

// install installs what is missing of the wares. None of the services that
// come with it is started. It changes nothing else on the machine.
func install(ctx context.Context, wares []ware, say io.Writer) error {
	var missing []string
	for _, w := range wares {
		if w.path() == "" && !slices.Contains(missing, w.pkg) {
			missing = append(missing, w.pkg)
		}
	}
	if len(missing) == 0 {
		return nil
	}
	list := strings.Join(missing, " ")
	if os.Geteuid() != 0 {
		return fmt.Errorf("%w: apt-get install %s", errMissing, list)
	}
	fmt.Fprintf(say, "installs with apt: %s\n", list)
	policy, err := os.OpenFile(policyFile, os.O_CREATE|os.O_EXCL|os.O_WRONLY, 0o755)
	if err == nil {
		defer os.Remove(policyFile)
		_, err = io.WriteString(policy, "#!/bin/sh\nexit 101\n")
		err = errors.Join(err, policy.Close())
	} else if errors.Is(err, os.ErrExist) {
		err = nil // the machine has its own
	}
	if err != nil {
		return err
	}
	const wait = "DPkg::Lock::Timeout=600"
	for _, args := range [][]string{
		{"-q", "-o", wait, "update"},
		append([]string{"-q", "-y", "-o", wait, "--no-install-recommends", "install"}, missing...),
	} {
		cmd := exec.CommandContext(ctx, "apt-get", args...)
		cmd.Env = append(os.Environ(), "DEBIAN_FRONTEND=noninteractive")
		if out, err := cmd.CombinedOutput(); err != nil {
			return fmt.Errorf("apt-get %s: %w\n%s", strings.Join(args, " "), err, out)
		}
	}
	for _, w := range wares {
		if w.path() == "" {
			return fmt.Errorf("%s: still not there after apt-get install", w.pkg)
		}
	}
	return nil
}

//go:build unix

package service

import (
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"time"
)

// goneWithin bounds the wait for killed processes to be gone.
const goneWithin = 20 * time.Second

// group is a process group: a guard that leads it, and the processes of one service.
//
// The guard is a shell that waits for the end of its input, whose other end only this test binary has. When the binary
// dies without having closed its services (a panic, a test timeout, a kill), the guard kills the group. Should the
// group be paused then, the kernel wakes it up with SIGHUP and SIGCONT, hence the trap.
type group struct {
	pgid int
	lead io.Closer // the guard's input
	cmds []*exec.Cmd
	gone []<-chan struct{}
}

const guard = `trap "" HUP; read -r line; kill -KILL 0`

func newGroup() (*group, error) {
	cmd := exec.Command("/bin/sh", "-c", guard)
	in, err := cmd.StdinPipe()
	if err != nil {
		return nil, err
	}
	g := &group{lead: in}
	if _, err := g.start(cmd); err != nil {
		return nil, err
	}
	g.pgid = cmd.Process.Pid
	return g, nil
}

// start starts cmd in the group. The channel is closed when it has ended and was waited for.
func (g *group) start(cmd *exec.Cmd) (<-chan struct{}, error) {
	cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true, Pgid: g.pgid}
	if err := cmd.Start(); err != nil {
		return nil, err
	}
	gone := make(chan struct{})
	go func() {
		defer close(gone)
		_ = cmd.Wait() // how it ended stays in cmd.ProcessState
	}()
	g.cmds = append(g.cmds, cmd)
	g.gone = append(g.gone, gone)
	return gone, nil
}

// signal sends sig to every process of the group.
func (g *group) signal(sig syscall.Signal) error {
	if g == nil {
		return os.ErrProcessDone
	}
	return syscall.Kill(-g.pgid, sig)
}

// kill ends the group and returns when every process of it is gone, and every process that they had started (RabbitMQ's
// helpers have groups of their own). A nil group is one that is gone.
func (g *group) kill() error {
	if g == nil {
		return nil
	}
	var pids []int
	for _, cmd := range g.cmds {
		pids = append(pids, cmd.Process.Pid)
	}
	stray := descendants(pids)
	if err := g.signal(syscall.SIGKILL); err != nil && !errors.Is(err, syscall.ESRCH) {
		return err
	}
	for _, gone := range g.gone {
		<-gone // SIGKILL cannot be refused
	}
	_ = g.lead.Close() // the other end is gone: nothing to learn from an error
	return endAll(stray)
}

// process names one process for good: a pid that is used again has another start time.
type process struct {
	pid     int
	started string // in clock ticks since boot
}

// endAll waits until all are gone, and kills those that take their time over it.
func endAll(procs []process) error {
	var (
		patience = time.Now().Add(2 * time.Second)
		deadline = time.Now().Add(goneWithin)
	)
	for _, p := range procs {
		for p.alive() {
			switch now := time.Now(); {
			case now.After(deadline):
				return fmt.Errorf("process %d is still there", p.pid)
			case now.After(patience):
				_ = syscall.Kill(p.pid, syscall.SIGKILL) // gone in between is as good
			}
			time.Sleep(2 * time.Millisecond) // nobody tells of the end of another's child
		}
	}
	return nil
}

// alive says whether the process runs. A zombie, which only waits for its parent, does not.
func (p process) alive() bool {
	st, ok := stat(p.pid)
	return ok && st.started == p.started && st.state != "Z" && st.state != "X"
}

// descendants are the living children of pids, their children, and so on. Without /proc there are none.
func descendants(pids []int) []process {
	dirs, err := filepath.Glob("/proc/[0-9]*")
	if err != nil {
		return nil
	}
	children := map[int][]process{}
	for _, d := range dirs {
		pid, err := strconv.Atoi(filepath.Base(d))
		if err != nil {
			continue
		}
		if st, ok := stat(pid); ok {
			children[st.parent] = append(children[st.parent], process{pid, st.started})
		}
	}
	var all []process
	for len(pids) > 0 {
		kids := children[pids[0]]
		pids = pids[1:]
		for _, k := range kids {
			pids = append(pids, k.pid)
		}
		all = append(all, kids...)
	}
	return all
}

// procStat is what this package needs of /proc/PID/stat.
type procStat struct {
	state   string
	parent  int
	started string
}

func stat(pid int) (procStat, bool) {
	b, err := os.ReadFile(fmt.Sprintf("/proc/%d/stat", pid))
	if err != nil {
		return procStat{}, false
	}
	// pid (name) state parent …, where the name may hold anything.
	_, rest, _ := strings.Cut(string(b[strings.LastIndexByte(string(b), ')')+1:]), " ")
	f := strings.Fields(rest)
	if len(f) < 20 {
		return procStat{}, false
	}
	parent, err := strconv.Atoi(f[1])
	return procStat{state: f[0], parent: parent, started: f[19]}, err == nil
}

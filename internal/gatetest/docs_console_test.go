package gatetest

import (
	"bufio"
	"io"
	"os"
	"os/exec"
	"regexp"
	"slices"
	"strings"
	"testing"
	"time"
)

// step is a command in a block of kind console, and what it prints.
type step struct{ command, want string }

func (b *block) steps() (out []step) {
	for line := range strings.Lines(b.text) {
		if c, ok := strings.CutPrefix(line, "$ "); ok {
			out = append(out, step{command: strings.TrimSpace(c)})
		} else {
			out[len(out)-1].want += line
		}
	}
	return out
}

// background is a command that a page runs beside the others, with a file for
// what it prints.
var background = regexp.MustCompile(`>(\S+) &$`)

// shell is a bash that is told one line at a time.
type shell struct {
	in      io.Writer
	printed *os.File
	out     *bufio.Reader
}

// startShell starts a shell in a directory of its own, which ends with the
// test. env is more of its environment.
func startShell(t *testing.T, env []string) *shell {
	t.Helper()
	cmd := exec.Command("bash")
	cmd.Dir, cmd.Env = t.TempDir(), append(os.Environ(), env...)
	r, w, err := os.Pipe()
	if err != nil {
		t.Fatal(err)
	}
	cmd.Stdout, cmd.Stderr = w, w
	in, err := cmd.StdinPipe()
	if err == nil {
		err = cmd.Start()
	}
	w.Close()
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		late := time.AfterFunc(Patience, func() { cmd.Process.Kill() })
		defer late.Stop()
		io.WriteString(in, "kill $(jobs -p) 2>/dev/null; wait\n")
		in.Close()
		cmd.Wait()
		r.Close()
	})
	return &shell{in: in, printed: r, out: bufio.NewReader(r)}
}

// do runs a line and returns what was printed until its end.
func (s *shell) do(t *testing.T, line string) string {
	t.Helper()
	const end = "---8<---\n"
	if _, err := io.WriteString(s.in, line+"\nprintf '\\n"+strings.TrimSpace(end)+"\\n'\n"); err != nil {
		t.Fatalf("%s: %v", line, err)
	}
	var printed strings.Builder
	if err := s.printed.SetReadDeadline(time.Now().Add(Patience)); err != nil {
		t.Fatal(err)
	}
	for {
		got, err := s.out.ReadString('\n')
		if got == end {
			return strings.TrimSuffix(printed.String(), "\n")
		}
		printed.WriteString(got)
		if err != nil {
			t.Fatalf("%s: %v\n%s", line, err, printed.String())
		}
	}
}

// run runs the steps in one shell, with other addresses, and compares what they
// print. env is more of its environment. A command that looks at the file of
// one in the background looks until that has printed what the page says.
func run(t *testing.T, steps []step, addresses map[string]string, page string, env ...string) {
	t.Helper()
	sh := startShell(t, env)
	var beside []string
	for _, s := range steps {
		c := s.command
		for said, is := range addresses {
			c = strings.ReplaceAll(c, said+"/", is+"/")
		}
		if strings.Contains(c, ":808") {
			t.Fatalf("an address that is none of the page's: %s", c)
		}
		want, looks := pattern(s.want), slices.ContainsFunc(beside, func(file string) bool { return strings.Contains(c, file) })
		got := sh.do(t, c)
		for until := time.Now().Add(Patience); looks && !want.MatchString(got) && time.Now().Before(until); got = sh.do(t, c) {
			time.Sleep(10 * time.Millisecond)
		}
		if !want.MatchString(got) {
			t.Errorf("$ %s\ngot:\n%s\n%s says:\n%s", s.command, got, page, s.want)
		}
		if m := background.FindStringSubmatch(c); m != nil {
			beside = append(beside, m[1])
			sh.do(t, "until [ -s "+m[1]+" ]; do sleep 0.01; done")
		}
	}
}

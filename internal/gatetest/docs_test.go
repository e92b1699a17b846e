package gatetest

import (
	"bufio"
	"context"
	"debug/elf"
	"encoding/json"
	"fmt"
	"io/fs"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	"ssegate/gate"
	"ssegate/gate/demo"
)

const root = "../.."

// block is a fenced block of a page.
type block struct {
	page, section string
	line          int
	kind          string // what stands behind the fence
	text          string
}

// pages are the documents of the repository, by their paths below root.
func pages(t *testing.T) map[string]string {
	t.Helper()
	out := map[string]string{}
	err := filepath.WalkDir(root, func(path string, d fs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		name := d.Name()
		if d.IsDir() && path != root && (strings.HasPrefix(name, ".") || slices.Contains([]string{"node_modules", "target", "testdata"}, name)) {
			return fs.SkipDir
		}
		if d.Type().IsRegular() && strings.HasSuffix(name, ".md") {
			text, err := os.ReadFile(path)
			if err != nil {
				return err
			}
			short, _ := filepath.Rel(root, path)
			out[short] = string(text)
		}
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	for _, must := range []string{"README.md", "ARCHITECTURE.md", "CHANGELOG.md", "docs/api.md", "docs/concepts.md", "docs/operations.md", "docs/configuration.md"} {
		if out[must] == "" {
			t.Fatalf("there is no %s", must)
		}
	}
	return out
}

// blocks cuts a page's fenced blocks out, and hands back what is left.
func blocks(page, text string) (fenced []block, prose string) {
	var b *block
	var rest strings.Builder
	section, n := "", 0
	for line := range strings.Lines(text) {
		n++
		switch kind, fence := strings.CutPrefix(strings.TrimSpace(line), "```"); {
		case fence && b == nil:
			b = &block{page: page, section: section, line: n, kind: kind}
		case fence:
			fenced, b = append(fenced, *b), nil
		case b != nil:
			b.text += line
		default:
			if title, ok := strings.CutPrefix(line, "## "); ok {
				section = strings.TrimSpace(title)
			}
			rest.WriteString(line)
		}
	}
	return fenced, rest.String()
}

func fencedIn(t *testing.T, page string) []block {
	t.Helper()
	b, _ := blocks(page, pages(t)[page])
	return b
}

// slug is the anchor that a title has on the usual sites.
func slug(title string) string {
	var out strings.Builder
	for _, r := range strings.ToLower(strings.TrimSpace(title)) {
		switch {
		case r == ' ':
			out.WriteByte('-')
		case r == '-' || r == '_' || r >= 'a' && r <= 'z' || r >= '0' && r <= '9':
			out.WriteRune(r)
		}
	}
	return out.String()
}

var (
	link  = regexp.MustCompile(`\]\(([^)\s]+)\)`)
	title = regexp.MustCompile(`(?m)^#+ (.+)$`)
)

func TestLinksLeadSomewhere(t *testing.T) {
	all := pages(t)
	found := 0
	for page, text := range all {
		_, prose := blocks(page, text)
		for _, m := range link.FindAllStringSubmatch(prose, -1) {
			target, anchor, _ := strings.Cut(m[1], "#")
			if strings.Contains(target, "://") {
				continue
			}
			found++
			at := page
			if target != "" {
				at = filepath.Join(filepath.Dir(page), target)
				if _, err := os.Stat(filepath.Join(root, at)); err != nil {
					t.Errorf("%s: %s leads nowhere", page, m[1])
					continue
				}
			}
			if anchor == "" {
				continue
			}
			_, there := blocks(at, all[at])
			if !slices.ContainsFunc(title.FindAllStringSubmatch(there, -1), func(m []string) bool { return slug(m[1]) == anchor }) {
				t.Errorf("%s: %s has no title with the anchor %s", page, at, anchor)
			}
		}
	}
	if found < 20 {
		t.Errorf("only %d links found", found)
	}
}

func TestConfigurationsInDocsAreGood(t *testing.T) {
	found := 0
	for page, text := range pages(t) {
		fenced, _ := blocks(page, text)
		for _, b := range fenced {
			if b.kind != "toml" {
				continue
			}
			found++
			file := filepath.Join(t.TempDir(), "ssegate.toml")
			if err := os.WriteFile(file, []byte(b.text), 0o600); err != nil {
				t.Fatal(err)
			}
			flags := map[string]string{}
			if !strings.Contains(b.text, "[[upstream]]") {
				flags["upstream"] = "http://127.0.0.1:8000" // a part of a file
			}
			_, notices, err := gate.Load(file, nil, flags)
			if err != nil || len(notices) > 0 {
				t.Errorf("%s:%d: %v %v", b.page, b.line, err, notices)
			}
		}
	}
	examples, _ := filepath.Glob(filepath.Join(root, "examples", "*", "ssegate.toml"))
	for _, file := range examples {
		found++
		if _, notices, err := gate.Load(file, nil, nil); err != nil || len(notices) > 0 {
			t.Errorf("%s: %v %v", file, err, notices)
		}
	}
	if found < 8 {
		t.Errorf("only %d found", found)
	}
}

// command builds ssegate as the Dockerfile does, once for all tests.
var command = sync.OnceValues(func() (string, error) {
	dir, err := os.MkdirTemp("", "ssegate-docs-")
	if err != nil {
		return "", err
	}
	bin := filepath.Join(dir, "ssegate")
	text, err := os.ReadFile(filepath.Join(root, "Dockerfile"))
	if err != nil {
		return "", err
	}
	line := regexp.MustCompile(`(?m)^RUN (.*go build .*)$`).FindStringSubmatch(string(text))
	if line == nil || !strings.Contains(line[1], " -o /ssegate ") {
		return "", os.ErrInvalid
	}
	cmd := exec.Command("sh", "-c", strings.Replace(line[1], " -o /ssegate ", " -o '"+bin+"' ", 1))
	cmd.Dir = root
	cmd.Stderr = os.Stderr
	return bin, cmd.Run()
})

func TestMain(m *testing.M) {
	code := m.Run()
	if bin, _ := command(); bin != "" {
		os.RemoveAll(filepath.Dir(bin))
	}
	os.Exit(code)
}

func built(t *testing.T) string {
	t.Helper()
	bin, err := command()
	if err != nil {
		t.Fatalf("the Dockerfile's go build: %v", err)
	}
	return bin
}

func TestDockerfile(t *testing.T) {
	bin := built(t)
	f, err := elf.Open(bin)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	for _, p := range f.Progs {
		if p.Type == elf.PT_INTERP {
			t.Error("the binary wants a dynamic linker, which the image does not have")
		}
	}
	if f.Section(".debug_info") != nil {
		t.Error("the binary bears debug information")
	}
	if out, err := exec.Command(bin, "version").CombinedOutput(); err != nil || !strings.HasPrefix(string(out), "ssegate ") {
		t.Errorf("version: %v, %q", err, out)
	}

	text, _ := os.ReadFile(filepath.Join(root, "Dockerfile"))
	mod, _ := os.ReadFile(filepath.Join(root, "go.mod"))
	wants := regexp.MustCompile(`(?m)^go (\d+\.\d+)`).FindSubmatch(mod)
	has := regexp.MustCompile(`(?m)^FROM golang:(\d+\.\d+)`).FindSubmatch(text)
	if wants == nil || has == nil || string(wants[1]) != string(has[1]) {
		t.Errorf("go.mod wants %s, the Dockerfile builds with %s", wants, has)
	}
	for _, must := range []string{"USER 65532", "EXPOSE 8080 8089", `ENTRYPOINT ["/ssegate"]`, "COPY --from=build /ssegate /ssegate"} {
		if !strings.Contains(string(text), must) {
			t.Errorf("no line %q", must)
		}
	}

	// Nothing that is left out of the context is needed.
	ignore, err := os.ReadFile(filepath.Join(root, ".dockerignore"))
	if err != nil {
		t.Fatal(err)
	}
	list := exec.Command("go", "list", "-deps", "-f",
		`{{if and .Module .Module.Main}}{{$d := .Dir}}{{range .GoFiles}}{{$d}}/{{.}}{{"\n"}}{{end}}{{range .EmbedFiles}}{{$d}}/{{.}}{{"\n"}}{{end}}{{end}}`, "./cmd/ssegate")
	list.Dir = root
	out, err := list.Output()
	if err != nil {
		t.Fatal(err)
	}
	top, _ := filepath.Abs(root)
	files := strings.Fields(string(out))
	if len(files) < 50 {
		t.Fatalf("go list names %d files", len(files))
	}
	for _, file := range files {
		short, _ := filepath.Rel(top, file)
		for pattern := range strings.Lines(string(ignore)) {
			pattern = strings.TrimSpace(pattern)
			if pattern == "" || pattern[0] == '#' {
				continue
			}
			last, any := strings.CutPrefix(pattern, "**/")
			hit, _ := filepath.Match(pattern, short)
			if any {
				hit, _ = filepath.Match(last, filepath.Base(short))
			}
			if hit || strings.HasPrefix(short, pattern+"/") {
				t.Errorf("%s is needed, and left out by %q", short, pattern)
			}
		}
	}
}

func TestCommandsInDocsExist(t *testing.T) {
	bin := built(t)
	ours := regexp.MustCompile(`^(?:go run \./cmd/ssegate|ssegate)((?: .*)?)$`)
	found := 0
	for page, text := range pages(t) {
		fenced, _ := blocks(page, text)
		for _, b := range fenced {
			if b.kind != "sh" {
				continue
			}
			for line := range strings.Lines(b.text) {
				line = strings.TrimSpace(line)
				m := ours.FindStringSubmatch(line)
				if m == nil {
					continue
				}
				found++
				// Everything before -h is parsed first, and must be known.
				args := append(strings.Fields(m[1]), "-h")
				if out, err := exec.Command(bin, args...).CombinedOutput(); err != nil || !strings.HasPrefix(string(out), "Usage:") {
					t.Errorf("%s:%d: %s: %v\n%.300s", b.page, b.line, line, err, out)
				}
			}
		}
	}
	if found < 5 {
		t.Errorf("only %d found", found)
	}
	info, err := os.Stat(filepath.Join(root, "test.sh"))
	if err != nil || info.Mode()&0o111 == 0 {
		t.Errorf("./test.sh cannot be run: %v", err)
	}
	docker, _ := os.ReadFile(filepath.Join(root, "Dockerfile"))
	for _, b := range fencedIn(t, "docs/operations.md") {
		for line := range strings.Lines(b.text) {
			if strings.Contains(line, "go build") && !strings.Contains(string(docker), strings.Replace(strings.TrimSpace(line), "-o ssegate", "-o /ssegate", 1)) {
				t.Errorf("docs/operations.md:%d builds in another way than the Dockerfile", b.line)
			}
		}
	}
}

// pattern turns an example's output into what it stands for: … is anything,
// and times, ids and retry hints are another each time.
func pattern(text string) *regexp.Regexp {
	p := regexp.QuoteMeta(strings.TrimRight(text, "\n"))
	p = regexp.MustCompile(`(?m)^…$`).ReplaceAllLiteralString(p, `(?s:.*)`)
	p = strings.ReplaceAll(p, "…", `.*`)
	p = regexp.MustCompile(`"at":\d+`).ReplaceAllLiteralString(p, `"at":\d+`)
	p = regexp.MustCompile(`retry: \d+`).ReplaceAllLiteralString(p, `retry: ([12]\d\d\d|3000)`)
	for _, changes := range []string{
		`"position":\d+`, `msg_[a-z0-9]+`, `str_[A-Z2-7]+`, `\b[a-z]+-1-[0-9a-f]{8}\b`, `"request_id":"\w+"`,
		`"id":"[\w-]{22}"`, `\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\\?\.\d+Z`, `"ticket":"[\w-]{43}"`,
	} {
		p = regexp.MustCompile(changes).ReplaceAllLiteralString(p, changes)
	}
	p = regexp.MustCompile(`sg1(\\\.[\w-]+){2}`).ReplaceAllLiteralString(p, `sg1\.[\w-]+\.[\w-]+`)
	return regexp.MustCompile(`^` + p + `\s*$`)
}

// The examples of "Coming back" are run as they stand there, against the demo.
func TestExamplesWithCurl(t *testing.T) {
	d, err := demo.New(demo.Config{Listen: "127.0.0.1:0"})
	if err != nil {
		t.Fatal(err)
	}
	ctx, stop := context.WithCancel(t.Context())
	ended := make(chan error, 1)
	go func() { ended <- d.Run(ctx) }()
	defer func() {
		stop()
		if err := <-ended; err != nil {
			t.Error(err)
		}
	}()
	ports := demoPorts(t, d.URL())

	var steps []step
	for _, b := range fencedIn(t, "README.md") {
		if b.kind == "console" && b.section == "Coming back, with curl" {
			steps = append(steps, b.steps()...)
		}
	}
	if len(steps) < 6 {
		t.Fatalf("only %d commands found", len(steps))
	}
	addresses := map[string]string{}
	for i, p := range ports {
		addresses["127.0.0.1:"+strconv.Itoa(8081+i)] = "127.0.0.1:" + p
	}
	run(t, steps, addresses, "README.md")
}

// demoPorts asks a demo where its nodes listen.
func demoPorts(t *testing.T, page string) (ports []string) {
	t.Helper()
	client := &http.Client{Transport: &http.Transport{DisableKeepAlives: true}, Timeout: Patience}
	resp, err := client.Get(page + "demo/state")
	if err != nil {
		t.Fatal(err)
	}
	defer resp.Body.Close()
	line, err := bufio.NewReader(resp.Body).ReadString('\n')
	var state struct{ Nodes []struct{ Port string } }
	if err != nil || json.Unmarshal([]byte(strings.TrimPrefix(line, "data: ")), &state) != nil {
		t.Fatalf("%v: %q", err, line)
	}
	for _, n := range state.Nodes {
		ports = append(ports, n.Port)
	}
	return ports
}

// node runs a gate of this process in front of a backend, with defaults, until
// the test ends.
func node(t *testing.T, backend string) (public, internal string) {
	t.Helper()
	return nodeOf(t, fmt.Sprintf("[[upstream]]\nname = \"backend\"\ntargets = [%q]\n", backend))
}

// nodeOf is node with a configuration.
func nodeOf(t *testing.T, config string) (public, internal string) {
	t.Helper()
	file := filepath.Join(t.TempDir(), "ssegate.toml")
	if err := os.WriteFile(file, []byte(config), 0o600); err != nil {
		t.Fatal(err)
	}
	cfg, _, err := gate.Load(file, nil, map[string]string{"listen.public": "127.0.0.1:0", "listen.internal": "127.0.0.1:0"})
	if err != nil {
		t.Fatal(err)
	}
	g, err := gate.New(cfg, gate.Options{Version: "test"})
	if err != nil {
		t.Fatal(err)
	}
	ctx, stop := context.WithCancel(context.Background())
	ended := make(chan error, 1)
	go func() { ended <- g.Run(ctx, ctx) }()
	t.Cleanup(func() {
		stop()
		select {
		case err := <-ended:
			if err != nil {
				t.Error(err)
			}
		case <-time.After(Patience):
			t.Error("the node does not end")
		}
	})
	return "http://" + g.Public(), "http://" + g.Internal()
}

package gatetest

import (
	"encoding/json"
	"go/ast"
	"go/parser"
	"go/token"
	"io"
	"maps"
	"net/http"
	"path/filepath"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	"ssegate/reconnect"
)

// said is a refusal as source or docs tell it: its word and its status, 0
// where it has none.
type said struct {
	reason string
	status int
}

// statuses are net/http's names of them.
func statuses() map[string]int {
	out := map[string]int{}
	for n := 100; n < 600; n++ {
		if text := http.StatusText(n); text != "" {
			out["Status"+strings.NewReplacer(" ", "", "-", "", "'", "").Replace(text)] = n
		}
	}
	return out
}

var word = regexp.MustCompile(`^[a-z][a-z0-9_]+$`)

// reasonsIn finds the refusals of a folder's source by the functions and
// values that take a reason.
func reasonsIn(t *testing.T, folder string) (refused map[said]bool, events map[string]bool) {
	t.Helper()
	names := statuses()
	refused, events = map[said]bool{}, map[string]bool{}
	text := func(e ast.Expr) string {
		if l, ok := e.(*ast.BasicLit); ok && l.Kind == token.STRING {
			if s, err := strconv.Unquote(l.Value); err == nil && word.MatchString(s) {
				return s
			}
		}
		return ""
	}
	number := func(e ast.Expr) int {
		switch e := e.(type) {
		case *ast.BasicLit:
			n, _ := strconv.Atoi(e.Value)
			return n
		case *ast.SelectorExpr:
			return names[e.Sel.Name]
		}
		return 0
	}
	// A word behind a status, in whatever list they stand.
	pairs := func(list []ast.Expr) {
		for i := range len(list) - 1 {
			if n, s := number(list[i]), text(list[i+1]); n >= 400 && s != "" {
				refused[said{s, n}] = true
			}
		}
	}
	files, err := filepath.Glob(filepath.Join(root, folder, "*.go"))
	if err != nil || len(files) == 0 {
		t.Fatalf("%v: %d files in %s", err, len(files), folder)
	}
	for _, file := range files {
		if strings.HasSuffix(file, "_test.go") {
			continue
		}
		parsed, err := parser.ParseFile(token.NewFileSet(), file, nil, 0)
		if err != nil {
			t.Fatal(err)
		}
		ast.Inspect(parsed, func(n ast.Node) bool {
			switch n := n.(type) {
			case *ast.CompositeLit:
				pairs(n.Elts)
			case *ast.AssignStmt:
				pairs(n.Rhs)
			case *ast.FuncDecl:
				if n.Name.Name == "full" {
					ast.Inspect(n, func(n ast.Node) bool {
						if r, ok := n.(*ast.ReturnStmt); ok && text(r.Results[0]) != "" {
							refused[said{text(r.Results[0]), 503}] = true
						}
						return true
					})
				}
			case *ast.CallExpr:
				pairs(n.Args)
				name := ""
				switch f := n.Fun.(type) {
				case *ast.Ident:
					name = f.Name
				case *ast.SelectorExpr:
					name = f.Sel.Name
				}
				for _, arg := range n.Args {
					s := text(arg)
					if s == "" {
						continue
					}
					switch name {
					case "badRequest":
						refused[said{s, 400}] = true
					case "unknown":
						refused[said{s, 410}] = true
					case "refuse":
						refused[said{s, 503}] = true
					case "refused":
						refused[said{s, 0}] = true
					case "Fail", "end":
						events[s] = true
					}
				}
			}
			return true
		})
	}
	return refused, events
}

// rows are the lines of the tables of a section, cut into cells.
func rows(t *testing.T, page, section string) (out [][]string) {
	t.Helper()
	_, text, ok := strings.Cut(pages(t)[page], "\n## "+section+"\n")
	if !ok {
		t.Fatalf("%s has no section %s", page, section)
	}
	text, _, _ = strings.Cut(text, "\n## ")
	for line := range strings.Lines(text) {
		if line = strings.TrimSpace(line); strings.HasPrefix(line, "| `") {
			cells := strings.Split(strings.Trim(line, "|"), "|")
			for i := range cells {
				cells[i] = strings.TrimSpace(cells[i])
			}
			out = append(out, cells)
		}
	}
	return out
}

var quoted = regexp.MustCompile("`([^`]+)`")

func TestEveryRefusalIsInTheDocs(t *testing.T) {
	inDocs := map[said]bool{}
	for _, cells := range rows(t, "docs/api.md", "Refusals") {
		reason := strings.Trim(cells[0], "`")
		if len(cells) < 3 {
			inDocs[said{reason, 0}] = true
			continue
		}
		found := regexp.MustCompile(`\d{3}`).FindAllString(cells[1], -1)
		for _, n := range found {
			status, _ := strconv.Atoi(n)
			inDocs[said{reason, status}] = true
		}
	}
	inSource, _ := reasonsIn(t, "proxy")
	both(t, "docs/api.md, Refusals", inDocs, inSource)

	events := map[string]bool{}
	for _, cells := range rows(t, "docs/api.md", "Events of ssegate's own") {
		events[strings.Trim(cells[0], "`")] = true
	}
	_, fromProxy := reasonsIn(t, "proxy")
	_, fromCluster := reasonsIn(t, "cluster")
	maps.Copy(fromProxy, fromCluster)
	for _, gap := range []string{reconnect.GapTrimmed, reconnect.GapReplaced, reconnect.GapUnknown} {
		fromProxy[gap] = true
	}
	both(t, "docs/api.md, events", events, fromProxy)
}

// both compares what docs and source say.
func both[K comparable](t *testing.T, where string, docs, source map[K]bool) {
	t.Helper()
	if len(source) == 0 {
		t.Errorf("%s: nothing found in the source", where)
	}
	for k := range source {
		if !docs[k] {
			t.Errorf("%s: %v is missing", where, k)
		}
	}
	for k := range docs {
		if !source[k] {
			t.Errorf("%s: %v is not there any more", where, k)
		}
	}
}

func get(t *testing.T, url string) (int, string) {
	t.Helper()
	client := &http.Client{Transport: &http.Transport{DisableKeepAlives: true}, Timeout: Patience}
	resp, err := client.Get(url)
	if err != nil {
		t.Fatal(err)
	}
	defer resp.Body.Close()
	body, err := io.ReadAll(resp.Body)
	if err != nil {
		t.Fatal(err)
	}
	return resp.StatusCode, string(body)
}

func TestEveryMetricIsInTheDocs(t *testing.T) {
	public, internal := nodeOf(t, `
[[upstream]]
name = "away"
targets = ["http://`+FreePort(t)+`"]
[push]
[auth]
secret = "a secret of no less than thirty-two bytes"
`)
	for address, want := range map[string]int{public + "/": 502, internal + "/api/v1/connections": 401} { // so that something was refused
		if status, _ := get(t, address); status != want {
			t.Fatalf("%s: status %d", address, status)
		}
	}
	_, text := get(t, internal+"/metrics")
	label := regexp.MustCompile(`(\w+)="([^"]*)"`)
	inSource, values := map[string]bool{}, map[string]map[string]bool{}
	for line := range strings.Lines(text) {
		name, labels, _ := strings.Cut(strings.Fields(line + " -")[0], "{")
		if !strings.HasPrefix(name, "ssegate_") {
			continue
		}
		var keys []string
		for _, m := range label.FindAllStringSubmatch(line[:strings.LastIndexByte(line, ' ')], -1) {
			keys = append(keys, m[1])
			if values[name] == nil {
				values[name] = map[string]bool{}
			}
			values[name][m[2]] = true
		}
		if labels != "" {
			name += "{" + strings.Join(keys, ",") + "}"
		}
		inSource[name] = true
	}
	inDocs, about := map[string]bool{}, map[string]string{}
	var reasons strings.Builder
	for _, cells := range rows(t, "docs/api.md", "Metrics") {
		name := strings.Trim(cells[0], "`")
		if !strings.HasPrefix(name, "ssegate_") {
			reasons.WriteString(cells[0])
			continue
		}
		inDocs[name] = true
		name, _, _ = strings.Cut(name, "{")
		about[name] = cells[1]
	}
	both(t, "docs/api.md, Metrics", inDocs, inSource)
	about["ssegate_followers_left_total"] = reasons.String()
	for _, name := range []string{
		"ssegate_streams", "ssegate_reloads_total", "ssegate_errors_total", "ssegate_bus_lost_total",
		"ssegate_ring_frames_dropped_total", "ssegate_followers_left_total",
		"ssegate_push_targets_total", "ssegate_webhook_total", "ssegate_auth_refused_total",
	} {
		told := map[string]bool{}
		for _, m := range quoted.FindAllStringSubmatch(about[name], -1) {
			told[m[1]] = true
		}
		both(t, "docs/api.md, labels of "+name, told, values[name])
	}
	for _, cells := range rows(t, "docs/operations.md", "What to watch") {
		for _, m := range regexp.MustCompile(`ssegate_\w+`).FindAllString(cells[0], -1) {
			if about[m] == "" {
				t.Errorf("docs/operations.md watches %s, which is not there", m)
			}
		}
	}
}

// The JSON examples have the members that the answers have.
func TestJSONInDocsIsTrue(t *testing.T) {
	b := NewBackend(t)
	public, internal := node(t, b.URL)
	s := EventSource(t, public+"/count?n=3&every=1h", "")
	defer s.Close()
	s.Take(1)
	answers := map[string]string{}
	_, answers["ready"] = get(t, internal+"/readyz")
	_, answers["state"] = get(t, public+"/_ssegate/streams/"+s.Resp.Header.Get("Ssegate-Stream")+"/status")
	_, answers["error"] = get(t, public+"/_ssegate/streams/none")
	for _, path := range []string{"/healthz", "/health"} {
		if status, body := get(t, internal+path); status != 200 || strings.TrimSpace(body) != `{"status":"ok"}` {
			t.Errorf("%s: %d %s", path, status, body)
		}
	}
	seen := 0
	for _, block := range fencedIn(t, "docs/api.md") {
		var example map[string]any
		if block.kind != "json" {
			continue
		}
		if err := json.Unmarshal([]byte(block.text), &example); err != nil {
			t.Errorf("docs/api.md:%d: %v", block.line, err)
			continue
		}
		for member, got := range answers {
			if _, of := example[member]; !of {
				continue
			}
			seen++
			var real map[string]any
			if err := json.Unmarshal([]byte(got), &real); err != nil {
				t.Fatalf("%v: %s", err, got)
			}
			if e, ok := example["error"].(map[string]any); ok {
				example, real = e, real["error"].(map[string]any)
			}
			if want, have := slices.Sorted(maps.Keys(example)), slices.Sorted(maps.Keys(real)); !slices.Equal(want, have) {
				t.Errorf("docs/api.md:%d shows %q, the answer has %q", block.line, want, have)
			}
			if at, ok := example["started"].(string); ok {
				if _, err := time.Parse(time.RFC3339Nano, at); err != nil {
					t.Error(err)
				}
			}
		}
	}
	if seen != len(answers) {
		t.Errorf("%d of %d answers are shown", seen, len(answers))
	}
}

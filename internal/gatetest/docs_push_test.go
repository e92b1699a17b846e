package gatetest

import (
	"go/ast"
	"go/parser"
	"go/token"
	"os/exec"
	"path/filepath"
	"regexp"
	"strconv"
	"strings"
	"testing"

	"ssegate/gate"
	"ssegate/push"
)

// The examples of push are run as they stand there, in their order. Those of
// tickets want a node with [auth].
func TestPushExamplesInDocs(t *testing.T) {
	steps := map[string][]step{}
	found := 0
	for _, b := range fencedIn(t, "README.md") {
		if b.kind == "console" && b.section == "Push" {
			steps["README.md"] = append(steps["README.md"], b.steps()...)
		}
	}
	for _, b := range fencedIn(t, "docs/api.md") {
		if b.kind == "console" {
			at := "open"
			if b.section == "Tickets" {
				at = "auth"
			}
			steps[at] = append(steps[at], b.steps()...)
			found++
		}
	}
	if found < 10 || len(steps["README.md"]) < 2 {
		t.Fatalf("only %d blocks found, and %d commands in README.md", found, len(steps["README.md"]))
	}
	const key = "0123456789abcdef0123456789abcdef"
	page := map[string]string{"README.md": "README.md", "open": "docs/api.md", "auth": "docs/api.md"}
	for at, config := range map[string]string{
		"README.md": "[push]\n",
		"open":      "[node]\nid = \"edge-1\"\n[push]\n",
		"auth":      "[push]\n[[auth.key]]\nname = \"billing\"\nkey = \"" + key + "\"\npublish = [\"*\"]\n",
	} {
		t.Run(at, func(t *testing.T) {
			public, internal := nodeOf(t, config)
			run(t, steps[at], map[string]string{
				"127.0.0.1:8080": strings.TrimPrefix(public, "http://"), "127.0.0.1:8089": strings.TrimPrefix(internal, "http://"),
			}, page[at], "KEY="+key)
		})
	}
}

// The variables that take the place of the push service's are good.
func TestVariablesInDocsAreGood(t *testing.T) {
	var env []string
	for _, m := range regexp.MustCompile("`(SSEGATE_\\w+=[^`]+)`").FindAllStringSubmatch(pages(t)["docs/compatibility.md"], -1) {
		env = append(env, m[1])
	}
	env = append(env, "SSEGATE_AUTH_SECRET=a secret of no less than thirty-two bytes")
	cfg, notices, err := gate.Load("", env, nil)
	if err != nil || len(notices) > 0 || len(env) < 7 {
		t.Errorf("%q: %v %v", env, err, notices)
	}
	if c := cfg.CORS.Origins; !cfg.Push.On || !cfg.Auth.On || len(c) != 1 || c[0] != "http://localhost:3000" {
		t.Errorf("push %v, auth %v, origins %q", cfg.Push.On, cfg.Auth.On, c)
	}
}

// pushReasons are the reasons that the push API's source knows.
func pushReasons(t *testing.T) map[string]bool {
	t.Helper()
	out := map[string]bool{}
	files, err := filepath.Glob(filepath.Join(root, "push", "*.go"))
	if err != nil || len(files) == 0 {
		t.Fatalf("%v: %d files", err, len(files))
	}
	note := func(e ast.Expr) {
		if l, ok := e.(*ast.BasicLit); ok && l.Kind == token.STRING {
			if s, err := strconv.Unquote(l.Value); err == nil && word.MatchString(s) {
				out[s] = true
			}
		}
	}
	name := func(e ast.Expr) string {
		switch e := e.(type) {
		case *ast.Ident:
			return e.Name
		case *ast.SelectorExpr:
			return e.Sel.Name
		}
		return ""
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
			case *ast.KeyValueExpr:
				if name(n.Key) == "reason" {
					note(n.Value)
				}
			case *ast.AssignStmt:
				for i, to := range n.Lhs {
					if at := name(to); (at == "reason" || at == "Reason") && len(n.Rhs) == len(n.Lhs) {
						note(n.Rhs[i])
					}
				}
			case *ast.CallExpr:
				switch {
				case name(n.Fun) == "badRequest":
					note(n.Args[0])
				case name(n.Fun) == "reject":
					note(n.Args[1])
				}
			}
			return true
		})
	}
	return out
}

func TestEveryPushRefusalIsInTheDocs(t *testing.T) {
	inDocs := map[string]bool{}
	for _, cells := range rows(t, "docs/api.md", "Refusals by the push API") {
		inDocs[quoted.FindStringSubmatch(cells[0])[1]] = true
		if !regexp.MustCompile(`^\d{3}$`).MatchString(cells[1]) {
			t.Errorf("%s has no status", cells[0])
		}
	}
	both(t, "docs/api.md, Refusals by the push API", inDocs, pushReasons(t))
}

// The check of a webhook's signature, as it stands there, is right.
func TestWebhookSignatureInDocs(t *testing.T) {
	var code string
	for _, b := range fencedIn(t, "docs/api.md") {
		if b.kind == "python" {
			code = b.text
		}
	}
	if code == "" {
		t.Fatal("no block of Python")
	}
	at, body := "1795344717", `{"id":"order-7"}`
	header := "t=" + at + ",v1=" + push.Sign("secret", at, []byte(body))
	for _, c := range []struct{ header, body, now, want string }{
		{header, body, at, "True"},
		{header, body + " ", at, "False"},
		{header, body, "1795345018", "False"},
	} {
		out, err := exec.CommandContext(t.Context(), "python3", "-c", code+`
import sys
print(genuine(sys.argv[1], sys.argv[2].encode(), b"secret", float(sys.argv[3])))`, c.header, c.body, c.now).CombinedOutput()
		if err != nil || strings.TrimSpace(string(out)) != c.want {
			t.Errorf("%v: %v %s", c, err, out)
		}
	}
}

package gate

import (
	"fmt"
	"go/ast"
	"go/parser"
	"go/token"
	"maps"
	"os"
	"path/filepath"
	"reflect"
	"regexp"
	"slices"
	"strings"
	"testing"

	"github.com/BurntSushi/toml"
)

// setting is what the docs must say of a key.
type setting struct{ def, reload string }

// settings lists every key: plain ones as "node.id", the others as
// "route.path".
func settings(t *testing.T) map[string]setting {
	t.Helper()
	all := map[string]setting{}
	tables := maps.Collect(fields(reflect.ValueOf(Default())))
	tables["upstream"] = reflect.ValueOf(DefaultUpstream())
	tables["route"] = reflect.ValueOf(DefaultRoute())
	tables["auth.key"] = reflect.ValueOf(DefaultAuthKey())
	restart := map[string]bool{}
	for f := range reflect.TypeFor[Config]().Fields() {
		restart[f.Tag.Get("toml")] = f.Tag.Get("reload") == "restart"
	}
	for name, table := range tables {
		for sub, v := range table.Fields() {
			if sub.Tag.Get("present") != "" || listOfTables(sub.Type) {
				continue
			}
			s := setting{tomlValue(v), "live"}
			if restart[name] || sub.Tag.Get("reload") == "restart" {
				s.reload = "restart"
			}
			if sub.Tag.Get("reload") == "later" {
				s.reload = "later"
				if !v.IsZero() {
					t.Errorf("%s.%s has a default, though nothing reads it", name, sub.Tag.Get("toml"))
				}
			}
			key := name + "." + sub.Tag.Get("toml")
			if !bareKey.MatchString(sub.Tag.Get("toml")) || all[key] != (setting{}) {
				t.Errorf("%s has no good name", key)
			}
			all[key] = s
		}
	}
	if len(all) < 70 {
		t.Fatalf("only %d keys found", len(all))
	}
	return all
}

func TestReferenceIsTrue(t *testing.T) {
	text, err := os.ReadFile("../docs/configuration.md")
	if err != nil {
		t.Fatal(err)
	}
	head := regexp.MustCompile("^## `\\[+([\\w.]+)\\]+`$")
	row := regexp.MustCompile("^\\| `([^`]+)` \\| `([^`]+)` \\| (\\w+) \\|")
	said, table := map[string]setting{}, ""
	for line := range strings.Lines(string(text)) {
		line = strings.TrimSuffix(line, "\n")
		if m := head.FindStringSubmatch(line); m != nil {
			table = m[1]
		} else if m := row.FindStringSubmatch(line); m != nil {
			said[table+"."+m[1]] = setting{m[2], m[3]}
		}
	}
	compare(t, "docs/configuration.md", said, settings(t))
}

func TestSampleIsTrue(t *testing.T) {
	text, err := os.ReadFile("../ssegate.toml")
	if err != nil {
		t.Fatal(err)
	}
	cfg, notices, err := Load("../ssegate.toml", nil, nil)
	if err != nil || len(notices) > 0 || cfg.Push.On || cfg.Auth.On {
		t.Fatal(err, notices)
	}
	// What is behind a # is good as well, and switches on what it says.
	env := []string{"JWT_SECRET=0123456789abcdef0123456789abcdef", "BILLING_KEY=0123456789abcdef"}
	text = regexp.MustCompile(`(?m)^#(\[|\w)`).ReplaceAll(text, []byte("$1"))
	cfg, notices, err = parse("ssegate.toml", string(text), env, nil)
	if err != nil || len(notices) != 1 || notices[0].Key != "auth.key[1]" || !cfg.Push.On || !cfg.Auth.On {
		t.Fatal(err, notices)
	}
	var tables map[string]any
	if _, err := toml.Decode(string(text), &tables); err != nil {
		t.Fatal(err)
	}
	// What is in the file, with the values that Load understood.
	said := map[string]setting{}
	var read func(name string, in any, v reflect.Value)
	read = func(name string, in any, v reflect.Value) {
		if v.Kind() == reflect.Slice {
			in, v = in.([]map[string]any)[0], v.Index(0)
		}
		for key, value := range fields(v) {
			switch from, ok := in.(map[string]any)[key]; {
			case ok && listOfTables(value.Type()):
				read(name+"."+key, from, value)
			case ok:
				said[name+"."+key] = setting{def: tomlValue(value)}
			}
		}
	}
	for name, v := range fields(reflect.ValueOf(cfg)) {
		read(name, tables[name], v)
	}
	want := settings(t)
	for key := range want {
		want[key] = setting{def: want[key].def}
	}
	// These have no default; the sample shows one.
	want["upstream.name"] = setting{def: `"default"`}
	want["upstream.targets"] = setting{def: `["http://127.0.0.1:8000"]`}
	want["route.upstream"] = setting{def: `"default"`}
	want["auth.secret"] = setting{def: `"***"`}
	want["auth.key.name"] = setting{def: `"billing"`}
	want["auth.key.key"] = setting{def: `"***"`}
	compare(t, "ssegate.toml", said, want)

	for i, line := range strings.Split(string(text), "\n") {
		if key, why, _ := strings.Cut(line, " #"); strings.Contains(key, " = ") && len(why) < 8 {
			t.Errorf("ssegate.toml:%d: says no why: %s", i+1, line)
		}
	}
}

func compare(t *testing.T, where string, said, want map[string]setting) {
	t.Helper()
	for _, key := range slices.Sorted(maps.Keys(want)) {
		switch s, ok := said[key]; {
		case !ok:
			t.Errorf("%s says nothing of %s", where, key)
		case s != want[key]:
			t.Errorf("%s says %v of %s, which is %v", where, s, key, want[key])
		}
	}
	for _, key := range slices.Sorted(maps.Keys(said)) {
		if _, ok := want[key]; !ok {
			t.Errorf("%s names %s, which does not exist", where, key)
		}
	}
}

// The examples of mistakes in the reference are what Load says.
func TestReferenceShowsRealMistakes(t *testing.T) {
	text, err := os.ReadFile("../docs/configuration.md")
	if err != nil {
		t.Fatal(err)
	}
	_, _, err = parse("ssegate.toml", one+"\n\n\n[[route]]\nheartbeat_style = \"lines\"\ntimeout = \"1s\"\n", nil, nil)
	for line := range strings.Lines(fmt.Sprint(err)) {
		line = strings.TrimSpace(line)
		if shown, _, cut := strings.Cut(line, "attach_for"); cut {
			line = shown
		}
		if !strings.Contains(string(text), line) {
			t.Errorf("docs/configuration.md does not show: %s", line)
		}
	}
}

// What String prints is a file that means the same.
func TestStringRoundTrip(t *testing.T) {
	text, err := os.ReadFile("../ssegate.toml")
	if err != nil {
		t.Fatal(err)
	}
	f := func(text string) {
		t.Helper()
		cfg, _, err := parse("ssegate.toml", text, nil, nil)
		if err != nil {
			t.Fatal(err)
		}
		again, notices, err := parse("ssegate.toml", cfg.String(), nil, nil)
		if err != nil {
			t.Fatalf("%v in\n%s", err, cfg)
		}
		if live, restart := Diff(cfg, again); len(live)+len(restart) > 0 || cfg.String() != again.String() {
			t.Errorf("differs: %v %v; notices %v", live, restart, notices)
		}
		if cfg.Push.On != again.Push.On || cfg.Auth.On != again.Auth.On {
			t.Error("a table has come or gone")
		}
	}
	f(string(text))
	f(one + `[[route]]
done = ["a\"b\\c", "\u0001\u007f", "日本語"]
bind = []
attach = "key"
attach_key = "json:a.b"
heartbeat = "1h0m30s"
detach_for = "1h"
ring_bytes = "2.5MiB"
[listen]
trusted_proxies = ["10.0.0.0/8", "::1"]
[cluster]
redis = "redis://host:6379/0?pool_size=3"
[push]
[auth]
jwks = "https://id.example.com/keys"
audiences = ["push"]
[[auth.key]]
name = "a"
key_sha256 = "9834876dcfb05cb167a5c24953eba58c4ac89b1adf57f28f2f9d09af107ee8f0"
publish = ["user/*", "channel/x"]
[[auth.key]]
name = "b"
key_sha256 = "0034876dcfb05cb167a5c24953eba58c4ac89b1adf57f28f2f9d09af107ee8f0"
admin = true
[cors]
origins = ["https://*.example.com"]
credentials = true
`)
}

// Somebody reads every key that may be set, and nobody one that may not: a key
// without an effect would be a promise that is not kept.
func TestEveryKeyIsRead(t *testing.T) {
	read := map[string]bool{}
	files, err := filepath.Glob("*.go")
	if err != nil {
		t.Fatal(err)
	}
	for _, name := range files {
		if strings.HasPrefix(name, "config") || strings.HasSuffix(name, "_test.go") {
			continue
		}
		file, err := parser.ParseFile(token.NewFileSet(), name, nil, parser.SkipObjectResolution)
		if err != nil {
			t.Fatal(err)
		}
		ast.Inspect(file, func(n ast.Node) bool {
			if s, ok := n.(*ast.SelectorExpr); ok {
				read[s.Sel.Name] = true
			}
			return true
		})
	}
	read["CA"], read["TrustedProxies"] = read["Roots"], read["TrustedNets"]
	read["Open"] = true // what it does is to let Load accept the rest
	for _, table := range []reflect.Type{
		reflect.TypeFor[Node](), reflect.TypeFor[Listen](), reflect.TypeFor[Cluster](), reflect.TypeFor[Upstream](), reflect.TypeFor[Route](),
		reflect.TypeFor[Push](), reflect.TypeFor[Auth](), reflect.TypeFor[AuthKey](), reflect.TypeFor[CORS](), reflect.TypeFor[Limits](), reflect.TypeFor[Log](),
	} {
		for sub := range table.Fields() {
			later := sub.Tag.Get("reload") == "later"
			switch {
			case !later && !read[sub.Name]:
				t.Errorf("nobody reads %s.%s: read it, or tag it reload:\"later\"", table.Name(), sub.Name)
			case later && read[sub.Name]:
				t.Errorf("%s.%s is read now: take its tag reload:\"later\" away", table.Name(), sub.Name)
			}
		}
	}
}

package gate

import (
	"errors"
	"fmt"
	"maps"
	"math/rand/v2"
	"os"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/BurntSushi/toml"
)

func TestKeyLines(t *testing.T) {
	f := func(text string, want map[string]int) {
		t.Helper()
		if _, err := toml.Decode(text, new(map[string]any)); err != nil {
			t.Fatalf("%v in\n%s", err, text)
		}
		if got := keyLines(text); !maps.Equal(got, want) {
			t.Errorf("got %v, want %v", got, want)
		}
	}
	f("", map[string]int{})
	f("# a = 1\n\n a = 1 # b = 2\r\n\tb=2", map[string]int{"a": 3, "b": 4})
	f("a = \"# \\\" x = 1\"\nb = '\\'\nc.d = 3", map[string]int{"a": 1, "b": 2, "c": 3, "c.d": 3})
	f("a = \"\"\"\nx = 1\n\\\"\"\" \"\"\"\"\"\nb = '''\n'''''\nc = 1", map[string]int{"a": 1, "b": 4, "c": 6})
	f("[ t . \"u v\" ]\na = 1\n[t]\nb = 1\n", map[string]int{`t."u v"`: 1, `t."u v".a`: 2, "t": 3, "t.b": 4})
	f("[[r]]\na = 1\n[[r]]\n\n'b' = 1\n[r.x]\nc = 1\n[[r.y]]\nd = 1\n",
		map[string]int{"r": 1, "r[1]": 1, "r[1].a": 2, "r[2]": 3, "r[2].b": 5, "r[2].x": 6, "r[2].x.c": 7, "r[2].y": 8, "r[2].y[1]": 8, "r[2].y[1].d": 9})
	f("a = [ # one\n  1, 2,\n  # none ]\n  \"]\",\n]\nb = { c = 1, d = [ { e = 2 },\n {e=3} ] }\n",
		map[string]int{"a": 1, "a[1]": 2, "a[2]": 2, "a[3]": 4, "b": 6, "b.c": 6, "b.d": 6, "b.d[1]": 6, "b.d[1].e": 6, "b.d[2]": 7, "b.d[2].e": 7})
	f("a = 2026-11-22T10:00:00Z\nb = -1.5e3\nc = []\nd = {}\ne = 1\n", map[string]int{"a": 1, "b": 2, "c": 3, "d": 4, "e": 5})
}

// Whatever the file says, Load returns, and what it accepts it accepts again
// from its own printing.
func FuzzLoad(f *testing.F) {
	sample, err := os.ReadFile("../ssegate.toml")
	if err != nil {
		f.Fatal(err)
	}
	f.Add(string(sample))
	for _, seed := range []string{
		one, "[[upstream]]\n[[upstream]]\n[[route]]\n", "[listen]\npublic = 1", "a=[{b={c=[[[]]]}}]", "[[route]]\ndone=[1,\"\"]\n[route.x]\n",
		"\"\" = 1\n[\"a.b\"]\n'c' = '''\n'''", "upstream = [{name = \"a\", targets = [\"http://h\"]}]", "[cluster]\nredis = \"redis://:p#@\"",
		"x = \"\"\"\\", "[[a]]\n[a]\n", "a = }", "[", "[[", "=", "\xef\xbb\xbfa = 1", "limits = 1\nlog.level = \"debug\"",
		"[node]\ndrain_timeout = 9223372036854775807\n[limits]\nmemory = \"9999999999GiB\"",
	} {
		f.Add(seed)
	}
	f.Fuzz(func(t *testing.T, text string) {
		done := make(chan struct{})
		go func() {
			keyLines(text)
			close(done)
		}()
		select {
		case <-done:
		case <-time.After(10 * time.Second):
			t.Fatal("the line scanner does not end")
		}
		cfg, _, err := parse("ssegate.toml", text, nil, nil)
		if err != nil {
			if lines := strings.Split(err.Error(), "\n"); len(lines) < 2 || slices.Contains(lines, "  ") {
				t.Fatalf("says nothing: %q", lines)
			}
			return
		}
		if again, _, err := parse("ssegate.toml", cfg.String(), nil, nil); err != nil {
			if !strings.Contains(cfg.String(), hidden) {
				t.Fatalf("%v in\n%s", err, cfg)
			}
		} else if live, restart := Diff(cfg, again); len(live)+len(restart) > 0 && !strings.Contains(cfg.String(), hidden) {
			t.Fatalf("%v %v differ in\n%s", live, restart, cfg)
		}
	})
}

// A file of real keys with all sorts of values: every mistake names a key and
// a line, and nothing panics.
func TestRandomFiles(t *testing.T) {
	keys := slices.Sorted(maps.Keys(settings(t)))
	values := []string{
		`""`, `"x"`, `"-1s"`, `"10s"`, `"0s"`, `"1MiB"`, `"off"`, `"key"`, `"content"`, `"event"`, `"cut"`, `"upstream"`, `"a"`, `"b"`, `"/"`, `"/a"`,
		`"http://127.0.0.1:1"`, `"https://h"`, `"redis://h"`, `"amqp://u:p@h"`, `"redis://:p@h?addr=b:1"`, `":1"`, `"127.0.0.1:0"`, `"header:X"`, `"json:"`,
		"0", "1", "-1", "9223372036854775807", "1.5", "inf", "true", "false", "1979-05-27", "[]", `[""]`, `["GET", 1]`, `["http://h:1", "http://h:1/"]`, `[[]]`, "{}", `{ a = 1 }`,
	}
	rnd := rand.New(rand.NewPCG(1, 2))
	good := 0
	for range 1500 {
		tables := map[string][]string{}
		for range rnd.IntN(8) {
			table, key, _ := strings.Cut(keys[rnd.IntN(len(keys))], ".")
			if line := key + " = " + values[rnd.IntN(len(values))]; !slices.ContainsFunc(tables[table], func(s string) bool { return strings.HasPrefix(s, key+" ") }) {
				tables[table] = append(tables[table], line)
			}
		}
		var b strings.Builder
		b.WriteString(one)
		for _, table := range slices.Sorted(maps.Keys(tables)) {
			form := "[%s]\n%s\n"
			if table == "upstream" || table == "route" {
				form = "[[%s]]\n%s\n"
			}
			fmt.Fprintf(&b, form, table, strings.Join(tables[table], "\n"))
		}
		text := b.String()
		cfg, _, err := parse("f", text, nil, nil)
		if err == nil {
			good++
			if _, _, err := parse("f", cfg.String(), nil, nil); err != nil && !strings.Contains(cfg.String(), hidden) {
				t.Fatalf("%v in\n%s", err, cfg)
			}
			continue
		}
		ce, _ := errors.AsType[*ConfigError](err)
		for _, p := range ce.Problems {
			table, _, _ := strings.Cut(strings.Split(p.Key, "[")[0], ".")
			if tables[table] == nil && table != "route" && p.Key != "listen.internal" || p.Text == "" || !strings.HasPrefix(p.Where, "f") {
				t.Fatalf("%q: nobody's mistake in\n%s", p, text)
			}
		}
	}
	if good < 25 {
		t.Errorf("only %d of the files were good", good)
	}
}

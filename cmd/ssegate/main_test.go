package main

import (
	"os"
	"path/filepath"
	"strings"
	"testing"
)

func TestCommandLine(t *testing.T) {
	dir := t.TempDir()
	file := func(name, text string) string {
		t.Helper()
		path := filepath.Join(dir, name)
		if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
		return path
	}
	good := file("good.toml", "[[upstream]]\nname = \"chat\"\ntargets = [\"http://127.0.0.1:8000\"]\n")
	bad := file("bad.toml", "[nonsense]\n")
	const upstream = "http://127.0.0.1:8000"
	f := func(args, env string, code int, says string) {
		t.Helper()
		var stdout, stderr strings.Builder
		got := run(strings.Fields(args), strings.Fields(env), &stdout, &stderr)
		if out := stdout.String() + stderr.String(); got != code || !strings.Contains(out, says) {
			t.Errorf("ssegate %s, with %q: %d, want %d with %q; it says\n%s", args, env, got, code, says, out)
		}
	}
	f("check -upstream "+upstream, "", exitOK, "good")
	f("check -config "+good, "", exitOK, "good")
	f("check -config "+bad, "", exitFailed, "bad.toml")
	f("version", "", exitOK, "ssegate ")
	f("nonsense", "", exitUsage, "unknown command")
	f("", "", exitUsage, "ssegate demo")

	// SSEGATE_CONFIG is what -config is when nobody sets it.
	f("check", "", exitFailed, "there is none")
	f("check", "SSEGATE_CONFIG="+good, exitOK, "good")
	f("check", "SSEGATE_CONFIG="+bad, exitFailed, "bad.toml")
	f("", "SSEGATE_CONFIG="+bad, exitFailed, "bad.toml")
	f("check -config "+good, "SSEGATE_CONFIG="+bad, exitOK, "good")
	f("check", "SSEGATE_CONFIG= SSEGATE_UPSTREAM="+upstream, exitOK, "good")

	// -listen is demo's alone.
	f("check -upstream "+upstream+" -listen :9000", "", exitUsage, "-listen.public")
	f("-config "+bad+" -listen 127.0.0.1:8080", "", exitUsage, "-listen.public")
	f("version -listen :9000", "", exitUsage, "-listen.public")
	f("check -upstream "+upstream+" -listen.public :9000", "", exitOK, "good")
}

package built

import (
	"errors"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
)

// TestKey holds the key against the pipeline that test.sh computes it with.
func TestKey(t *testing.T) {
	root := t.TempDir()
	for _, f := range []string{"pom.xml", "src/a/b", "src/a.b", "src/a-b", "src/Z", "other"} {
		path := filepath.Join(root, f)
		if err := os.MkdirAll(filepath.Dir(path), 0o700); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(path, []byte("in "+f+"\n"), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	repo, err := Root()
	if err != nil {
		t.Fatal(err)
	}
	script, err := os.ReadFile(filepath.Join(repo, "test.sh"))
	if err != nil {
		t.Fatal(err)
	}
	_, line, ok := strings.Cut(string(script), "\nkey() {")
	line, _, ok2 := strings.Cut(line, "}\n")
	if !ok || !ok2 {
		t.Fatal("test.sh has no function key")
	}
	cmd := exec.CommandContext(t.Context(), "bash", "-c", "set -- src pom.xml\n"+line)
	cmd.Dir = root
	out, err := cmd.Output()
	if err != nil {
		t.Fatal(err)
	}
	got, err := key(root, []string{"src", "pom.xml"})
	if err != nil {
		t.Fatal(err)
	}
	if want := strings.TrimSpace(string(out)); got != want {
		t.Errorf("key %s, test.sh says %s", got, want)
	}
	if len(got) != 12 {
		t.Errorf("key %q is not 12 digits", got)
	}
}

func TestPath(t *testing.T) {
	cache := t.TempDir()
	t.Setenv("SSEGATE_TEST_CACHE", cache)
	if _, err := Path("thing", ".x", "go.mod"); !errors.Is(err, ErrMissing) {
		t.Fatalf("%v, want %v", err, ErrMissing)
	}
	root, err := Root()
	if err != nil {
		t.Fatal(err)
	}
	k, err := key(root, []string{"go.mod"})
	if err != nil {
		t.Fatal(err)
	}
	want := filepath.Join(cache, "thing-"+k+".x")
	if err := os.WriteFile(want, nil, 0o600); err != nil {
		t.Fatal(err)
	}
	if got, err := Path("thing", ".x", "go.mod"); got != want || err != nil {
		t.Fatalf("%s, %v; want %s", got, err, want)
	}
}

package e2e

import (
	"encoding/json"
	"fmt"
	"net/http"
	"net/http/httptest"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"

	. "ssegate/internal/gatetest"
	"ssegate/internal/gatetest/browser"
	"ssegate/internal/gatetest/service"
)

// exampleConfig is the configuration of an example, but for where it listens.
func exampleConfig(t *testing.T, name string) string {
	t.Helper()
	b, err := os.ReadFile(filepath.Join(example(t, name), "ssegate.toml"))
	if err != nil {
		t.Fatal(err)
	}
	listen := regexp.MustCompile(`(?m)^\[listen\]\npublic = "127\.0\.0\.1:8080".*\n`)
	if !listen.Match(b) {
		t.Fatalf("the configuration of %s is another one:\n%s", name, b)
	}
	return listen.ReplaceAllString(string(b), "")
}

// publishes runs a publisher of the examples to its end.
func publishes(t *testing.T, env string, command ...string) string {
	t.Helper()
	cmd := exec.CommandContext(t.Context(), command[0], command[1:]...)
	cmd.Env = append(os.Environ(), env, "PYTHONDONTWRITEBYTECODE=1")
	out, err := cmd.CombinedOutput()
	if err != nil {
		t.Fatalf("%q: %v\n%s", command, err, out)
	}
	return string(out)
}

func python(t *testing.T, n *Node, args ...string) {
	t.Helper()
	venv, err := service.Venv()
	if err != nil {
		t.Fatal(err)
	}
	publishes(t, "PUSH="+n.Internal, append([]string{filepath.Join(venv, "bin", "python"), filepath.Join(example(t, "push-python"), "publish.py")}, args...)...)
}

func java(t *testing.T, args ...string) string {
	t.Helper()
	return publishes(t, "LC_ALL=C.UTF-8", append([]string{"java", "-XX:TieredStopAtLevel=1", filepath.Join(example(t, "push-java"), "Publish.java")}, args...)...)
}

// TestPythonPublisher: the publisher of a message push service, with another
// address and nothing else.
func TestPythonPublisher(t *testing.T) {
	n := Start(t, bin, "one", exampleConfig(t, "push-python"))
	task := EventSource(t, n.URL+"/sse/stream/task:task_abc123", "")
	listener := EventSource(t, n.URL+"/sse/service/knowledge-service", "")
	python(t, n, "task_abc123", "20")
	for _, s := range []*Stream{task, listener} {
		for i, ev := range s.Take(6) {
			var m struct {
				ID, Timestamp, Type, Service string
				Target                       struct {
					Task string `json:"task_id"`
				}
				Data struct {
					Progress int
					Message  string
				}
				Metadata struct {
					Priority string
					TTL      int
				}
			}
			if err := json.Unmarshal([]byte(ev.Data), &m); err != nil {
				t.Fatalf("%v in %q", err, ev.Data)
			}
			if ev.Name != "progress" || m.Type != "progress" || m.Service != "knowledge-service" || m.Target.Task != "task_abc123" ||
				m.Data.Progress != 20*i || m.Data.Message != fmt.Sprintf("处理进度: %d%%", 20*i) {
				t.Errorf("event %d is %q %s", i, ev.Name, ev.Data)
			}
			if m.ID == "" || m.Timestamp == "" || m.Metadata.Priority != "normal" || m.Metadata.TTL != 3600 {
				t.Errorf("what is missing is not filled in: %s", ev.Data)
			}
		}
	}
}

// TestJavaPublisher: an answer word by word, to a user who is at another node
// than the publisher, and changes it in the middle.
func TestJavaPublisher(t *testing.T) {
	conf := fmt.Sprintf("[cluster]\nredis = %q\n%s", service.Redis(t).URL, exampleConfig(t, "push-java"))
	a, b := Start(t, bin, "a", conf), Start(t, bin, "b", conf)
	acquainted(t, a, b)
	s := EventSource(t, a.URL+"/api/sse/connect/123", "")
	said := java(t, b.Internal, "123", `"one" \two 三`)
	if n := strings.Count(said, `"nodes":["`+a.ID+`"]`); n != 3 {
		t.Errorf("%d of 3 are delivered:\n%s", n, said)
	}
	got := s.Take(2)
	s.Close()
	s = EventSource(t, b.URL+"/api/sse/connect/123", s.LastID)
	got = append(got, s.Take(1)...)
	if want := []string{`{"n":1,"word":"\u0022one\u0022"}`, `{"n":2,"word":"\u005ctwo"}`, `{"n":3,"word":"三"}`}; !slices.Equal(Data(got), want) {
		t.Errorf("got %q, want %q", Data(got), want)
	}
	Eventually(t, "the other node says where the user is", func() bool {
		resp, err := http.Get(a.Internal + "/api/sse/status/123")
		if err != nil {
			t.Fatal(err)
		}
		defer resp.Body.Close()
		var status struct {
			Connected bool
			Node      string
		}
		if err := json.NewDecoder(resp.Body).Decode(&status); err != nil {
			t.Fatal(err)
		}
		return status.Connected && status.Node == b.ID
	})
	if out := send(t, a, "/api/sse/close/123", ""); out["closed"] != 1.0 {
		t.Errorf("close says %v", out)
	}
	if rest, _ := s.Rest(); len(rest) > 0 {
		t.Errorf("then got %q", Data(rest))
	}
}

// TestPushPage: the listener of a message push service's page in a real
// Chromium, and both publishers.
func TestPushPage(t *testing.T) {
	tab := browser.Open(t)
	files := httptest.NewServer(http.FileServer(http.Dir(example(t, "push-page"))))
	t.Cleanup(files.Close)
	conf := strings.Replace(exampleConfig(t, "push-page"), "http://127.0.0.1:9000", files.URL, 1)
	if strings.Count(conf, files.URL) != 1 {
		t.Fatalf("the example's configuration is another one:\n%s", conf)
	}
	n := Start(t, bin, "one", conf)
	line := newWire(t, n.URL)
	open := func(follow string) {
		t.Helper()
		tab.Go(line.URL + "/?follow=" + follow)
		tab.Until(fmt.Sprintf("document.querySelector('#who')?.textContent === %q && state.textContent === 'connected'", follow))
	}
	sees := func(want ...string) {
		t.Helper()
		tab.Until(fmt.Sprintf("seen.length >= %d", len(want)))
		if got := browser.Value[[]string](tab, "seen.map((m) => JSON.stringify(m))"); !slices.Equal(got, want) {
			t.Errorf("the page has seen %q, want %q", got, want)
		}
	}
	open("/sse/stream/task:task_abc123")
	python(t, n, "task_abc123", "25")
	sees("0", "25", "50", "75", "100")
	if got := browser.Value[string](tab, "percent.textContent"); got != "100" {
		t.Errorf("the page shows %s %%", got)
	}

	open("/sse/user/123")
	java(t, n.Internal, "123", "word by")
	sees(`{"n":1,"word":"word"}`, `{"n":2,"word":"by"}`)
	line.Cut()
	send(t, n, "/api/v1/messages/send", `{"type":"progress","target":{"user_id":"123"},"data":{"progress":65}}`)
	sees(`{"n":1,"word":"word"}`, `{"n":2,"word":"by"}`, "65") // it comes back by itself
	send(t, n, "/api/v1/messages/send", `{"type":"error","target":{"user_id":"123"},"data":{"code":7}}`)
	sees(`{"n":1,"word":"word"}`, `{"n":2,"word":"by"}`, "65", `{"code":7}`)
	if got := browser.Value[string](tab, "state.textContent"); got != "connected" {
		t.Errorf("after a message of the type error the page says that its connection is %q", got)
	}
	for _, e := range tab.Thrown() {
		t.Errorf("the page threw %s", e)
	}
}

// TestTicketPageInDocs: the page in docs/api.md that takes a new ticket each
// time, in a real Chromium, misses nothing when its line is cut.
func TestTicketPageInDocs(t *testing.T) {
	text, err := os.ReadFile(filepath.Join(example(t, ".."), "docs", "api.md"))
	if err != nil {
		t.Fatal(err)
	}
	_, code, ok := strings.Cut(string(text), "```js\n")
	code, _, _ = strings.Cut(code, "```\n")
	if !ok || !strings.Contains(code, "async function follow(") {
		t.Fatal("docs/api.md has no such page")
	}
	const key = "0123456789abcdef0123456789abcdef"
	n := Start(t, bin, "one", `
[push]
public = true
payload = "data"
[[auth.key]]
name = "page"
key = "`+key+`"
follow = ["channel/news"]
publish = ["channel/news"]
`)
	line := newWire(t, n.URL)
	tab := browser.Open(t)
	tab.Go(line.URL + "/sse/stream/news") // refused, and of the right origin
	tab.Until("document.readyState === 'complete' && location.port !== ''")
	browser.Value[any](tab, code+`
window.seen = []
function token() { return "`+key+`" }
function show(event) { seen.push(event.data) }
follow("/sse/stream/news")
null`)
	connected := func(want float64) {
		t.Helper()
		Eventually(t, "the page is connected", func() bool { return n.Metric("ssegate_subscriptions") == want })
	}
	say := func(kind, data string) {
		t.Helper()
		s := Do(t, Request{Method: "POST", URL: n.Internal + "/api/v1/messages/send", Body: `{"type":` + kind + `,"target":{"channel":"news"},"data":` + data + `}`,
			Header: map[string]string{"Content-Type": "application/json", "X-Api-Key": key}})
		if s.Resp.StatusCode != 200 {
			t.Fatalf("%d %s", s.Resp.StatusCode, s.Body())
		}
	}
	connected(1)
	say(`null`, "1")
	say(`"progress"`, "2")
	tab.Until("seen.length === 2")
	line.Cut()
	connected(0)
	say(`"status"`, "3")
	connected(1)
	tab.Until("seen.length === 3")
	// A message of the type error is no lost connection.
	say(`"error"`, "4")
	tab.Until("seen.length === 4")
	line.Cut()
	connected(0)
	say(`"custom"`, "5")
	connected(1)
	say(`null`, "6")
	tab.Until("seen.length === 6")
	if got := browser.Value[[]string](tab, "seen"); !slices.Equal(got, []string{"1", "2", "3", "4", "5", "6"}) {
		t.Errorf("the page has seen %q", got)
	}
	for _, e := range tab.Thrown() {
		t.Errorf("the page threw %s", e)
	}
}

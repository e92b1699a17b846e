package gate

import (
	"bytes"
	"encoding/json"
	"fmt"
	"strings"
	"testing"

	"go.uber.org/zap"
)

func TestSecretURL(t *testing.T) {
	f := func(url SecretURL, want string) {
		t.Helper()
		if got := url.String(); got != want {
			t.Errorf("%s, want %s", got, want)
		}
	}
	f("", "")
	f("redis://host:6379/0", "redis://host:6379/0")
	f("redis://:hunter2@host:6379/0?pool_size=3", "redis://:***@host:6379/0?pool_size=3")
	f("redis://user:hunter2@host", "redis://user:***@host")
	f("redis://hunter2@host", "redis://***@host")
	f("redis://s:hunter2@host?master_name=m&password=hunter2&username=u", "redis://s:***@host?master_name=m&password=***&username=u")
	f("http://host:8500?token=hunter2", "http://host:8500?token=***")
	f("amqps://user:hunter2@host/a%2Fb?cacertfile=x", "amqps://user:***@host/a%2Fb?cacertfile=x")
	f("redis://:hun#ter2@host", "***")
	f("hunter2", "***")
	f("redis:hunter2", "***")
	f("http://host/%zz", "***")
}

// No way of printing a configuration, or what is wrong with it, shows a
// password.
func TestPasswordsStayHidden(t *testing.T) {
	const password = "hunter2"
	file := one + `[cluster]
redis = "redis://:hunter2@h1"
rabbitmq = "amqp://u:hunter2@h2/"
consul = "http://h3?token=hunter2"
[push]
webhook = "https://hook/hunter2"
webhook_secret = "hunter2"
[auth]
secret = "hunter2hunter2hunter2hunter2hunter2"
previous_secret = "base64:aHVudGVyMmh1bnRlcjJodW50ZXIyaHVudGVyMmh1bnRlcjI"
[[auth.key]]
name = "a"
key = "hunter2hunter2hunter2"
admin = true
`
	cfg, _, err := parse("ssegate.toml", file, nil, nil)
	if err != nil {
		t.Fatal(err)
	}
	var out bytes.Buffer
	for _, form := range []string{"%v", "%+v", "%#v", "%s", "%q", "%x"} {
		fmt.Fprintf(&out, form+"\n", cfg)
		fmt.Fprintf(&out, form+"\n", cfg.Cluster)
		fmt.Fprintf(&out, form+"\n", cfg.Cluster.Redis)
		fmt.Fprintf(&out, form+"\n", cfg.Auth.Secret)
		fmt.Fprintf(&out, form+"\n", cfg.Auth.Key)
	}
	text, err := json.Marshal(cfg)
	if err != nil {
		t.Fatal(err)
	}
	out.Write(text)
	log := NewLogging(Log{Level: "debug", Format: "json"}, &out)
	log.Info("config", zap.Object("config", cfg), zap.Any("any", cfg.Cluster), zap.Any("auth", cfg.Auth), zap.Stringer("url", cfg.Cluster.Redis))

	// Short, doubled or in a place that is none.
	for _, line := range []string{`secret = "hunter2"`, `secret = hunter2`, `secret = ["hunter2"]`, `secret = {hunter2 = 1}`, `previous_secret = "base64:hunter2!"`,
		"[[auth.key]]\nkey = \"hunter2\"", "[[auth.key]]\nkey = hunter2", "[[auth.key]]\nkey = \"hunter2hunter2\"\nkey = \"hunter2hunter2\"", `jwks = "https://u:hunter2@h"`} {
		_, notices, err := parse("ssegate.toml", one+"[auth]\n"+line+"\n", []string{"SSEGATE_AUTH_SECRET=hunter2", "SSEGATE_PUSH_WEBHOOK=hunter2"}, map[string]string{"auth.previous_secret": "hunter2"})
		fmt.Fprintln(&out, notices, err)
		_, notices, err = parse("ssegate.toml", one+"[auth]\n"+line+"\n", nil, nil)
		fmt.Fprintln(&out, notices, err)
	}

	// The same URLs with something wrong around them, in file, variable
	// and flag.
	for _, broken := range []string{
		"", "]", "#", "\n", "\"", "\\", "=", "x", "%", " ", "@", "/x/y", ":99999",
	} {
		for _, url := range []string{
			broken + "redis://:hunter2@h", "redis://" + broken + ":hunter2@h", "redis://:hunter2" + broken + "@h",
			"redis://:" + broken + "hunter2@h", "redis://:hunter2@h" + broken, "redis://:hunter2@h?addr=" + broken, "redis://:hunter2",
		} {
			for _, key := range []string{"redis", "rabbitmq", "consul"} {
				for _, quote := range []string{`"`, `'`, ""} {
					_, notices, err := parse("ssegate.toml", one+"[cluster]\n"+key+" = "+quote+url+quote+"\n", nil, nil)
					fmt.Fprintln(&out, notices, err)
				}
				_, notices, err := parse("ssegate.toml", one, []string{"SSEGATE_CLUSTER_" + strings.ToUpper(key) + "=" + url}, map[string]string{"cluster." + key: url})
				fmt.Fprintln(&out, notices, err)
			}
			// In a key where it has no place.
			_, notices, err := parse("ssegate.toml", one, []string{"SSEGATE_LISTEN_PUBLIC=" + url}, map[string]string{"upstream": url, "node.advertise": url})
			fmt.Fprintln(&out, notices, err)
		}
	}
	hex := fmt.Sprintf("%x", password)
	for line := range strings.Lines(out.String()) {
		if strings.Contains(line, password) || strings.Contains(line, hex) {
			t.Errorf("shows the password: %s", line)
		}
	}
	if b := "aHVudGVyMmh1bnRlcjJodW50ZXIy"; strings.Contains(out.String(), b) {
		t.Error("shows the secret in base64")
	}
	if out.Len() < 10_000 || !strings.Contains(out.String(), "redis://:***@h1") {
		t.Error("nothing was printed")
	}
}

func TestConfigLogsWhatDiffers(t *testing.T) {
	cfg, _, err := parse("ssegate.toml", one+`[cluster]
redis = "redis://:hunter2@h"
[[route]]
heartbeat = "5s"
done = []
`, nil, nil)
	if err != nil {
		t.Fatal(err)
	}
	var out bytes.Buffer
	NewLogging(Log{Level: "info", Format: "json"}, &out).Info("x", zap.Object("config", cfg))
	var line struct{ Config map[string]string }
	if err := json.Unmarshal(out.Bytes(), &line); err != nil {
		t.Fatal(err, out.String())
	}
	want := map[string]string{
		"cluster.redis": "redis://:***@h", "upstream[1].name": "a", "upstream[1].targets": `["http://127.0.0.1:8000"]`,
		"route[1].upstream": "a", "route[1].heartbeat": "5s", "route[1].done": "[]",
	}
	if fmt.Sprint(line.Config) != fmt.Sprint(want) {
		t.Errorf("logged %v, want %v", line.Config, want)
	}
}

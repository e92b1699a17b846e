package gate

import (
	"errors"
	"reflect"
	"strings"
	"testing"
	"time"
)

// one is the least that makes a file whole.
const one = `[[upstream]]
name = "a"
targets = ["http://127.0.0.1:8000"]
`

func TestUpstreamFlagAlone(t *testing.T) {
	cfg, notices, err := Load("", nil, map[string]string{"upstream": "http://127.0.0.1:8000"})
	if err != nil || len(notices) > 0 {
		t.Fatal(err, notices)
	}
	want := Default()
	u, r := DefaultUpstream(), DefaultRoute()
	u.Name, u.Targets, r.Upstream = "default", []string{"http://127.0.0.1:8000"}, "default"
	want.Upstream, want.Route = []Upstream{u}, []Route{r}
	if !reflect.DeepEqual(cfg, want) {
		t.Errorf("got\n%v\nwant\n%v", cfg, want)
	}
}

func TestFlagsOverEnvironmentOverFileOverDefaults(t *testing.T) {
	f := func(file string, env []string, flags map[string]string, want string) {
		t.Helper()
		cfg, _, err := parse("ssegate.toml", one+file, env, flags)
		if err != nil {
			t.Fatal(err)
		}
		if cfg.Listen.Public != want {
			t.Errorf("public = %q, want %q", cfg.Listen.Public, want)
		}
	}
	const file = "[listen]\npublic = \":1\"\n"
	env, flags := []string{"SSEGATE_LISTEN_PUBLIC=:2"}, map[string]string{"listen.public": ":3"}
	f("", nil, nil, ":8080")
	f(file, nil, nil, ":1")
	f(file, env, nil, ":2")
	f(file, env, flags, ":3")
	f("", env, nil, ":2")
	f("", nil, flags, ":3")
	f(file, []string{"SSEGATE_LISTEN_PUBLIC="}, nil, ":1") // empty counts as not set
}

func TestEnvironmentSetsEverySort(t *testing.T) {
	cfg, notices, err := parse("ssegate.toml", one, []string{
		"SSEGATE_CLUSTER_REDIS=redis://:pw@h:6379/0",
		"SSEGATE_LOG_SAMPLING=false",
		"SSEGATE_LIMITS_CONNECTIONS=2",
		"SSEGATE_NODE_ADVERTISE=https://edge-1.example.com",
		"SSEGATE_NODE_DRAIN_TIMEOUT=0",
		"SSEGATE_LISTEN_TRUSTED_PROXIES=10.0.0.0/8, 192.168.0.1",
		"SSEGATE_LISTEN_MAX_HEADER=128KiB",
		"HOME=/x",
		"SSEGATE_CONFIG=elsewhere.toml",
		"SSEGATE_PORT=tcp://10.1.2.3:80", // Kubernetes, for a service called ssegate
		"SSEGATE_SERVICE_HOST=10.1.2.3",
		"SSEGATE_PORT_80_TCP_ADDR=10.1.2.3",
	}, nil)
	if err != nil || len(notices) > 0 {
		t.Fatal(err, notices)
	}
	if cfg.Cluster.Redis != "redis://:pw@h:6379/0" || cfg.Log.Sampling || cfg.Limits.Connections != 2 ||
		cfg.Node.DrainTimeout != 0 || cfg.Listen.MaxHeader != 128*KiB {
		t.Errorf("got\n%v", cfg)
	}
	nets := cfg.Listen.TrustedNets()
	if len(nets) != 2 || nets[0].String() != "10.0.0.0/8" || nets[1].String() != "192.168.0.1/32" {
		t.Errorf("trusted: %v", nets)
	}
}

func TestUpstreamFlagSetsTheOnlyOne(t *testing.T) {
	const named = `[[upstream]]
name = "chat"
service = "chat"
balance = "least-connections"
[[route]]
path = "/v1"
heartbeat = "5s"
`
	cfg, _, err := parse("ssegate.toml", named, []string{"SSEGATE_UPSTREAM=http://e:1"}, map[string]string{"upstream": "http://h:1, http://h:2/"})
	if err != nil {
		t.Fatal(err)
	}
	u, r := cfg.Upstream[0], cfg.Route[0]
	if u.Name != "chat" || u.Service != "" || u.Balance != "least-connections" || !reflect.DeepEqual(u.Targets, []string{"http://h:1", "http://h:2"}) {
		t.Errorf("upstream: %+v", u)
	}
	if len(cfg.Route) != 1 || r.Path != "/v1" || r.Upstream != "chat" || r.Heartbeat != 5*time.Second || r.Retry != 2*time.Second {
		t.Errorf("routes: %+v", cfg.Route)
	}
}

func TestFlagMistakes(t *testing.T) {
	f := func(file string, env []string, flags map[string]string, want string) {
		t.Helper()
		_, _, err := parse("ssegate.toml", file, env, flags)
		wantError(t, err, want)
	}
	f(one, nil, map[string]string{"listen.public": "8080", "listen.pubic": ":1"}, `
2 mistakes in the configuration:
  -listen.pubic: is no flag of ssegate's
  -listen.public: listen.public: "8080" is no address to listen on: write "host:port", or ":port" for all interfaces`)
	f(one, []string{"SSEGATE_LOG_SAMPLING=yes", "SSEGATE_LIMITS_CONNECTIONS=two", "SSEGATE_LISTEN_IDLE_TIMEOUT=5", "SSEGATE_LISTEN_MAX_HEADER=1TB"}, nil, `
4 mistakes in the configuration:
  SSEGATE_LIMITS_CONNECTIONS: limits.connections: must be a whole number, not "two"
  SSEGATE_LISTEN_IDLE_TIMEOUT: listen.idle_timeout: "5" is no duration: write a number and its unit, such as "500ms", "15s" or "2m"
  SSEGATE_LISTEN_MAX_HEADER: listen.max_header: "1TB" is not a size: write a number and a unit, such as "64KiB" or "256MiB"
  SSEGATE_LOG_SAMPLING: log.sampling: must be true or false, not "yes"`)
	f(one, []string{"SSEGATE_LIMITS_CONNECTIONS=9223372036854775808", "SSEGATE_PUSH_LENGTH=2147483648", "SSEGATE_PUSH_OPEN=true", "SSEGATE_CLUSTER_REDIS_WAIT=1e3", "SSEGATE_LIMITS_CONNECTIONS_PER_IP=-9223372036854775809"}, nil, `
4 mistakes in the configuration:
  SSEGATE_CLUSTER_REDIS_WAIT: cluster.redis_wait: must be a whole number, not "1e3"
  SSEGATE_LIMITS_CONNECTIONS: limits.connections: is too large: write a whole number from 0 to 2147483647
  SSEGATE_LIMITS_CONNECTIONS_PER_IP: limits.connections_per_ip: must not be negative
  SSEGATE_PUSH_LENGTH: push.length: is too large: write a whole number from 1 to 2147483647`)
	f(one+strings.ReplaceAll(one, `"a"`, `"b"`)+"[[route]]\nupstream = \"a\"\n", []string{"SSEGATE_UPSTREAM=http://h:1"}, nil, `
one mistake in the configuration:
  SSEGATE_UPSTREAM: sets the targets of the only upstream, but ssegate.toml has 2: change them there`)
	f(one, nil, map[string]string{"upstream": "127.0.0.1:8000"}, `
one mistake in the configuration:
  -upstream: upstream[1].targets[1]: "127.0.0.1:8000" is no address: write "http://host:port" or "https://host:port"`)
	f(one, nil, map[string]string{"upstream": ""}, `
one mistake in the configuration:
  -upstream: upstream[1].targets: is empty: write targets = ["http://127.0.0.1:8000"]`)
	// The file's mistake is told although the variable comes over it, and
	// the variable's own too.
	f(one+"[listen]\npublic = 1\n", []string{"SSEGATE_LISTEN_PUBLIC=2"}, nil, `
2 mistakes in the configuration:
  SSEGATE_LISTEN_PUBLIC: listen.public: "2" is no address to listen on: write "host:port", or ":port" for all interfaces
  ssegate.toml:5: listen.public: must be a text: write "1", in quotes`)
}

func TestFileMistakes(t *testing.T) {
	t.Chdir(t.TempDir())
	_, _, err := Load("none.toml", nil, nil)
	wantError(t, err, `
one mistake in the configuration:
  none.toml: cannot be read: no such file or directory`)
	_, _, err = Load(".", nil, nil)
	wantError(t, err, `
one mistake in the configuration:
  .: cannot be read: is a directory`)
	_, _, err = Load("", nil, nil)
	wantError(t, err, `
one mistake in the configuration:
  upstream: there is none, so there is nothing to stand in front of: write [[upstream]] with name and targets, or start with -upstream http://127.0.0.1:8000`)
}

func wantError(t *testing.T, err error, want string) {
	t.Helper()
	got := "no mistake"
	if err != nil {
		got = err.Error()
		if ce, ok := errors.AsType[*ConfigError](err); !ok || len(ce.Problems) == 0 {
			t.Errorf("a %T without problems", err)
		}
	}
	if want = strings.TrimPrefix(want, "\n"); got != want {
		t.Errorf("got\n%s\nwant\n%s", got, want)
	}
}

func TestNotices(t *testing.T) {
	f := func(text string, env []string, want ...string) {
		t.Helper()
		_, notices, err := parse("ssegate.toml", text, env, nil)
		if err != nil {
			t.Fatal(err)
		}
		var got []string
		for _, n := range notices {
			got = append(got, n.String())
		}
		if !reflect.DeepEqual(got, want) {
			t.Errorf("got\n%s\nwant\n%s", strings.Join(got, "\n"), strings.Join(want, "\n"))
		}
	}
	f(one, nil)
	f(one, []string{"SSEGATE_LISTEN_PUBLI=:1", "SSEGATE_X=1"},
		"SSEGATE_LISTEN_PUBLI: is no variable of ssegate's and changes nothing; did you mean SSEGATE_LISTEN_PUBLIC?",
		"SSEGATE_X: is no variable of ssegate's and changes nothing")
	f(one+"[cluster]\nheartbeat = \"1s\"\nservice = \"edge\"\n", nil,
		"ssegate.toml:5: cluster.heartbeat: has no effect without cluster.redis",
		"ssegate.toml:6: cluster.service: has no effect without cluster.consul")
	f(one+`fail_for = "1s"
max_fails = 0
health_every = "1s"
health_timeout = "1s"
server_name = "x"
[[upstream]]
name = "b"
targets = ["https://h"]
insecure = true
[[route]]
upstream = "a"
attach_for = "1s"
attach_unavailable = "refuse"
on_disconnect = "cancel"
detach_for = "1s"
heartbeat = "2m"
heartbeat_data = "x"
retry = "0s"
retry_to_all = true
takeover = "last-event-id"
ids = "off"
ring_events = 20000
[[route]]
path = "/off"
upstream = "a"
attach = "off"
attach_body_limit = "2MiB"
heartbeat_style = "off"
heartbeat = "2m"
`, nil,
		`ssegate.toml:4: upstream[1].fail_for: has no effect with max_fails = 0`,
		`ssegate.toml:6: upstream[1].health_every: has no effect without health_path`,
		`ssegate.toml:7: upstream[1].health_timeout: has no effect without health_path`,
		`ssegate.toml:8: upstream[1].server_name: has no effect without a target that begins with https://`,
		`ssegate.toml:9: upstream[2]: no route leads to "b"`,
		`ssegate.toml:12: upstream[2].insecure: anyone on the way to the upstream can read and change what passes`,
		`ssegate.toml:15: route[1].attach_for: has no effect with attach = "id"`,
		`ssegate.toml:16: route[1].attach_unavailable: has no effect with attach = "id"`,
		`ssegate.toml:18: route[1].detach_for: has no effect with on_disconnect = "cancel"`,
		`ssegate.toml:19: route[1].heartbeat: 2m is long: many proxies and load balancers cut a connection that is silent for 60s`,
		`ssegate.toml:20: route[1].heartbeat_data: has no effect with heartbeat_style = "line"`,
		`ssegate.toml:22: route[1].retry_to_all: has no effect with retry = 0`,
		`ssegate.toml:23: route[1].takeover: has no effect without cluster.redis: there is no other node`,
		`ssegate.toml:23: route[1].takeover: works from the ids that the upstream gives, which clients do not see with ids = "off"`,
		`ssegate.toml:25: route[1].ring_events: 20000 events in memory are more than log_length (10000) keeps in the log`,
		`ssegate.toml:30: route[2].attach_body_limit: has no effect with attach = "off"`,
		`ssegate.toml:32: route[2].heartbeat: has no effect with heartbeat_style = "off"`)
}

func TestKeysAndVariables(t *testing.T) {
	seen := map[string]string{}
	for _, key := range Keys() {
		name := Variable(key)
		if other := seen[name]; other != "" {
			t.Errorf("%s is both %s and %s", name, key, other)
		}
		seen[name] = key
		if kubernetes.MatchString(name) || name == "SSEGATE_UPSTREAM" || name == "SSEGATE_CONFIG" {
			t.Errorf("%s means something else", name)
		}
	}
	if seen["SSEGATE_CLUSTER_REDIS"] != "cluster.redis" || seen["SSEGATE_LISTEN_PUBLIC"] != "listen.public" {
		t.Error(seen)
	}
}

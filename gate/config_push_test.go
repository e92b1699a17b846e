package gate

import (
	"os"
	"path/filepath"
	"strings"
	"testing"
)

const jwtSecret = "0123456789abcdef0123456789abcdef"

// mistakes checks like TestMistakes, with an environment.
func mistakes(t *testing.T, text, want string, env ...string) {
	t.Helper()
	_, _, err := parse("ssegate.toml", strings.TrimPrefix(text, "\n"), env, nil)
	got := ""
	if err != nil {
		_, got, _ = strings.Cut(err.Error(), "\n")
		got = strings.ReplaceAll("\n"+got, "\n  ssegate.toml:", "\n")
	}
	if got != want {
		t.Errorf("got%s\nwant%s\nin\n%s", got, want, text)
	}
}

// Who may come to which listener: nobody follows others' messages, or
// publishes, because a table was forgotten.
func TestWhoMayReachPush(t *testing.T) {
	const (
		secret = "[auth]\nsecret = \"" + jwtSecret + "\"\n"
		local  = "[listen]\npublic = \"127.0.0.1:8080\"\n"
		wide   = "[listen]\npublic = \"127.0.0.1:8080\"\ninternal = \"0.0.0.0:8089\"\n"
	)
	f := func(text, want string) { t.Helper(); mistakes(t, one+text, want) }
	f("", "")
	f("[push]\n", `
4: push.open: listen.public (":8080") can be reached from other machines, and without [auth] whoever reaches it may follow every user's messages: add [auth], or write open = true if that is meant`)
	f("[push]\nopen = true\n", "")
	f("[push]\n"+local, "")
	f("[push]\n"+strings.Replace(local, "127.0.0.1", "[::1]", 1), "")
	f("[push]\n"+secret, "")
	f("[push]\npublic = true\n"+secret, "")
	f("[push]\npublic = true\n"+local, `
5: push.public: needs [auth]: whoever reaches listen.public could publish to every user`)
	f("[push]\npublic = true\nopen = true\n", `
5: push.public: needs [auth]: whoever reaches listen.public could publish to every user`)
	f(wide, `
6: listen.internal: "0.0.0.0:8089" can be reached from other machines, and whoever reaches it may see and end connections: write "127.0.0.1:8089", or add [auth]`)
	f(wide+"[push]\n", `
6: listen.internal: "0.0.0.0:8089" can be reached from other machines, and whoever reaches it may see and end connections: write "127.0.0.1:8089", or add [auth]`)
	f(wide+secret, "")
	f(wide+"[push]\nopen = true\n", "")

	// However a table is named, it is there.
	const key = "name = \"a\"\nkey = \"0123456789abcdef\"\nadmin = true\n"
	f("[push]\n[[auth.key]]\n"+key, "")
	mistakes(t, "push.public = true\nauth.secret = \""+jwtSecret+"\"\n"+one, "")
	mistakes(t, "push = {public = true}\nauth = {secret = \""+jwtSecret+"\"}\n"+one, "")
	mistakes(t, "push = {}\n"+one, `
1: push.open: listen.public (":8080") can be reached from other machines, and without [auth] whoever reaches it may follow every user's messages: add [auth], or write open = true if that is meant`)
	// A variable switches a table on as its head does.
	mistakes(t, one, `
  SSEGATE_PUSH_PUBLIC: push.public: needs [auth]: whoever reaches listen.public could publish to every user
 push.open: listen.public (":8080") can be reached from other machines, and without [auth] whoever reaches it may follow every user's messages: add [auth], or write open = true if that is meant`, "SSEGATE_PUSH_PUBLIC=true")
	mistakes(t, one, "", "SSEGATE_PUSH_PUBLIC=true", "SSEGATE_AUTH_SECRET="+jwtSecret)
}

func TestPushMistakes(t *testing.T) {
	mistakes(t, one+`[push]
open = true
payload = "body"
events = "named"
hosts = ["http://x", "*.example.com"]
types = ["ssegate.gap", "a b", ""]
length = 0
ttl = "1ms"
max_ttl = "0s"
wait = "0s"
batch = 0
fan_out = 0
body_size = 0
idle = "1ms"
receipt_ttl = "1ms"
webhook = "ftp://hunter2@host"
webhook_after = "1ms"
webhook_timeout = "0s"
webhook_attempts = 0
webhook_retry = "0s"
heartbeat = "0s"
heartbeat_style = "lin"
slow = "drop"
gap = "skip"
ring_events = 0
ring_bytes = "1MiB"
write_timeout = "1ms"
max_age = "1ms"
retry = "1us"
[limits]
topics_per_connection = 0
messages_per_principal = -1
requests_per_ip = -1
[cluster]
redis_wait = 1
`, `
6: push.payload: "body" is none of "envelope", "data"
7: push.events: "named" is none of "typed", "unnamed"
8: push.hosts[1]: "http://x" is no host: write a name without scheme and port, such as "push.internal"
8: push.hosts[2]: "*.example.com" is no host: write a name without scheme and port, such as "push.internal"
9: push.types[1]: "ssegate.gap" begins as ssegate's own events do: choose another name
9: push.types[2]: "a b" is no type: write up to 64 letters, without spaces and control characters
9: push.types[3]: "" is no type: write up to 64 letters, without spaces and control characters
10: push.length: 0 is too little: write 1 or more
11: push.ttl: 1ms is too little: write 1s or more
12: push.max_ttl: 0s is too little: write 1s or more
13: push.wait: 0s is too little: write 10ms or more
14: push.batch: 0 is too little: write 1 or more
15: push.fan_out: 0 is too little: write 1 or more
16: push.body_size: 0 is too little: write 1 or more
17: push.idle: 1ms is too little: write 1s or more, or 0 for none
18: push.receipt_ttl: 1ms is too little: write 1s or more
19: push.webhook: is no address: write it as https://host/path
20: push.webhook_after: 1ms is too little: write 1s or more
21: push.webhook_timeout: 0s is too little: write 1ms or more
22: push.webhook_attempts: 0 is too little: write 1 or more
23: push.webhook_retry: 0s is too little: write 1ms or more
24: push.heartbeat: 0 is no pace: write heartbeat_style = "off" if none are wanted
25: push.heartbeat_style: "lin" is none of "line", "comment", "event", "off"; did you mean "line"?
26: push.slow: "drop" is none of "log", "cut"
27: push.gap: "skip" is none of "say", "cut"
28: push.ring_events: 0 is too little: write 1 or more
29: push.ring_bytes: 1MiB has no room for one event of limits.event_size (2MiB): write that much or more
30: push.write_timeout: 1ms is too little: write 10ms or more, or 0 for none
31: push.max_age: 1ms is too little: write 1s or more, or 0 for none
32: push.retry: 1µs is too little: write 1ms or more, or 0 for none
34: limits.topics_per_connection: 0 is too little: write 1 or more
35: limits.messages_per_principal: must not be negative
36: limits.requests_per_ip: must not be negative
38: cluster.redis_wait: needs cluster.redis: its replicas are meant`)
}

func TestCORSMistakes(t *testing.T) {
	mistakes(t, one+`[cors]
origins = ["*", "https://app.example.com/", "app.example.com", "https://*.example.com", "https://*", "https://u@h", "https://a.*.b", "null", "ws://h", "HTTPS://App.Example.com:8443"]
credentials = true
headers = ["X-Ok", "a b", "*"]
max_age = "1ms"
`, `
5: cors.origins[2]: "https://app.example.com/" has something after the host, which no origin has: write "https://app.example.com"
5: cors.origins[3]: "app.example.com" is no origin: write "https://app.example.com", "https://*.example.com" for all sub-domains, or "*" for all
5: cors.origins[5]: "https://*" is no origin: write "https://app.example.com", "https://*.example.com" for all sub-domains, or "*" for all
5: cors.origins[6]: "https://***@h" is no origin: write "https://app.example.com", "https://*.example.com" for all sub-domains, or "*" for all
5: cors.origins[7]: "https://a.*.b" is no origin: write "https://app.example.com", "https://*.example.com" for all sub-domains, or "*" for all
5: cors.origins[9]: "ws://h" is no origin: write "https://app.example.com", "https://*.example.com" for all sub-domains, or "*" for all
6: cors.credentials: not with "*" among the origins: any page at all could then act in its visitor's name. Name the origins, such as ["https://app.example.com"]
7: cors.headers[2]: "a b" is no header's name
8: cors.max_age: 1ms is too little: write 1s or more, or 0 for none`)
	cfg, _, err := parse("ssegate.toml", one+"[cors]\norigins = [\"HTTPS://App.Example.com:8443\", \"https://*.Example.com\"]\n", nil, nil)
	if err != nil || strings.Join(cfg.CORS.Origins, " ") != "https://app.example.com:8443 https://*.example.com" {
		t.Error(cfg.CORS.Origins, err)
	}
}

func TestAuthMistakes(t *testing.T) {
	t.Chdir(t.TempDir())
	os.WriteFile("notes.pem", []byte("x"), 0o600)
	os.WriteFile("empty", []byte("\n"), 0o600)
	mistakes(t, one+"[auth]\n", `
4: auth: nobody could say who they are: write secret, public_keys or jwks for tokens, or [[auth.key]] for services`)
	mistakes(t, one+"[[route]]\nauth = \"require\"\n[[route]]\npath = \"/2\"\nauth = \"on\"\n", `
5: route[1].auth: needs [auth], which says how requests tell who they come from
8: route[2].auth: "on" is none of "pass", "require"`)
	mistakes(t, one+`[auth]
secret = "hunter2"
previous_secret = "base64:hunter2?"
public_keys = ["none.pem", "notes.pem"]
jwks = "http://id.example.com/keys"
jwks_refresh = "1ms"
issuers = ["", "a"]
audiences = [""]
leeway = "-1s"
cookie = "a=b"
query = "ticket"
[[auth.key]]
name = "a"
key = "hunter2"
follow = ["rooms/*", "user/*"]
[[auth.key]]
name = "a"
key = "0123456789abcdef"
key_sha256 = "ff"
publish = ["user/a*b"]
admin = true
[[auth.key]]
name = "b c"
key_sha256 = "ff"
[[auth.key]]
name = "d"
key = "0123456789abcdef"
admin = true
[[auth.key]]
name = "e"
key_sha256 = "9F9F5111F7B27A781F1F1DDDE5EBC2DD2B796BFC7365C9C28B548E564176929F"
admin = true
`, `
5: auth.secret: is too short: whoever has a token could find it by trying. Write 32 bytes or more, such as `+"`openssl rand -hex 32`"+` prints
6: auth.previous_secret: begins with base64: and goes on with something else
7: auth.public_keys[1]: "none.pem": the file cannot be read: no such file or directory
7: auth.public_keys[2]: "notes.pem": the file has no public key in PEM form
8: auth.jwks: "http://id.example.com/keys" can be changed by anyone on the way, who could then make tokens: write https://
9: auth.jwks_refresh: 1ms is too little: write 1s or more
10: auth.issuers[1]: is empty, which no token says: leave it out
11: auth.audiences[1]: is empty, which no token says: leave it out
12: auth.leeway: must not be negative
13: auth.cookie: "a=b" is no cookie's name
14: auth.query: "ticket" means something else already: choose another name, such as "access_token"
17: auth.key[1].key: is too short to be safe from guessing: write 16 characters or more, such as `+"`openssl rand -hex 32`"+` prints
18: auth.key[1].follow[1]: "rooms/*" is no pattern: write a topic such as "channel/news", its beginning and a star such as "channel/room.*" or "user/*", or "*" for all; kinds are user, channel, service and connection
20: auth.key[2].name: "a" is the name of auth.key[1] already
22: auth.key[2].key_sha256: stands beside key: keep one of the two
23: auth.key[2].publish[1]: "user/a*b" is no pattern: write a topic such as "channel/news", its beginning and a star such as "channel/room.*" or "user/*", or "*" for all; kinds are user, channel, service and connection
26: auth.key[3].name: "b c" cannot name a key: write up to 64 letters, digits, dots, dashes and underscores, the first a letter or digit
27: auth.key[3].key_sha256: is no SHA-256 in hex, which has 64 digits: write what `+"`printf %s \"$KEY\" | sha256sum`"+` prints
28: auth.key[4]: has the same key as auth.key[2]: nobody could tell the two apart
32: auth.key[5]: has the same key as auth.key[2]: nobody could tell the two apart`)
	mistakes(t, one+`[auth]
secret = "env:NOT_THERE"
previous_secret = "file:none"
[[auth.key]]
name = "a"
key = "env:EMPTY"
[[auth.key]]
name = "b"
key = "file:empty"
`, `
5: auth.secret: the environment has no "NOT_THERE", or it is empty
6: auth.previous_secret: the file "none" cannot be read
9: auth.key[1].key: the environment has no "EMPTY", or it is empty
12: auth.key[2].key: the file "empty" is empty`, "EMPTY=")
	mistakes(t, one+"[auth]\nsecret = 5\nkey = 5\n", `
5: auth.secret: must be a text, in quotes
6: auth.key: must be a list of tables: write [[auth.key]], with two brackets`)
	mistakes(t, one+"[auth]\njwks = \"https://u:hunter2@id.example.com/keys\"\n", `
5: auth.jwks: "https://***@id.example.com/keys" has a user name, which is not sent: a key set is public`)
	mistakes(t, one+"[auth]\njwks = \"id.example.com\"\n", `
5: auth.jwks: "id.example.com" is no address: write "https://host/.well-known/jwks.json"`)
	for _, line := range []string{"secret = hunter2", "key = hunter2", "key_sha256 = hunter2", "webhook = hunter2", "[[auth.key]]\nkey=\"hunter2"} {
		if _, _, err := parse("ssegate.toml", one+"[auth]\n"+line+"\n", nil, nil); err == nil || strings.Contains(err.Error(), "hunter2") && !strings.HasPrefix(line, "key_sha256") {
			t.Errorf("%s: %v", line, err)
		}
	}
}

func TestSecretsFromElsewhere(t *testing.T) {
	dir := t.TempDir()
	file := filepath.Join(dir, "key")
	if err := os.WriteFile(file, []byte("key-from-a-file-0\r\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	cfg, notices, err := parse("ssegate.toml", one+`[push]
webhook = "https://hook.example.com/x?token=hunter2"
webhook_secret = "env:HOOK"
[auth]
secret = "env:JWT"
[[auth.key]]
name = "a"
key = "file:`+file+`"
publish = ["*"]
`, []string{"HOOK=hook", "JWT=base64:MDEyMzQ1Njc4OWFiY2RlZjAxMjM0NTY3ODlhYmNkZWY="}, nil)
	if err != nil || len(notices) > 0 {
		t.Fatal(err, notices)
	}
	secret, err := cfg.Auth.Secret.Bytes()
	if err != nil || string(secret) != jwtSecret || cfg.Push.WebhookSecret != "hook" || cfg.Auth.Key[0].Key != "key-from-a-file-0" {
		t.Errorf("%q, %v, %#v", secret, err, string(cfg.Auth.Key[0].Key))
	}
	for _, form := range []string{"base64:-_-_", "base64:+/+/", "base64:AAA", "base64:AAA="} {
		if _, err := SecretText(form).Bytes(); err != nil {
			t.Errorf("%s: %v", form, err)
		}
	}
}

func TestPushNotices(t *testing.T) {
	f := func(text string, want ...string) {
		t.Helper()
		_, notices, err := parse("ssegate.toml", one+text, nil, nil)
		if err != nil {
			t.Fatal(err)
		}
		var got []string
		for _, n := range notices {
			got = append(got, strings.TrimPrefix(n.String(), "ssegate.toml:"))
		}
		if strings.Join(got, "\n") != strings.Join(want, "\n") {
			t.Errorf("got\n%s\nwant\n%s", strings.Join(got, "\n"), strings.Join(want, "\n"))
		}
	}
	f(`[push]
open = true
webhook_after = "1m"
heartbeat = "2m"
retry = "0s"
retry_to_all = true
heartbeat_data = "x"
ring_events = 20000
[cors]
credentials = true
`,
		"5: push.open: whoever reaches the listeners may follow every user's messages, since there is no [auth]",
		"6: push.webhook_after: has no effect without webhook",
		"7: push.heartbeat: 2m is long: many proxies and load balancers cut a connection that is silent for 60s",
		"9: push.retry_to_all: has no effect with retry = 0",
		"10: push.heartbeat_data: has no effect with heartbeat_style = \"line\"",
		"11: push.ring_events: 20000 events in memory are more than length (10000) keeps in the log",
		"13: cors.credentials: has no effect without origins")
	f(`[push]
open = true
hosts = ["push.internal"]
[auth]
jwks = "https://id.example.com/keys"
previous_secret = "`+jwtSecret+`"
[cors]
origins = ["*", "https://a.example"]
`,
		"5: push.open: has no effect beside [auth]",
		"6: push.hosts: has no effect beside [auth]",
		"8: auth.jwks: tokens that are meant for other services, but signed with the same keys, are accepted too: name the audiences",
		"9: auth.previous_secret: has no effect without secret",
		"11: cors.origins: \"*\" lets all origins in, the others need not be named")
	f(`[auth]
leeway = "1s"
[[auth.key]]
name = "a"
key = "0123456789abcdef"
[cluster]
redis = "redis://h"
redis_wait = 1
`,
		"5: auth.leeway: has no effect without secret, public_keys and jwks",
		"6: auth.key[1]: may do nothing: write publish = [\"user/*\"], follow or admin",
		"11: cluster.redis_wait: has no effect without [push]")
}

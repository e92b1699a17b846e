package gate

import (
	"os"
	"path/filepath"
	"strings"
	"testing"
)

// Whole files in, whole error texts out: this is also the best description of
// what is refused and how it is said. In want, "N:" stands for
// "  ssegate.toml:N:", and the line that counts the mistakes is left out.
func TestMistakes(t *testing.T) {
	f := func(text, want string) {
		t.Helper()
		_, _, err := parse("ssegate.toml", strings.TrimPrefix(text, "\n"), nil, nil)
		if err == nil {
			t.Errorf("no mistake in\n%s", text)
			return
		}
		_, got, _ := strings.Cut(err.Error(), "\n")
		got = strings.ReplaceAll("\n"+got, "\n  ssegate.toml:", "\n")
		if got != want {
			t.Errorf("got%s\nwant%s", got, want)
		}
	}

	// Not TOML at all: place, reason, and the line with a mark.
	f(`
[listen]
public = :8080
`, `
2:10: not TOML: expected value but found ':' instead
      public = :8080
               ^`)
	f(`
[listen
`, `
1:8: not TOML: expected '.' or ']' to end table name, but got '\n' instead
      [listen
             ^`)
	f(`
[listen]
	public = "a"
	public = "b"
`, `
3:2: not TOML: Key 'listen.public' has already been defined.
      	public = "b"
      	^`)
	// Where a password may be in the line, neither it nor the reason is shown.
	f(`
[cluster]
redis = redis://:hunter2@host
`, `
2:9: not TOML; a text stands in quotes, on one line: redis = "redis://host:6379/0"`)
	f(`
[cluster]
rabbitmq = "amqp://u:hunter2
`, `
2:29: not TOML; a text stands in quotes, on one line: redis = "redis://host:6379/0"`)

	// Unknown keys and tables.
	f(`
drain_timeout = "1s"
public = ":1"
heartbeat = "1s"
[listens]
x = 1
[zzz]
[cluster]
redist = ""
Heartbeat = "1s"
xyz = 1
"a b" = 1
[push]
payloads = 5
[auth]
secret = "0123456789abcdef0123456789abcdef"
[[auth.key]]
nam = "x"
[cors]
`+one+`
[[route]]
heartbeat_styl = "line"
timeout = "1s"
`, `
1: drain_timeout: no such key here: drain_timeout belongs in [node]
2: public: no such key here: public belongs in [listen] or [push]
3: heartbeat: no such key here: heartbeat belongs in [cluster] or [[route]] or [push]
4: listens: no such key: did you mean listen?
6: zzz: no such table: there are auth, cluster, cors, limits, listen, log, node, push, route, upstream
8: cluster.redist: no such key: did you mean redis?
9: cluster.Heartbeat: no such key: did you mean heartbeat?
10: cluster.xyz: no such key: there are check_every, consul, dead_after, heartbeat, prefix, rabbitmq, redirect, redis, redis_wait, service, tail_check
11: cluster."a b": no such key: there are check_every, consul, dead_after, heartbeat, prefix, rabbitmq, redirect, redis, redis_wait, service, tail_check
13: push.payloads: no such key: did you mean payload?
16: auth.key[1].name: is missing: logs and limits call the service by it
16: auth.key[1]: has no key: write key, or key_sha256 with what `+"`printf %s \"$KEY\" | sha256sum`"+` prints
17: auth.key[1].nam: no such key: did you mean name?
24: route[1].heartbeat_styl: no such key: did you mean heartbeat_style?
25: route[1].timeout: no such key: there are attach, attach_body_limit, attach_for, attach_key, attach_unavailable, auth, bind, detach_for, done, done_events, first_byte_heartbeat, gap, heartbeat, heartbeat_data, heartbeat_style, host, host_header, ids, log_length, log_ttl, max_age, methods, name, on_disconnect, path, retry, retry_to_all, ring_bytes, ring_events, slow, takeover, upstream, write_timeout`)

	// Values of the wrong sort.
	f(one+`max_fails = "3"
insecure = "yes"
[node]
id = 5
drain_timeout = 30
advertise = true
[listen]
trusted_proxies = "10.0.0.1"
max_header = "64 Kilo"
idle_timeout = "2 minutes"
read_header_timeout = true
[cluster]
redis = 6379
[limits]
memory = false
connections = 1.5
connections_per_ip = 5000000000
[[route]]
methods = ["GET", 5]
done = 1
`, `
4: upstream[1].max_fails: must be a whole number, without quotes
5: upstream[1].insecure: must be true or false, without quotes
7: node.id: must be a text: write "5", in quotes
8: node.drain_timeout: a duration needs its unit: write "30s" for seconds or "30ms" for milliseconds
9: node.advertise: must be a text, in quotes
11: listen.trusted_proxies: must be a list: write ["10.0.0.1"]
12: listen.max_header: "64 Kilo" is not a size: write a number and a unit, such as "64KiB" or "256MiB"
13: listen.idle_timeout: "2 minutes" is no duration: write a number and its unit, such as "500ms", "15s" or "2m"
14: listen.read_header_timeout: must be a duration in quotes, such as "15s"
16: cluster.redis: must be a URL in quotes
18: limits.memory: must be a number of bytes, or a size in quotes such as "64KiB"
19: limits.connections: must be a whole number, without quotes
20: limits.connections_per_ip: is too large: write a whole number from 0 to 2147483647
22: route[1].methods[2]: must be a text, in quotes
23: route[1].done: must be a list of texts: ["…", "…"]`)
	f(`
listen = ":8080"
upstream = "http://h:1"
route = ["/"]
`, `
1: listen: must be a table: write [listen] and its keys below
2: upstream: must be a list of tables: write [[upstream]], with two brackets
3: route: must be tables: write [[route]] and the keys below, once for each`)
	f(`
[upstream]
name = "a"
`, `
1: upstream: must be a list of tables: write [[upstream]], with two brackets`)

	// [node] and [listen].
	f(one+`[node]
id = "a b"
advertise = "edge-1.example.com"
drain_timeout = "-1s"
[listen]
public = "8080"
internal = "0.0.0.0:8089"
trusted_proxies = ["10.0.0.0/8", "proxy.local", "10.0.0.0/33"]
read_header_timeout = "0s"
max_header = 100
`, `
5: node.id: "a b" cannot name a node: write up to 64 letters, digits, dots, dashes and underscores, the first a letter or digit
6: node.advertise: "edge-1.example.com" is no address: write "http://host:port" or "https://host:port"
7: node.drain_timeout: must not be negative
9: listen.public: "8080" is no address to listen on: write "host:port", or ":port" for all interfaces
10: listen.internal: "0.0.0.0:8089" can be reached from other machines, and whoever reaches it may see and end connections: write "127.0.0.1:8089", or add [auth]
11: listen.trusted_proxies[2]: "proxy.local" is no address: write one such as "10.0.0.7" or a network such as "10.0.0.0/8"
11: listen.trusted_proxies[3]: "10.0.0.0/33" is no address: write one such as "10.0.0.7" or a network such as "10.0.0.0/8"
12: listen.read_header_timeout: 0s is too little: write 10ms or more
13: listen.max_header: 100 is too little: write 4KiB or more`)
	f(one+`[node]
advertise = "https://edge.example.com/base"
[listen]
public = "127.0.0.1:99999"
internal = ":8089"
`, `
5: node.advertise: "https://edge.example.com/base" has something after the host, but a request keeps its own path: write "https://edge.example.com"
7: listen.public: "127.0.0.1:99999" is no address to listen on: write "host:port", or ":port" for all interfaces
8: listen.internal: ":8089" can be reached from other machines, and whoever reaches it may see and end connections: write "127.0.0.1:8089", or add [auth]`)
	f(one+`[listen]
public = "127.0.0.1:8089"
`, `
4: listen.internal: must not be the address of listen.public`)

	// [cluster]
	f(one+`[cluster]
rabbitmq = "amqp://h"
redirect = true
redis_wait = 1
prefix = "my gate"
service = "a/b"
heartbeat = "20s"
check_every = "1ms"
`, `
4: cluster.dead_after: must be at least twice cluster.heartbeat (20s), or one late heartbeat makes a node dead: write "40s" or more
5: cluster.rabbitmq: needs cluster.redis: RabbitMQ carries events to other nodes, but what it loses is read from the log in Redis, and who owns which stream stands there too
6: cluster.redirect: needs cluster.redis: without it no node knows how many connections another has
7: cluster.redis_wait: needs cluster.redis: its replicas are meant
8: cluster.prefix: "my gate" cannot begin names in Redis, RabbitMQ and Consul: write up to 64 letters, digits, dots, dashes and underscores, the first a letter or digit
9: cluster.service: "a/b" cannot name a Consul service: write up to 64 letters, digits, dots, dashes and underscores, the first a letter or digit
11: cluster.check_every: 1ms is too little: write 10ms or more`)
	for url, want := range map[string]string{
		"redis://:p#w@host":                      "cannot be read as a URL: write it as redis://host:6379/0, with #, /, ?, @ and other special characters of a password percent-encoded (# is %23)",
		"redis://u:100%@host":                    "cannot be read as a URL: write it as redis://host:6379/0, with #, /, ?, @ and other special characters of a password percent-encoded (# is %23)",
		"host:6379":                              "must begin with redis:// or rediss://: redis://host:6379/0",
		"http://u:pw@host":                       "must begin with redis:// or rediss://: redis://host:6379/0",
		"redis://":                               "needs a host, and a port of 1 to 65535 if any: redis://host:6379/0",
		"redis://u:pw@host:0":                    "needs a host, and a port of 1 to 65535 if any: redis://host:6379/0",
		"redis://u:pw@host/db":                   "has a path that is no database number: write redis://host:6379/0",
		"redis://u:pw@host/1?addr=b:1":           "names database 1, but a Redis Cluster has database 0 alone",
		"redis://u:pw@host?addr=b":               "has an addr that is not host:port: write &addr=host2:6379",
		"redis://u:pw@host?master_name=":         "has an empty master_name: write the name that the sentinels know, as in ?master_name=mymaster",
		"redis://u:pw@host?master_name=m&addr=b": "has an addr that is not host:port: write &addr=host2:6379",
		"redis://u:pw@host?a=%zz":                "has a query that cannot be read: write ?name=value&name=value",
	} {
		f(one+"[cluster]\nredis = '"+url+"'\n", "\n5: cluster.redis: "+want)
	}
	f(one+`[cluster]
redis = "rediss://u:p%23w@host:6380/2?dial_timeout=3&master_name=m&addr=b:26379"
rabbitmq = "redis://host"
consul = "http://host:8500/v1"
`, `
6: cluster.rabbitmq: must begin with amqp:// or amqps://: amqp://user:password@host:5672/
7: cluster.consul: has a path, where only the agent's address belongs: http://host:8500`)

	// [limits] and [log]
	f(one+`[cluster]
redis = "redis://host"
[limits]
connections = -1
event_size = "8MiB"
body_size = -5
memory = "1KiB"
[log]
level = "inf"
format = "text"
`, `
7: limits.connections: must not be negative
8: limits.event_size: 8MiB is more than the 8128KiB that one node can send to another
9: limits.body_size: must not be negative
10: limits.memory: 1KiB is too little: write 1MiB or more
12: log.level: "inf" is none of "debug", "info", "warn", "error"; did you mean "info"?
13: log.format: "text" is none of "json", "console"`)
	f(one+`[limits]
event_size = 5
`, `
5: limits.event_size: 5 is too little: write 1KiB or more`)

	// [[upstream]]
	f(`
[[upstream]]
targets = ["http://h:1", "https://h:1/", "http://h:1/", "h:1", "http://u:pw@h:2", "http://h:3/v1", "ws://h:4", "http://h:99999", "http://h:5?x"]
[[upstream]]
name = "b"
targets = ["http://h:1"]
service = "b"
[[upstream]]
name = "b"
[[upstream]]
name = "a/b"
service = "b"
[[upstream]]
name = "c"
targets = []
balance = "roundrobin"
connect_timeout = "0s"
header_timeout = "-1s"
idle_timeout = "1us"
fail_for = "0s"
max_fails = -1
health_path = "health"
host_header = "http://x"
[[route]]
upstream = "b"
`, `
1: upstream[1].name: is missing: routes call the upstream by it
2: upstream[1].targets[3]: "http://h:1/" is in the list twice
2: upstream[1].targets[4]: "h:1" is no address: write "http://host:port" or "https://host:port"
2: upstream[1].targets[5]: "http://***@h:2" has a user name: a request carries its own credentials, write "http://h:2"
2: upstream[1].targets[6]: "http://h:3/v1" has something after the host, but a request keeps its own path: write "http://h:3"
2: upstream[1].targets[7]: "ws://h:4" is no address: write "http://host:port" or "https://host:port"
2: upstream[1].targets[8]: "http://h:99999" is no address: write "http://host:port" or "https://host:port"
2: upstream[1].targets[9]: "http://h:5?x" has something after the host, but a request keeps its own path: write "http://h:5"
6: upstream[2].service: stands beside targets: keep one of the two
7: upstream[3]: has neither targets nor service: write targets = ["http://127.0.0.1:8000"], or service = "name" for a Consul service
8: upstream[3].name: "b" is the name of upstream[2] already
10: upstream[4].name: "a/b" cannot name an upstream: write up to 64 letters, digits, dots, dashes and underscores, the first a letter or digit
11: upstream[4].service: needs [cluster] consul, which is asked where the service is
14: upstream[5].targets: is empty: write targets = ["http://127.0.0.1:8000"]
15: upstream[5].balance: "roundrobin" is none of "round-robin", "least-connections"; did you mean "round-robin"?
16: upstream[5].connect_timeout: 0s is too little: write 1ms or more
17: upstream[5].header_timeout: must not be negative
18: upstream[5].idle_timeout: 1µs is too little: write 1ms or more, or 0 for none
19: upstream[5].fail_for: 0s is too little: write 1ms or more
20: upstream[5].max_fails: must not be negative
21: upstream[5].health_path: "health" is no path: write one such as "/health"
22: upstream[5].host_header: "http://x" is no host: write "client" (what the client asked for), "upstream" (the target's own) or a name such as "api.example.com"`)
	notPEM := filepath.Join(t.TempDir(), "x.pem")
	if err := os.WriteFile(notPEM, []byte("x"), 0o600); err != nil {
		t.Fatal(err)
	}
	t.Chdir(filepath.Dir(notPEM))
	f(`
[[upstream]]
name = "a"
targets = ["https://h"]
ca = "none.pem"
`, `
4: upstream[1].ca: "none.pem": the file cannot be read: no such file or directory`)

	// [[route]]
	f(strings.ReplaceAll(one, `"a"`, `"chat"`)+strings.ReplaceAll(one, `"a"`, `"search"`), `
 route: there is none, and with 2 upstreams it is not clear where requests go: write [[route]] with path and upstream`)
	f(strings.ReplaceAll(one, `"a"`, `"chat"`)+strings.ReplaceAll(one, `"a"`, `"search"`)+`[[route]]
path = "/1"
[[route]]
path = "/2"
upstream = "chatt"
[[route]]
path = "/3"
upstream = "database"
[[route]]
path = "/4"
upstream = "chat"
name = "x"
[[route]]
path = "/5"
upstream = "chat"
name = "x"
[[route]]
name = "/1"
path = "/6"
upstream = "chat"
`, `
7: route[1].upstream: is missing: write one of "chat", "search"
11: route[2].upstream: there is no upstream "chatt": did you mean "chat"?
14: route[3].upstream: there is no upstream "database", only "chat", "search"
22: route[5].name: "x" is what route[4] is called already
24: route[6].name: "/1" is what route[1] is called already`)
	f(one+`[[route]]
path = "v1"
host = "http://x"
methods = ["get", "GE T"]
host_header = "a b"
[[route]]
path = "/a b?c"
host = "*.Example.com"
name = 'a"b'
[[route]]
path = "/a/../b"
[[route]]
path = "/_ssegate/streams"
`, `
5: route[1].path: "v1" is no path: begin with / and write it as it stands in a request, without ? and #, other characters percent-encoded
6: route[1].host: "http://x" is no host: write a name without scheme and port, such as "api.example.com" or "*.example.com"
7: route[1].methods[1]: methods are told apart by case: write "GET"
7: route[1].methods[2]: "GE T" is no method: write methods such as "GET" and "POST"
8: route[1].host_header: "a b" is no host: write "client" (what the client asked for), "upstream" (the target's own) or a name such as "api.example.com"
10: route[2].path: "/a b?c" is no path: begin with / and write it as it stands in a request, without ? and #, other characters percent-encoded
12: route[2].name: "a\"b" cannot name a route: write it without quotes and control characters
14: route[3].path: "/a/../b" has . or .. in it, which no client sends
16: route[4].path: what is below /_ssegate is answered by ssegate itself`)
	f(one+`[[route]]
path = "/a"
[[route]]
path = "/a"
host = "X.example.com"
[[route]]
path = "/a"
[[route]]
path = "/a"
host = "x.example.com"
[[route]]
path = "/b"
methods = ["GET", "POST"]
[[route]]
path = "/b"
methods = ["PUT", "POST"]
[[route]]
path = "/%61"
`, `
9: route[3]: matches the same requests as route[1]: give them different paths, hosts or methods
11: route[4]: matches the same requests as route[2]: give them different paths, hosts or methods
17: route[6]: matches POST as route[5] does: give them different paths, hosts or methods
20: route[7]: matches the same requests as route[1]: give them different paths, hosts or methods`)
	f(one+`[[route]]
attach = "key"
[[route]]
path = "/2"
attach_key = "header:Idempotency-Key"
[[route]]
path = "/3"
attach = "key"
attach_key = "Idempotency-Key"
[[route]]
path = "/4"
attach = "keys"
[[route]]
path = "/5"
attach = "key"
attach_key = "header:Idempotency Key"
attach_for = "-1s"
attach_unavailable = "wait"
attach_body_limit = 0
`, `
4: route[1].attach_key: is missing: with attach = "key" write where the key is, such as attach_key = "header:Idempotency-Key"
8: route[2].attach_key: is not used with attach = "id": write attach = "key", or leave attach_key out
12: route[3].attach_key: "Idempotency-Key" says not where the key is: write "header:Name", "query:name" or "json:member"
15: route[4].attach: "keys" is none of "id", "key", "content", "off"; did you mean "key"?
19: route[5].attach_key: "header:Idempotency Key" says not where the key is: write "header:Name", "query:name" or "json:member"
20: route[5].attach_for: must not be negative
21: route[5].attach_unavailable: "wait" is none of "run", "refuse"
22: route[5].attach_body_limit: 0 is too little: write 1 or more`)
	f(one+`[[route]]
on_disconnect = "stay"
detach_for = "0s"
heartbeat = "0s"
heartbeat_style = "lines"
retry = "1us"
done = ["", "a\nb"]
done_events = [""]
ids = "mine"
takeover = "lastid"
bind = ["a=b"]
slow = "drop"
gap = "skip"
log_length = 0
log_ttl = "1ms"
ring_events = 0
ring_bytes = "1MiB"
write_timeout = "1ms"
max_age = "1ms"
first_byte_heartbeat = "1ms"
[[route]]
path = "/2"
detach_for = "0s"
heartbeat_style = "off"
first_byte_heartbeat = "5s"
ring_bytes = "1GiB"
`, `
5: route[1].on_disconnect: "stay" is none of "detach", "cancel"
6: route[1].detach_for: 0s is too little: write 1ms or more
7: route[1].heartbeat: 0 is no pace: write heartbeat_style = "off" if none are wanted
8: route[1].heartbeat_style: "lines" is none of "line", "comment", "event", "off"; did you mean "line"?
9: route[1].retry: 1µs is too little: write 1ms or more, or 0 for none
10: route[1].done[1]: is empty: write what the last event has, or done = [] for no marker
10: route[1].done[2]: "a\nb" has a line end in it, which no event's data line has
11: route[1].done_events[1]: is empty: write what the last event has, or done_events = [] for no marker
12: route[1].ids: "mine" is none of "auto", "edge", "upstream", "off"
13: route[1].takeover: "lastid" is none of "", "last-event-id"
14: route[1].bind[1]: "a=b" is no cookie's name
15: route[1].slow: "drop" is none of "log", "cut"
16: route[1].gap: "skip" is none of "say", "cut"
17: route[1].log_length: 0 is too little: write 1 or more
18: route[1].log_ttl: 1ms is too little: write 1s or more
19: route[1].ring_events: 0 is too little: write 1 or more
20: route[1].ring_bytes: 1MiB has no room for one event of limits.event_size (2MiB): write that much or more
21: route[1].write_timeout: 1ms is too little: write 10ms or more, or 0 for none
22: route[1].max_age: 1ms is too little: write 1s or more, or 0 for none
23: route[1].first_byte_heartbeat: 1ms is too little: write 10ms or more, or 0 for none
26: route[2].detach_for: 0 leaves no time to come back: write on_disconnect = "cancel" if that is meant
28: route[2].first_byte_heartbeat: needs a heartbeat_style other than "off"
29: route[2].ring_bytes: 1GiB for one stream is more than limits.memory (256MiB) has for all`)
	f(one+`[[route]]
log_length = 9223372036854775807
ring_events = 2147483648
[limits]
connections = 9223372036854775807
messages_per_principal = -9223372036854775808
[push]
length = -1
batch = 99999999999
ring_events = 2147483647
open = true
`, `
5: route[1].log_length: is too large: write a whole number from 1 to 2147483647
6: route[1].ring_events: is too large: write a whole number from 1 to 2147483647
8: limits.connections: is too large: write a whole number from 0 to 2147483647
9: limits.messages_per_principal: must not be negative
11: push.length: must not be negative
12: push.batch: is too large: write a whole number from 1 to 2147483647`)
}

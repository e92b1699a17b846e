package gate

import (
	"crypto/x509"
	"errors"
	"fmt"
	"os"
	"regexp"
	"slices"
	"strings"
	"time"

	"ssegate/proxy"
)

func (l *loader) checkUpstreams(cfg *Config) {
	alone := cfg.Push.On && len(cfg.Route) == 0 // nothing but push
	if len(cfg.Upstream) == 0 && !alone && !l.bad["upstream"] {
		l.problem("upstream", "there is none, so there is nothing to stand in front of: write [[upstream]] with name and targets, or start with -upstream http://127.0.0.1:8000")
	}
	first := map[string]int{}
	for i := range cfg.Upstream {
		u, key := &cfg.Upstream[i], item("upstream", i+1)
		sub := func(name string) string { return join(key, name) }
		switch {
		case u.Name == "":
			l.problem(sub("name"), "is missing: routes call the upstream by it")
		case !goodName.MatchString(u.Name):
			l.problem(sub("name"), "%s cannot name an upstream: %s", shown(u.Name), nameRule)
		case first[u.Name] > 0:
			l.problem(sub("name"), "%s is the name of %s already", shown(u.Name), item("upstream", first[u.Name]))
		default:
			first[u.Name] = i + 1
		}
		l.checkTargets(cfg, u, key)
		if u.HostHeader != "client" && u.HostHeader != "upstream" {
			l.checkHostHeader(sub("host_header"), u.HostHeader)
		}
		if u.HealthPath != "" && !goodPath(u.HealthPath, true) {
			l.problem(sub("health_path"), "%s is no path: write one such as \"/health\"", shown(u.HealthPath))
		}
		idle := func(name string, is bool, why string) { l.idle(*u, DefaultUpstream(), key, name, is, why) }
		idle("health_every", u.HealthPath == "", "without health_path")
		idle("health_timeout", u.HealthPath == "", "without health_path")
		idle("fail_for", u.MaxFails == 0, "with max_fails = 0")
		l.checkTLS(u, key)
		if first[u.Name] == i+1 && !slices.ContainsFunc(cfg.Route, func(r Route) bool { return r.Upstream == u.Name }) && len(cfg.Upstream) > 1 {
			l.notice(key, "no route leads to %s", shown(u.Name))
		}
	}
}

func (l *loader) checkTargets(cfg *Config, u *Upstream, key string) {
	targets, service := join(key, "targets"), join(key, "service")
	switch {
	case len(u.Targets) > 0 && u.Service != "":
		l.problem(service, "stands beside targets: keep one of the two")
	case len(u.Targets) == 0 && u.Service == "" && !l.bad[targets] && !l.bad[service]:
		if l.given(targets) {
			l.problem(targets, "is empty: write targets = [\"http://127.0.0.1:8000\"]")
		} else {
			l.problem(key, "has neither targets nor service: write targets = [\"http://127.0.0.1:8000\"], or service = \"name\" for a Consul service")
		}
	case u.Service != "" && cfg.Cluster.Consul == "" && !l.bad["cluster.consul"]:
		l.problem(service, "needs [cluster] consul, which is asked where the service is")
	}
	for j, t := range u.Targets {
		at := item(targets, j+1)
		if parsed := l.checkOrigin(at, t); parsed != nil {
			u.Targets[j] = parsed.Scheme + "://" + parsed.Host // without a last slash
			if slices.Contains(u.Targets[:j], u.Targets[j]) {
				l.problem(at, "%s is in the list twice", shown(t))
			}
		}
	}
}

func (l *loader) checkTLS(u *Upstream, key string) {
	plain := u.Service == "" && len(u.Targets) > 0 &&
		!slices.ContainsFunc(u.Targets, func(t string) bool { return strings.HasPrefix(t, "https://") })
	for _, name := range []string{"ca", "server_name", "insecure"} {
		l.idle(*u, DefaultUpstream(), key, name, plain, "without a target that begins with https://")
	}
	if u.Insecure && !plain {
		l.notice(join(key, "insecure"), "anyone on the way to the upstream can read and change what passes")
	}
	l.idle(*u, DefaultUpstream(), key, "ca", u.Insecure && !plain, "with insecure = true")
	if u.CA != "" {
		if _, err := u.Roots(); err != nil {
			l.problem(join(key, "ca"), "%s: %v", shown(u.CA), err)
		}
	}
}

// Roots reads the certificates of CA. Without one it returns nil, which means
// the system's.
func (u Upstream) Roots() (*x509.CertPool, error) {
	if u.CA == "" {
		return nil, nil
	}
	pem, err := os.ReadFile(u.CA)
	if pe, ok := errors.AsType[*os.PathError](err); ok {
		err = pe.Err
	}
	if err != nil {
		return nil, fmt.Errorf("the file cannot be read: %w", err)
	}
	pool := x509.NewCertPool()
	if !pool.AppendCertsFromPEM(pem) {
		return nil, errors.New("the file has no certificate in PEM form")
	}
	return pool, nil
}

func (l *loader) checkRoutes(cfg *Config) {
	if len(cfg.Route) == 0 && len(cfg.Upstream) > 1 && !l.bad["route"] {
		l.problem("route", "there is none, and with %d upstreams it is not clear where requests go: write [[route]] with path and upstream", len(cfg.Upstream))
	}
	var names []string
	for _, u := range cfg.Upstream {
		if u.Name != "" {
			names = append(names, u.Name)
		}
	}
	called := map[string]int{}
	for i := range cfg.Route {
		r, key := &cfg.Route[i], item("route", i+1)
		l.checkMatch(r, key)
		l.checkTwins(cfg.Route, i)
		l.checkRouteUpstream(r, key, names)
		label := r.Label()
		switch before := called[label]; {
		case strings.ContainsFunc(r.Name, func(c rune) bool { return c < ' ' || c == '"' }):
			l.problem(join(key, "name"), "%s cannot name a route: write it without quotes and control characters", shown(r.Name))
		case before > 0 && (r.Name != "" || cfg.Route[before-1].Name != ""):
			l.problem(join(key, "name"), "%s is what %s is called already", shown(label), item("route", before))
		}
		called[label] = i + 1
		l.checkAttach(r, key)
		l.checkStream(r, key, cfg.Cluster.Redis == "")
		l.checkKeeping(cfg, r, key)
	}
}

var (
	goodHost   = regexp.MustCompile(`^(\*\.)?[a-z0-9_]([a-z0-9_.-]*[a-z0-9_])?$|^\[[0-9a-f:.]+\]$`)
	goodToken  = regexp.MustCompile("^[A-Za-z0-9!#$%&'*+.^_`|~-]+$")
	goodHeader = regexp.MustCompile(`^[A-Za-z0-9._-]+(:[0-9]+)?$|^\[[0-9A-Fa-f:.]+\](:[0-9]+)?$`)
)

// goodPath reports whether s can begin the path of a request as it stands on
// the wire.
func goodPath(s string, query bool) bool {
	bad := "#\\ "
	if !query {
		bad += "?"
	}
	return strings.HasPrefix(s, "/") && !strings.ContainsAny(s, bad) && !strings.ContainsFunc(s, func(c rune) bool { return c < '!' || c > '~' })
}

func (l *loader) checkMatch(r *Route, key string) {
	at := join(key, "host")
	if lower := strings.ToLower(r.Host); r.Host != "" {
		if goodHost.MatchString(lower) {
			r.Host = lower
		} else {
			l.problem(at, "%s is no host: write a name without scheme and port, such as \"api.example.com\" or \"*.example.com\"", shown(r.Host))
		}
	}
	switch at := join(key, "path"); {
	case !goodPath(r.Path, false):
		l.problem(at, "%s is no path: begin with / and write it as it stands in a request, without ? and #, other characters percent-encoded", shown(r.Path))
	case slices.ContainsFunc(strings.Split(r.Path, "/"), func(s string) bool { return s == "." || s == ".." }):
		l.problem(at, "%s has . or .. in it, which no client sends", shown(r.Path))
	case r.Path == "/_ssegate" || strings.HasPrefix(r.Path, "/_ssegate/"):
		l.problem(at, "what is below /_ssegate is answered by ssegate itself")
	}
	for i, m := range r.Methods {
		switch at := item(join(key, "methods"), i+1); {
		case !goodToken.MatchString(m):
			l.problem(at, "%s is no method: write methods such as \"GET\" and \"POST\"", shown(m))
		case m != strings.ToUpper(m):
			l.problem(at, "methods are told apart by case: write %q", strings.ToUpper(m))
		}
	}
	if r.HostHeader != "" && r.HostHeader != "client" && r.HostHeader != "upstream" {
		l.checkHostHeader(join(key, "host_header"), r.HostHeader)
	}
}

func (l *loader) checkHostHeader(key, s string) {
	if !goodHeader.MatchString(s) {
		l.problem(key, "%s is no host: write \"client\" (what the client asked for), \"upstream\" (the target's own) or a name such as \"api.example.com\"", shown(s))
	}
}

// checkTwins refuses a second route for the same requests.
func (l *loader) checkTwins(routes []Route, i int) {
	r, key := routes[i], item("route", i+1)
	for j, before := range routes[:i] {
		if r.Host != before.Host || proxy.PlainPath(r.Path) != proxy.PlainPath(before.Path) {
			continue
		}
		switch {
		case len(r.Methods) == 0 && len(before.Methods) == 0:
			l.problem(key, "matches the same requests as %s: give them different paths, hosts or methods", item("route", j+1))
			return
		default:
			for _, m := range r.Methods {
				if slices.Contains(before.Methods, m) {
					l.problem(key, "matches %s as %s does: give them different paths, hosts or methods", m, item("route", j+1))
					return
				}
			}
		}
	}
}

func (l *loader) checkRouteUpstream(r *Route, key string, names []string) {
	at := join(key, "upstream")
	switch {
	case len(names) == 0 || slices.Contains(names, r.Upstream):
	case r.Upstream == "":
		l.problem(at, "is missing: write one of %s", strings.Join(quoteAll(names), ", "))
	case nearest(r.Upstream, names) != "":
		l.problem(at, "there is no upstream %s: did you mean %q?", shown(r.Upstream), nearest(r.Upstream, names))
	default:
		l.problem(at, "there is no upstream %s, only %s", shown(r.Upstream), strings.Join(quoteAll(names), ", "))
	}
}

func (l *loader) checkAttach(r *Route, key string) {
	at := join(key, "attach_key")
	in, name, _ := strings.Cut(r.AttachKey, ":")
	switch {
	case r.Attach == "key" && r.AttachKey == "":
		l.problem(at, "is missing: with attach = \"key\" write where the key is, such as attach_key = \"header:Idempotency-Key\"")
	case r.AttachKey == "":
	case in != "header" && in != "query" && in != "json" || name == "" || in == "header" && !goodToken.MatchString(name):
		l.problem(at, "%s says not where the key is: write \"header:Name\", \"query:name\" or \"json:member\"", shown(r.AttachKey))
	case r.Attach != "key":
		l.problem(at, "is not used with attach = %q: write attach = \"key\", or leave attach_key out", r.Attach)
	}
	joins := r.Attach == "key" || r.Attach == "content"
	for _, name := range []string{"attach_for", "attach_unavailable"} {
		l.idle(*r, DefaultRoute(), key, name, !joins, fmt.Sprintf("with attach = %q", r.Attach))
	}
	l.idle(*r, DefaultRoute(), key, "attach_body_limit", r.Attach == "off", `with attach = "off"`)
}

func (l *loader) checkStream(r *Route, key string, single bool) {
	sub := func(name string) string { return join(key, name) }
	idle := func(name string, is bool, why string) { l.idle(*r, DefaultRoute(), key, name, is, why) }
	idle("detach_for", r.OnDisconnect == "cancel", `with on_disconnect = "cancel"`)
	if r.DetachFor == 0 && r.OnDisconnect == "detach" {
		l.problem(sub("detach_for"), "0 leaves no time to come back: write on_disconnect = \"cancel\" if that is meant")
	}

	silent := r.HeartbeatStyle == "off"
	if r.Heartbeat == 0 && !silent {
		l.problem(sub("heartbeat"), "0 is no pace: write heartbeat_style = \"off\" if none are wanted")
	}
	if r.Heartbeat > time.Minute && !silent {
		l.notice(sub("heartbeat"), "%s is long: many proxies and load balancers cut a connection that is silent for 60s", brief(r.Heartbeat))
	}
	idle("heartbeat", silent, `with heartbeat_style = "off"`)
	idle("heartbeat_data", r.HeartbeatStyle != "event", fmt.Sprintf("with heartbeat_style = %q", r.HeartbeatStyle))
	if silent && r.FirstByteHeartbeat > 0 {
		l.problem(sub("first_byte_heartbeat"), "needs a heartbeat_style other than \"off\"")
	}

	idle("retry_to_all", r.Retry == 0, "with retry = 0")
	for _, list := range []struct {
		key   string
		texts []string
	}{{"done", r.Done}, {"done_events", r.DoneEvents}} {
		for i, s := range list.texts {
			switch at := item(sub(list.key), i+1); {
			case s == "":
				l.problem(at, "is empty: write what the last event has, or %s = [] for no marker", list.key)
			case strings.ContainsAny(s, "\r\n\x00"):
				l.problem(at, "%s has a line end in it, which no event's %s has", shown(s), map[string]string{"done": "data line", "done_events": "name"}[list.key])
			}
		}
	}
	for i, s := range r.Bind {
		if !goodToken.MatchString(s) {
			l.problem(item(sub("bind"), i+1), "%s is no cookie's name", shown(s))
		}
	}
	idle("takeover", single, "without cluster.redis: there is no other node")
	if r.Takeover != "" && r.IDs != "auto" && r.IDs != "upstream" {
		l.notice(sub("takeover"), "works from the ids that the upstream gives, which clients do not see with ids = %q", r.IDs)
	}
}

// checkKeeping looks at what is kept of a stream, and for how long.
func (l *loader) checkKeeping(cfg *Config, r *Route, key string) {
	l.checkRing(key, "log_length", cfg, r.RingEvents, r.RingBytes, r.LogLength)
}

// checkRing holds what is kept in memory of one stream against what is kept of
// it in all (under the key lengthKey of the same table) and of all streams.
func (l *loader) checkRing(key, lengthKey string, cfg *Config, events int, bytes Size, length int) {
	sub := func(name string) string { return join(key, name) }
	if bytes < cfg.Limits.EventSize && !l.bad["limits.event_size"] {
		l.problem(sub("ring_bytes"), "%s has no room for one event of limits.event_size (%s): write that much or more", bytes, cfg.Limits.EventSize)
	}
	if bytes > cfg.Limits.Memory && !l.bad["limits.memory"] {
		l.problem(sub("ring_bytes"), "%s for one stream is more than limits.memory (%s) has for all", bytes, cfg.Limits.Memory)
	}
	if events > length && length > 0 {
		l.notice(sub("ring_events"), "%d events in memory are more than %s (%d) keeps in the log", events, lengthKey, length)
	}
}

func quoteAll(words []string) []string {
	quoted := make([]string, len(words))
	for i, w := range words {
		quoted[i] = fmt.Sprintf("%q", w)
	}
	return quoted
}

package gate

import (
	"cmp"
	"fmt"
	"math"
	"net"
	"net/netip"
	"net/url"
	"reflect"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"time"

	"ssegate/bus"
)

// check looks at the whole configuration after all sources had their say. The
// checks that know the most come first, since each key gets one problem only.
func (l *loader) check(cfg *Config) {
	l.checkNode(cfg.Node)
	l.checkListen(cfg)
	l.checkCluster(cfg)
	l.checkLimits(cfg)
	l.checkUpstreams(cfg)
	l.checkRoutes(cfg)
	l.checkAuth(cfg)
	l.checkPush(cfg)
	l.checkCORS(&cfg.CORS)
	l.checkTags(reflect.ValueOf(*cfg), "")
}

// A name stands in Redis keys, queue names, metrics and URLs.
var goodName = regexp.MustCompile(`^[A-Za-z0-9][A-Za-z0-9._-]{0,63}$`)

const nameRule = "write up to 64 letters, digits, dots, dashes and underscores, the first a letter or digit"

func (l *loader) checkNode(n Node) {
	if n.ID != "" && !goodName.MatchString(n.ID) {
		l.problem("node.id", "%s cannot name a node: %s", shown(n.ID), nameRule)
	}
	if n.Advertise != "" {
		l.checkOrigin("node.advertise", n.Advertise)
	}
}

func (l *loader) checkListen(cfg *Config) {
	c := cfg.Listen
	l.checkAddress("listen.public", c.Public)
	if c.Internal != "" {
		host := l.checkAddress("listen.internal", c.Internal)
		if _, port, err := net.SplitHostPort(c.Internal); err == nil && !loopback(host) && !cfg.Auth.On && !(cfg.Push.On && cfg.Push.Open) {
			l.problem("listen.internal", "%s can be reached from other machines, and whoever reaches it may see and end connections: write \"127.0.0.1:%s\", or add [auth]", shown(c.Internal), port)
		}
	}
	if c.Public == c.Internal && !strings.HasSuffix(c.Public, ":0") {
		l.problem("listen.internal", "must not be the address of listen.public")
	}
	for i, p := range c.TrustedProxies {
		if _, err := parseNet(p); err != nil {
			l.problem(item("listen.trusted_proxies", i+1), "%s is no address: write one such as \"10.0.0.7\" or a network such as \"10.0.0.0/8\"", shown(p))
		}
	}
}

// checkAddress looks at host:port of a listener and returns the host.
func (l *loader) checkAddress(key, addr string) (host string) {
	host, port, err := net.SplitHostPort(addr)
	n, perr := strconv.Atoi(port)
	if err != nil || perr != nil || n < 0 || n > 65535 || strings.ContainsAny(host, "/ @") {
		l.problem(key, "%s is no address to listen on: write \"host:port\", or \":port\" for all interfaces", shown(addr))
	}
	return host
}

func loopback(host string) bool {
	ip, err := netip.ParseAddr(host)
	return host == "localhost" || err == nil && ip.IsLoopback()
}

func parseNet(s string) (netip.Prefix, error) {
	if ip, err := netip.ParseAddr(s); err == nil {
		return ip.WithZone("").Prefix(ip.BitLen())
	}
	p, err := netip.ParsePrefix(s)
	return p.Masked(), err
}

// TrustedNets are the TrustedProxies as networks; a plain address is a network
// of one. Entries that Load would refuse are left out.
func (c Listen) TrustedNets() (nets []netip.Prefix) {
	for _, s := range c.TrustedProxies {
		if p, err := parseNet(s); err == nil {
			nets = append(nets, p)
		}
	}
	return nets
}

func (l *loader) checkCluster(cfg *Config) {
	c := cfg.Cluster
	l.checkSecretURL("cluster.redis", c.Redis, "redis://host:6379/0", "redis", "rediss")
	l.checkSecretURL("cluster.rabbitmq", c.RabbitMQ, "amqp://user:password@host:5672/", "amqp", "amqps")
	l.checkSecretURL("cluster.consul", c.Consul, "http://host:8500", "http", "https")
	if !goodName.MatchString(c.Prefix) {
		l.problem("cluster.prefix", "%s cannot begin names in Redis, RabbitMQ and Consul: %s", shown(c.Prefix), nameRule)
	}
	if c.Service != "" && !goodName.MatchString(c.Service) {
		l.problem("cluster.service", "%s cannot name a Consul service: %s", shown(c.Service), nameRule)
	}
	if c.RabbitMQ != "" && c.Redis == "" {
		l.problem("cluster.rabbitmq", "needs cluster.redis: RabbitMQ carries events to other nodes, but what it loses is read from the log in Redis, and who owns which stream stands there too")
	}
	if c.Redirect && c.Redis == "" {
		l.problem("cluster.redirect", "needs cluster.redis: without it no node knows how many connections another has")
	} else if c.Redirect && cfg.Node.Advertise == "" {
		l.notice("cluster.redirect", "no node will send clients here unless listen.public names an address, since node.advertise is empty")
	}
	if c.Heartbeat > 0 && c.DeadAfter/2 < c.Heartbeat {
		l.problem("cluster.dead_after", "must be at least twice cluster.heartbeat (%s), or one late heartbeat makes a node dead: write %q or more", brief(c.Heartbeat), brief(2*c.Heartbeat))
	}
	def := Default().Cluster
	for _, name := range []string{"heartbeat", "dead_after", "check_every", "tail_check"} {
		l.idle(c, def, "cluster", name, c.Redis == "", "without cluster.redis")
	}
	l.idle(c, def, "cluster", "service", c.Consul == "", "without cluster.consul")
	if c.RedisWait > 0 && c.Redis == "" {
		l.problem("cluster.redis_wait", "needs cluster.redis: its replicas are meant")
	}
	l.idle(c, def, "cluster", "redis_wait", !cfg.Push.On && c.Redis != "", "without [push]")
}

// idle notices a key of a table that was changed from its default and does
// nothing.
func (l *loader) idle(table, def any, key, name string, is bool, why string) {
	at := join(key, name)
	if !is || l.bad[at] {
		return
	}
	now, was := reflect.ValueOf(table), reflect.ValueOf(def)
	for f, v := range now.Fields() {
		if f.Tag.Get("toml") == name && !same(v, was.FieldByIndex(f.Index)) {
			l.notice(at, "has no effect %s", why)
		}
	}
}

// checkSecretURL never quotes the URL, nor the reason why it cannot be read,
// since the password may be in both.
func (l *loader) checkSecretURL(key string, s SecretURL, example string, schemes ...string) {
	if s == "" {
		return
	}
	u, err := url.Parse(string(s))
	switch {
	case err != nil || u.Fragment != "" || strings.ContainsAny(string(s), " \t\r\n"):
		l.problem(key, "cannot be read as a URL: write it as %s, with #, /, ?, @ and other special characters of a password percent-encoded (# is %%23)", example)
	case !slices.Contains(schemes, u.Scheme):
		l.problem(key, "must begin with %s: %s", strings.Join(schemes, ":// or ")+"://", example)
	case u.Hostname() == "" || !goodPort(u.Port()):
		l.problem(key, "needs a host, and a port of 1 to 65535 if any: %s", example)
	case schemes[0] == "redis":
		l.checkRedis(key, u)
	case schemes[0] == "http" && strings.Trim(u.Path, "/") != "":
		l.problem(key, "has a path, where only the agent's address belongs: %s", example)
	}
}

func goodPort(port string) bool {
	n, err := strconv.Atoi(port)
	return port == "" || err == nil && n >= 1 && n <= 65535
}

// checkRedis knows the three forms: one server, Sentinel (with master_name)
// and Cluster (with addr alone).
func (l *loader) checkRedis(key string, u *url.URL) {
	q, err := url.ParseQuery(u.RawQuery)
	if err != nil {
		l.problem(key, "has a query that cannot be read: write ?name=value&name=value")
		return
	}
	db := strings.Trim(u.Path, "/")
	cluster := q.Has("addr") && !q.Has("master_name")
	switch n, err := strconv.Atoi(db); {
	case db != "" && (err != nil || n < 0):
		l.problem(key, "has a path that is no database number: write redis://host:6379/0")
	case cluster && n != 0:
		l.problem(key, "names database %d, but a Redis Cluster has database 0 alone", n)
	}
	if q.Has("master_name") && q.Get("master_name") == "" {
		l.problem(key, "has an empty master_name: write the name that the sentinels know, as in ?master_name=mymaster")
	}
	for _, addr := range q["addr"] {
		if host, port, err := net.SplitHostPort(addr); err != nil || host == "" || port == "" || !goodPort(port) {
			l.problem(key, "has an addr that is not host:port: write &addr=host2:6379")
		}
	}
}

// checkOrigin looks at scheme://host:port without anything after it.
func (l *loader) checkOrigin(key, s string) *url.URL {
	u, err := url.Parse(s)
	switch {
	case err == nil && u.User != nil:
		l.problem(key, "%s has a user name: a request carries its own credentials, write \"%s://%s\"", shown(s), u.Scheme, u.Host)
	case err != nil || u.Scheme != "http" && u.Scheme != "https" || u.Hostname() == "" || !goodPort(u.Port()) || strings.ContainsAny(s, " \t\r\n"):
		l.problem(key, "%s is no address: write \"http://host:port\" or \"https://host:port\"", shown(s))
	case strings.Trim(u.Path, "/") != "" || u.RawQuery != "" || u.Fragment != "" || u.ForceQuery:
		l.problem(key, "%s has something after the host, but a request keeps its own path: write \"%s://%s\"", shown(s), u.Scheme, u.Host)
	default:
		return u
	}
	return nil
}

// busRoom is what a parcel of the bus needs beside the event in it.
const busRoom = 64 * KiB

func (l *loader) checkLimits(cfg *Config) {
	c := cfg.Limits
	if most := bus.MaxBody - busRoom; cfg.Cluster.Redis != "" && c.EventSize > most {
		l.problem("limits.event_size", "%s is more than the %s that one node can send to another", c.EventSize, most)
	}
	l.checkTags(reflect.ValueOf(c), "limits") // routes are held against them
}

// checkTags holds the tags of the struct against every key.
func (l *loader) checkTags(table reflect.Value, key string) {
	for f, v := range table.Fields() {
		key := join(key, f.Tag.Get("toml"))
		switch v.Kind() {
		case reflect.Struct:
			l.checkTags(v, key)
			continue
		case reflect.Slice:
			for i := range listed(v) {
				l.checkTags(v.Index(i), item(key, i+1))
			}
			continue
		}
		if f.Tag.Get("reload") == "later" && !v.IsZero() {
			l.problem(key, "is not part of this version yet: leave it out")
		}
		if set, ok := f.Tag.Lookup("oneof"); ok {
			l.checkOneOf(key, v.String(), strings.Split(set, ","))
		}
		switch v := v.Interface().(type) {
		case time.Duration:
			checkLeast(l, key, v, f.Tag.Get("min"), time.ParseDuration, brief)
		case Size:
			checkLeast(l, key, v, f.Tag.Get("min"), ParseSize, Size.String)
		case int:
			if tag := f.Tag.Get("min"); v > math.MaxInt32 {
				l.problem(key, "is too large: write a whole number from %s to %d", cmp.Or(tag, "0"), math.MaxInt32)
			}
			checkLeast(l, key, v, f.Tag.Get("min"), strconv.Atoi, strconv.Itoa)
		}
	}
}

func (l *loader) checkOneOf(key, v string, set []string) {
	if slices.Contains(set, v) {
		return
	}
	hint, quoted := "", make([]string, len(set))
	for i, s := range set {
		quoted[i] = strconv.Quote(s)
	}
	if w := nearest(v, set); w != "" {
		hint = fmt.Sprintf("; did you mean %q?", w)
	}
	l.problem(key, "%s is none of %s%s", shown(v), strings.Join(quoted, ", "), hint)
}

// checkLeast holds the tag min against a number: "10ms" is the least that is
// allowed, "0 or 10ms" lets 0 pass too, no tag lets everything pass that is
// not negative.
func checkLeast[T cmp.Ordered](l *loader, key string, v T, tag string, parse func(string) (T, error), print func(T) string) {
	var zero T
	text, orZero := strings.CutPrefix(tag, "0 or ")
	least, err := zero, error(nil)
	if text != "" {
		least, err = parse(text)
	}
	switch {
	case err != nil:
		panic("gate: tag min of " + key + ": " + err.Error()) // a mistake in this package, met by its tests
	case v < zero:
		l.problem(key, "must not be negative")
	case v < least && !(orZero && v == zero):
		l.problem(key, "%s is too little: write %s or more%s", print(v), text, map[bool]string{true: ", or 0 for none"}[orZero])
	}
}

// brief writes a duration as one would in the file: "2m", not "2m0s".
func brief(d time.Duration) string {
	s := d.String()
	if strings.HasSuffix(s, "m0s") {
		s = s[:len(s)-2]
	}
	if strings.HasSuffix(s, "h0m") {
		s = s[:len(s)-2]
	}
	return s
}

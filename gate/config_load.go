package gate

import (
	"errors"
	"fmt"
	"maps"
	"os"
	"reflect"
	"regexp"
	"slices"
	"strings"

	"github.com/BurntSushi/toml"
)

// Load reads the configuration: flags over environment over file over
// defaults. path is the TOML file ("" = none), env is as os.Environ gives it,
// flags maps a key of Keys to its text, and "upstream" to a list of target
// URLs. Lists in variables and flags are separated by commas.
//
// The error is a *ConfigError that holds all mistakes; no text in it, nor in a
// notice, shows a password. Notices come with an error too.
func Load(path string, env []string, flags map[string]string) (Config, []Notice, error) {
	if path == "" {
		return parse("", "", env, flags)
	}
	text, err := os.ReadFile(path)
	if pe, ok := errors.AsType[*os.PathError](err); ok {
		err = pe.Err // its text has the path, which stands before it
	}
	if err != nil {
		return Config{}, nil, &ConfigError{[]Problem{{Where: path, Text: fmt.Sprintf("cannot be read: %v", err)}}}
	}
	return parse(path, string(text), env, flags)
}

// parse is Load of a file's text.
func parse(file, text string, env []string, flags map[string]string) (Config, []Notice, error) {
	l := &loader{file: file, env: env, from: map[string]string{}, bad: map[string]bool{}}
	cfg := Default()
	if p := l.decode(&cfg, text); p != nil {
		return Config{}, nil, &ConfigError{[]Problem{*p}}
	}
	l.environment(&cfg, env)
	l.flags(&cfg, flags)
	l.complete(&cfg)
	l.check(&cfg)
	notices, err := l.sorted()
	if err != nil {
		return Config{}, notices, err
	}
	return cfg, notices, nil
}

// Keys lists the keys of the plain tables ("cluster.redis"), which variables
// and flags can set. Those of upstreams and routes stand in the file alone.
func Keys() []string {
	cfg := Default()
	return slices.Sorted(maps.Keys(plainKeys(&cfg)))
}

// Variable is the environment variable that sets a key of Keys.
func Variable(key string) string {
	return "SSEGATE_" + strings.ToUpper(strings.ReplaceAll(key, ".", "_"))
}

// plainKeys finds the values behind Keys.
func plainKeys(cfg *Config) map[string]reflect.Value {
	keys := map[string]reflect.Value{}
	for name, table := range fields(reflect.ValueOf(cfg).Elem()) {
		if table.Kind() != reflect.Struct {
			continue
		}
		for key, value := range fields(table) {
			if !listOfTables(value.Type()) {
				keys[join(name, key)] = value
			}
		}
	}
	return keys
}

// decode puts the file's text over cfg. It returns a problem where the text
// is no TOML; all others are gathered.
func (l *loader) decode(cfg *Config, text string) *Problem {
	var tables map[string]any
	if _, err := toml.Decode(text, &tables); err != nil {
		return l.syntax(text, err)
	}
	l.lines = keyLines(text)
	l.table(reflect.ValueOf(cfg).Elem(), tables, "")
	return nil
}

// secretLine matches a line that may set a key of type SecretURL or
// SecretText, or has a password in a URL.
var secretLine = regexp.MustCompile(`redis|rabbitmq|consul|webhook|\bkey\b|(?i:pass|secret|token)|//.*@`)

// syntax tells where the text stops being TOML and shows that line, unless a
// password may be in it.
func (l *loader) syntax(text string, err error) *Problem {
	pe, ok := errors.AsType[toml.ParseError](err)
	if !ok {
		return &Problem{Where: l.file, Text: "not TOML"} // the decoder gives no other errors for a map
	}
	n, col := pe.Position.Line, pe.Position.Col
	lines := strings.Split(text, "\n")
	n = min(max(n, 1), len(lines))
	line := strings.TrimRight(lines[n-1], "\r")
	for ; n > 1 && strings.TrimSpace(line) == ""; n-- { // what is missing is missing further up
		line = strings.TrimRight(lines[n-2], "\r")
		col = len(line) + 1
	}
	p := &Problem{Where: fmt.Sprintf("%s:%d:%d", l.file, n, col)}
	if secretLine.MatchString(line + pe.LastKey) {
		p.Text = "not TOML; a text stands in quotes, on one line: redis = \"redis://host:6379/0\""
		return p
	}
	// Tabs stay tabs, so that the mark stands below its letter.
	pad := strings.Map(func(c rune) rune {
		if c == '\t' {
			return c
		}
		return ' '
	}, line[:min(max(col-1, 0), len(line))])
	p.Text = fmt.Sprintf("not TOML: %s\n    %s\n    %s^", pe.Message, line, pad)
	return p
}

// kubernetes matches what Kubernetes sets for a service called ssegate.
var kubernetes = regexp.MustCompile(`^SSEGATE_(SERVICE_(HOST|PORT)(_\w+)?|PORT(_\d+_\w+)?)$`)

// environment puts variables over cfg. One that is set but empty counts as
// not set. An unknown one is only noticed, since who runs a node does not
// own all of its environment.
func (l *loader) environment(cfg *Config, env []string) {
	keys := plainKeys(cfg)
	byName := map[string]string{"SSEGATE_UPSTREAM": "upstream", "SSEGATE_CONFIG": ""}
	for key := range keys {
		byName[Variable(key)] = key
	}
	for _, pair := range slices.Sorted(slices.Values(env)) {
		name, text, _ := strings.Cut(pair, "=")
		if !strings.HasPrefix(name, "SSEGATE_") || text == "" || kubernetes.MatchString(name) {
			continue
		}
		switch key, known := byName[name]; {
		case !known:
			hint := ""
			if w := nearest(strings.ToLower(name), lower(maps.Keys(byName))); w != "" {
				hint = "; did you mean " + strings.ToUpper(w) + "?"
			}
			l.notices = append(l.notices, Notice{Where: name, Text: "is no variable of ssegate's and changes nothing" + hint})
		case key == "upstream":
			l.upstreamText(cfg, text, name)
		case key != "":
			l.text(keys[key], text, key, name)
		}
	}
}

// flags puts the command line over cfg.
func (l *loader) flags(cfg *Config, flags map[string]string) {
	keys := plainKeys(cfg)
	for _, key := range slices.Sorted(maps.Keys(flags)) {
		switch value, known := keys[key]; {
		case key == "upstream":
			l.upstreamText(cfg, flags[key], "-upstream")
		case known:
			l.text(value, flags[key], key, "-"+key)
		default:
			l.problems = append(l.problems, Problem{Where: "-" + key, Text: "is no flag of ssegate's"})
		}
	}
}

// upstreamText sets the targets of the only upstream, or makes one.
func (l *loader) upstreamText(cfg *Config, text, from string) {
	switch len(cfg.Upstream) {
	case 0:
		u := DefaultUpstream()
		u.Name = "default"
		cfg.Upstream = []Upstream{u}
		fallthrough
	case 1:
		cfg.Upstream[0].Service = ""
		cfg.Upstream[0].Targets = splitList(text)
		l.from["upstream[1].targets"] = from
	default:
		l.problems = append(l.problems, Problem{Where: from,
			Text: fmt.Sprintf("sets the targets of the only upstream, but %s has %d: change them there", l.file, len(cfg.Upstream))})
	}
}

// complete fills in what follows from the rest: which tables there are, where
// secrets are elsewhere, and, with a single upstream, that the routes need not
// name it, and need not be there at all.
func (l *loader) complete(cfg *Config) {
	cfg.Push.On, cfg.Auth.On = l.present("push"), l.present("auth")
	l.fetch(&cfg.Push.Webhook, "push.webhook")
	l.fetch(&cfg.Push.WebhookSecret, "push.webhook_secret")
	l.fetch(&cfg.Auth.Secret, "auth.secret")
	l.fetch(&cfg.Auth.PreviousSecret, "auth.previous_secret")
	for i := range cfg.Auth.Key {
		l.fetch(&cfg.Auth.Key[i].Key, join(item("auth.key", i+1), "key"))
	}
	if len(cfg.Upstream) != 1 {
		return
	}
	if len(cfg.Route) == 0 && !l.bad["route"] {
		cfg.Route = []Route{DefaultRoute()}
	}
	for i := range cfg.Route {
		if cfg.Route[i].Upstream == "" {
			cfg.Route[i].Upstream = cfg.Upstream[0].Name
		}
	}
}

// present reports whether a table was named: in the file, even with no key
// below it, or by a variable or flag for one of its keys.
func (l *loader) present(table string) bool {
	inside := func(key string) bool { return key == table || strings.HasPrefix(key, table+".") }
	for key := range l.lines {
		if inside(key) {
			return true
		}
	}
	for key := range l.from {
		if inside(key) {
			return true
		}
	}
	return false
}

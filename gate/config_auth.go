package gate

import (
	"crypto/sha256"
	"net/url"
	"slices"
	"strings"
	"time"

	"ssegate/auth"
)

// Auth is the table [auth]: how requests say who they come from. Without the
// table nobody is asked.
type Auth struct {
	On             bool          `toml:"-" present:"auth" reload:"restart"`
	Secret         SecretText    `toml:"secret"`          // shared with who makes tokens
	PreviousSecret SecretText    `toml:"previous_secret"` // still good while tokens made with it are about
	PublicKeys     []string      `toml:"public_keys"`     // PEM files
	JWKS           string        `toml:"jwks"`            // address of a key set
	JWKSRefresh    time.Duration `toml:"jwks_refresh" min:"1s"`
	Issuers        []string      `toml:"issuers"`   // one of them must be iss; empty = any
	Audiences      []string      `toml:"audiences"` // one of them must be in aud; empty = any
	Leeway         time.Duration `toml:"leeway"`
	RequireExp     bool          `toml:"require_exp"`
	Claim          string        `toml:"claim"`  // holds follow, publish and admin
	Cookie         string        `toml:"cookie"` // may hold a token; "" = none
	Query          string        `toml:"query"`  // parameter that may; "" = none

	Key []AuthKey `toml:"key"`
}

// AuthKey is one [[auth.key]]: what a service shows instead of a token. It has
// Key or KeySHA256, never both.
type AuthKey struct {
	Name      string     `toml:"name"`
	Key       SecretText `toml:"key"`
	KeySHA256 string     `toml:"key_sha256"` // in hex, so that the file has no secret
	Follow    []string   `toml:"follow"`     // patterns of topics
	Publish   []string   `toml:"publish"`
	Admin     bool       `toml:"admin"`
}

func defaultAuth() Auth {
	return Auth{JWKSRefresh: 10 * time.Minute, RequireExp: true, Claim: "ssegate", Query: "access_token"}
}

// DefaultAuthKey is a key without a name that may do nothing.
func DefaultAuthKey() AuthKey { return AuthKey{} }

// minAPIKey is the least length of an API key.
const minAPIKey = 16

func (l *loader) checkAuth(cfg *Config) {
	a := &cfg.Auth
	if !a.On {
		for i, r := range cfg.Route {
			if r.Auth == "require" {
				l.problem(join(item("route", i+1), "auth"), "needs [auth], which says how requests tell who they come from")
			}
		}
		return
	}
	tokens := a.Secret != "" || len(a.PublicKeys) > 0 || a.JWKS != ""
	if !tokens && len(a.Key) == 0 && !slices.ContainsFunc([]string{"secret", "public_keys", "jwks", "key"}, func(k string) bool { return l.bad["auth."+k] }) {
		l.problem("auth", "nobody could say who they are: write secret, public_keys or jwks for tokens, or [[auth.key]] for services")
	}
	l.checkSecret("auth.secret", a.Secret)
	l.checkSecret("auth.previous_secret", a.PreviousSecret)
	l.idle(*a, Default().Auth, "auth", "previous_secret", a.Secret == "", "without secret")
	for i, file := range a.PublicKeys {
		if _, err := readPEM(file); err != nil {
			l.problem(item("auth.public_keys", i+1), "%s: %v", shown(file), err)
		}
	}
	l.checkJWKS(a)
	l.checkNotEmpty("auth.issuers", a.Issuers)
	l.checkNotEmpty("auth.audiences", a.Audiences)
	if a.Cookie != "" && !goodToken.MatchString(a.Cookie) {
		l.problem("auth.cookie", "%s is no cookie's name", shown(a.Cookie))
	}
	switch {
	case a.Query == "":
	case !goodName.MatchString(a.Query):
		l.problem("auth.query", "%s is no good name of a parameter: %s", shown(a.Query), nameRule)
	case slices.Contains([]string{auth.TicketParam, "lastEventId", "last", "since", "to", "session_id", "kb_id", "task_id"}, a.Query):
		l.problem("auth.query", "%s means something else already: choose another name, such as \"access_token\"", shown(a.Query))
	}
	for _, name := range []string{"issuers", "audiences", "leeway", "require_exp", "claim", "cookie", "query"} {
		l.idle(*a, Default().Auth, "auth", name, !tokens, "without secret, public_keys and jwks")
	}
	l.checkAuthKeys(a)
}

// checkSecret never says anything of what the secret is.
func (l *loader) checkSecret(key string, s SecretText) {
	if s == "" || l.bad[key] {
		return
	}
	switch secret, err := s.Bytes(); {
	case err != nil:
		l.problem(key, "begins with base64: and goes on with something else")
	case len(secret) < auth.MinSecret:
		l.problem(key, "is too short: whoever has a token could find it by trying. Write %d bytes or more, such as `openssl rand -hex 32` prints", auth.MinSecret)
	}
}

func (l *loader) checkJWKS(a *Auth) {
	l.idle(*a, Default().Auth, "auth", "jwks_refresh", a.JWKS == "", "without jwks")
	if a.JWKS == "" {
		return
	}
	u, err := url.Parse(a.JWKS)
	switch {
	case err != nil || u.Scheme != "http" && u.Scheme != "https" || u.Hostname() == "" || !goodPort(u.Port()) || u.Fragment != "" || strings.ContainsAny(a.JWKS, " \t\r\n"):
		l.problem("auth.jwks", "%s is no address: write \"https://host/.well-known/jwks.json\"", shown(a.JWKS))
	case u.User != nil:
		l.problem("auth.jwks", "%s has a user name, which is not sent: a key set is public", shown(a.JWKS))
	case u.Scheme == "http" && !loopback(u.Hostname()):
		l.problem("auth.jwks", "%s can be changed by anyone on the way, who could then make tokens: write https://", shown(a.JWKS))
	case len(a.Audiences) == 0 && len(a.Issuers) == 0:
		l.notice("auth.jwks", "tokens that are meant for other services, but signed with the same keys, are accepted too: name the audiences")
	}
}

func (l *loader) checkAuthKeys(a *Auth) {
	names, sums := map[string]int{}, map[[sha256.Size]byte]int{}
	for i, k := range a.Key {
		key := item("auth.key", i+1)
		sub := func(name string) string { return join(key, name) }
		switch {
		case k.Name == "":
			l.problem(sub("name"), "is missing: logs and limits call the service by it")
		case !goodName.MatchString(k.Name):
			l.problem(sub("name"), "%s cannot name a key: %s", shown(k.Name), nameRule)
		case names[k.Name] > 0:
			l.problem(sub("name"), "%s is the name of %s already", shown(k.Name), item("auth.key", names[k.Name]))
		default:
			names[k.Name] = i + 1
		}
		switch {
		case k.Key != "" && k.KeySHA256 != "":
			l.problem(sub("key_sha256"), "stands beside key: keep one of the two")
		case k.Key != "" && len(k.Key) < minAPIKey:
			l.problem(sub("key"), "is too short to be safe from guessing: write %d characters or more, such as `openssl rand -hex 32` prints", minAPIKey)
		case k.Key == "" && k.KeySHA256 == "" && !l.bad[sub("key")] && !l.bad[sub("key_sha256")]:
			l.problem(key, "has no key: write key, or key_sha256 with what `printf %%s \"$KEY\" | sha256sum` prints")
		}
		sum, err := k.sum()
		switch {
		case err != nil:
			l.problem(sub("key_sha256"), "is no SHA-256 in hex, which has 64 digits: write what `printf %%s \"$KEY\" | sha256sum` prints")
		case k.Key == "" && k.KeySHA256 == "":
		case sums[sum] > 0:
			l.problem(key, "has the same key as %s: nobody could tell the two apart", item("auth.key", sums[sum]))
		default:
			sums[sum] = i + 1
		}
		l.checkPatterns(sub("follow"), k.Follow)
		l.checkPatterns(sub("publish"), k.Publish)
		if len(k.Follow) == 0 && len(k.Publish) == 0 && !k.Admin {
			l.notice(key, "may do nothing: write publish = [\"user/*\"], follow or admin")
		}
	}
}

func (l *loader) checkNotEmpty(key string, list []string) {
	for i, s := range list {
		if s == "" {
			l.problem(item(key, i+1), "is empty, which no token says: leave it out")
		}
	}
}

func (l *loader) checkPatterns(key string, list []string) {
	for i, p := range list {
		if _, err := auth.ParsePattern(p); err != nil {
			l.problem(item(key, i+1), "%s is %v", shown(p), err)
		}
	}
}

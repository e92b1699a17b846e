package gate

import (
	"net/url"
	"os"
	"strings"
)

// SecretURL is a URL that may hold a password. Printing, logging and encoding
// it shows the redacted form; string(u) is the URL itself, for the driver
// alone.
type SecretURL string

// SecretText is a text that nobody should see. Printing, logging and encoding
// it shows nothing of it. In a file it may stand elsewhere: "env:NAME" is the
// value of an environment variable, "file:PATH" what is in a file.
type SecretText string

// String is "***", or "" where there is no secret.
func (s SecretText) String() string {
	if s == "" {
		return ""
	}
	return hidden
}

// GoString keeps %#v from showing the secret.
func (s SecretText) GoString() string { return s.String() }

// MarshalText keeps encoders from showing the secret.
func (s SecretText) MarshalText() ([]byte, error) { return []byte(s.String()), nil }

// fetch puts the secret that s names in its place.
func (l *loader) fetch(s *SecretText, key string) {
	if l.bad[key] {
		return
	}
	if name, ok := strings.CutPrefix(string(*s), "env:"); ok {
		if *s = SecretText(l.variable(name)); *s == "" {
			l.problem(key, "the environment has no %s, or it is empty", shown(name))
		}
		return
	}
	path, ok := strings.CutPrefix(string(*s), "file:")
	if !ok {
		return
	}
	text, err := os.ReadFile(path)
	*s = SecretText(strings.TrimRight(string(text), "\r\n"))
	if err != nil {
		l.problem(key, "the file %s cannot be read", shown(path))
	} else if *s == "" {
		l.problem(key, "the file %s is empty", shown(path))
	}
}

// variable is the value of an environment variable.
func (l *loader) variable(name string) string {
	for _, pair := range l.env {
		if k, v, _ := strings.Cut(pair, "="); k == name && name != "" {
			return v
		}
	}
	return ""
}

// hidden stands where a secret was.
const hidden = "***"

// String is the URL without its password and without what its query calls a
// token, a password or a secret. A text that is no URL is hidden as a whole,
// since nobody knows what is secret in it.
func (s SecretURL) String() string {
	if s == "" {
		return ""
	}
	u, err := url.Parse(string(s))
	if err != nil || u.Host == "" || u.Fragment != "" {
		return hidden
	}
	var b strings.Builder
	b.WriteString(u.Scheme + "://")
	if u.User != nil {
		// A name without a password is somebody's token more often than not.
		if _, ok := u.User.Password(); ok {
			b.WriteString(url.PathEscape(u.User.Username()) + ":")
		}
		b.WriteString(hidden + "@")
	}
	b.WriteString(u.Host + u.EscapedPath())
	for i, pair := range strings.Split(u.RawQuery, "&") {
		if pair == "" {
			continue
		}
		if name, _, ok := strings.Cut(pair, "="); ok && secretName(name) {
			pair = name + "=" + hidden
		}
		b.WriteByte("?&"[min(i, 1)])
		b.WriteString(pair)
	}
	return b.String()
}

// GoString keeps %#v from showing the password.
func (s SecretURL) GoString() string { return s.String() }

// MarshalText keeps encoders from showing the password.
func (s SecretURL) MarshalText() ([]byte, error) { return []byte(s.String()), nil }

// secretName says whether what is called name should not be shown.
func secretName(name string) bool {
	name = strings.ToLower(name)
	for _, word := range []string{"token", "pass", "secret"} {
		if strings.Contains(name, word) {
			return true
		}
	}
	return false
}

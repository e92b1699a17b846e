package gate

import (
	"net/url"
	"strings"
)

// SecretURL is a URL that may hold a password. Printing, logging and encoding
// it shows the redacted form; string(u) is the URL itself, for the driver
// alone.
type SecretURL string

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

package proxy

import (
	"slices"
	"strings"
	"testing"
)

func TestCORSOrigins(t *testing.T) {
	c := CORS{Origins: []string{"https://app.example.com", "https://*.example.org", "http://localhost:3000"}, Credentials: true}
	for origin, want := range map[string]bool{
		"https://app.example.com":      true,
		"HTTPS://APP.example.com":      true,
		"http://app.example.com":       false,
		"https://app.example.com:8443": false,
		"https://app.example.com.evil": false,
		"https://a.example.org":        true,
		"https://a.b.example.org":      true,
		"https://example.org":          false,
		"https://.example.org":         false,
		"https://evil-example.org":     false,
		"https://evil@a.example.org":   false,
		"https://evil:1.example.org":   false,
		"http://localhost:3000":        true,
		"http://localhost:3001":        false,
		"null":                         false,
		"":                             false,
	} {
		value, credentials := c.allow(origin)
		if (value == origin && value != "") != want || credentials != want {
			t.Errorf("%q: got %q, credentials %v, want %v", origin, value, credentials, want)
		}
	}
	any := CORS{Origins: []string{"*", "https://app.example.com"}, Credentials: true}
	if value, credentials := any.allow("https://evil.example"); value != "*" || credentials {
		t.Errorf("who is let in by * alone got %q, credentials %v", value, credentials)
	}
	if value, credentials := any.allow("https://app.example.com"); value != "https://app.example.com" || !credentials {
		t.Errorf("who is named got %q, credentials %v", value, credentials)
	}
}

// A wildcard never stands beside credentials, and what is not the same for all
// origins says so.
func TestCORSFields(t *testing.T) {
	show := func(c CORS, origin string) string {
		var out []string
		for _, f := range c.fields(origin) {
			out = append(out, strings.TrimPrefix(f.name, "Access-Control-")+"="+f.value)
		}
		slices.Sort(out)
		return strings.Join(out, "; ")
	}
	f := func(c CORS, origin, want string) {
		t.Helper()
		if got := show(c, origin); got != want {
			t.Errorf("%v for %q:\n got %s\nwant %s", c, origin, got, want)
		}
	}
	expose := "Expose-Headers=" + corsExposed
	f(CORS{}, "https://a", "")
	f(CORS{Origins: []string{"*"}}, "", "Allow-Origin=*; "+expose)
	f(CORS{Origins: []string{"*"}, Credentials: true}, "https://a", "Allow-Origin=*; "+expose)
	f(CORS{Origins: []string{"https://a"}}, "https://a", "Allow-Origin=https://a; "+expose+"; Vary=Origin")
	f(CORS{Origins: []string{"https://a"}}, "https://b", "Vary=Origin")
	f(CORS{Origins: []string{"https://a"}}, "", "Vary=Origin")
	f(CORS{Origins: []string{"https://a"}, Credentials: true}, "https://a", "Allow-Credentials=true; Allow-Origin=https://a; "+expose+"; Vary=Origin")
}

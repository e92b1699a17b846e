package proxy

import (
	"fmt"
	"strings"
	"testing"
	"time"

	"go.uber.org/zap"
	"go.uber.org/zap/zaptest/observer"
)

// Errors of what was read quote it. What clients show to say who they are, and
// what services answer, does not get into the log by that, at any level.
func TestLogDoesNotQuoteWhatIsSecret(t *testing.T) {
	const key, token, ticket, cookie = "key-of-a-service-01234", "eyJhbGciOi.eyJzdWIiOi.c2lnbmF0dXJl", "TLJLON_zzFZ1LHHEUlfAgN0iDmtog4CBAYjaIrDBdVU", "the-cookie-of-the-service"
	core, logs := observer.New(zap.DebugLevel)
	w := newWorld(t, []string{canned(t, "HTTP/1.1 200 OK\r\nSet-Cookie "+cookie+"\r\n\r\n")}, func(c *Config, r *Route) {
		c.Log = zap.New(core)
	})
	credentials := "Host: h\r\nX-Api-Key: " + key + "\r\nAuthorization: Bearer " + token + "\r\n"
	target := "/x?ticket=" + ticket + "&access_token=" + token
	for what, c := range map[string]struct {
		request, says string
	}{
		"a line without a colon": {"GET " + target + " HTTP/1.1\r\n" + credentials + "X-Api-Key " + key + "\r\n\r\n", "missing colon"},
		"a version":              {"GET " + target + " HTTP/9\r\n" + credentials + "\r\n", "unsupported http version"},
		"no version":             {"GET " + target + "\r\n" + credentials + "\r\n", "cannot find whitespace"},
		"a name":                 {"GET " + target + " HTTP/1.1\r\n" + credentials + `X "` + key + ": 1\r\n\r\n", "malformed mime header"},
		"a value":                {"GET " + target + " HTTP/1.1\r\n" + credentials + `Cookie: "` + token + "\x01\r\n\r\n", "invalid header"},
		"no answer":              {"GET " + target + " HTTP/1.1\r\n" + credentials + "\r\n", "malformed MIME header"},
	} {
		before := logs.Len()
		conn := w.dial()
		conn.send(c.request)
		if resp, body := conn.response("GET"); resp.StatusCode < 400 {
			t.Errorf("%s: %d %s", what, resp.StatusCode, body)
		}
		conn.CloseWrite()
		conn.rest()
		for end := time.Now().Add(patience); logs.Len() == before; time.Sleep(time.Millisecond) {
			if time.Now().After(end) {
				t.Fatalf("%s is not logged", what)
			}
		}
		for _, e := range logs.All()[before:] {
			line := fmt.Sprint(e.Message, e.ContextMap())
			for _, secret := range []string{key, token, ticket, cookie} {
				if strings.Contains(line, secret) || strings.Contains(line, secret[4:20]) {
					t.Errorf("%s: %s", what, line)
				}
			}
			if !strings.Contains(line, c.says) {
				t.Errorf("%s: %q is not in %s", what, c.says, line)
			}
		}
	}
}

func TestCutQuotes(t *testing.T) {
	for text, want := range map[string]string{
		"":          "",
		"no quotes": "no quotes",
		`missing colon: "X-Api-Key 0123"; in "GET /x"`: `missing colon: "X-Api-Ke…"; in "GET /x"`,
		`quotes in quotes: "a \"b\" 0123456789"`:       `quotes in quotes: "a \"b\" …"`,
		`"12345678" and "123456789"`:                   `"12345678" and "12345678…"`,
		`cut: "0123456789`:                             `cut: "01234567…"`,
		`ends in an escape: "0123456789\`:              `ends in an escape: "01234567…"`,
	} {
		if got := CutQuotes(text); got != want {
			t.Errorf("%s\nis cut to %s\nwant      %s", text, got, want)
		}
	}
}

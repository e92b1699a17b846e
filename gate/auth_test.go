package gate

import (
	"crypto/hmac"
	"crypto/sha256"
	"encoding/base64"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"testing"
	"time"

	"go.uber.org/zap"

	"ssegate/auth"
)

func TestAuthFromConfig(t *testing.T) {
	none, err := newAuth(Default(), nil, zap.NewNop())
	if none != nil || err != nil {
		t.Fatal("without [auth] there is none:", err)
	}
	cfg, _, err := parse("ssegate.toml", one+`[auth]
secret = "`+jwtSecret+`"
issuers = ["me"]
require_exp = false
cookie = "session"
[[auth.key]]
name = "billing"
key = "0123456789abcdef"
publish = ["user/*"]
[[auth.key]]
name = "ops"
key_sha256 = "9834876dcfb05cb167a5c24953eba58c4ac89b1adf57f28f2f9d09af107ee8f0"
follow = ["*"]
admin = true
`, nil, nil)
	if err != nil {
		t.Fatal(err)
	}
	a, err := newAuth(cfg, nil, zap.NewNop())
	if err != nil {
		t.Fatal(err)
	}
	token := func(claims string) string {
		enc := base64.RawURLEncoding
		input := enc.EncodeToString([]byte(`{"alg":"HS256"}`)) + "." + enc.EncodeToString([]byte(claims))
		m := hmac.New(sha256.New, []byte(jwtSecret))
		m.Write([]byte(input))
		return input + "." + enc.EncodeToString(m.Sum(nil))
	}
	f := func(c auth.Credentials, who, may string, want error) {
		t.Helper()
		id, err := a.Identify(t.Context(), c)
		if got := fmt.Sprint(id.MayFollow("channel/x"), id.MayPublish("user/u")); !errors.Is(err, want) || id.Principal() != who || got != may {
			t.Errorf("%q, %s, %v", id.Principal(), got, err)
		}
	}
	f(auth.Credentials{APIKey: "0123456789abcdef"}, "key:billing", "false true", nil)
	f(auth.Credentials{APIKey: "aaa"}, "key:ops", "true false", nil)
	f(auth.Credentials{APIKey: "0123456789abcdeg"}, "", "false false", auth.ErrBad)
	f(auth.Credentials{Query: token(`{"sub":"u","iss":"me","ssegate":{"follow":["channel/*"]}}`)}, "sub:u", "true false", nil)
	f(auth.Credentials{Cookie: token(`{"sub":"u","iss":"you"}`)}, "", "false false", auth.ErrBad)
	f(auth.Credentials{}, "", "false false", auth.ErrNone)
	if a.CookieName() != "session" {
		t.Error(a.CookieName())
	}
}

// A file of keys that has gone bad since Load read it is an error, not a node
// that lets nobody in.
func TestAuthConfigReadsFilesAnew(t *testing.T) {
	file := filepath.Join(t.TempDir(), "key.pem")
	if err := os.WriteFile(file, []byte("x"), 0o600); err != nil {
		t.Fatal(err)
	}
	a := defaultAuth()
	a.PublicKeys, a.JWKSRefresh = []string{file}, time.Minute
	if _, err := authConfig(a); err == nil {
		t.Error("no key is good enough")
	}
}

package gate

import (
	"crypto"
	"crypto/sha256"
	"encoding/base64"
	"encoding/hex"
	"errors"
	"fmt"
	"os"
	"strings"

	"go.uber.org/zap"

	"ssegate/auth"
)

// newAuth makes what tells who requests come from, nil where there is no
// [auth]. Its Run is the caller's.
func newAuth(cfg Config, notes auth.Notes, log *zap.Logger) (*auth.Authenticator, error) {
	if !cfg.Auth.On {
		return nil, nil
	}
	c, err := authConfig(cfg.Auth)
	if err != nil {
		return nil, err
	}
	return auth.New(c, auth.Options{Notes: notes, Report: func(err error) {
		if err != nil {
			log.Warn("the key set of [auth] cannot be fetched; known keys stay good", zap.Error(err))
			return
		}
		log.Info("the key set of [auth] can be fetched again")
	}})
}

// authConfig turns [auth] into auth's words. It reads the files of keys, which
// may have changed since Load looked at them.
func authConfig(a Auth) (auth.Config, error) {
	out := auth.Config{
		JWKS: a.JWKS, JWKSRefresh: a.JWKSRefresh, Issuers: a.Issuers, Audiences: a.Audiences,
		Leeway: a.Leeway, NoExpiry: !a.RequireExp, Claim: a.Claim, Cookie: a.Cookie, QueryParam: a.Query,
	}
	for _, s := range []SecretText{a.Secret, a.PreviousSecret} {
		if s == "" {
			continue
		}
		secret, err := s.Bytes()
		if err != nil {
			return auth.Config{}, fmt.Errorf("auth.secret: %w", err)
		}
		out.Secrets = append(out.Secrets, secret)
	}
	for _, file := range a.PublicKeys {
		keys, err := readPEM(file)
		if err != nil {
			return auth.Config{}, fmt.Errorf("auth.public_keys: %s: %w", shown(file), err)
		}
		out.PublicKeys = append(out.PublicKeys, keys...)
	}
	for _, k := range a.Key {
		key, err := k.apiKey()
		if err != nil {
			return auth.Config{}, fmt.Errorf("auth.key %s: %w", k.Name, err)
		}
		out.Keys = append(out.Keys, key)
	}
	return out, nil
}

func (k AuthKey) apiKey() (out auth.APIKey, err error) {
	out.Name, out.Admin = k.Name, k.Admin
	if out.SHA256, err = k.sum(); err != nil {
		return out, err
	}
	if out.Follow, err = auth.ParsePatterns(k.Follow); err != nil {
		return out, err
	}
	out.Publish, err = auth.ParsePatterns(k.Publish)
	return out, err
}

// sum is the key's hash; zero where there is none.
func (k AuthKey) sum() (sum [sha256.Size]byte, err error) {
	switch {
	case k.Key != "":
		return sha256.Sum256([]byte(k.Key)), nil
	case k.KeySHA256 == "":
		return sum, nil
	}
	raw, err := hex.DecodeString(k.KeySHA256)
	if err != nil || len(raw) != len(sum) {
		return sum, errors.New("no SHA-256 in hex")
	}
	return [sha256.Size]byte(raw), nil
}

// readPEM reads the public keys of a file.
func readPEM(file string) ([]crypto.PublicKey, error) {
	text, err := os.ReadFile(file)
	if pe, ok := errors.AsType[*os.PathError](err); ok {
		err = pe.Err
	}
	if err != nil {
		return nil, fmt.Errorf("the file cannot be read: %w", err)
	}
	keys, err := auth.ParsePEM(text)
	if err != nil {
		return nil, fmt.Errorf("the file has %s", strings.TrimPrefix(err.Error(), "auth: "))
	}
	return keys, nil
}

// Bytes is the secret itself: what stands behind base64:, decoded, or else the
// text.
func (s SecretText) Bytes() ([]byte, error) {
	rest, coded := strings.CutPrefix(string(s), "base64:")
	if !coded {
		return []byte(s), nil
	}
	for _, enc := range []*base64.Encoding{base64.StdEncoding, base64.RawStdEncoding, base64.URLEncoding, base64.RawURLEncoding} {
		if raw, err := enc.DecodeString(rest); err == nil {
			return raw, nil
		}
	}
	return nil, errors.New("no base64")
}

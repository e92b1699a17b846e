package auth

import (
	"context"
	"crypto"
	"crypto/ecdsa"
	"crypto/ed25519"
	"crypto/elliptic"
	"crypto/hmac"
	"crypto/rand"
	"crypto/rsa"
	_ "crypto/sha512"
	"crypto/x509"
	"encoding/base64"
	"encoding/json"
	"encoding/pem"
	"fmt"
	"maps"
	"math/big"
	"os"
	"runtime"
	"strings"
	"sync"
	"testing"
	"time"

	"ssegate/registry"
)

// Keys take long to make, so all tests share them.
var (
	rsaKey   = must(rsa.GenerateKey(rand.Reader, 2048))
	otherRSA = must(rsa.GenerateKey(rand.Reader, 2048))
	ec256    = must(ecdsa.GenerateKey(elliptic.P256(), rand.Reader))
	ec384    = must(ecdsa.GenerateKey(elliptic.P384(), rand.Reader))
	ec521    = must(ecdsa.GenerateKey(elliptic.P521(), rand.Reader))
	edKey    = ed25519.NewKeyFromSeed([]byte("0123456789abcdef0123456789abcdef"))
	secret   = []byte("correct horse battery staple ok?")
)

func must[T any](v T, err error) T {
	if err != nil {
		panic(err)
	}
	return v
}

type object = map[string]any

func b64(b []byte) string { return base64.RawURLEncoding.EncodeToString(b) }

// sign makes a JWT with nothing but the standard library, so that it does not
// share a mistake with what verifies it.
func sign(alg string, key any, header, claims object) string {
	h := object{"alg": alg, "typ": "JWT"}
	maps.Copy(h, header)
	return signRaw(alg, key, must(json.Marshal(h)), must(json.Marshal(claims)))
}

func signRaw(alg string, key any, header, payload []byte) string {
	input := b64(header) + "." + b64(payload)
	if alg == "none" {
		return input + "."
	}
	hash := map[string]crypto.Hash{"256": crypto.SHA256, "384": crypto.SHA384, "512": crypto.SHA512, "DSA": 0}[alg[2:]]
	digest := []byte(input)
	if hash != 0 && alg[:2] != "HS" {
		d := hash.New()
		d.Write(digest)
		digest = d.Sum(nil)
	}
	var sig []byte
	switch alg[:2] {
	case "HS":
		m := hmac.New(hash.New, key.([]byte))
		m.Write([]byte(input))
		sig = m.Sum(nil)
	case "RS":
		sig = must(rsa.SignPKCS1v15(rand.Reader, key.(*rsa.PrivateKey), hash, digest))
	case "PS":
		sig = must(rsa.SignPSS(rand.Reader, key.(*rsa.PrivateKey), hash, digest, &rsa.PSSOptions{SaltLength: rsa.PSSSaltLengthEqualsHash}))
	case "ES":
		k := key.(*ecdsa.PrivateKey)
		r, s, err := ecdsa.Sign(rand.Reader, k, digest)
		if err != nil {
			panic(err)
		}
		size := (k.Curve.Params().BitSize + 7) / 8
		sig = append(r.FillBytes(make([]byte, size)), s.FillBytes(make([]byte, size))...)
	case "Ed":
		sig = ed25519.Sign(key.(ed25519.PrivateKey), digest)
	}
	return input + "." + b64(sig)
}

// in is a time as claims have it.
func in(d time.Duration) int64 { return time.Now().Add(d).Unix() }

// alice is what a good token says.
func alice(more object) object {
	c := object{"sub": "alice", "exp": in(time.Hour)}
	for k, v := range more {
		if v == nil {
			delete(c, k)
		} else {
			c[k] = v
		}
	}
	return c
}

// jwk writes a public key as a key set has it.
func jwk(kid string, key crypto.PublicKey, more object) object {
	var o object
	switch k := key.(type) {
	case *rsa.PublicKey:
		o = object{"kty": "RSA", "n": b64(k.N.Bytes()), "e": b64(big.NewInt(int64(k.E)).Bytes())}
	case *ecdsa.PublicKey:
		raw := must(k.Bytes())
		size := len(raw) / 2
		o = object{"kty": "EC", "crv": k.Curve.Params().Name, "x": b64(raw[1 : 1+size]), "y": b64(raw[1+size:])}
	case ed25519.PublicKey:
		o = object{"kty": "OKP", "crv": "Ed25519", "x": b64(k)}
	case []byte:
		o = object{"kty": "oct", "k": b64(k)}
	}
	if kid != "" {
		o["kid"] = kid
	}
	maps.Copy(o, more)
	return o
}

func set(keys ...object) []byte { return must(json.Marshal(object{"keys": keys})) }

func pemOf(t testing.TB, kind string, key any) []byte {
	t.Helper()
	var der []byte
	var err error
	switch kind {
	case "PUBLIC KEY":
		der, err = x509.MarshalPKIXPublicKey(key)
	case "RSA PUBLIC KEY":
		der = x509.MarshalPKCS1PublicKey(key.(*rsa.PublicKey))
	case "PRIVATE KEY":
		der, err = x509.MarshalPKCS8PrivateKey(key)
	case "CERTIFICATE":
		now := time.Now()
		der, err = x509.CreateCertificate(rand.Reader, &x509.Certificate{SerialNumber: big.NewInt(1), NotBefore: now, NotAfter: now.Add(time.Hour)},
			&x509.Certificate{SerialNumber: big.NewInt(1)}, key.(crypto.Signer).Public(), key)
	}
	if err != nil {
		t.Fatal(err)
	}
	return pem.EncodeToMemory(&pem.Block{Type: kind, Bytes: der})
}

func newAuth(t testing.TB, cfg Config) *Authenticator {
	t.Helper()
	a, err := New(cfg, Options{})
	if err != nil {
		t.Fatal(err)
	}
	return a
}

// running also runs it until the test ends.
func running(t testing.TB, cfg Config, o Options) *Authenticator {
	t.Helper()
	a, err := New(cfg, o)
	if err != nil {
		t.Fatal(err)
	}
	ctx, stop := context.WithCancel(context.Background())
	var wg sync.WaitGroup
	wg.Go(func() { a.Run(ctx) })
	t.Cleanup(func() { stop(); wg.Wait() })
	return a
}

func byToken(token string) Credentials { return Credentials{Authorization: "Bearer " + token} }

// notes is the registry's notes in memory.
type notes struct {
	mu   sync.Mutex
	kept map[string]note
	err  error
}

type note struct {
	value []byte
	until time.Time
}

func (n *notes) PutNote(_ context.Context, name string, value []byte, ttl time.Duration) error {
	n.mu.Lock()
	defer n.mu.Unlock()
	if n.err != nil {
		return n.err
	}
	if n.kept == nil {
		n.kept = map[string]note{}
	}
	n.kept[name] = note{value, time.Now().Add(ttl)}
	return nil
}

func (n *notes) TakeNote(_ context.Context, name string) ([]byte, error) {
	n.mu.Lock()
	defer n.mu.Unlock()
	if n.err != nil {
		return nil, n.err
	}
	v, ok := n.kept[name]
	delete(n.kept, name)
	if !ok || !time.Now().Before(v.until) {
		return nil, fmt.Errorf("gone: %w", registry.ErrUnknown)
	}
	return v.value, nil
}

// Nothing is left running when the tests are over.
func TestMain(m *testing.M) {
	code := m.Run()
	for end := time.Now().Add(5 * time.Second); code == 0; time.Sleep(10 * time.Millisecond) {
		stacks := make([]byte, 1<<20)
		stacks = stacks[:runtime.Stack(stacks, true)]
		if !strings.Contains(string(stacks), "auth.(*") && !strings.Contains(string(stacks), "net/http.") {
			break
		}
		if time.Now().After(end) {
			fmt.Printf("left running:\n%s\n", stacks)
			code = 1
		}
	}
	os.Exit(code)
}

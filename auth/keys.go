package auth

import (
	"crypto"
	"crypto/ecdsa"
	"crypto/ed25519"
	"crypto/elliptic"
	"crypto/rsa"
	"crypto/x509"
	"encoding/pem"
	"errors"
	"fmt"
	"slices"

	jose "github.com/go-jose/go-jose/v4"
)

// tokenKey is a key and the algorithms that tokens may be signed with for it.
// An algorithm is never taken from the token alone: a public key handed to
// HMAC would make it a secret that everybody knows.
type tokenKey struct {
	kid  string // "" where the key has none: PEM files and secrets
	key  any
	algs []jose.SignatureAlgorithm
}

func (k tokenKey) takes(alg jose.SignatureAlgorithm) bool { return slices.Contains(k.algs, alg) }

var (
	hmacAlgs = []jose.SignatureAlgorithm{jose.HS256, jose.HS384, jose.HS512}
	rsaAlgs  = []jose.SignatureAlgorithm{jose.RS256, jose.RS384, jose.RS512, jose.PS256, jose.PS384, jose.PS512}
	edAlgs   = []jose.SignatureAlgorithm{jose.EdDSA}
	keyAlgs  = slices.Concat(rsaAlgs, edAlgs, []jose.SignatureAlgorithm{jose.ES256, jose.ES384, jose.ES512})
)

// fullSecret is what go-jose asks of a secret for HS512. HMAC pads a shorter
// one with zeros itself, so that to do it here changes no signature.
const fullSecret = 64

func secretKey(secret []byte) (tokenKey, error) {
	if len(secret) < MinSecret {
		return tokenKey{}, fmt.Errorf("auth: a secret of %d bytes is too short: at least %d", len(secret), MinSecret)
	}
	padded := slices.Clone(secret)
	if n := fullSecret - len(padded); n > 0 {
		padded = append(padded, make([]byte, n)...)
	}
	return tokenKey{key: padded, algs: hmacAlgs}, nil
}

var errKeyKind = errors.New("auth: a key of an unknown kind: RSA of 2048 bits or more, EC (P-256, P-384, P-521) and Ed25519 are known")

// publicKey says what a public key is good for.
func publicKey(key crypto.PublicKey) (tokenKey, error) {
	switch k := key.(type) {
	case *rsa.PublicKey:
		if k == nil || k.N == nil || k.N.BitLen() < 2048 {
			return tokenKey{}, errKeyKind
		}
		return tokenKey{key: k, algs: rsaAlgs}, nil
	case *ecdsa.PublicKey:
		if k == nil {
			return tokenKey{}, errKeyKind
		}
		switch k.Curve {
		case elliptic.P256():
			return tokenKey{key: k, algs: []jose.SignatureAlgorithm{jose.ES256}}, nil
		case elliptic.P384():
			return tokenKey{key: k, algs: []jose.SignatureAlgorithm{jose.ES384}}, nil
		case elliptic.P521():
			return tokenKey{key: k, algs: []jose.SignatureAlgorithm{jose.ES512}}, nil
		}
	case ed25519.PublicKey:
		if len(k) == ed25519.PublicKeySize {
			return tokenKey{key: k, algs: edAlgs}, nil
		}
	}
	return tokenKey{}, errKeyKind
}

// ParsePEM reads the public keys of a PEM file: PUBLIC KEY, RSA PUBLIC KEY and
// CERTIFICATE (of which only the key counts). A private key is an error, since
// it has no place here.
func ParsePEM(text []byte) ([]crypto.PublicKey, error) {
	var keys []crypto.PublicKey
	for {
		var block *pem.Block
		if block, text = pem.Decode(text); block == nil {
			break
		}
		var key crypto.PublicKey
		var err error
		switch block.Type {
		case "PUBLIC KEY":
			key, err = x509.ParsePKIXPublicKey(block.Bytes)
		case "RSA PUBLIC KEY":
			key, err = x509.ParsePKCS1PublicKey(block.Bytes)
		case "CERTIFICATE":
			var cert *x509.Certificate
			if cert, err = x509.ParseCertificate(block.Bytes); err == nil {
				key = cert.PublicKey
			}
		case "PRIVATE KEY", "RSA PRIVATE KEY", "EC PRIVATE KEY", "ENCRYPTED PRIVATE KEY":
			return nil, errors.New("auth: a private key, where only the public one belongs")
		default:
			continue
		}
		if err != nil {
			return nil, fmt.Errorf("auth: a %s that cannot be read", block.Type)
		}
		if _, err := publicKey(key); err != nil {
			return nil, err
		}
		keys = append(keys, key)
	}
	if len(keys) == 0 {
		return nil, errors.New("auth: no public key in PEM form")
	}
	return keys, nil
}

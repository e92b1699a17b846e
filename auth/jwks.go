package auth

import (
	"context"
	"crypto/tls"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/netip"
	"net/url"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	jose "github.com/go-jose/go-jose/v4"
)

// How a key set is fetched.
const (
	// JWKSWait is how long a request waits at most for keys that are being
	// fetched.
	JWKSWait = time.Second

	defaultRefresh = 10 * time.Minute
	fetchTimeout   = 5 * time.Second
	askPause       = 5 * time.Second  // between fetches that unknown kids asked for
	retryFirst     = time.Second      // after a failure, doubled up to
	retryMost      = 30 * time.Second //
	maxKeySet      = 1 << 20          // bytes
	maxKeys        = 100
)

// keySet is a set of keys that lives elsewhere and changes. Requests read it
// without a lock; one goroutine, run, fetches it. Keys that were fetched once
// stay until others come: an address that is away or talks nonsense must not
// lock everybody out.
type keySet struct {
	url    string
	every  atomic.Int64 // time.Duration
	client *http.Client
	keys   atomic.Pointer[[]tokenKey] // nil: never fetched

	ask  chan struct{} // cap 1: fetch now
	mu   sync.Mutex
	done chan struct{} // closed, and replaced, at the end of each fetch
	busy bool          // a fetch goes on
	last time.Time     // end of the last one
}

func newKeySet(address string) (*keySet, error) {
	u, err := url.Parse(address)
	if err != nil || u.Host == "" || !safeURL(u) {
		return nil, errors.New("auth: the address of the key set must begin with https:// (http:// on loopback alone)")
	}
	return &keySet{
		url: address, ask: make(chan struct{}, 1), done: make(chan struct{}),
		client: &http.Client{
			Timeout: fetchTimeout,
			// Seldom used, so that nothing is worth keeping open.
			Transport: &http.Transport{
				Proxy: http.ProxyFromEnvironment, DisableKeepAlives: true, ForceAttemptHTTP2: true,
				TLSClientConfig: &tls.Config{MinVersion: tls.VersionTLS12},
			},
			CheckRedirect: func(r *http.Request, via []*http.Request) error {
				if len(via) > 3 || !safeURL(r.URL) {
					return errors.New("redirected too often, or to an address without https")
				}
				return nil
			},
		},
	}, nil
}

// safeURL reports whether nobody on the way can change what is fetched.
func safeURL(u *url.URL) bool {
	if u.Scheme == "https" {
		return true
	}
	ip, err := netip.ParseAddr(u.Hostname())
	return u.Scheme == "http" && (u.Hostname() == "localhost" || err == nil && ip.IsLoopback())
}

// run fetches until ctx is done.
func (s *keySet) run(ctx context.Context, report func(error)) {
	failed, retry := false, retryFirst
	for {
		err := s.fetch(ctx)
		if ctx.Err() != nil {
			return
		}
		pause := time.Duration(s.every.Load())
		if err != nil {
			pause, retry = min(pause, retry), min(2*retry, retryMost)
		} else {
			retry = retryFirst
		}
		if report != nil && (err != nil) != failed {
			report(err)
		}
		failed = err != nil
		timer := time.NewTimer(pause)
		select {
		case <-ctx.Done():
		case <-timer.C:
		case <-s.ask:
		}
		timer.Stop()
		if ctx.Err() != nil {
			return
		}
	}
}

// fetch asks once, and wakes who waits for the answer.
func (s *keySet) fetch(ctx context.Context) error {
	s.mu.Lock()
	s.busy = true
	select { // whoever asked until now gets this answer
	case <-s.ask:
	default:
	}
	s.mu.Unlock()
	keys, err := s.get(ctx)
	if err == nil {
		s.keys.Store(&keys)
	}
	s.mu.Lock()
	s.busy, s.last = false, time.Now()
	close(s.done)
	s.done = make(chan struct{})
	s.mu.Unlock()
	return err
}

func (s *keySet) get(ctx context.Context) ([]tokenKey, error) {
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, s.url, nil)
	if err != nil {
		return nil, err
	}
	req.Header.Set("Accept", "application/jwk-set+json, application/json")
	resp, err := s.client.Do(req)
	if u, ok := errors.AsType[*url.Error](err); ok {
		err = u.Err // without the address, whose query may have a secret
	}
	if err != nil {
		return nil, fmt.Errorf("auth: key set: %s: %w", s.host(), err)
	}
	defer resp.Body.Close()
	if resp.StatusCode != http.StatusOK {
		return nil, fmt.Errorf("auth: key set: %s was answered %d", s.host(), resp.StatusCode)
	}
	text, err := io.ReadAll(io.LimitReader(resp.Body, maxKeySet+1))
	if err != nil {
		return nil, fmt.Errorf("auth: key set: %w", err)
	}
	if len(text) > maxKeySet {
		return nil, fmt.Errorf("auth: key set: %s sent more than %d bytes", s.host(), maxKeySet)
	}
	keys := parseKeySet(text)
	if len(keys) == 0 {
		return nil, fmt.Errorf("auth: key set: %s sent no key that can be used", s.host())
	}
	return keys, nil
}

func (s *keySet) host() string {
	u, err := url.Parse(s.url)
	if err != nil {
		return "the server"
	}
	return u.Host
}

// parseKeySet takes the public signature keys of a set; what is none, or not
// understood, is passed over, as RFC 7517 has it. A secret in a public place
// is no secret, so symmetric and private keys do not count.
func parseKeySet(text []byte) (keys []tokenKey) {
	var set struct {
		Keys []json.RawMessage `json:"keys"`
	}
	if json.Unmarshal(text, &set) != nil {
		return nil
	}
	for _, raw := range set.Keys[:min(len(set.Keys), maxKeys)] {
		var jwk jose.JSONWebKey
		if jwk.UnmarshalJSON(raw) != nil || jwk.Use != "" && jwk.Use != "sig" {
			continue
		}
		k, err := publicKey(jwk.Key)
		if err != nil {
			continue
		}
		if jwk.Algorithm != "" {
			alg := jose.SignatureAlgorithm(jwk.Algorithm)
			if !slices.Contains(k.algs, alg) {
				continue
			}
			k.algs = []jose.SignatureAlgorithm{alg}
		}
		k.kid = jwk.KeyID
		keys = append(keys, k)
	}
	return keys
}

// find returns the keys that a token may be signed with: those of its kid, or
// all where it names none. loaded is false as long as nothing was fetched.
func (s *keySet) find(kid string, alg jose.SignatureAlgorithm) (fit []tokenKey, loaded bool) {
	keys := s.keys.Load()
	if keys == nil {
		return nil, false
	}
	for _, k := range *keys {
		if k.takes(alg) && (kid == "" || k.kid == "" || k.kid == kid) {
			fit = append(fit, k)
		}
	}
	return fit, true
}

// refresh asks for a fetch and waits for its end, JWKSWait at most. It returns
// false at once where one ended only just now: tokens with made-up kids must
// not become a flood there.
func (s *keySet) refresh(ctx context.Context) bool {
	s.mu.Lock()
	if !s.busy {
		if !s.last.IsZero() && time.Since(s.last) < askPause {
			s.mu.Unlock()
			return false
		}
		select {
		case s.ask <- struct{}{}:
		default:
		}
	}
	done := s.done
	s.mu.Unlock()
	timer := time.NewTimer(JWKSWait)
	defer timer.Stop()
	select {
	case <-done:
		return true
	case <-timer.C:
	case <-ctx.Done():
	}
	return false
}

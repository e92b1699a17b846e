package auth

import (
	"cmp"
	"context"
	"crypto"
	"crypto/sha256"
	"crypto/subtle"
	"errors"
	"maps"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	jose "github.com/go-jose/go-jose/v4"
)

// Config says whom an Authenticator believes. It is not changed after it was
// handed over.
type Config struct {
	// Keys of tokens; any may be given, several of each are for rotation.
	// What is configured says which algorithms are allowed: HS… by secrets,
	// RS… and PS… by RSA keys, ES… by the EC curve, EdDSA by Ed25519 keys.
	Secrets    [][]byte           // at least MinSecret bytes each
	PublicKeys []crypto.PublicKey // *rsa.PublicKey, *ecdsa.PublicKey, ed25519.PublicKey; see ParsePEM
	JWKS       string             // address of a key set; https, or http on loopback
	// JWKSRefresh is how often the key set is fetched anew; 0 = 10 minutes.
	JWKSRefresh time.Duration

	Issuers   []string      // one of them must be iss; none = any
	Audiences []string      // one of them must be in aud; none = any
	Leeway    time.Duration // by which clocks may differ; for nbf 5 s at least
	NoExpiry  bool          // tokens without exp are allowed
	Claim     string        // claim that holds follow, publish and admin

	Cookie     string // cookie that may hold a token; "" = none
	QueryParam string // query parameter that may; "" = none

	Keys []APIKey
}

// MinSecret is the least length of a shared secret in bytes: whoever has one
// token can try secrets at leisure.
const MinSecret = 32

// APIKey is what a service shows instead of a token.
type APIKey struct {
	Name            string
	SHA256          [sha256.Size]byte // of the key
	Follow, Publish []Pattern
	Admin           bool
}

// Notes keeps tickets where every node finds them: package registry's Notes.
// TakeNote answers registry.ErrUnknown for what is not (or no longer) there.
type Notes interface {
	PutNote(ctx context.Context, name string, value []byte, ttl time.Duration) error
	TakeNote(ctx context.Context, name string) ([]byte, error)
}

// Options is what an Authenticator keeps when its Config is changed.
type Options struct {
	Notes  Notes       // nil: there are no tickets
	Report func(error) // told when the key set cannot be fetched, and nil when it can again; not concurrently; may be nil
}

// Authenticator tells who requests come from. All methods may be called
// concurrently.
type Authenticator struct {
	opts    Options
	reload  sync.Mutex
	state   atomic.Pointer[state]
	changed chan struct{} // cap 1: Run looks at state anew

	accepted atomic.Uint64
	mu       sync.Mutex
	refused  map[Reason]uint64
}

// state is what a Config comes to.
type state struct {
	cfg  Config
	keys []tokenKey                // of secrets and PEM files
	jwks *keySet                   // nil: none
	algs []jose.SignatureAlgorithm // all that any key may have
}

func (a *Authenticator) now() *state { return a.state.Load() }

// New makes an Authenticator. It does not wait for the key set: Run fetches it.
func New(cfg Config, opts Options) (*Authenticator, error) {
	a := &Authenticator{opts: opts, changed: make(chan struct{}, 1), refused: map[Reason]uint64{}}
	if err := a.Reload(cfg); err != nil {
		return nil, err
	}
	return a, nil
}

// Reload takes another Config over; on an error the old one stands. Keys that
// were fetched from the same address stay until they are fetched anew, which
// is at once.
func (a *Authenticator) Reload(cfg Config) error {
	a.reload.Lock()
	defer a.reload.Unlock()
	s := &state{cfg: cfg}
	for _, secret := range cfg.Secrets {
		k, err := secretKey(secret)
		if err != nil {
			return err
		}
		s.keys = append(s.keys, k)
	}
	for _, key := range cfg.PublicKeys {
		k, err := publicKey(key)
		if err != nil {
			return err
		}
		s.keys = append(s.keys, k)
	}
	if cfg.JWKS != "" {
		if old := a.state.Load(); old != nil && old.jwks != nil && old.jwks.url == cfg.JWKS {
			s.jwks = old.jwks
		} else {
			set, err := newKeySet(cfg.JWKS)
			if err != nil {
				return err
			}
			s.jwks = set
		}
		s.jwks.every.Store(int64(cmp.Or(cfg.JWKSRefresh, defaultRefresh)))
		s.algs = slices.Clone(keyAlgs)
	}
	for _, k := range s.keys {
		for _, alg := range k.algs {
			if !slices.Contains(s.algs, alg) {
				s.algs = append(s.algs, alg)
			}
		}
	}
	a.state.Store(s)
	select {
	case a.changed <- struct{}{}:
	default:
	}
	return nil
}

// Run keeps the key set fresh until ctx is done, also for addresses that a
// later Reload brings. Call it once.
func (a *Authenticator) Run(ctx context.Context) error {
	for ctx.Err() == nil {
		select { // what was told until now is seen below
		case <-a.changed:
		default:
		}
		inner, stop := context.WithCancel(ctx)
		var wg sync.WaitGroup
		if set := a.now().jwks; set != nil {
			wg.Go(func() { set.run(inner, a.opts.Report) })
		}
		select {
		case <-ctx.Done():
		case <-a.changed:
		}
		stop()
		wg.Wait()
	}
	return ctx.Err()
}

// Identify tells who a request comes from. Without credentials the error is
// ErrNone; with ones that are not valid it is a *BadError, and ErrUnavailable
// is wrapped where that cannot be told now. It waits for the registry (a
// ticket) as long as ctx allows, and for the key set JWKSWait at most. A ticket
// is used up by it, so ask once a request.
func (a *Authenticator) Identify(ctx context.Context, c Credentials) (*Identity, error) {
	id, err := a.identify(ctx, c)
	if err == nil {
		a.accepted.Add(1)
	} else if b, ok := errors.AsType[*BadError](err); ok {
		a.mu.Lock()
		a.refused[b.Reason]++
		a.mu.Unlock()
	}
	return id, err
}

func (a *Authenticator) identify(ctx context.Context, c Credentials) (*Identity, error) {
	s := a.now()
	bearer, isBearer := c.bearer()
	switch {
	case isBearer:
		if id := s.apiKey(bearer); id != nil {
			return id, nil
		}
		return s.token(ctx, bearer)
	case c.APIKey != "":
		if id := s.apiKey(c.APIKey); id != nil {
			return id, nil
		}
		return nil, bad(BadKey, "there is no such API key")
	case c.Ticket != "":
		return a.redeem(ctx, c.Ticket)
	case c.Query != "":
		return s.token(ctx, c.Query)
	case c.Cookie != "":
		return s.token(ctx, c.Cookie)
	}
	return nil, ErrNone
}

// apiKey finds who has a key, nil for nobody. How long it takes says nothing
// of how much of a key was right, nor of which one it is.
func (s *state) apiKey(key string) *Identity {
	if len(s.cfg.Keys) == 0 {
		return nil
	}
	sum := sha256.Sum256([]byte(key))
	found := -1
	for i := range s.cfg.Keys {
		found = subtle.ConstantTimeSelect(subtle.ConstantTimeCompare(sum[:], s.cfg.Keys[i].SHA256[:]), i, found)
	}
	if found < 0 {
		return nil
	}
	k := &s.cfg.Keys[found]
	return &Identity{Key: k.Name, Follow: k.Follow, Publish: k.Publish, Admin: k.Admin}
}

// Stats is what an Authenticator has counted since it was made.
type Stats struct {
	Accepted uint64
	Refused  map[Reason]uint64 // Reasons lists its keys; those without a count may be missing
	JWKSKeys int               // keys of the key set that are in use now
}

// Stats reads the counters.
func (a *Authenticator) Stats() Stats {
	a.mu.Lock()
	out := Stats{Accepted: a.accepted.Load(), Refused: maps.Clone(a.refused)}
	a.mu.Unlock()
	if set := a.now().jwks; set != nil {
		if keys := set.keys.Load(); keys != nil {
			out.JWKSKeys = len(*keys)
		}
	}
	return out
}

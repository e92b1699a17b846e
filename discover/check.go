package discover

import (
	"context"
	"fmt"
	"io"
	"math/rand/v2"
	"net/http"
	"slices"
	"sync"
	"time"
)

// missesDown is how many active checks in a row must fail before an endpoint
// counts as down: one may have met a restart or a full queue. One that passes
// brings it back.
const missesDown = 2

// maxCheckBody bounds how much of an answer is read so that its connection can
// be used again, in bytes.
const maxCheckBody = 64 << 10

func (t *target) down() bool { return t.missed >= missesDown }

// CheckConfig says how endpoints are asked whether they work.
type CheckConfig struct {
	Path    string        // asked with GET; 2xx and 3xx pass
	Every   time.Duration // between two rounds, ± 10 %; 0 means 10 s
	Timeout time.Duration // of one check; 0 means 2 s
	Host    string        // sent as Host; "" means the endpoint's own
	// Transport carries the checks; nil means one that Check makes for
	// itself. It should be that of the requests, with the same TLS settings.
	Transport http.RoundTripper
}

// Check asks all endpoints at once whether they work, in rounds,
// until ctx is done and all that it started has ended. Then none is down any
// more: nobody would notice that it came back.
func (b *Balancer) Check(ctx context.Context, c CheckConfig) {
	if c.Every <= 0 {
		c.Every = 10 * time.Second
	}
	if c.Timeout <= 0 {
		c.Timeout = 2 * time.Second
	}
	if c.Transport == nil {
		own := &http.Transport{MaxIdleConnsPerHost: 1, IdleConnTimeout: 2 * c.Every}
		defer own.CloseIdleConnections()
		c.Transport = own
	}
	defer b.forgetChecks()
	for ctx.Err() == nil {
		b.checkAll(ctx, c)
		select {
		case <-ctx.Done():
		case <-time.After(c.Every*9/10 + rand.N(max(1, c.Every/5))):
		}
	}
}

// checkAll asks all endpoints at once and books each answer as it comes.
func (b *Balancer) checkAll(ctx context.Context, c CheckConfig) {
	b.mu.Lock()
	targets := slices.Clone(b.targets)
	b.mu.Unlock()
	var wg sync.WaitGroup
	for _, t := range targets {
		wg.Go(func() {
			err := check(ctx, c, t.URL)
			if ctx.Err() != nil {
				return
			}
			b.mu.Lock()
			defer b.mu.Unlock()
			if err != nil {
				t.missed++
			} else {
				t.missed = 0
			}
		})
	}
	wg.Wait()
}

func (b *Balancer) forgetChecks() {
	b.mu.Lock()
	defer b.mu.Unlock()
	for _, t := range b.targets {
		t.missed = 0
	}
}

func check(ctx context.Context, c CheckConfig, url string) error {
	ctx, cancel := context.WithTimeout(ctx, c.Timeout)
	defer cancel()
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, url+c.Path, nil)
	if err != nil {
		return err
	}
	req.Host = c.Host
	req.Header.Set("User-Agent", "ssegate-check")
	resp, err := c.Transport.RoundTrip(req) // a redirect is an answer, not followed
	if err != nil {
		return err
	}
	defer resp.Body.Close()
	_, _ = io.Copy(io.Discard, io.LimitReader(resp.Body, maxCheckBody)) // what it says does not matter
	if resp.StatusCode < 200 || resp.StatusCode >= 400 {
		return fmt.Errorf("discover: %s answers %s", url, resp.Status)
	}
	return nil
}

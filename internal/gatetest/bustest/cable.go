package bustest

import (
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"encoding/pem"
	"math/big"
	"net"
	"sync"
	"sync/atomic"
	"testing"
	"time"
)

// Cable is a way to a broker on which connections can go silent, as when a
// firewall forgets them: nothing passes any more and nobody is told.
type Cable struct {
	Addr string // where it listens
	ctx  context.Context

	mu    sync.Mutex
	plugs []*plug
}

// plug is one connection through a cable.
type plug struct {
	near, far net.Conn
	silent    atomic.Bool
	held      atomic.Pointer[context.Context] // nothing passes until it is done
	passed    sync.WaitGroup                  // for both directions to end
}

// NewCable returns a cable to addr, which ends with the test. With a
// certificate it speaks TLS at our end.
func NewCable(tb testing.TB, addr string, certs ...tls.Certificate) *Cable {
	tb.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		tb.Fatal(err)
	}
	if len(certs) > 0 {
		l = tls.NewListener(l, &tls.Config{Certificates: certs})
	}
	ctx, end := context.WithCancel(context.Background())
	c := &Cable{Addr: l.Addr().String(), ctx: ctx}
	var wg sync.WaitGroup
	wg.Go(func() {
		for {
			near, err := l.Accept()
			if err != nil {
				return
			}
			far, err := net.Dial("tcp", addr)
			if err != nil {
				near.Close()
				continue
			}
			p := &plug{near: near, far: far}
			c.mu.Lock()
			c.plugs = append(c.plugs, p)
			c.mu.Unlock()
			p.passed.Add(2)
			wg.Go(func() { p.pass(near, far) })
			wg.Go(func() { p.pass(far, near) })
		}
	})
	tb.Cleanup(func() {
		l.Close()
		end()
		c.mu.Lock()
		for _, p := range c.plugs {
			p.near.Close()
			p.far.Close()
		}
		c.mu.Unlock()
		wg.Wait()
	})
	return c
}

// Silence makes the n-th connection that was made go silent, and all when n is
// -1. Connections that are made later are not concerned.
func (c *Cable) Silence(n int) {
	c.mu.Lock()
	defer c.mu.Unlock()
	for i, p := range c.plugs {
		if i == n || n == -1 {
			p.silent.Store(true)
		}
	}
}

// Hold keeps what the n-th connection carries from now on, as a network does
// that tries again later, even when our end gives the connection up. release
// lets it pass, and returns when the last byte has, up to the connection's end.
func (c *Cable) Hold(n int) (release func()) {
	c.mu.Lock()
	defer c.mu.Unlock()
	p := c.plugs[n]
	held, end := context.WithCancel(c.ctx)
	p.held.Store(&held)
	return func() {
		end()
		p.passed.Wait()
	}
}

// pass copies one direction. Once silent it swallows what comes, and hides
// that the connection was closed.
func (p *plug) pass(from, to net.Conn) {
	defer p.passed.Done()
	buf := make([]byte, 32<<10)
	for {
		n, err := from.Read(buf)
		if held := p.held.Load(); held != nil {
			<-(*held).Done()
		}
		if p.silent.Load() {
			if err != nil {
				return
			}
			continue
		}
		if n > 0 {
			if _, werr := to.Write(buf[:n]); werr != nil {
				err = werr
			}
		}
		if err != nil {
			to.Close()
			return
		}
	}
}

// Certificate makes a certificate for 127.0.0.1, signed by itself, and returns
// it as PEM too, for who is to trust it.
func Certificate(tb testing.TB) (cert tls.Certificate, trust []byte) {
	tb.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		tb.Fatal(err)
	}
	template := &x509.Certificate{
		SerialNumber:          big.NewInt(1),
		NotAfter:              time.Now().Add(time.Hour),
		IPAddresses:           []net.IP{net.IPv4(127, 0, 0, 1)},
		IsCA:                  true,
		BasicConstraintsValid: true,
		KeyUsage:              x509.KeyUsageDigitalSignature | x509.KeyUsageCertSign,
	}
	der, err := x509.CreateCertificate(rand.Reader, template, template, &key.PublicKey, key)
	if err != nil {
		tb.Fatal(err)
	}
	return tls.Certificate{Certificate: [][]byte{der}, PrivateKey: key},
		pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: der})
}

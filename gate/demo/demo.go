// Package demo is a cluster to try ssegate with that needs nothing around it:
// three nodes in one process, a model that writes an answer word by word, and
// a page where a person cuts connections and kills nodes and watches that no
// word is lost or comes twice.
//
// The nodes are real ones and the page talks to each at its own address, so
// that what is cut is a real connection. What they share (log, registry, bus)
// is memory.
package demo

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/http"
	"strconv"
	"sync"
	"time"

	"ssegate/gate"
)

// Nodes is how many nodes a Demo has.
const Nodes = 3

// Config is what a Demo is made of.
type Config struct {
	Listen  string        // address of the page; the nodes take the ports behind it where those are free
	Logging *gate.Logging // of the nodes; nil: nothing is logged
	Version string        // told by the nodes
}

// Demo is the cluster, the model and the page. New binds the page's address,
// Run serves until told to stop.
type Demo struct {
	news  news
	model *model
	nodes *nodes

	front   net.Listener
	backend net.Listener // the model's
}

// New makes a demo and binds the addresses of the page, of the model and of
// all nodes. A Demo that is not run must be closed by Close.
func New(cfg Config) (d *Demo, err error) {
	d = &Demo{}
	defer func() {
		if err != nil {
			d.Close()
			d = nil
		}
	}()
	if d.front, err = net.Listen("tcp", cfg.Listen); err != nil {
		return d, fmt.Errorf("listen for the page: %w", err)
	}
	if d.backend, err = net.Listen("tcp", "127.0.0.1:0"); err != nil {
		return d, fmt.Errorf("listen for the model: %w", err)
	}
	d.model = newModel(d.news.tell)
	d.nodes, err = newNodes(cfg, d.front.Addr().String(), "http://"+d.backend.Addr().String(), d.news.tell)
	return d, err
}

// URL is where a browser on this machine finds the page.
func (d *Demo) URL() string {
	host, port, _ := net.SplitHostPort(d.front.Addr().String()) // a listener's address is always whole
	if ip := net.ParseIP(host); ip != nil && ip.IsUnspecified() {
		host = "127.0.0.1"
	}
	return "http://" + net.JoinHostPort(host, port) + "/"
}

// Close gives back what New took, for a Demo that is not run.
func (d *Demo) Close() {
	for _, l := range []net.Listener{d.front, d.backend} {
		if l != nil {
			l.Close()
		}
	}
	if d.nodes != nil {
		d.nodes.close()
	}
}

// Run serves until ctx is done, and returns when everything has ended. It
// returns nil when that is how it ended.
func (d *Demo) Run(ctx context.Context) error {
	defer d.Close()
	ctx, stop := context.WithCancel(ctx)
	defer stop()
	base := func(net.Listener) context.Context { return ctx }
	page := &http.Server{Handler: d.pages(), BaseContext: base, ReadHeaderTimeout: 10 * time.Second}
	model := &http.Server{Handler: d.model, BaseContext: base, ReadHeaderTimeout: 10 * time.Second}

	var wg sync.WaitGroup
	failed := make(chan error, 2)
	serve := func(s *http.Server, l net.Listener) {
		wg.Go(func() {
			if err := s.Serve(l); !errors.Is(err, http.ErrServerClosed) {
				failed <- err
			}
		})
	}
	serve(model, d.backend)
	serve(page, d.front)
	d.nodes.run()

	var err error
	select {
	case <-ctx.Done():
	case err = <-failed:
	}
	stop()
	d.nodes.close()
	model.Close()
	page.Close()
	wg.Wait()
	return err
}

// near is the address n ports behind that of the page, so that a person can
// guess it; with a page on a port that the system chose, the nodes' are too.
func near(page string, n int) string {
	host, text, _ := net.SplitHostPort(page)
	port, _ := strconv.Atoi(text)
	if port+n > 65535 {
		return net.JoinHostPort(host, "0")
	}
	return net.JoinHostPort(host, strconv.Itoa(port+n))
}

// news wakes everybody who waits for something to change. The zero news is
// ready; its methods may be called concurrently.
type news struct {
	mu   sync.Mutex
	next chan struct{}
}

// wait returns a channel that is closed by the next tell.
func (n *news) wait() <-chan struct{} {
	n.mu.Lock()
	defer n.mu.Unlock()
	if n.next == nil {
		n.next = make(chan struct{})
	}
	return n.next
}

func (n *news) tell() {
	n.mu.Lock()
	defer n.mu.Unlock()
	if n.next != nil {
		close(n.next)
		n.next = nil
	}
}

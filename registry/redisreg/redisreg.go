package redisreg

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/redis/go-redis/v9"

	"ssegate/registry"
	"ssegate/sse"
)

// ErrDamaged says that a key holds what this package never wrote. The error
// around it names the key; whoever put it there must remove it.
var ErrDamaged = errors.New("not written by ssegate (is the prefix shared?)")

// Registry keeps everything in Redis and nothing in the process: any number
// of them, in any number of nodes, may share a prefix.
type Registry struct {
	c      redis.UniversalClient
	prefix string
}

var _ registry.Registry = (*Registry)(nil)

// New returns the registry below prefix. The client belongs to the caller, who
// closes it. It must have been made with ContextTimeoutEnabled, else a wait
// for a Redis that does not answer ends with the client's timeouts instead of
// the deadline of ctx. (A ctx that is cancelled before its deadline is seen
// between two attempts only; give the calls deadlines.)
func New(client redis.UniversalClient, prefix string) *Registry {
	return &Registry{c: client, prefix: prefix + ":"}
}

func (r *Registry) nodes() string   { return r.prefix + "nodes" }
func (r *Registry) cleaner() string { return r.prefix + "cleaner" }

func (r *Registry) node(id string) string  { return r.prefix + "{node:" + id + "}:node" }
func (r *Registry) conns(id string) string { return r.prefix + "{node:" + id + "}:conns" }

func (r *Registry) record(id sse.StreamID) string { return r.prefix + "{" + id.String() + "}:record" }
func (r *Registry) follow(id sse.StreamID) string { return r.prefix + "{" + id.String() + "}:follow" }

func (r *Registry) key(key string) string     { return r.prefix + "key:" + key }
func (r *Registry) print(print string) string { return r.prefix + "print:" + print }
func (r *Registry) note(name string) string   { return r.prefix + "note:" + name }
func (r *Registry) heap(name string) string   { return r.prefix + "gathered:" + name }
func (r *Registry) due() string               { return r.prefix + "due" }

// FollowKey is the key with a stream's interest: a sorted set of node ids, by
// the end of each one's interest in milliseconds of Redis' clock. Whoever
// writes to a stream may read it in the same script, for the hash tag is the
// stream's.
func (r *Registry) FollowKey(id sse.StreamID) string { return r.follow(id) }

// batch is one round trip.
type batch struct {
	redis.Pipeliner
	c     redis.UniversalClient
	calls []*call
}

// call is one script in a batch. Its answer is there once the batch was sent.
type call struct {
	script *redis.Script
	keys   []string
	args   []any
	*redis.Cmd
}

func (r *Registry) batch() *batch { return &batch{Pipeliner: r.c.Pipeline(), c: r.c} }

// run puts a script into the batch.
func (b *batch) run(ctx context.Context, s *redis.Script, keys []string, args ...any) *call {
	c := &call{script: s, keys: keys, args: args}
	c.Cmd = b.EvalSha(ctx, s.Hash(), keys, args...)
	b.calls = append(b.calls, c)
	return c
}

// send sends the batch. A Redis that does not know a script (it was started
// anew, or another took over) is sent its text in a second round trip. Each
// command has its own error; send returns the first of them.
func (b *batch) send(ctx context.Context) error {
	_, err := b.Exec(ctx)
	if err == nil {
		return nil
	}
	var again []*call
	for _, c := range b.calls {
		if redis.HasErrorPrefix(c.Err(), "NOSCRIPT") {
			again = append(again, c)
		}
	}
	if len(again) == 0 {
		return err
	}
	pipe := b.c.Pipeline()
	for _, c := range again {
		c.Cmd = c.script.Eval(ctx, pipe, c.keys, c.args...)
	}
	_, err = pipe.Exec(ctx)
	return err
}

// call runs one script by itself.
func (r *Registry) call(ctx context.Context, s *redis.Script, keys []string, args ...any) *call {
	b := r.batch()
	c := b.run(ctx, s, keys, args...)
	_ = b.send(ctx) // the call has the same error
	return c
}

// yes reads the answer of a script that says 1 or 0.
func (c *call) yes() (bool, error) {
	n, err := c.Int64()
	return n == 1, err
}

// failed says what could not be done.
func failed(what string, err error) error {
	return fmt.Errorf("registry in Redis: %s: %w", what, err)
}

// damaged says which key holds what it should not.
func damaged(key string, why error) error {
	return fmt.Errorf("registry in Redis: key %q: %w: %w", key, ErrDamaged, why)
}

// ms is a ttl as scripts take it: whole milliseconds, at least one.
func ms(ttl time.Duration) int64 { return max(1, ttl.Milliseconds()) }

package redisreg

import (
	"cmp"
	"context"
	"encoding/json"
	"errors"
	"slices"
	"time"

	"github.com/redis/go-redis/v9"

	"ssegate/registry"
)

// indexGrace is how long the index of nodes outlives the last lease in it, so
// that who starts next can tell who died.
const indexGrace = time.Hour

// Beat implements [registry.Nodes].
func (r *Registry) Beat(ctx context.Context, n registry.Node, ttl time.Duration) (lapsed bool, err error) {
	data, err := json.Marshal(n)
	if err != nil {
		return false, failed("beat", err)
	}
	b := r.batch()
	stood := b.run(ctx, beatNode, []string{r.node(n.ID), r.conns(n.ID)}, data, ms(ttl))
	valid := b.run(ctx, beatIndex, []string{r.nodes()}, n.ID, ms(ttl), ms(indexGrace))
	_ = b.send(ctx) // the calls have their errors
	hadNode, err1 := stood.yes()
	hadLease, err2 := valid.yes()
	if err := errors.Join(err1, err2); err != nil {
		return false, failed("beat", err)
	}
	return !hadNode || !hadLease, nil
}

// List implements [registry.Nodes].
func (r *Registry) List(ctx context.Context) ([]registry.Node, error) {
	ids, err := r.call(ctx, live, []string{r.nodes()}).StringSlice()
	if err != nil {
		return nil, failed("list nodes", err)
	}
	pipe := r.c.Pipeline()
	for _, id := range ids {
		pipe.Get(ctx, r.node(id))
	}
	cmds, _ := pipe.Exec(ctx) // each command has its error
	var list []registry.Node
	for i, c := range cmds {
		s, err := c.(*redis.StringCmd).Result()
		if errors.Is(err, redis.Nil) {
			continue // its lease ended in between
		}
		if err != nil {
			return nil, failed("list nodes", err)
		}
		n, err := decodeNode(s)
		if err != nil {
			return nil, damaged(r.node(ids[i]), err)
		}
		list = append(list, n)
	}
	slices.SortFunc(list, func(a, b registry.Node) int { return cmp.Compare(a.ID, b.ID) })
	return list, nil
}

// Leave implements [registry.Nodes]. The node's interest in streams is passed
// over from now on and ends with its ttl.
func (r *Registry) Leave(ctx context.Context, id string) error {
	b := r.batch()
	b.ZRem(ctx, r.nodes(), id)
	b.Del(ctx, r.node(id), r.conns(id))
	b.run(ctx, resign, []string{r.cleaner()}, id)
	if err := b.send(ctx); err != nil {
		return failed("leave", err)
	}
	return nil
}

// Sweep implements [registry.Nodes]. All else that the dead left ends by
// itself.
func (r *Registry) Sweep(ctx context.Context) (dead []string, err error) {
	pairs, err := r.call(ctx, ended, []string{r.nodes()}).StringSlice()
	if err != nil {
		return nil, failed("sweep", err)
	}
	if len(pairs) == 0 {
		return nil, nil
	}
	args := make([]any, len(pairs))
	for i, s := range pairs {
		args[i] = s
		if i%2 == 0 {
			dead = append(dead, s)
		}
	}
	slices.Sort(dead)
	if err := r.call(ctx, bury, []string{r.nodes()}, args...).Err(); err != nil {
		return dead, failed("sweep", err)
	}
	return dead, nil
}

// Lead implements [registry.Nodes].
func (r *Registry) Lead(ctx context.Context, node string, ttl time.Duration) (bool, error) {
	ok, err := r.call(ctx, lead, []string{r.cleaner()}, node, ms(ttl)).yes()
	if err != nil {
		return false, failed("lead", err)
	}
	return ok, nil
}

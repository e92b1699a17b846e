package redisreg

import (
	"context"
	"errors"
	"slices"

	"github.com/redis/go-redis/v9"

	"ssegate/registry"
)

// perCall bounds how many connections one command changes, so that no single
// one holds Redis up.
const perCall = 500

// PutConns implements [registry.Connections].
func (r *Registry) PutConns(ctx context.Context, node string, conns []*registry.Connection) error {
	if len(conns) == 0 {
		return nil
	}
	b := r.batch()
	var calls []*call
	for part := range slices.Chunk(conns, perCall) {
		args := make([]any, 0, 2*len(part))
		for _, c := range part {
			data, err := encodeConn(c)
			if err != nil {
				return failed("put connections", err)
			}
			args = append(args, c.ID, data)
		}
		calls = append(calls, b.run(ctx, putConns, []string{r.node(node), r.conns(node)}, args...))
	}
	_ = b.send(ctx) // the calls have their errors
	for _, c := range calls {
		switch ok, err := c.yes(); {
		case err != nil:
			return failed("put connections", err)
		case !ok:
			return registry.ErrUnknown
		}
	}
	return nil
}

// DropConns implements [registry.Connections].
func (r *Registry) DropConns(ctx context.Context, node string, ids []string) error {
	if len(ids) == 0 {
		return nil
	}
	pipe := r.c.Pipeline()
	for part := range slices.Chunk(ids, perCall) {
		pipe.HDel(ctx, r.conns(node), part...)
	}
	if _, err := pipe.Exec(ctx); err != nil {
		return failed("drop connections", err)
	}
	return nil
}

// Conns implements [registry.Connections].
func (r *Registry) Conns(ctx context.Context) ([]registry.Connection, error) {
	nodes, err := r.call(ctx, live, []string{r.nodes()}).StringSlice()
	if err != nil {
		return nil, failed("connections", err)
	}
	pipe := r.c.Pipeline()
	for _, id := range nodes {
		pipe.HVals(ctx, r.conns(id))
	}
	cmds, err := pipe.Exec(ctx)
	if err != nil && !errors.Is(err, redis.Nil) {
		return nil, failed("connections", err)
	}
	var all []registry.Connection
	for i, c := range cmds {
		for _, s := range c.(*redis.StringSliceCmd).Val() {
			conn, err := decodeConn(s)
			if err != nil {
				return nil, damaged(r.conns(nodes[i]), err)
			}
			all = append(all, conn)
		}
	}
	return all, nil
}

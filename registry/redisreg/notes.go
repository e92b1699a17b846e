package redisreg

import (
	"context"
	"errors"
	"slices"
	"time"

	"github.com/redis/go-redis/v9"

	"ssegate/registry"
)

// careful runs scripts that the client must not send a second time by itself
// when it does not know what became of the first: what they take would be lost,
// and nobody told.
type careful struct{ redis.UniversalClient }

// Eval is what [redis.Script] calls.
func (c careful) Eval(ctx context.Context, script string, keys []string, args ...any) *redis.Cmd {
	return c.send(ctx, "eval", script, keys, args)
}

// EvalSha is what [redis.Script] calls.
func (c careful) EvalSha(ctx context.Context, hash string, keys []string, args ...any) *redis.Cmd {
	return c.send(ctx, "evalsha", hash, keys, args)
}

func (c careful) send(ctx context.Context, name, script string, keys []string, args []any) *redis.Cmd {
	all := append(make([]any, 0, 3+len(keys)+len(args)), name, script, len(keys))
	for _, key := range keys {
		all = append(all, key)
	}
	cmd := redis.NewCmd(ctx, append(all, args...)...)
	_ = c.Process(ctx, once{cmd}) // cmd has the same error
	return cmd
}

// once is a command that the client sends once.
type once struct{ *redis.Cmd }

// NoRetry is the client's question.
func (once) NoRetry() bool { return true }

// PutNote implements [registry.Notes].
func (r *Registry) PutNote(ctx context.Context, name string, value []byte, ttl time.Duration) error {
	if err := r.c.Do(ctx, "set", r.note(name), value, "px", ms(ttl)).Err(); err != nil {
		return failed("put note", err)
	}
	return nil
}

// GetNote implements [registry.Notes].
func (r *Registry) GetNote(ctx context.Context, name string) ([]byte, error) {
	value, err := r.c.Get(ctx, r.note(name)).Bytes()
	return value, unknown("get note", err)
}

// TakeNote implements [registry.Notes].
func (r *Registry) TakeNote(ctx context.Context, name string) ([]byte, error) {
	text, err := take.Run(ctx, careful{r.c}, []string{r.note(name)}).Text()
	if err != nil {
		return nil, unknown("take note", err)
	}
	return []byte(text), nil
}

// Gather implements [registry.Gathering].
func (r *Registry) Gather(ctx context.Context, name string, value []byte, ttl time.Duration) error {
	if err := r.call(ctx, gather, []string{r.heap(name)}, value, ms(ttl), registry.MaxGathered).Err(); err != nil {
		return failed("gather", err)
	}
	return nil
}

// Gathered implements [registry.Gathering].
func (r *Registry) Gathered(ctx context.Context, name string) ([][]byte, error) {
	list, err := r.c.LRange(ctx, r.heap(name), 0, -1).Result()
	if err != nil {
		return nil, failed("gathered", err)
	}
	values := make([][]byte, len(list))
	for i, s := range list {
		values[i] = []byte(s)
	}
	return values, nil
}

// unknown is a nil reply as the registry's own word.
func unknown(what string, err error) error {
	switch {
	case err == nil:
		return nil
	case errors.Is(err, redis.Nil):
		return registry.ErrUnknown
	}
	return failed(what, err)
}

// PutDue implements [registry.Due].
func (r *Registry) PutDue(ctx context.Context, at time.Time, items [][]byte) error {
	b := r.batch()
	for len(items) > 0 {
		n := min(len(items), perCall)
		args := make([]any, 1, 1+n)
		args[0] = at.UnixMilli()
		for _, item := range items[:n] {
			args = append(args, item)
		}
		b.run(ctx, putDue, []string{r.due()}, args...)
		items = items[n:]
	}
	if len(b.calls) == 0 {
		return nil
	}
	if err := b.send(ctx); err != nil {
		return failed("put due", err)
	}
	return nil
}

// TakeDue implements [registry.Due].
func (r *Registry) TakeDue(ctx context.Context, now, back time.Time, most int) ([][]byte, error) {
	if most <= 0 {
		return nil, ctx.Err()
	}
	texts, err := takeDue.Run(ctx, careful{r.c}, []string{r.due()}, now.UnixMilli(), back.UnixMilli(), min(most, perCall)).StringSlice()
	if err != nil {
		return nil, failed("take due", err)
	}
	items := make([][]byte, len(texts))
	for i, s := range texts {
		items[i] = []byte(s)
	}
	return items, nil
}

// DropDue implements [registry.Due].
func (r *Registry) DropDue(ctx context.Context, items [][]byte) error {
	for part := range slices.Chunk(items, perCall) {
		args := make([]any, 0, 2+len(part))
		args = append(args, "zrem", r.due())
		for _, item := range part {
			args = append(args, item)
		}
		if err := r.c.Do(ctx, args...).Err(); err != nil {
			return failed("drop due", err)
		}
	}
	return ctx.Err()
}

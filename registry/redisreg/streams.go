package redisreg

import (
	"context"
	"strconv"
	"time"

	"ssegate/registry"
	"ssegate/sse"
)

// Put implements [registry.Streams].
func (r *Registry) Put(ctx context.Context, recs []registry.Record, ttl time.Duration) []error {
	b := r.batch()
	errs := make([]error, len(recs))
	calls := make([]*call, len(recs))
	for i := range recs {
		rec := &recs[i]
		data, err := encodeRecord(rec)
		if err != nil {
			errs[i] = failed("put", err)
			continue
		}
		calls[i] = b.run(ctx, put, []string{r.record(rec.Stream)}, epoch(rec.Epoch), rec.Owner, data, ms(ttl))
	}
	_ = b.send(ctx) // the calls have their errors
	bad := false
	for i, c := range calls {
		if c != nil {
			errs[i] = fenced("put", c)
		}
		bad = bad || errs[i] != nil
	}
	if !bad {
		return nil
	}
	return errs
}

// Get implements [registry.Streams].
func (r *Registry) Get(ctx context.Context, id sse.StreamID) (registry.Record, error) {
	vals, err := r.c.HMGet(ctx, r.record(id), "data").Result()
	if err != nil {
		return registry.Record{}, failed("get", err)
	}
	data, ok := vals[0].(string)
	if !ok {
		return registry.Record{}, registry.ErrUnknown
	}
	rec, err := decodeRecord(data)
	if err != nil {
		return registry.Record{}, damaged(r.record(id), err)
	}
	return rec, nil
}

// Claim implements [registry.Streams].
func (r *Registry) Claim(ctx context.Context, rec registry.Record, old uint64, ttl time.Duration) error {
	data, err := encodeRecord(&rec)
	if err != nil {
		return failed("claim", err)
	}
	return fenced("claim", r.call(ctx, claim, []string{r.record(rec.Stream)},
		epoch(old), epoch(rec.Epoch), rec.Owner, data, ms(ttl)))
}

// fenced reads the answer of put and claim.
func fenced(what string, c *call) error {
	switch ok, err := c.yes(); {
	case err != nil:
		return failed(what, err)
	case !ok:
		return registry.ErrFenced
	}
	return nil
}

func epoch(e uint64) string { return strconv.FormatUint(e, 10) }

// Touch implements [registry.Streams]. It takes two round trips: who is live
// is asked first, so that a stream which is touched for ever does not keep
// everybody who ever followed it.
func (r *Registry) Touch(ctx context.Context, ids []sse.StreamID, ttl time.Duration) error {
	if len(ids) == 0 {
		return nil
	}
	nodes, err := r.call(ctx, live, []string{r.nodes()}).StringSlice()
	if err != nil {
		return failed("touch", err)
	}
	args := make([]any, 1, 1+len(nodes))
	args[0] = ms(ttl)
	for _, n := range nodes {
		args = append(args, n)
	}
	b := r.batch()
	for _, id := range ids {
		b.run(ctx, touch, []string{r.record(id), r.follow(id)}, args...)
	}
	if err := b.send(ctx); err != nil {
		return failed("touch", err)
	}
	return nil
}

// Follow implements [registry.Interest].
func (r *Registry) Follow(ctx context.Context, id sse.StreamID, node string, ttl time.Duration) error {
	if err := r.call(ctx, follow, []string{r.follow(id)}, node, ms(ttl)).Err(); err != nil {
		return failed("follow", err)
	}
	return nil
}

// Unfollow implements [registry.Interest].
func (r *Registry) Unfollow(ctx context.Context, id sse.StreamID, node string) error {
	if err := r.c.ZRem(ctx, r.follow(id), node).Err(); err != nil {
		return failed("unfollow", err)
	}
	return nil
}

// Followers implements [registry.Interest]. Who is live is asked last in the
// same round trip: who beats and then follows is seen.
func (r *Registry) Followers(ctx context.Context, ids []sse.StreamID) ([][]string, error) {
	if len(ids) == 0 {
		return nil, nil
	}
	b := r.batch()
	calls := make([]*call, len(ids))
	for i, id := range ids {
		calls[i] = b.run(ctx, live, []string{r.follow(id)})
	}
	nodes := b.run(ctx, live, []string{r.nodes()})
	_ = b.send(ctx) // the calls have their errors
	alive, err := liveSet(nodes)
	if err != nil {
		return nil, failed("followers", err)
	}
	all := make([][]string, len(ids))
	for i, c := range calls {
		who, err := c.StringSlice()
		if err != nil {
			return nil, failed("followers", err)
		}
		for _, n := range who {
			if alive[n] {
				all[i] = append(all[i], n)
			}
		}
	}
	return all, nil
}

// liveSet reads the answer of live.
func liveSet(c *call) (map[string]bool, error) {
	ids, err := c.StringSlice()
	if err != nil {
		return nil, err
	}
	set := make(map[string]bool, len(ids))
	for _, id := range ids {
		set[id] = true
	}
	return set, nil
}

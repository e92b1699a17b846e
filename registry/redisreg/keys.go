package redisreg

import (
	"context"
	"time"

	"ssegate/registry"
	"ssegate/sse"
)

// Elect implements [registry.Keys]. One round trip, and one more for each time
// that the bid of a dead node stands in the way: it is replaced only if it is
// still the very one that was found, so one of all who found it wins.
func (r *Registry) Elect(ctx context.Context, key string, bid registry.Bid, ttl time.Duration) (registry.Bid, bool, error) {
	mine, err := encodeBid(&bid)
	if err != nil {
		return registry.Bid{}, false, failed("elect", err)
	}
	for dead := ""; ; {
		b := r.batch()
		stands := b.run(ctx, elect, []string{r.key(key)}, dead, mine, ms(ttl))
		nodes := b.run(ctx, live, []string{r.nodes()})
		_ = b.send(ctx) // the calls have their errors
		text, err := stands.Text()
		if err != nil {
			return registry.Bid{}, false, failed("elect", err)
		}
		now, err := decodeBid(text)
		if err != nil {
			return registry.Bid{}, false, damaged(r.key(key), err)
		}
		if now.Same(bid) {
			return now, true, nil // whoever is live
		}
		alive, err := liveSet(nodes)
		if err != nil {
			return registry.Bid{}, false, failed("elect", err)
		}
		if alive[now.Owner] {
			return now, false, nil
		}
		dead = text
	}
}

// Extend implements [registry.Keys].
func (r *Registry) Extend(ctx context.Context, key string, stream sse.StreamID, ttl time.Duration) error {
	switch ok, err := r.call(ctx, extend, []string{r.key(key)}, stream.String(), ms(ttl)).yes(); {
	case err != nil:
		return failed("extend", err)
	case !ok:
		return registry.ErrUnknown
	}
	return nil
}

// Release implements [registry.Keys].
func (r *Registry) Release(ctx context.Context, key string, stream sse.StreamID) error {
	if err := r.call(ctx, release, []string{r.key(key)}, stream.String()).Err(); err != nil {
		return failed("release", err)
	}
	return nil
}

// AddPrint implements [registry.Keys].
func (r *Registry) AddPrint(ctx context.Context, print string, stream sse.StreamID, ttl time.Duration) error {
	err := r.call(ctx, addPrint, []string{r.print(print)}, stream.String(), ms(ttl), registry.MaxPrints).Err()
	if err != nil {
		return failed("add fingerprint", err)
	}
	return nil
}

// ByPrint implements [registry.Keys].
func (r *Registry) ByPrint(ctx context.Context, print string) ([]sse.StreamID, error) {
	list, err := r.call(ctx, byPrint, []string{r.print(print)}).StringSlice()
	if err != nil {
		return nil, failed("find fingerprint", err)
	}
	ids := make([]sse.StreamID, len(list))
	for i, s := range list {
		if ids[i], err = sse.ParseStreamID(s); err != nil {
			return nil, damaged(r.print(print), err)
		}
	}
	return ids, nil
}

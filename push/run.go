package push

import (
	"context"
	"sync"
	"time"
)

// timeFormat is how the API writes times.
const timeFormat = "2006-01-02T15:04:05.000Z"

// run runs all of these until each has returned.
func run(ctx context.Context, all ...func(context.Context) error) []error {
	errs := make([]error, len(all))
	var wg sync.WaitGroup
	for i, f := range all {
		wg.Go(func() { errs[i] = f(ctx) })
	}
	wg.Wait()
	return errs
}

// pause waits for d, or until ctx is done.
func pause(ctx context.Context, d time.Duration) {
	t := time.NewTimer(d)
	defer t.Stop()
	select {
	case <-ctx.Done():
	case <-t.C:
	}
}

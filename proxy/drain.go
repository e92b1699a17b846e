package proxy

import (
	"context"
	"strconv"
	"time"

	"ssegate/cluster"
	"ssegate/reconnect"
)

// Drain empties the node of its streams, until ctx is done: the clients that
// come back by themselves are moved to other nodes, in batches that grow as
// long as they land; the others may finish; the pumps go on for whoever was
// moved. move is false where there is nobody to move to.
//
// It returns when no stream runs here any more and no client follows one, or
// with ctx. Requests must be refused before (see refuse).
func (st *streams) drain(ctx context.Context, move bool) {
	batch := 16
	for ctx.Err() == nil {
		moved := 0
		if move {
			for _, f := range st.movable(max(batch, st.due(ctx))) {
				c := f.Tag().(*client)
				f.Kick(cluster.ReasonMoved, bye(c.retry), false)
				moved++
			}
		}
		st.moved.Add(int64(moved))
		if st.idle() {
			return
		}
		before := st.node.Landed()
		pause(ctx, drainPause)
		// A moved client shows up as a node that follows one of our streams.
		// One that follows topics does not; see due.
		switch landed := int(st.node.Landed() - before); {
		case moved > 0 && 2*landed >= moved:
			batch = min(2*batch, 4096)
		case moved > 0 && landed == 0:
			batch = max(batch/2, 16)
		}
	}
}

// drainPause is how long one batch has to land before the next one goes.
const drainPause = 100 * time.Millisecond

// due is how many must be moved now so that all are by two thirds of the time
// that is left, whatever is heard of those who were moved.
func (st *streams) due(ctx context.Context) int {
	end, ok := ctx.Deadline()
	if !ok {
		return 0
	}
	st.mu.Lock()
	defer st.mu.Unlock()
	left := 0
	for _, f := range st.held {
		if f != nil {
			if c := f.Tag().(*client); c.resumable && !c.moved {
				left++
			}
		}
	}
	turns := max(1, int(time.Until(end)*2/3/drainPause))
	return (left + turns - 1) / turns
}

// bye is the bare line with which a client is told when to come back.
func bye(retry time.Duration) []byte {
	if retry <= 0 {
		retry = 2 * time.Second
	}
	b := append([]byte("retry: "), strconv.FormatInt(reconnect.Jitter(retry, nil).Milliseconds(), 10)...)
	return append(b, '\n')
}

func (st *streams) movable(most int) []held {
	st.mu.Lock()
	defer st.mu.Unlock()
	var out []held
	for _, f := range st.held {
		if f == nil {
			continue
		}
		if c, ok := f.Tag().(*client); ok && c.resumable && !c.moved {
			c.moved = true
			out = append(out, f)
			if len(out) == most {
				break
			}
		}
	}
	return out
}

// idle reports whether no client is held and no pump runs.
func (st *streams) idle() bool {
	st.mu.Lock()
	held := len(st.held)
	st.mu.Unlock()
	return held == 0 && !st.node.Running()
}

// close ends what is left: upstreams are cancelled. What becomes of their streams
// says started.left. It waits for the pumps.
func (st *streams) close(ctx context.Context) {
	st.stop(cluster.ErrLeaving)
	done := make(chan struct{})
	go func() { st.pumps.Wait(); close(done) }()
	select {
	case <-done:
	case <-ctx.Done():
	}
}

func pause(ctx context.Context, d time.Duration) {
	t := time.NewTimer(d)
	defer t.Stop()
	select {
	case <-ctx.Done():
	case <-t.C:
	}
}

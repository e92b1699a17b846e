package hub

import (
	"fmt"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"ssegate/sse"
)

// A follower waits for a Source that says that it cannot tell yet, however long
// that takes and with heartbeats, and then gets everything. When the stream is
// closed meanwhile it ends.
func TestNotYet(t *testing.T) {
	bubble(t, Config{}, func(t *testing.T, h *Hub) {
		l := newLeaver()
		log := &memLog{err: fmt.Errorf("the log: %w", ErrNotYet)}
		s := h.Open(l.options(StreamOptions{Source: log, First: sse.Pos{Epoch: 1, Seq: 10}, Heartbeat: []byte(":\n")}))
		s.Append(events(10, 12, 0))
		c, other := newFake(-1), newFake(-1)
		s.Follow(c, FollowOptions{Chunked: true, After: sse.Pos{Seq: 3}, Heartbeat: time.Minute})
		time.Sleep(time.Hour)
		synctest.Wait()
		if _, rest := numbers(c.text()); strings.Count(rest, ":\n") < 58 {
			t.Errorf("heartbeats in an hour: %q", rest)
		}
		log.mu.Lock()
		log.err = nil
		log.mu.Unlock()
		log.add(events(4, 9, 0))
		time.Sleep(2 * time.Second)
		synctest.Wait()
		seqs, _ := numbers(c.text())
		consecutive(t, seqs, 4, 12)

		log.mu.Lock()
		log.err = ErrNotYet
		log.mu.Unlock()
		f := s.Follow(other, FollowOptions{Chunked: true, After: sse.Pos{Seq: 3}})
		time.Sleep(time.Minute)
		s.Close()
		for range 2 {
			if why := l.next(t); why != ReasonClosed {
				t.Errorf("left for %q, %v", why, f.Pos())
			}
		}
	})
}

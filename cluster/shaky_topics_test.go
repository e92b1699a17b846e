package cluster

import (
	"context"
	"time"

	"ssegate/reconnect"
	"ssegate/sse"
)

func (l *shakyLog) Open(ctx context.Context, topics []reconnect.OpenTopic) ([]sse.Pos, error) {
	m, err := l.use(ctx, "open")
	if err != nil {
		return nil, err
	}
	return m.Open(ctx, topics)
}

func (l *shakyLog) Publish(ctx context.Context, batch []reconnect.Posts) []reconnect.Posted {
	m, err := l.use(ctx, "publish")
	if err != nil {
		posted := make([]reconnect.Posted, len(batch))
		for i := range posted {
			posted[i].Err = err
		}
		return posted
	}
	posted := m.Publish(ctx, batch)
	if l.unanswered.Load() {
		for i := range posted {
			posted[i] = reconnect.Posted{Err: errAway}
		}
	}
	return posted
}

func (l *shakyLog) Since(ctx context.Context, id sse.StreamID, t time.Time) (sse.Pos, error) {
	m, err := l.use(ctx, "since")
	if err != nil {
		return sse.Pos{}, err
	}
	return m.Since(ctx, id, t)
}

func (l *shakyLog) Back(ctx context.Context, id sse.StreamID, n int) (sse.Pos, error) {
	m, err := l.use(ctx, "back")
	if err != nil {
		return sse.Pos{}, err
	}
	return m.Back(ctx, id, n)
}

func (l *shakyLog) Pass(ctx context.Context, id sse.StreamID, pos sse.Pos, ttl time.Duration) error {
	m, err := l.use(ctx, "pass")
	if err != nil {
		return err
	}
	return m.Pass(ctx, id, pos, ttl)
}

func (l *shakyLog) Passed(ctx context.Context, id sse.StreamID) (sse.Pos, error) {
	m, err := l.use(ctx, "passed")
	if err != nil {
		return sse.Pos{}, err
	}
	return m.Passed(ctx, id)
}

// cut makes the log lose all of a topic but its first messages, numbering
// included.
func (l *shakyLog) cut(topic string, limits reconnect.Limits, keep ...string) {
	l.mu.Lock()
	defer l.mu.Unlock()
	id := TopicOf(topic).ID
	ctx := context.Background()
	at, _ := l.now.Back(ctx, id, 1<<30)
	// In a new log the numbering begins at the time of the first message.
	began := time.UnixMilli(int64(at.Epoch))
	cfg := reconnect.MemoryConfig{Followers: l.followers, Now: func() time.Time {
		if began.IsZero() {
			return time.Now()
		}
		return began
	}}
	l.now = reconnect.NewMemory(cfg)
	if _, err := l.now.Open(ctx, []reconnect.OpenTopic{{Stream: id, TTL: limits.TTL}}); err != nil {
		panic(err)
	}
	posts := reconnect.Posts{Stream: id, Limits: limits}
	for _, data := range keep {
		posts.Posts = append(posts.Posts, reconnect.Post{Block: []byte("data: " + data + "\n\n")})
	}
	l.now.Publish(ctx, []reconnect.Posts{posts})
	began = time.Time{}
}

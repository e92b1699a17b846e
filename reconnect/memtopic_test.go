package reconnect_test

import (
	"errors"
	"fmt"
	"testing"
	"time"

	"ssegate/reconnect"
	"ssegate/sse"
)

func publish1(t *testing.T, m *reconnect.Memory, id sse.StreamID, limits reconnect.Limits, posts ...reconnect.Post) reconnect.Posted {
	t.Helper()
	d := m.Publish(t.Context(), []reconnect.Posts{{Stream: id, Limits: limits, Posts: posts}})[0]
	if d.Err != nil {
		t.Fatal(d.Err)
	}
	return d
}

// TestTopicsGiveWay: with many more topics than there is room for, the budget
// holds, frames go before numberings, and a topic that was forgotten gives no
// number out twice, though the clock stands still.
func TestTopicsGiveWay(t *testing.T) {
	const room = 256 << 10
	c := newClock()
	m := reconnect.NewMemory(reconnect.MemoryConfig{MaxBytes: room, Now: c.now})
	var ids []sse.StreamID
	var last []sse.Pos
	for i := range 4000 {
		id := sse.NewStreamID()
		d := publish1(t, m, id, reconnect.Limits{}, reconnect.Post{ID: fmt.Appendf(nil, "message %d", i), Once: time.Hour, Block: make([]byte, 100)})
		ids, last = append(ids, id), append(last, d.Pos[0])
		if s := m.Stats(); s.Bytes > room {
			t.Fatalf("%d bytes after %d topics", s.Bytes, i)
		}
	}
	s := m.Stats()
	idle, live := s.Dropped[reconnect.ReasonIdle], s.Dropped[reconnect.ReasonLive]
	if s.Logs+int64(idle.Logs) != 4000 || idle.Logs == 0 || live.Frames < idle.Logs || idle.Frames != 0 {
		t.Errorf("%+v", s)
	}
	for i, id := range ids {
		if d := publish1(t, m, id, reconnect.Limits{}, reconnect.Post{Block: []byte("x")}); d.Pos[0].Seq <= last[i].Seq {
			t.Fatalf("topic %d: %v after %v", i, d.Pos[0], last[i])
		}
	}
	if _, err := m.Open(t.Context(), []reconnect.OpenTopic{{Stream: ids[0], After: sse.Pos{Epoch: 1 << 43, Seq: 1 << 52}}}); err != nil {
		t.Error(err)
	}
}

// TestSweepTopics: frames past their TTL are freed, the numbering goes on until
// its own end, and then nothing is left.
func TestSweepTopics(t *testing.T) {
	c := newClock()
	m := reconnect.NewMemory(reconnect.MemoryConfig{Now: c.now})
	limits := reconnect.Limits{TTL: time.Minute}
	id := sse.NewStreamID()
	d := publish1(t, m, id, limits,
		reconnect.Post{ID: []byte("a"), Once: time.Second, Block: make([]byte, 5000)},
		reconnect.Post{ID: []byte("b"), Block: make([]byte, 5000)})
	full := m.Stats()
	c.advance(time.Minute)
	if n := m.Sweep(); n != 0 {
		t.Errorf("swept %d", n)
	}
	s := m.Stats()
	if s.Logs != 1 || s.Frames != 0 || s.Bytes > full.Bytes-10_000 || s.Dropped[reconnect.ReasonTTL] != (reconnect.Drops{Frames: 2}) {
		t.Errorf("%+v", s)
	}
	quiet := m.Stats().Bytes
	for range 10 { // what is remembered and forgotten is accounted
		publish1(t, m, id, limits, reconnect.Post{ID: []byte("a"), Once: time.Second})
		c.advance(time.Minute)
		m.Sweep()
	}
	if now := m.Stats().Bytes; now != quiet {
		t.Errorf("%d bytes, then %d", quiet, now)
	}
	tails, err := m.Tails(t.Context(), []sse.StreamID{id})
	if err != nil || tails[0].Pos.Seq != d.Pos[1].Seq+10 {
		t.Errorf("%v, %v", tails, err)
	}
	c.advance(reconnect.NumberingTTL(limits.TTL))
	if n := m.Sweep(); n != 1 {
		t.Errorf("swept %d", n)
	}
	if s := m.Stats(); s.Logs != 0 || s.Frames != 0 || s.Bytes != 0 {
		t.Errorf("%+v", s)
	}
	if _, err := m.Back(t.Context(), id, 1); !errors.Is(err, reconnect.ErrUnknown) {
		t.Error(err)
	}
}

// TestPublishAllocates: what is not kept is allocated once a batch.
func TestPublishAllocates(t *testing.T) {
	m := reconnect.NewMemory(reconnect.MemoryConfig{MaxBytes: 1 << 20})
	batch := []reconnect.Posts{{Stream: sse.NewStreamID(), Limits: reconnect.Limits{Length: 128}, Posts: make([]reconnect.Post, 64)}}
	for range 10 {
		m.Publish(t.Context(), batch)
	}
	if n := testing.AllocsPerRun(200, func() { m.Publish(t.Context(), batch) }); n > 3 {
		t.Errorf("%v allocations for 64 posts", n)
	}
}

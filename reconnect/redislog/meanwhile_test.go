package redislog_test

import (
	"context"
	"fmt"
	"strings"
	"testing"

	"github.com/redis/go-redis/v9"

	"ssegate/reconnect"
	"ssegate/reconnect/redislog"
	"ssegate/sse"
)

// meanwhile does something before each round trip of a client.
type meanwhile struct {
	trip int
	do   func(trip int)
}

func (m *meanwhile) DialHook(next redis.DialHook) redis.DialHook { return next }

func (m *meanwhile) ProcessHook(next redis.ProcessHook) redis.ProcessHook { return next }

func (m *meanwhile) ProcessPipelineHook(next redis.ProcessPipelineHook) redis.ProcessPipelineHook {
	return func(ctx context.Context, cmds []redis.Cmder) error {
		if m.do != nil {
			m.trip++
			m.do(m.trip)
		}
		return next(ctx, cmds)
	}
}

// anew begins a topic's numbering anew, as does a Redis that was restarted.
func (r reading) anew(c *redis.Client, prefix string) sse.Pos {
	r.Helper()
	r.another(c, prefix)
	return r.opened(sse.Pos{}, sse.Pos{}, 0)
}

// another makes it look as if another process had given out what is there.
func (r reading) another(c *redis.Client, prefix string) {
	r.Helper()
	if err := c.HSet(r.Context(), prefix+":{"+r.id.String()+"}:seq", "r", "another", "v", "1").Err(); err != nil {
		r.Fatal(err)
	}
}

// TestAnewOften: a topic is numbered anew many times, mostly before anything is
// said. Nobody is told of a gap who has been there in one of the last times, and
// nobody, ever, who has the last message before that.
func TestAnewOften(t *testing.T) {
	c := connect(t, shared)
	log, prefix := open(t, c)
	r := reading{t, log, sse.NewStreamID()}
	at, want := []sse.Pos{mustPublish(t, log, note(r.id, 0, "a")).Pos[0]}, []string{""}
	for i := range 40 {
		at, want = append(at, r.anew(c, prefix)), append(want, "")
		if i%4 == 3 && i < 12 || i == 39 {
			said := fmt.Sprint(i)
			at = append(at, mustPublish(t, log, note(r.id, 0, said)).Pos[0])
			for j := range want {
				want[j] += said
			}
			want = append(want, "")
		}
	}
	for i, pos := range at {
		if i < 5 || i > len(at)-10 || pos != reconnect.Origin(pos.Epoch) {
			r.from(pos, want[i])
		}
	}
}

// TestLateWord: that a message was lost is known to somebody who says so when the
// topic was numbered anew twice since, with messages. From then on everybody who
// was there is told of a gap, of one however often that is said.
func TestLateWord(t *testing.T) {
	c := connect(t, shared)
	log, prefix := open(t, c)
	r := reading{t, log, sse.NewStreamID()}
	kept := mustPublish(t, log, note(r.id, 0, "a")).Pos[0]
	lost := sse.Pos{Seq: kept.Seq + 1}
	r.anew(c, prefix)
	b := mustPublish(t, log, note(r.id, 0, "b")).Pos[0]
	r.anew(c, prefix)
	at := mustPublish(t, log, note(r.id, 0, "c")).Pos[0]
	r.from(kept, "bc")
	for _, pos := range []sse.Pos{kept, b} { // which are well known
		if tail := r.opened(pos, sse.Pos{}, 1); tail != at {
			t.Fatalf("who is at %v makes it begin anew", pos)
		}
	}
	tail := r.opened(lost, at, 1)
	for range 2 {
		if again := r.opened(lost, sse.Pos{}, 1); again != tail {
			t.Fatalf("at %v, and then at %v", tail, again)
		}
	}
	r.from(kept, "bc!")
	r.from(at, "!")
	r.another(c, prefix)
	mustPublish(t, log, note(r.id, 0, "d"))
	if again := r.opened(lost, tail, 2); again.Seq != reconnect.Origin(again.Epoch).Seq+2 {
		t.Fatalf("said twice, at %v", again)
	}
	r.from(kept, "bc!d")
	r.from(tail, "!d")
}

// TestAnewWhileRead: a topic is numbered anew between two round trips of a Read,
// once or every time, with a message before and after or without, and the scripts
// forgotten as a Redis does that was restarted. Nothing is lost, and Read does not
// say so.
func TestAnewWhileRead(t *testing.T) {
	c := connect(t, shared)
	log, prefix := open(t, c)
	for _, said := range []string{"", "a"} {
		for _, then := range []string{"", "b"} {
			for begun := range 3 {
				for at := range 5 { // 0: at each
					for _, forgets := range []bool{false, true} {
						t.Run(fmt.Sprintf("%q, %d times, %q at %d, forgets %v", said, begun, then, at, forgets), func(t *testing.T) {
							id := sse.NewStreamID()
							want := ""
							anew := func(say string) sse.Pos {
								tail := reading{t, log, id}.anew(c, prefix)
								if say != "" {
									want += say
									return mustPublish(t, log, note(id, 0, say)).Pos[0]
								}
								return tail
							}
							after := []sse.Pos{anew(said)}
							want = ""
							for range begun {
								after = append(after, anew(""))
							}
							for _, after := range after {
								var between meanwhile
								slow := connect(t, shared)
								slow.AddHook(&between)
								reader := redislog.New(slow, prefix)
								if err := slow.Ping(t.Context()).Err(); err != nil { // the connection is there
									t.Fatal(err)
								}
								between.do = func(trip int) {
									if at != 0 && trip != at {
										return
									}
									anew(then)
									if forgets {
										if err := c.ScriptFlush(t.Context()).Err(); err != nil {
											t.Error(err)
										}
									}
								}
								frames, err := reader.Read(t.Context(), id, after, 10)
								if err != nil {
									t.Fatalf("behind %v: %d frames, %v", after, len(frames), err)
								}
								between.do = nil
								if len(frames) > 0 {
									after = frames[len(frames)-1].Pos
								}
								var got strings.Builder
								for _, f := range frames {
									got.WriteString(string(f.ID))
								}
								reading{t, log, id}.from(after, want[len(got.String()):])
							}
						})
					}
				}
			}
		}
	}
}

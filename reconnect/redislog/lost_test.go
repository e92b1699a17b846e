package redislog_test

import (
	"io"
	"net"
	"sync"
	"sync/atomic"
	"testing"

	"github.com/redis/go-redis/v9"

	"ssegate/reconnect"
	"ssegate/sse"
)

// lossy stands between a client and Redis. When told so, it hands on the
// client's next words, and cuts the connection instead of bringing the answer.
type lossy struct {
	net.Listener
	to  string
	cut atomic.Bool
	wg  sync.WaitGroup
}

func newLossy(t *testing.T, to string) *lossy {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	p := &lossy{Listener: l, to: to}
	p.wg.Go(func() {
		for {
			c, err := l.Accept()
			if err != nil {
				return
			}
			p.wg.Go(func() { p.serve(c) })
		}
	})
	t.Cleanup(func() {
		l.Close()
		p.wg.Wait()
	})
	return p
}

func (p *lossy) serve(client net.Conn) {
	defer client.Close()
	server, err := net.Dial("tcp", p.to)
	if err != nil {
		return
	}
	defer server.Close()
	p.wg.Go(func() {
		io.Copy(server, client)
		server.Close()
	})
	buf := make([]byte, 32<<10)
	for {
		n, err := server.Read(buf)
		if err != nil || p.cut.CompareAndSwap(true, false) {
			return
		}
		if _, err := client.Write(buf[:n]); err != nil {
			return
		}
	}
}

// TestLostAnswers: Redis did what it was told, but the answer was lost, and
// the client sends it again by itself.
func TestLostAnswers(t *testing.T) {
	proxy := newLossy(t, shared.Addr)
	c := redis.NewClient(&redis.Options{Addr: proxy.Addr().String()})
	defer c.Close()
	log, _ := open(t, c)
	id := sse.NewStreamID()
	lose := func() {
		t.Helper()
		if err := c.Ping(t.Context()).Err(); err != nil { // the connection is there
			t.Fatal(err)
		}
		proxy.cut.Store(true)
	}
	lost := func() {
		t.Helper()
		if proxy.cut.Load() {
			t.Error("no answer was lost")
		}
	}

	lose()
	mustAppend(t, log, id, run(1, 1, 3))
	lost()
	lose()
	mustAppend(t, log, id, run(1, 4, 700)) // by script
	lost()
	for _, epoch := range []uint64{2, 3} {
		lose()
		last, err := log.Fence(t.Context(), id, epoch, reconnect.Limits{})
		if err != nil || last.Pos != (sse.Pos{Epoch: 1, Seq: 703}) {
			t.Errorf("fence: %v, %v", last.Pos, err)
		}
		lost()
	}
	tails, err := log.Tails(t.Context(), []sse.StreamID{id})
	if err != nil || tails[0] != (reconnect.Tail{Pos: sse.Pos{Epoch: 3, Seq: 703}, Kind: sse.KindFence}) {
		t.Errorf("%v, %v", tails, err)
	}
	got, err := log.Read(t.Context(), id, sse.Pos{}, 1000)
	if err != nil || len(got) != 703 {
		t.Errorf("%d frames, %v", len(got), err)
	}
}

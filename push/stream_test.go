package push

import (
	"bytes"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"net/http"
	"slices"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"ssegate/auth"
	"ssegate/cluster"
)

// marks are the marks that a client saw, and the events between them.
func (c *client) marks() (marks []Mark, rest []told) {
	for _, e := range c.events() {
		if e.name != StreamEvent {
			rest = append(rest, e)
			continue
		}
		var m Mark
		if err := json.Unmarshal([]byte(e.data), &m); err != nil {
			c.w.Fatal(err)
		}
		marks = append(marks, m)
	}
	return marks, rest
}

// upload sends a body that the test writes piece by piece.
func (n *node) upload(path, contentType string, change ...func(*http.Request)) (*io.PipeWriter, chan answer) {
	r, w := io.Pipe()
	done := make(chan answer, 1)
	go func() { done <- n.do("POST", path, contentType, r, change...) }()
	synctest.Wait()
	return w, done
}

// Events arrive as they are written, in order, at all targets on all nodes, and
// begin and end are told.
func TestEventStream(t *testing.T) {
	inWorld(t, Config{}, func(w *world, n ...*node) {
		u, v := n[0].follow(all, "user/u"), n[1].follow(all, "channel/v")
		x, y := n[1].follow(all, "user/x"), n[0].follow(all, "user/x")
		body, done := n[0].upload("/api/v1/streams/user/u?to=channel/v,user/u,connection/"+x.id+",connection/none", "text/event-stream; charset=utf-8")
		io.WriteString(body, ": hi\n\nid: 7\nretry: 5\nevent: token\nda")
		io.WriteString(body, "ta: one\n\n")
		wait(20 * time.Millisecond)
		if _, got := u.marks(); !slices.Equal(got, []told{{"token", "one"}}) {
			t.Errorf("early: %q", got)
		}
		io.WriteString(body, "data: two\r\ndata:three\r\n\r\nevent: empty\n\ndata\n\ndata: cut off")
		body.Close()
		a := w.is(<-done, 200)
		if a.at("state") != "end" || a.at("events").(float64) != 3 || a.at("unfinished").(float64) == 0 || a.at("targets", 0, "status") != "delivered" ||
			a.at("targets", 3, "status") != "not_connected" || a.at("targets", 4) != nil {
			t.Errorf("%s", a.raw)
		}
		wait(time.Second)
		want := []told{{"token", "one"}, {"", "two\nthree"}, {"", ""}}
		for _, c := range []*client{u, v, x} {
			marks, got := c.marks()
			if !slices.Equal(got, want) {
				t.Errorf("%s got %q, want %q", c.id, got, want)
			}
			if len(marks) != 2 || marks[0].State != "begin" || marks[1].State != "end" || marks[1].Events != 3 || marks[0].Stream != a.at("stream") || marks[0].Kind != "events" {
				t.Errorf("%s was told %+v", c.id, marks)
			}
		}
		if got := y.events(); len(got) > 0 {
			t.Errorf("what was for another connection: %q", got)
		}
		body, done = n[0].upload("/api/v1/streams/user/u?marks=off", "text/event-stream")
		io.WriteString(body, "data: quiet\n\n")
		body.Close()
		w.is(<-done, 200)
		wait(time.Second)
		if marks, got := u.marks(); len(marks) != 2 || len(got) != 4 {
			t.Errorf("%v %v", marks, got)
		}
		w.is(n[0].do("POST", "/api/v1/streams/connection/none", "text/event-stream", strings.NewReader("data: x\n\n")), 404)
	}, "a", "b")
}

// TestStreamsWrongQuery: what a stream's address says and cannot mean is refused
// before anything is read.
func TestStreamsWrongQuery(t *testing.T) {
	inWorld(t, Config{}, func(w *world, n ...*node) {
		for query, field := range map[string]string{
			"to=": "to", "to=user/a,": "to[1]", "to=user/a&to=user/b": "to", "marks=maybe": "marks", "marks=": "marks",
			"session_id=": "session_id", "kb_id=a%0Ab": "kb_id", "task_id=a&task_id=b": "task_id",
		} {
			got := w.is(n[0].post("/api/v1/streams/user/u?"+query, "x"), 400)
			if got.at("error", "fields", 0, "field") != field {
				t.Errorf("%s: %s", query, got.raw)
			}
		}
	}, "a")
}

// What goes wrong with a stream is told to both sides; what came before counts.
func TestStreamsCutShort(t *testing.T) {
	inWorld(t, Config{Options: Options{EventSize: 1000}}, func(w *world, n ...*node) {
		for i, end := range []struct {
			body   string
			err    error
			status int
			reason string
		}{
			{"", errors.New("connection reset"), 400, "body_cut"},
			{"event: ssegate.gap\ndata: x\n\n", nil, 400, "invalid_event"},
			{"event: a\x00b\ndata: x\n\n", nil, 400, "invalid_event"},
			{"event: " + strings.Repeat("x", 300) + "\ndata: x\n\n", nil, 400, "invalid_event"},
			{"data: " + strings.Repeat("x", 2000), nil, 413, "too_large"},
		} {
			c := n[0].follow(all, fmt.Sprintf("user/u%d", i))
			body, done := n[0].upload(fmt.Sprintf("/api/v1/streams/user/u%d", i), "text/event-stream")
			io.WriteString(body, "data: good\n\n")
			io.WriteString(body, end.body)
			body.CloseWithError(end.err)
			a := w.is(<-done, end.status)
			if a.at("error", "reason") != end.reason || a.at("result", "state") != "cut" || a.at("result", "events").(float64) != 1 {
				t.Errorf("%s: %s", end.reason, a.raw)
			}
			wait(time.Second)
			marks, got := c.marks()
			if len(marks) != 2 || marks[1].State != "cut" || marks[1].Reason != end.reason || !slices.Equal(got, []told{{"", "good"}}) {
				t.Errorf("%s: told %+v and %q", end.reason, marks, got)
			}
		}
		if s := n[0].api.Stats(); s.Streams != 5 || s.CutShort != 5 || s.Events != 5 {
			t.Errorf("%+v", s)
		}
	}, "a")
}

// A publisher is read no faster than the log takes what it sends; when the log
// is back it goes on, and nothing is there twice.
func TestStreamBackPressure(t *testing.T) {
	inWorld(t, Config{}, func(w *world, n ...*node) {
		c := n[0].follow(all, "user/u")
		body, done := n[0].upload("/api/v1/streams/user/u", "text/event-stream")
		io.WriteString(body, "data: 0\n\n")
		wait(100 * time.Millisecond)
		w.log.fails(errAway, true) // it takes them and does not say so
		io.WriteString(body, "data: 1\n\n")
		wrote := make(chan bool)
		go func() {
			io.WriteString(body, "data: 2\n\n")
			body.Close()
			close(wrote)
		}()
		wait(3 * time.Second)
		select {
		case <-wrote:
			t.Error("the publisher was read while the log was away")
		default:
		}
		w.log.fails(nil, false)
		<-wrote
		a := w.is(<-done, 200)
		wait(5 * time.Second)
		if _, got := c.marks(); !slices.Equal(got, []told{{"", "0"}, {"", "1"}, {"", "2"}}) || a.at("events").(float64) != 3 {
			t.Errorf("got %q, %s", got, a.raw)
		}

		w.log.fails(errAway, false)
		began := time.Now()
		a = w.is(n[0].do("POST", "/api/v1/streams/user/u", "text/event-stream", strings.NewReader("data: lost\n\n")), 503)
		if a.head.Get("Retry-After") == "" || time.Since(began) > time.Minute || a.at("result", "events").(float64) != 0 {
			t.Errorf("%v after %v: %s", a.head, time.Since(began), a.raw)
		}
	}, "a")
}

// A faster publisher than its rate allows is held back, not refused.
func TestStreamRate(t *testing.T) {
	inWorld(t, Config{Options: Options{Rate: 100, Burst: 1}}, func(w *world, n ...*node) {
		began := time.Now()
		body, done := n[0].upload("/api/v1/streams/user/u", "text/event-stream")
		for range 200 {
			io.WriteString(body, "data: x\n\n")
			synctest.Wait()
		}
		body.Close()
		w.is(<-done, 200)
		if took := time.Since(began); took < 1900*time.Millisecond || took > 3*time.Second {
			t.Errorf("200 events at 100 a second took %v", took)
		}
	}, "a")
}

// A publisher's stream ends with its token.
func TestStreamToken(t *testing.T) {
	inWorld(t, Config{}, func(w *world, n ...*node) {
		who := auth.Anyone()
		who.Expires = time.Now().Add(time.Minute)
		body, done := n[0].upload("/api/v1/streams/user/u", "text/event-stream", as(who))
		io.WriteString(body, "data: x\n\n")
		wait(2 * time.Minute)
		io.WriteString(body, "data: y\n\n")
		a := w.is(<-done, 401)
		body.Close()
		if a.at("result", "events").(float64) != 1 {
			t.Errorf("%s", a.raw)
		}
	}, "a")
}

// A stream to a connection ends when the connection does, since nobody else can
// get it, also while its publisher is silent; other targets go on.
func TestStreamToConnectionThatGoes(t *testing.T) {
	inWorld(t, Config{}, func(w *world, n ...*node) {
		c, d := n[1].follow(all, "user/u"), n[0].follow(all, "user/u")
		only, done := n[0].upload("/api/v1/streams/connection/"+c.id, "text/event-stream")
		both, bothDone := n[0].upload("/api/v1/streams/connection/"+c.id+"?to=user/v", "text/event-stream")
		two, twoDone := n[0].upload("/api/v1/streams/connection/"+c.id+"?to=connection/"+d.id, "text/event-stream")
		for _, body := range []io.Writer{only, both, two} {
			io.WriteString(body, "data: x\n\n")
		}
		wait(10 * time.Second)
		select {
		case a := <-done:
			t.Fatalf("ended while its connection is there: %s", a.raw)
		default:
		}
		began := time.Now()
		if err := n[0].Kick(w.Context(), c.id); err != nil {
			t.Fatal(err)
		}
		a := w.is(<-done, 410)
		if a.at("error", "reason") != "connection_gone" || a.at("result", "state") != "cut" || a.at("result", "events").(float64) != 1 || a.at("result", "targets", 0, "status") != "not_connected" {
			t.Errorf("%s", a.raw)
		}
		if took := time.Since(began); took > 2*time.Second {
			t.Errorf("the publisher heard of it after %v", took)
		}
		for _, body := range []*io.PipeWriter{both, two} {
			io.WriteString(body, "data: y\n\n")
			wait(time.Second)
			io.WriteString(body, "data: z\n\n")
			body.Close()
		}
		for target, got := range map[string]chan answer{"user/v": bothDone, "connection/" + d.id: twoDone} {
			if a := w.is(<-got, 200); a.at("targets", 0, "status") != "not_connected" || a.at("targets", 1, "target") != target || a.at("targets", 1, "status") == "not_connected" {
				t.Errorf("%s", a.raw)
			}
		}
		wait(time.Second)
		if _, got := d.marks(); !slices.Equal(got, []told{{"", "x"}, {"", "y"}, {"", "z"}}) {
			t.Errorf("%q", got)
		}
		// One that is over before anybody has missed the connection.
		body, done := n[0].upload("/api/v1/streams/connection/"+d.id, "text/event-stream")
		n[0].Kick(w.Context(), d.id)
		wait(10 * time.Millisecond)
		io.WriteString(body, "data: late\n\n")
		body.Close()
		if a := w.is(<-done, 200); a.at("targets", 0, "status") != "not_connected" {
			t.Errorf("%s", a.raw)
		}
	}, "a", "b")
}

// When the node dies to which a stream is published, its followers are told of
// the cut, once, and of no other stream; a node that is only said to be dead
// goes on.
func TestStreamOfDeadNode(t *testing.T) {
	inWorld(t, Config{Gone: 2 * time.Second}, func(w *world, n ...*node) {
		c, d := n[1].follow(all, "user/u"), n[2].follow(all, "channel/v")
		e := n[2].follow(all, "user/e")
		over, overDone := n[0].upload("/api/v1/streams/user/e", "text/event-stream")
		over.Close()
		w.is(<-overDone, 200)
		body, done := n[0].upload("/api/v1/streams/user/u?to=channel/v,connection/"+e.id, "text/event-stream")
		io.WriteString(body, "data: x\n\n")
		wait(time.Second)
		n[1].api.Gone("a") // as a registry says that has forgotten it
		wait(10 * time.Second)
		if marks, _ := c.marks(); len(marks) != 1 {
			t.Fatalf("a node that lives: %+v", marks)
		}
		n[0].Abort()
		n[0].leave()
		wait(10 * time.Second)
		for _, f := range []*client{c, d, e} {
			marks, got := f.marks()
			if f == e {
				marks = marks[2:] // of the stream that had ended well
			}
			if len(marks) != 2 || marks[1].State != "cut" || marks[1].Reason != "node_lost" || marks[1].Stream != marks[0].Stream || marks[1].Kind != "events" || !slices.Equal(got, []told{{"", "x"}}) {
				t.Errorf("%s was told %+v and %q", f.id, marks, got)
			}
		}
		body.CloseWithError(io.ErrUnexpectedEOF)
		<-done
	}, "a", "b", "c")
}

// Bytes come in pieces that can be put together again.
func TestPieces(t *testing.T) {
	inWorld(t, Config{}, func(w *world, n ...*node) {
		file := make([]byte, 3*PieceSize+100)
		for i := range file {
			file[i] = byte(rand.Uint32())
		}
		sum := sha256.Sum256(file)
		c := n[1].follow(cluster.Filter{Session: "s1"}, "user/u")
		other := n[1].follow(cluster.Filter{Session: "s2"}, "user/u")
		for _, known := range []bool{true, false} {
			a := w.is(n[0].do("POST", "/api/v1/streams/user/u?session_id=s1", "image/png", bytes.NewReader(file), func(r *http.Request) {
				r.Header.Set("Content-Disposition", `attachment; filename="../cat.png"`)
				if !known {
					r.ContentLength = -1
				}
			}), 200)
			if a.at("events").(float64) != 4 || a.at("bytes").(float64) != float64(len(file)) || a.at("sha256") != hex.EncodeToString(sum[:]) || a.at("kind") != "pieces" {
				t.Errorf("%s", a.raw)
			}
		}
		wait(time.Second)
		marks, pieces := c.marks()
		if len(marks) != 4 || len(pieces) != 8 {
			t.Fatalf("%d marks, %d pieces", len(marks), len(pieces))
		}
		if m := marks[0]; m.Type != "image/png" || m.Name != "cat.png" || m.Total != 4 || m.Bytes != int64(len(file)) || marks[2].Total != 0 {
			t.Errorf("%+v", marks)
		}
		if m := marks[1]; m.State != "end" || m.SHA256 != hex.EncodeToString(sum[:]) || m.Total != 4 || marks[3].Total != 4 {
			t.Errorf("%+v", marks)
		}
		var got []byte
		for i, e := range pieces {
			var p Piece
			if err := json.Unmarshal([]byte(e.data), &p); err != nil || e.name != PieceEvent {
				t.Fatalf("%s %v", e.name, err)
			}
			if p.Index != i%4 || p.Offset != int64(len(got)%len(file)) || i < 4 && p.Total != 4 || i >= 4 && p.Total != 0 || p.Stream != marks[i/4*2].Stream {
				t.Errorf("piece %d: %d of %d at %d", i, p.Index, p.Total, p.Offset)
			}
			got = append(got, p.Data...)
		}
		if !bytes.Equal(got, append(slices.Clone(file), file...)) {
			t.Error("the bytes are others")
		}
		if got := other.events(); len(got) > 0 {
			t.Errorf("another session got %d events", len(got))
		}
		a := w.is(n[0].do("POST", "/api/v1/streams/user/u", "application/octet-stream", http.NoBody), 200)
		if a.at("events").(float64) != 0 || a.at("state") != "end" {
			t.Errorf("%s", a.raw)
		}
	}, "a", "b")
}

package push

import (
	"bufio"
	"bytes"
	"context"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"
	"time"

	"ssegate/auth"
	"ssegate/cluster"
)

// tap is a cluster that tells what is published.
type tap struct {
	nowhere
	got chan string
}

func (c tap) Publish(ctx context.Context, posts []cluster.Outgoing) []cluster.Receipt {
	for _, p := range posts {
		c.got <- string(p.Block)
	}
	return c.nowhere.Publish(ctx, posts)
}

// Over real sockets: a stream is piped while it is still being sent, and who
// sends far too much hears why rather than of a broken connection.
func TestOverHTTP(t *testing.T) {
	taps := tap{got: make(chan string, 16)}
	a, err := New(Config{Cluster: taps, Options: Options{Alone: true, BodySize: 1 << 20}})
	if err != nil {
		t.Fatal(err)
	}
	s := httptest.NewServer(a)
	defer s.Close()

	r, w := io.Pipe()
	answers := make(chan string, 1)
	go func() {
		resp, err := http.Post(s.URL+"/api/v1/streams/user/u?marks=off", "text/event-stream", r)
		if err != nil {
			answers <- err.Error()
			return
		}
		defer resp.Body.Close()
		b, _ := io.ReadAll(resp.Body)
		answers <- resp.Status + " " + string(b)
	}()
	for _, text := range []string{"one", "two", "three"} {
		io.WriteString(w, "data: "+text+"\n\n")
		if got := <-taps.got; got != "data: "+text+"\n\n" {
			t.Errorf("published %q", got)
		}
	}
	w.Close()
	if got := <-answers; !strings.HasPrefix(got, "200 ") || !strings.Contains(got, `"events":3`) {
		t.Error(got)
	}

	for _, chunked := range []bool{false, true} {
		var body io.Reader = bytes.NewReader(make([]byte, 10<<20))
		if chunked {
			body = bufio.NewReader(body)
		}
		resp, err := http.Post(s.URL+"/api/v1/messages/send", "application/json", body)
		if err != nil {
			t.Fatal(err)
		}
		b, _ := io.ReadAll(resp.Body)
		resp.Body.Close()
		if resp.StatusCode != http.StatusRequestEntityTooLarge || !strings.Contains(string(b), `"too_large"`) {
			t.Errorf("%s %s", resp.Status, b)
		}
	}
}

// A publisher that is silent when its token ends, or for longer than it may be,
// is told so at once, and its connection closed.
func TestSilentPublisher(t *testing.T) {
	for reason, end := range map[string]struct {
		token, idle time.Duration
		status      string
	}{
		"token_expired": {300 * time.Millisecond, 0, "401"},
		"body_timeout":  {time.Hour, 300 * time.Millisecond, "408"},
	} {
		taps := tap{got: make(chan string, 16)}
		a, err := New(Config{Cluster: taps, Options: Options{Alone: true, Idle: end.idle}})
		if err != nil {
			t.Fatal(err)
		}
		s := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
			who := auth.Anyone()
			who.Expires = time.Now().Add(end.token)
			a.ServeHTTP(w, r.WithContext(auth.NewContext(r.Context(), who)))
		}))
		c, err := net.Dial("tcp", s.Listener.Addr().String())
		if err != nil {
			t.Fatal(err)
		}
		fmt.Fprintf(c, "POST /api/v1/streams/user/u HTTP/1.1\r\nHost: localhost\r\nContent-Type: text/event-stream\r\nTransfer-Encoding: chunked\r\n\r\n9\r\ndata: 1\n\n\r\n")
		c.SetReadDeadline(time.Now().Add(10 * time.Second))
		answer, err := io.ReadAll(c)
		if err != nil || !strings.HasPrefix(string(answer), "HTTP/1.1 "+end.status) || !strings.Contains(string(answer), `"reason":"`+reason) || !strings.Contains(string(answer), `"events":1`) {
			t.Fatalf("%s: %q, %v", reason, answer, err)
		}
		if begin, event, mark := <-taps.got, <-taps.got, <-taps.got; event != "data: 1\n\n" || !strings.Contains(mark, `"cut"`) || !strings.Contains(mark, reason) {
			t.Errorf("%s: published %q, %q and %q", reason, begin, event, mark)
		}
		c.Close()
		s.Close()
	}
}

// TestCutUpload: an upload that does not come whole is one that was cut,
// whatever tells how long it was going to be and however it breaks off; what
// came before is published.
func TestCutUpload(t *testing.T) {
	for _, head := range []string{"Content-Type: text/event-stream\r\nContent-Length: 1000\r\n\r\ndata: 1\n\n",
		"Content-Type: image/png\r\nContent-Length: 1000\r\n\r\n123456789",
		"Content-Type: image/png\r\nTransfer-Encoding: chunked\r\n\r\n9\r\n123456789\r\n"} {
		for _, how := range []string{"half", "close", "reset"} {
			taps := tap{got: make(chan string, 16)}
			a, err := New(Config{Cluster: leaving{taps}, Options: Options{Alone: true}})
			if err != nil {
				t.Fatal(err)
			}
			s := httptest.NewServer(a)
			c, err := net.Dial("tcp", s.Listener.Addr().String())
			if err != nil {
				t.Fatal(err)
			}
			fmt.Fprintf(c, "POST /api/v1/streams/user/u HTTP/1.1\r\nHost: localhost\r\n%s", head)
			<-taps.got // begin
			tcp := c.(*net.TCPConn)
			switch how {
			case "half":
				tcp.CloseWrite()
				tcp.SetReadDeadline(time.Now().Add(10 * time.Second))
				answer, err := io.ReadAll(c)
				if err != nil || !strings.HasPrefix(string(answer), "HTTP/1.1 400") || !strings.Contains(string(answer), `"reason":"body_cut"`) || !strings.Contains(string(answer), `"events":1`) {
					t.Errorf("%q: %q, %v", head, answer, err)
				}
			case "reset":
				tcp.SetLinger(0)
			}
			c.Close()
			var all string
			for !strings.Contains(all, `"cut"`) {
				select {
				case block := <-taps.got:
					all += block
				case <-time.After(20 * time.Second):
					t.Fatalf("%s of %q: published %q", how, head, all)
				}
			}
			// What is in the system when a reset comes is lost with it.
			whole := strings.Contains(all, "data: 1\n") || strings.Contains(all, "ssegate.piece")
			if !strings.Contains(all, `"reason":"body_cut"`) || how != "reset" && !whole {
				t.Errorf("%s of %q: published %q", how, head, all)
			}
			s.Close()
			if n := a.Stats(); n.CutShort != 1 || n.Refused["body_cut"] != 1 || len(n.Refused) != 1 {
				t.Errorf("%s of %q: %+v", how, head, n)
			}
		}
	}
}

// leaving publishes nothing for who is gone, as a cluster does, and takes a
// moment to, in which its going is noticed.
type leaving struct{ tap }

func (c leaving) Publish(ctx context.Context, posts []cluster.Outgoing) []cluster.Receipt {
	if pause(ctx, 50*time.Millisecond); ctx.Err() != nil {
		out := make([]cluster.Receipt, len(posts))
		for i := range out {
			out[i].Err = ctx.Err()
		}
		return out
	}
	return c.tap.Publish(ctx, posts)
}

// Who is refused is told so at once, although its body is not whole yet.
func TestRefusedInTheMiddle(t *testing.T) {
	a, err := New(Config{Cluster: nowhere{}, Options: Options{Alone: true}})
	if err != nil {
		t.Fatal(err)
	}
	s := httptest.NewServer(a)
	defer s.Close()
	for request, status := range map[string]string{
		"POST /api/v1/streams/user/a%2fb HTTP/1.1\r\nContent-Type: text/event-stream":                           "400",
		"POST /api/v1/streams/user/a HTTP/1.1\r\nX: y":                                                          "415",
		"POST /api/v1/nothing HTTP/1.1\r\nContent-Type: text/event-stream":                                      "404",
		"POST /api/v1/messages/send HTTP/1.1\r\nContent-Type: text/plain":                                       "415",
		"POST /api/v1/streams/user/a HTTP/1.1\r\nContent-Type: text/event-stream\r\nX-Send: event: ssegate.gap": "400",
	} {
		c, err := net.Dial("tcp", s.Listener.Addr().String())
		if err != nil {
			t.Fatal(err)
		}
		body := "data: 1\n\n"
		if _, event, ok := strings.Cut(request, "X-Send: "); ok {
			body = event + "\ndata: 1\n\n"
		}
		fmt.Fprintf(c, "%s\r\nHost: %s\r\nTransfer-Encoding: chunked\r\n\r\n%x\r\n%s\r\n", request, s.Listener.Addr(), len(body), body)
		c.SetReadDeadline(time.Now().Add(10 * time.Second))
		line, err := bufio.NewReader(c).ReadString('\n')
		c.Close()
		if err != nil || !strings.HasPrefix(line, "HTTP/1.1 "+status) {
			t.Errorf("%q: %q, %v", request, line, err)
		}
	}
}

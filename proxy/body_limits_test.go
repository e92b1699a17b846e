package proxy

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"strings"
	"testing"
	"time"
)

// A body that is cut upstream is cut here, never ended.
func TestUpstreamCut(t *testing.T) {
	for _, answer := range []string{
		"Content-Length: 10\r\n\r\nabc",
		"Transfer-Encoding: chunked\r\n\r\n3\r\nabc\r\n",
		"Transfer-Encoding: chunked\r\n\r\n10\r\nabc",
		"Transfer-Encoding: chunked\r\n\r\n3\r\nabc\r\n0\r\n",
		"Transfer-Encoding: chunked\r\n\r\n3\r\nabc\r\nzz\r\n",
	} {
		addr := rawBackend(t, func(c net.Conn, r *bufio.Reader) {
			readRequest(r)
			io.WriteString(c, "HTTP/1.1 200 OK\r\n"+answer)
		})
		w := newWorld(t, []string{addr})
		c := w.dial()
		c.send("GET / HTTP/1.1\r\nHost: h\r\n\r\n")
		resp, err := http.ReadResponse(c.r, nil)
		if err != nil {
			t.Fatal(err)
		}
		body, err := io.ReadAll(resp.Body)
		if string(body) != "abc" || !errors.Is(err, io.ErrUnexpectedEOF) {
			t.Errorf("%q: got %q, %v", answer, body, err)
		}
		if n := w.refused("upstream_cut"); n != 1 {
			t.Errorf("%q: counted %d cuts", answer, n)
		}
	}
}

// When the client goes the upstream hears of it: while it thinks, while it
// sends, while it receives.
func TestClientGone(t *testing.T) {
	for _, when := range []string{"thinking", "sending", "quiet", "receiving"} {
		begun, gone := make(chan bool, 1), make(chan error, 1)
		addr := handler(t, func(w http.ResponseWriter, r *http.Request) {
			rc := http.NewResponseController(w)
			switch when {
			case "thinking":
			case "receiving":
				begun <- true
				_, err := io.Copy(io.Discard, r.Body)
				gone <- err
				return
			case "quiet":
				rc.Flush()
			case "sending":
				rc.Flush()
				begun <- true
				buf := make([]byte, 64<<10)
				for r.Context().Err() == nil {
					if _, err := w.Write(buf); err != nil {
						break
					}
				}
				gone <- context.Canceled
				return
			}
			begun <- true
			<-r.Context().Done()
			gone <- r.Context().Err()
		})
		w := newWorld(t, []string{addr})
		c := w.dial()
		if when == "receiving" {
			c.send("POST / HTTP/1.1\r\nHost: h\r\nContent-Length: 10\r\n\r\nabc")
		} else {
			c.send("GET / HTTP/1.1\r\nHost: h\r\n\r\n")
		}
		wait(t, "the backend", begun)
		c.Close()
		if err := wait(t, when, gone); err == nil {
			t.Errorf("%s: the backend saw a whole request", when)
		}
	}
}

// A client that closes its own side behind its request, like a shell script
// with nc, is answered: its end is not taken for a part of the request. With a
// Watch it is so only while the answer comes soon, as with most servers.
func TestHalfClosed(t *testing.T) {
	w := newWorld(t, []string{canned(t, "HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok")}, func(cfg *Config, _ *Route) { cfg.Watch = nil })
	for _, request := range []string{
		"GET / HTTP/1.1\r\nHost: h\r\n\r\n",
		"POST / HTTP/1.1\r\nHost: h\r\nContent-Length: 3\r\n\r\nabc",
		"POST / HTTP/1.1\r\nHost: h\r\nTransfer-Encoding: chunked\r\n\r\n3\r\nabc\r\n0\r\n\r\n",
	} {
		c := w.dial()
		c.send(request)
		c.CloseWrite()
		if _, body := c.response("POST"); body != "ok" {
			t.Errorf("%q: %q", request, body)
		}
		if rest, err := c.rest(); rest != "" || err != nil {
			t.Errorf("%q: %q, %v", request, rest, err)
		}
	}
}

func TestBodyLimits(t *testing.T) {
	reached := make(chan string, 10)
	addr := handler(t, func(w http.ResponseWriter, r *http.Request) {
		_, err := io.Copy(io.Discard, r.Body)
		reached <- fmt.Sprint(err)
	})
	w := newWorld(t, []string{addr}, func(cfg *Config, r *Route) {
		r.BodySize = 10
		cfg.BodyTimeout = 100 * time.Millisecond
	})
	c := w.dial()
	for range 2 {
		c.send("POST / HTTP/1.1\r\nHost: h\r\nContent-Length: 10\r\n\r\n0123456789")
		if resp, _ := c.response("POST"); resp.StatusCode != 200 {
			t.Errorf("just right: %d", resp.StatusCode)
		}
	}
	f := func(request string, status int, reason string) {
		t.Helper()
		c := w.dial()
		c.send(request)
		resp, body := c.response("POST")
		if resp.StatusCode != status || !strings.Contains(body, `"`+reason+`"`) || !resp.Close {
			t.Errorf("%q: %d %s", request, resp.StatusCode, body)
		}
		if rest, err := c.rest(); rest != "" || err != nil {
			t.Errorf("%q: behind the answer: %q, %v", request, rest, err)
		}
	}
	f("POST / HTTP/1.1\r\nHost: h\r\nContent-Length: 11\r\n\r\n01234567890", 413, "body_too_large")
	f("POST / HTTP/1.1\r\nHost: h\r\nTransfer-Encoding: chunked\r\n\r\n5\r\n01234\r\n6\r\n567890\r\n0\r\n\r\n", 413, "body_too_large")
	f("POST / HTTP/1.1\r\nHost: h\r\nContent-Length: 5\r\n\r\n01", 408, "body_timeout")
	f("POST / HTTP/1.1\r\nHost: h\r\nTransfer-Encoding: chunked\r\n\r\n5\r\n01", 408, "body_timeout")
}

// A slow head is given up, a slow body is not.
func TestHeadTimeout(t *testing.T) {
	addr := handler(t, func(w http.ResponseWriter, r *http.Request) { io.Copy(w, r.Body) })
	w := newWorld(t, []string{addr}, func(cfg *Config, _ *Route) { cfg.HeadTimeout = 300 * time.Millisecond })
	slow, mute := w.dial(), w.dial()
	slow.send("GET / HTTP/1.1\r\nHost:")
	got, err := slow.rest()
	if err != nil || !strings.HasPrefix(got, "HTTP/1.1 408 Request Timeout\r\n") || !strings.Contains(got, `"head_timeout"`) {
		t.Errorf("a slow head: %q, %v", got, err)
	}
	if got, err := mute.rest(); got != "" || err != nil {
		t.Errorf("a connection made in advance: %q, %v", got, err)
	}
	c := w.dial()
	c.send("POST / HTTP/1.1\r\nHost: h\r\nContent-Length: 5\r\n\r\n")
	for _, b := range "abcde" {
		time.Sleep(100 * time.Millisecond) // the point: longer than HeadTimeout in all
		c.send(string(b))
	}
	if _, body := c.response("POST"); body != "abcde" {
		t.Errorf("a slow body: %q", body)
	}
}

// A client that does not read its answer is cut, and its upstream with it.
func TestClientThatDoesNotRead(t *testing.T) {
	gone := make(chan error, 1)
	addr := handler(t, func(w http.ResponseWriter, r *http.Request) {
		_, err := io.Copy(w, &noisy{})
		gone <- err
	})
	w := newWorld(t, []string{addr}, func(cfg *Config, _ *Route) { cfg.WriteTimeout = 200 * time.Millisecond })
	c := w.dial()
	c.send("GET / HTTP/1.1\r\nHost: h\r\n\r\n")
	if err := wait(t, "the upstream to be cancelled", gone); err == nil {
		t.Error("no error")
	}
	if n := w.refused("client_gone"); n != 1 {
		t.Errorf("counted %d", n)
	}
}

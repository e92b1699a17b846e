package proxy

import (
	"bufio"
	"bytes"
	"fmt"
	"io"
	"net"
	"net/http"
	"strings"
	"testing"
)

const upgradeHead = "GET /ws HTTP/1.1\r\nHost: h\r\nConnection: keep-alive, Upgrade\r\nUpgrade: websocket\r\nSec-WebSocket-Key: k\r\n\r\n"

// switching answers an upgrade, together with first, and hands the connection
// to f.
func switching(t *testing.T, first string, f func(net.Conn, *bufio.Reader)) string {
	return rawBackend(t, func(c net.Conn, r *bufio.Reader) {
		head, err := readRequest(r)
		if err != nil {
			return
		}
		if !strings.Contains(head, "Connection: Upgrade\r\n") || !strings.Contains(head, "Upgrade: websocket\r\n") {
			io.WriteString(c, "HTTP/1.1 400 Bad Request\r\nContent-Length: 0\r\n\r\n")
			return
		}
		io.WriteString(c, "HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\nConnection: Upgrade\r\nSec-WebSocket-Accept: a\r\nSet-Cookie: x\r\n\r\n"+first)
		f(c, r)
	})
}

func upgraded(t *testing.T, w *world, early string) *peer {
	t.Helper()
	c := w.dial()
	c.send(upgradeHead + early)
	head := c.head()
	for _, line := range []string{"HTTP/1.1 101 Switching Protocols\r\n", "Upgrade: websocket\r\n", "Connection: Upgrade\r\n", "Sec-Websocket-Accept: a\r\n", "Set-Cookie: x\r\n"} {
		if strings.Count(head, line) != 1 {
			t.Fatalf("head %q", head)
		}
	}
	return c
}

func TestUpgrade(t *testing.T) {
	w := newWorld(t, []string{switching(t, "first", func(c net.Conn, r *bufio.Reader) {
		io.Copy(c, r)
		io.WriteString(c, "bye")
	})})
	// What is sent right behind either head is not lost.
	c := upgraded(t, w, "early")
	c.expect("firstearly")
	for i := range 100 {
		text := fmt.Sprintf("message %d;", i)
		c.send(text)
		c.expect(text)
	}
	// A half-closed connection goes on the other way.
	c.CloseWrite()
	if rest, err := c.rest(); rest != "bye" || err != nil {
		t.Errorf("%q, %v", rest, err)
	}
}

func TestUpgradeHeavy(t *testing.T) {
	const size = 8 << 20
	w := newWorld(t, []string{switching(t, "", func(c net.Conn, r *bufio.Reader) { io.Copy(c, r) })})
	c := upgraded(t, w, "")
	sent := make(chan error, 1)
	go func() {
		_, err := io.Copy(c.TCPConn, noise(size))
		c.CloseWrite()
		sent <- err
	}()
	got, err := io.ReadAll(c.r)
	if err != nil {
		t.Fatal(err)
	}
	want, _ := io.ReadAll(noise(size))
	if !bytes.Equal(got, want) {
		t.Errorf("%d bytes came back other than they were", len(got))
	}
	if err := wait(t, "the sender", sent); err != nil {
		t.Error(err)
	}
}

// Either end that breaks ends the other.
func TestUpgradeBreaks(t *testing.T) {
	ended := make(chan error, 1)
	w := newWorld(t, []string{switching(t, "", func(_ net.Conn, r *bufio.Reader) {
		_, err := io.Copy(io.Discard, r)
		ended <- err
	})})
	c := upgraded(t, w, "")
	c.SetLinger(0)
	c.Close()
	wait(t, "the upstream", ended)

	w = newWorld(t, []string{switching(t, "", func(c net.Conn, _ *bufio.Reader) { c.(*net.TCPConn).SetLinger(0) })})
	c = upgraded(t, w, "")
	c.rest() // EOF or reset: either will do

	// The gate goes.
	w = newWorld(t, []string{switching(t, "", func(c net.Conn, r *bufio.Reader) { io.Copy(c, r) })})
	c = upgraded(t, w, "")
	c.send("x")
	c.expect("x")
	if err := w.p.Close(t.Context()); err != nil {
		t.Fatal(err)
	}
	c.rest()
	if n := len(w.p.tunnels.open); n != 0 {
		t.Errorf("%d tunnels left", n)
	}
}

func TestUpgradeRefused(t *testing.T) {
	heads := make(chan string, 1)
	addr := rawBackend(t, func(c net.Conn, r *bufio.Reader) {
		for {
			head, err := readRequest(r)
			if err != nil {
				return
			}
			heads <- head
			io.WriteString(c, "HTTP/1.1 426 Upgrade Required\r\nContent-Length: 2\r\nUpgrade: other\r\nConnection: Upgrade\r\n\r\nno")
		}
	})
	w := newWorld(t, []string{addr})
	c := w.dial()
	for range 2 { // and the connection serves on
		c.send(upgradeHead)
		resp, body := c.response("GET")
		if resp.StatusCode != 426 || body != "no" {
			t.Errorf("%d %q", resp.StatusCode, body)
		}
		if head := wait(t, "the backend", heads); !strings.Contains(head, "Upgrade: websocket\r\n") {
			t.Errorf("%q", head)
		}
	}
	// Not asked for in earnest, or not to be had here: an ordinary request.
	for _, head := range []string{
		"GET / HTTP/1.1\r\nHost: h\r\nUpgrade: websocket\r\n\r\n",
		"GET / HTTP/1.0\r\nHost: h\r\nConnection: upgrade, keep-alive\r\nUpgrade: websocket\r\n\r\n",
		"GET / HTTP/1.1\r\nHost: h\r\nConnection: Upgrade, HTTP2-Settings\r\nUpgrade: h2c\r\nHTTP2-Settings: AAMAAABkAAQAAP__\r\n\r\n",
	} {
		c.send(head)
		c.response("GET")
		if head := wait(t, "the backend", heads); strings.Contains(strings.ToLower(head), "upgrade") || strings.Contains(head, "HTTP2") {
			t.Errorf("%q", head)
		}
	}
}

// A real WebSocket handshake through net/http, as a client library does it.
func TestUpgradeByNetHTTP(t *testing.T) {
	addr := handler(t, func(w http.ResponseWriter, r *http.Request) {
		conn, rw, err := http.NewResponseController(w).Hijack()
		if err != nil {
			return
		}
		defer conn.Close()
		fmt.Fprintf(rw, "HTTP/1.1 101 Switching Protocols\r\nUpgrade: %s\r\nConnection: Upgrade\r\n\r\n", r.Header.Get("Upgrade"))
		rw.Flush()
		io.Copy(conn, rw)
	})
	w := newWorld(t, []string{addr})
	req, _ := http.NewRequest("GET", w.url, nil)
	req.Header.Set("Connection", "Upgrade")
	req.Header.Set("Upgrade", "anything/1")
	resp, err := w.do(req)
	if err != nil {
		t.Fatal(err)
	}
	rwc := resp.Body.(io.ReadWriteCloser)
	defer rwc.Close()
	if resp.StatusCode != 101 || resp.Header.Get("Upgrade") != "anything/1" {
		t.Fatalf("%d %v", resp.StatusCode, resp.Header)
	}
	io.WriteString(rwc, "hello")
	got := make([]byte, 5)
	if _, err := io.ReadFull(rwc, got); err != nil || string(got) != "hello" {
		t.Errorf("%q, %v", got, err)
	}
}

package proxy

import (
	"bufio"
	"bytes"
	"crypto/sha256"
	"fmt"
	"io"
	"net"
	"net/http"
	"runtime"
	"strings"
	"sync/atomic"
	"testing"
	"time"
)

const heavy = 50 << 20

// noise yields n bytes that do not repeat soon.
func noise(n int64) io.Reader { return io.LimitReader(&noisy{}, n) }

type noisy struct{ x uint64 }

func (r *noisy) Read(p []byte) (int, error) {
	for i := range p {
		r.x = r.x*6364136223846793005 + 1442695040888963407
		p[i] = byte(r.x >> 56)
	}
	return len(p), nil
}

// peak watches the heap while f runs, and returns by how much it grew at most.
func peak(f func()) uint64 {
	runtime.GC()
	var m runtime.MemStats
	runtime.ReadMemStats(&m)
	before, top := m.HeapInuse, m.HeapInuse
	stop, done := make(chan struct{}), make(chan struct{})
	go func() {
		defer close(done)
		tick := time.NewTicker(5 * time.Millisecond)
		defer tick.Stop()
		for {
			select {
			case <-stop:
				return
			case <-tick.C:
				var m runtime.MemStats
				runtime.ReadMemStats(&m)
				top = max(top, m.HeapInuse)
			}
		}
	}()
	f()
	close(stop)
	<-done
	return top - before
}

// 50 MB up and down, framed in every way, in the memory of a few buffers. The
// heap is that of client, gate and backend together.
func TestHeavyBodies(t *testing.T) {
	want := sha256.New()
	io.Copy(want, noise(heavy))
	addr := handler(t, func(w http.ResponseWriter, r *http.Request) {
		switch r.URL.Path {
		case "/up":
			got := sha256.New()
			n, err := io.Copy(got, r.Body)
			fmt.Fprintf(w, "%d %v %x %v", n, err, got.Sum(nil), r.TransferEncoding)
		case "/down":
			w.Header().Set("Content-Length", fmt.Sprint(heavy))
			fallthrough
		case "/chunked":
			io.Copy(w, noise(heavy))
		}
	})
	w := newWorld(t, []string{addr})
	up := func(length int64, coding string) {
		grew := peak(func() {
			req, _ := http.NewRequest("POST", w.url+"/up", struct{ io.Reader }{noise(heavy)})
			req.ContentLength = length
			resp, err := w.do(req)
			if err != nil {
				t.Fatal(err)
			}
			defer resp.Body.Close()
			body, _ := io.ReadAll(resp.Body)
			if want := fmt.Sprintf("%d <nil> %x %s", heavy, want.Sum(nil), coding); string(body) != want {
				t.Errorf("got %q, want %q", body, want)
			}
		})
		if grew > 8<<20 {
			t.Errorf("the heap grew by %d KiB", grew>>10)
		}
	}
	up(heavy, "[]")
	up(-1, "[chunked]")
	for _, path := range []string{"/down", "/chunked"} {
		grew := peak(func() {
			resp, err := http.Get(w.url + path)
			if err != nil {
				t.Fatal(err)
			}
			defer http.DefaultClient.CloseIdleConnections()
			defer resp.Body.Close()
			got := sha256.New()
			if n, err := io.Copy(got, resp.Body); n != heavy || err != nil || !bytes.Equal(got.Sum(nil), want.Sum(nil)) {
				t.Errorf("%s: %d bytes, %v", path, n, err)
			}
		})
		if grew > 8<<20 {
			t.Errorf("%s: the heap grew by %d KiB", path, grew>>10)
		}
	}
}

// Each byte goes out before the next comes in, in every framing.
func TestUnbuffered(t *testing.T) {
	for _, framing := range []string{"Content-Length: 3\r\n", "Transfer-Encoding: chunked\r\n", ""} {
		step := make(chan string)
		addr := rawBackend(t, func(c net.Conn, r *bufio.Reader) {
			readRequest(r)
			for part := range step {
				io.WriteString(c, part)
			}
		})
		chunked := strings.Contains(framing, "chunked")
		part := func(s string) {
			if chunked {
				s = fmt.Sprintf("1\r\n%s\r\n", s)
			}
			step <- s
		}
		w := newWorld(t, []string{addr})
		for _, http10 := range []bool{false, true} {
			if http10 {
				continue // see TestHTTP10
			}
			c := w.dial()
			c.send("GET / HTTP/1.1\r\nHost: h\r\nX-Request-Id: r\r\n\r\n")
			step <- "HTTP/1.1 200 OK\r\nDate: d\r\n" + framing + "\r\n"
			head := c.head() // before there is a body
			if !strings.Contains(head, "Content-Length: 3\r\n") && !strings.Contains(head, "Transfer-Encoding: chunked\r\n") {
				t.Errorf("head: %q", head)
			}
			for _, b := range []string{"a", "b", "c"} {
				part(b)
				if strings.Contains(head, "chunked") {
					c.expect("0001\r\n" + b + "\r\n")
				} else {
					c.expect(b)
				}
			}
		}
		if chunked {
			step <- "0\r\n\r\n"
		}
		close(step)
	}
}

// An upload reaches the upstream as it comes, from the first byte on.
func TestUploadUnbuffered(t *testing.T) {
	for _, framing := range []string{"Content-Length: 4\r\n", "Transfer-Encoding: chunked\r\n"} {
		seen := make(chan byte, 10)
		ready := make(chan struct{}, 1)
		addr := rawBackend(t, func(c net.Conn, r *bufio.Reader) {
			for {
				line, err := r.ReadString('\n')
				if err != nil {
					return
				}
				if line == "\r\n" {
					break
				}
			}
			ready <- struct{}{}
			for {
				b, err := r.ReadByte()
				if err != nil {
					return
				}
				if b >= 'w' && b <= 'z' {
					if seen <- b; b == 'z' {
						break
					}
				}
			}
			io.WriteString(c, "HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok")
		})
		w := newWorld(t, []string{addr})
		c := w.dial()
		c.send("POST / HTTP/1.1\r\nHost: h\r\n" + framing + "\r\n")
		wait(t, "the head, before any of the body", ready)
		for _, b := range []byte("wxyz") {
			if strings.Contains(framing, "chunked") {
				c.send(fmt.Sprintf("1\r\n%c\r\n", b))
			} else {
				c.send(string(b))
			}
			if got := wait(t, "a byte", seen); got != b {
				t.Errorf("got %c, want %c", got, b)
			}
		}
		if strings.Contains(framing, "chunked") {
			c.send("0\r\n\r\n")
		}
		if _, body := c.response("POST"); body != "ok" {
			t.Errorf("got %q", body)
		}
	}
}

// An upstream that answers before it has the whole body is heard, and the
// client is not reset while it still sends.
func TestEarlyAnswer(t *testing.T) {
	addr := rawBackend(t, func(c net.Conn, r *bufio.Reader) {
		r.ReadString('\n')
		io.WriteString(c, "HTTP/1.1 413 Too Much\r\nContent-Length: 4\r\nConnection: close\r\n\r\nstop")
		io.CopyN(io.Discard, r, 64<<10)
		c.(*net.TCPConn).CloseWrite()
		io.Copy(io.Discard, r)
	})
	for _, framing := range []string{fmt.Sprintf("Content-Length: %d\r\n", heavy), "Transfer-Encoding: chunked\r\n"} {
		w := newWorld(t, []string{addr})
		c := w.dial()
		c.send("POST / HTTP/1.1\r\nHost: h\r\n" + framing + "\r\n")
		sent := make(chan error, 1)
		go func() {
			if strings.Contains(framing, "chunked") {
				for range 100 {
					if _, err := io.WriteString(c.TCPConn, "8000\r\n"+strings.Repeat("x", 0x8000)+"\r\n"); err != nil {
						sent <- err
						return
					}
				}
				sent <- nil
				return
			}
			_, err := io.Copy(c.TCPConn, noise(1<<20)) // far less than announced
			sent <- err
		}()
		resp, body := c.response("POST")
		if resp.StatusCode != 413 || body != "stop" || !resp.Close {
			t.Errorf("%s: %d %q, close %v", framing, resp.StatusCode, body, resp.Close)
		}
		if err := wait(t, "the upload", sent); err != nil {
			t.Errorf("%s: the upload was reset: %v", framing, err)
		}
		if rest, err := c.rest(); rest != "" || err != nil {
			t.Errorf("%s: behind the answer: %q, %v", framing, rest, err)
		}
	}
}

// Request and answer may flow at the same time, piece by piece.
func TestDuplex(t *testing.T) {
	addr := handler(t, func(w http.ResponseWriter, r *http.Request) {
		rc := http.NewResponseController(w)
		rc.EnableFullDuplex()
		rc.Flush()
		buf := make([]byte, 100)
		for {
			n, err := r.Body.Read(buf)
			if n > 0 {
				fmt.Fprintf(w, "<%s>", buf[:n])
				rc.Flush()
			}
			if err != nil {
				return
			}
		}
	})
	w := newWorld(t, []string{addr})
	c := w.dial()
	c.send("POST / HTTP/1.1\r\nHost: h\r\nConnection: keep-alive\r\nTransfer-Encoding: chunked\r\n\r\n")
	if head := c.head(); !strings.Contains(head, "Keep-Alive: timeout=1\r\n") || strings.Contains(head, "Connection: close\r\n") {
		t.Errorf("head %q", head) // see appendLast
	}
	for _, b := range "abc" {
		c.send(fmt.Sprintf("1\r\n%c\r\n", b))
		c.expect(fmt.Sprintf("0003\r\n<%c>\r\n", b))
	}
	c.send("0\r\n\r\n")
	c.expect("0\r\n\r\n")
	if rest, err := c.rest(); rest != "" || err != nil {
		t.Errorf("%q, %v", rest, err)
	}
}

// An upstream that stops reading an upload does not hold it for ever.
func TestUpstreamThatDoesNotRead(t *testing.T) {
	addr := rawBackend(t, func(c net.Conn, r *bufio.Reader) {
		r.ReadString('\n')
		time.Sleep(2 * time.Second) // longer than the gate is to wait
	})
	w := newWorld(t, []string{addr}, func(_ *Config, r *Route) {
		r.Upstream.Transport = NewTransport(TransportOptions{WriteTimeout: 200 * time.Millisecond})
	})
	c := w.dial()
	fmt.Fprintf(c.TCPConn, "POST / HTTP/1.1\r\nHost: h\r\nContent-Length: %d\r\n\r\n", heavy)
	go io.Copy(c.TCPConn, noise(heavy))
	resp, body := c.response("POST")
	if resp.StatusCode != 504 || !strings.Contains(body, `"upstream_timeout"`) {
		t.Errorf("%d %s", resp.StatusCode, body)
	}
}

// An upstream that closes without an answer ends the request, although the
// client is in the middle of its body and silent.
func TestUpstreamClosesDuringUpload(t *testing.T) {
	addr := rawBackend(t, func(c net.Conn, r *bufio.Reader) { r.ReadString('\n') })
	w := newWorld(t, []string{addr})
	c := w.dial()
	c.send("POST / HTTP/1.1\r\nHost: h\r\nContent-Length: 100\r\n\r\nabc")
	resp, body := c.response("POST")
	if resp.StatusCode != 502 || !strings.Contains(body, `"upstream_closed"`) {
		t.Errorf("%d %s", resp.StatusCode, body)
	}
}

func TestExpectContinue(t *testing.T) {
	wanted := make(chan bool, 1)
	var read atomic.Int64
	addr := handler(t, func(w http.ResponseWriter, r *http.Request) {
		if r.URL.Path == "/no" {
			w.WriteHeader(403)
			return
		}
		wanted <- true
		body, err := io.ReadAll(r.Body)
		read.Add(int64(len(body)))
		fmt.Fprintf(w, "%s %v", body, err)
	})
	w := newWorld(t, []string{addr})
	c := w.dial()
	for range 2 {
		c.send("POST /yes HTTP/1.1\r\nHost: h\r\nExpect: 100-continue\r\nContent-Length: 3\r\n\r\n")
		c.expect("HTTP/1.1 100 Continue\r\n\r\n")
		c.send("abc")
		if resp, body := c.response("POST"); resp.StatusCode != 200 || body != "abc <nil>" {
			t.Errorf("%d %q", resp.StatusCode, body)
		}
		<-wanted
	}
	// A client that does not wait.
	c.send("POST /yes HTTP/1.1\r\nHost: h\r\nExpect: 100-Continue\r\nTransfer-Encoding: chunked\r\n\r\n3\r\ndef\r\n0\r\n\r\n")
	c.expect("HTTP/1.1 100 Continue\r\n\r\n")
	if _, body := c.response("POST"); body != "def <nil>" {
		t.Errorf("%q", body)
	}
	<-wanted
	// An upstream that does not want the body: no 100, and none is read.
	c.send("POST /no HTTP/1.1\r\nHost: h\r\nExpect: 100-continue\r\nContent-Length: 3\r\n\r\n")
	if resp, _ := c.response("POST"); resp.StatusCode != 403 || !resp.Close {
		t.Errorf("%d, close %v", resp.StatusCode, resp.Close)
	}
	if rest, err := c.rest(); rest != "" || err != nil {
		t.Errorf("behind the answer: %q, %v", rest, err)
	}
	// HTTP/1.0 knows no 100.
	c = w.dial()
	c.send("POST /yes HTTP/1.0\r\nHost: h\r\nExpect: 100-continue\r\nContent-Length: 3\r\n\r\nghi")
	if resp, body := c.response("POST"); resp.StatusCode != 200 || body != "ghi <nil>" {
		t.Errorf("%d %q", resp.StatusCode, body)
	}
}

// An upstream that never says 100 gets the body after a while, as RFC 9110
// wants it.
func TestExpectContinueIgnored(t *testing.T) {
	w := newWorld(t, []string{canned(t, "HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok")})
	c := w.dial()
	c.send("POST / HTTP/1.1\r\nHost: h\r\nExpect: 100-continue\r\nContent-Length: 3\r\n\r\n")
	c.expect("HTTP/1.1 100 Continue\r\n\r\n")
	c.send("abc")
	if _, body := c.response("POST"); body != "ok" {
		t.Errorf("%q", body)
	}
}

func TestInterimAnswers(t *testing.T) {
	w := newWorld(t, []string{canned(t, "HTTP/1.1 103 Early Hints\r\nLink: </a>\r\nKeep-Alive: x\r\n\r\nHTTP/1.1 102 Processing\r\n\r\nHTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok")})
	c := w.dial()
	for range 2 {
		c.send("GET / HTTP/1.1\r\nHost: h\r\n\r\n")
		c.expect("HTTP/1.1 103 Early Hints\r\nLink: </a>\r\n\r\nHTTP/1.1 102 Processing\r\n\r\n")
		if resp, body := c.response("GET"); resp.StatusCode != 200 || body != "ok" {
			t.Errorf("%d %q", resp.StatusCode, body)
		}
	}
	c = w.dial()
	c.send("GET / HTTP/1.0\r\n\r\n")
	if resp, body := c.response("GET"); resp.StatusCode != 200 || body != "ok" {
		t.Errorf("HTTP/1.0: %d %q", resp.StatusCode, body)
	}
	w = newWorld(t, []string{canned(t, strings.Repeat("HTTP/1.1 102 Processing\r\n\r\n", 1000))})
	if resp, body := w.get("/"); resp.StatusCode != 502 || !strings.Contains(body, "upstream_bad_answer") {
		t.Errorf("a flood: %d %q", resp.StatusCode, body)
	}
}

func TestHTTP10(t *testing.T) {
	known := canned(t, "HTTP/1.1 200 OK\r\nDate: d\r\nContent-Length: 2\r\n\r\nok")
	unknown := canned(t, "HTTP/1.1 200 OK\r\nDate: d\r\nTransfer-Encoding: chunked\r\n\r\n2\r\nok\r\n0\r\n\r\n")
	for _, to := range []string{known, unknown} {
		w := newWorld(t, []string{to})
		c := w.dial()
		c.send("GET / HTTP/1.0\r\nX-Request-Id: r\r\n\r\n")
		length := ""
		if to == known {
			length = "Content-Length: 2\r\n"
		}
		got, err := c.rest()
		if err != nil || !strings.HasSuffix(got, length+"Connection: close\r\n\r\nok") || strings.Contains(got, "Transfer-Encoding") {
			t.Errorf("got %q, %v", got, err)
		}
	}
	w := newWorld(t, []string{known})
	c := w.dial()
	for range 2 {
		c.send("GET / HTTP/1.0\r\nHost: h\r\nConnection: Keep-Alive\r\n\r\n")
		if head := c.head(); !strings.Contains(head, "Connection: keep-alive\r\n") {
			t.Errorf("head %q", head)
		}
		c.expect("ok")
	}
	// A body that the upstream cuts must not look whole: with neither length
	// nor chunks only a reset can say so.
	cut := rawBackend(t, func(c net.Conn, r *bufio.Reader) {
		readRequest(r)
		io.WriteString(c, "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n2\r\nok\r\n")
	})
	w = newWorld(t, []string{cut})
	c = w.dial()
	c.send("GET / HTTP/1.0\r\n\r\n")
	if got, err := c.rest(); err == nil {
		t.Errorf("a clean end after %q", got)
	}
}

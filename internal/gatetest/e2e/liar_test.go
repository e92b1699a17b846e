package e2e

import (
	"bufio"
	"bytes"
	"compress/gzip"
	"compress/zlib"
	"fmt"
	"io"
	"math/rand/v2"
	"net"
	"net/http"
	"net/http/httputil"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/andybalholm/brotli"
	"github.com/klauspost/compress/zstd"
)

// liar is an upstream that answers each request with what the seed in its path
// (/x/SEED) makes up: an answer that is broken in some way, or in several. It
// looks closely at the requests that it gets, for these must never be broken.
type liar struct {
	t     testing.TB
	l     net.Listener
	URL   string
	asked atomic.Int64
	wg    sync.WaitGroup

	mu     sync.Mutex
	conns  map[net.Conn]bool
	minted map[string]bool // ids that must never come here
	bad    []string        // requests that should not have come
}

func newLiar(t testing.TB) *liar {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	b := &liar{t: t, l: l, URL: "http://" + l.Addr().String(), conns: map[net.Conn]bool{}, minted: map[string]bool{}}
	b.wg.Go(func() {
		for {
			c, err := l.Accept()
			if err != nil {
				return
			}
			b.mu.Lock()
			b.conns[c] = true
			b.mu.Unlock()
			b.wg.Go(func() { b.serve(c) })
		}
	})
	t.Cleanup(func() {
		l.Close()
		b.mu.Lock()
		for c := range b.conns {
			c.Close()
		}
		b.mu.Unlock()
		b.wg.Wait()
		b.mu.Lock()
		defer b.mu.Unlock()
		for _, bad := range b.bad[:min(len(b.bad), 5)] {
			t.Errorf("this came to the upstream: %.600q", bad)
		}
	})
	return b
}

// serve answers the requests of one connection, as long as it says nothing
// that ends it.
func (b *liar) serve(c net.Conn) {
	defer func() {
		c.Close()
		b.mu.Lock()
		delete(b.conns, c)
		b.mu.Unlock()
	}()
	r := bufio.NewReaderSize(c, 128<<10)
	for {
		var head strings.Builder
		for {
			line, err := r.ReadString('\n')
			if err != nil {
				return
			}
			head.WriteString(line)
			if line == "\r\n" {
				break
			}
		}
		b.asked.Add(1)
		req, err := http.ReadRequest(bufio.NewReader(strings.NewReader(head.String())))
		if err != nil || !b.sane(head.String()) {
			b.report(head.String())
			return
		}
		if !b.skip(r, req) {
			return
		}
		seed, _ := strconv.ParseUint(strings.TrimPrefix(req.URL.Path, "/x/"), 10, 64)
		answer := lie(seed)
		for _, part := range answer.parts {
			if _, err := c.Write(part); err != nil {
				return
			}
			if answer.pause > 0 {
				time.Sleep(answer.pause)
			}
		}
		if answer.hang {
			io.Copy(io.Discard, c) // until the other side gives up
		}
		if answer.reset {
			c.(*net.TCPConn).SetLinger(0)
		}
		if !answer.keep {
			return
		}
	}
}

// skip reads a request's body.
func (b *liar) skip(r *bufio.Reader, req *http.Request) bool {
	if len(req.TransferEncoding) == 0 {
		_, err := r.Discard(int(max(req.ContentLength, 0)))
		return err == nil
	}
	_, err := io.Copy(io.Discard, httputil.NewChunkedReader(r))
	for line := ""; err == nil && line != "\r\n"; {
		line, err = r.ReadString('\n') // trailers, and the blank line
	}
	return err == nil
}

func (b *liar) report(request string) {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.bad = append(b.bad, request)
}

// sane reports whether a request's head is one that nobody can understand in
// two ways, and that bears no id of the gate's.
func (b *liar) sane(head string) bool {
	lines := strings.Split(head, "\r\n")
	length, coding := 0, 0
	for _, line := range lines[1 : len(lines)-2] {
		name, value, ok := strings.Cut(line, ":")
		if !ok || name == "" || strings.ContainsAny(name, " \t\r\n\x00") || strings.ContainsAny(value, "\r\n\x00") {
			return false
		}
		switch strings.ToLower(name) {
		case "content-length":
			length++
		case "transfer-encoding":
			coding++
		case "last-event-id":
			b.mu.Lock()
			ours := b.minted[strings.TrimSpace(value)]
			b.mu.Unlock()
			if ours {
				return false
			}
		}
	}
	method, rest, _ := strings.Cut(lines[0], " ")
	return length+coding <= 1 && method != "" && strings.HasPrefix(rest, "/x/") && strings.HasSuffix(rest, " HTTP/1.1")
}

// a lie is what is written as an answer.
type aLie struct {
	kind  string
	parts [][]byte
	pause time.Duration // between two parts
	hang  bool          // at the end the connection stays open
	reset bool          // it is reset rather than closed
	keep  bool          // the answer is whole: another may follow
}

// mark stands in every answer, so that nobody gets another one's.
func mark(seed uint64) string { return fmt.Sprintf("<<%d>>", seed) }

// lies are the kinds of answers; each gets its own random numbers.
var lies = []struct {
	name string
	make func(rng *rand.Rand, seed uint64) []byte
}{
	{"random bytes", func(rng *rand.Rand, _ uint64) []byte { return noise(rng, rng.IntN(4096)) }},
	{"status line", func(rng *rand.Rand, seed uint64) []byte {
		line := pick(rng, "HTTP/9.9 200 OK", "HTTP/1.1 99999 X", "HTTP/1.1 -1 X", "HTTP/1.1 200", "HTTP/1.1", "ICY 200 OK", "http/1.1 200 OK",
			"HTTP/1.1 2000 OK", "HTTP/1.0 200 OK", "HTTP/2 200", "HTTP/1.1 200 \r bare", "HTTP/1.1 +200 OK", "\r\n\r\nHTTP/1.1 200 OK",
			"HTTP/1.1 600 Over", "HTTP/1.1 199 What", "HTTP/1.1 200 "+strings.Repeat("long ", rng.IntN(100_000)))
		return []byte(line + pick(rng, "\r\n", "\n", "") + "Content-Type: text/event-stream\r\n\r\n" + stream(rng, seed))
	}},
	{"head is too large", func(rng *rand.Rand, seed uint64) []byte {
		var b bytes.Buffer
		b.WriteString(head)
		switch rng.IntN(3) {
		case 0:
			for i := range rng.IntN(20_000) {
				fmt.Fprintf(&b, "X-%d: %d\r\n", i, seed)
			}
		case 1:
			fmt.Fprintf(&b, "X-Long: %s\r\n", strings.Repeat("x", rng.IntN(1<<20)))
		case 2:
			fmt.Fprintf(&b, "%s: x\r\n", strings.Repeat("X", rng.IntN(1<<20)))
		}
		return fmt.Appendf(b.Bytes(), "\r\n%s", stream(rng, seed))
	}},
	{"header lines", func(rng *rand.Rand, seed uint64) []byte {
		b := []byte(head)
		for range 1 + rng.IntN(3) {
			b = append(b, pick(rng, "X: a\x00b\r\n", "X: a\rb\r\n", " folded: x\r\n", "X: a\r\n folded\r\n", "no colon\r\n", "X : space\r\n", ": empty\r\n",
				"Content-Length: 5\r\nContent-Length: 6\r\n", "Content-Length: -5\r\n", "Content-Length: 5\r\nTransfer-Encoding: chunked\r\n",
				"Transfer-Encoding: gzip\r\n", "Transfer-Encoding: chunked, chunked\r\n", "Transfer-Encoding: xchunked\r\n", "Transfer-Encoding:\x0bchunked\r\n",
				"Content-Length: 99999999999999999999\r\n", "Content-Length: 0x10\r\n", "Content-Length: +5\r\n", "Content-Length: \r\n",
				"Connection: content-type, ssegate-stream\r\n", "Connection: close\r\n", "Keep-Alive: timeout=-1\r\n", "Trailer: Content-Length\r\n",
				"Set-Cookie: a=b\r\n", "Ssegate-Stream: AAAAAAAAAAAAAAAAAAAAAA\r\n", "Access-Control-Allow-Origin: *\r\n", "Upgrade: h2c\r\n",
				"\x80\xff: x\r\n", "X: \xff\xfe\r\n", "Content-Type: text/html\r\n", "X: ok\n", "Content-Encoding: identity\r\n", "Date: never\r\n")...)
		}
		return append(append(b, "\r\n"...), stream(rng, seed)...)
	}},
	{"chunks", func(rng *rand.Rand, seed uint64) []byte {
		b := []byte(head + "Transfer-Encoding: chunked\r\n\r\n")
		for range 1 + rng.IntN(6) {
			s := stream(rng, seed)
			size := pick(rng, fmt.Sprintf("%x", len(s)), fmt.Sprintf("%x", len(s)), fmt.Sprintf("%X;x=y", len(s)), fmt.Sprintf("%08x", len(s)), "-1",
				"ffffffffffffffffff", "7fffffffffffffff", "0x10", " 5", "5 ", "", "zz", "5;"+strings.Repeat("e", rng.IntN(100_000)), "0", "1", "\x00")
			b = fmt.Appendf(b, "%s%s%s%s", size, pick(rng, "\r\n", "\r\n", "\r\n", "\n", "\r", ""), s, pick(rng, "\r\n", "\r\n", "\r\n", "", "\n", "X\r\n"))
		}
		return append(b, pick(rng, "0\r\n\r\n", "0\r\n\r\n", "0\r\n", "", "0\r\nX: y\r\n\r\n", "0\r\n"+strings.Repeat("X: y\r\n", 20_000)+"\r\n",
			"0\r\nContent-Length: 5\r\nTransfer-Encoding: chunked\r\n\r\n", "0\r\nno colon\r\n\r\n", "0\r\n\x00\r\n\r\n", "00000\r\n\r\nHTTP/1.1 200 OK\r\n\r\n")...)
	}},
	{"content length", func(rng *rand.Rand, seed uint64) []byte {
		s := stream(rng, seed)
		return fmt.Appendf(nil, "%sContent-Length: %d\r\n\r\n%s", head, max(0, len(s)+rng.IntN(200)-100), s)
	}},
	{"codings", coded},
	{"interim", func(rng *rand.Rand, seed uint64) []byte {
		one := pick(rng, "HTTP/1.1 103 Early Hints\r\nLink: </x>\r\n\r\n", "HTTP/1.1 100 Continue\r\n\r\n", "HTTP/1.1 102 Processing\r\n\r\n",
			"HTTP/1.1 101 Switching\r\nUpgrade: x\r\nConnection: upgrade\r\n\r\n", "HTTP/1.1 103 X\r\nX: \x00\r\n\r\n", "HTTP/1.1 199 X\r\nContent-Length: 5\r\n\r\nhello",
			"HTTP/1.1 103 X\r\n"+strings.Repeat("X: y\r\n", 1000)+"\r\n")
		return append(bytes.Repeat([]byte(one), 1+rng.IntN(200)), head+"\r\n"+stream(rng, seed)...)
	}},
	{"other answers", func(rng *rand.Rand, seed uint64) []byte {
		return fmt.Appendf(nil, "HTTP/1.1 %s\r\nContent-Type: %s\r\n%s\r\n%s",
			pick(rng, "204 No Content", "304 Not Modified", "205 Reset", "500 Oops", "301 Moved", "206 Partial", "200 OK", "404 Not Found"),
			pick(rng, "text/event-stream", "text/event-stream; charset=utf-8", "TEXT/EVENT-STREAM", "text/event-stream\x00", "text/plain", ""),
			pick(rng, "", "Location: /x/1\r\n", "Content-Length: 10\r\n", "Transfer-Encoding: chunked\r\n"), stream(rng, seed))
	}},
	{"stream", func(rng *rand.Rand, seed uint64) []byte { return []byte(head + "\r\n" + stream(rng, seed)) }},
}

const head = "HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\n"

// lie makes an answer up.
func lie(seed uint64) (a aLie) {
	rng := rand.New(rand.NewPCG(seed, 7))
	if rng.IntN(10) == 0 { // now and then, nothing is wrong at all
		body := fmt.Sprintf("data: %s\n\ndata: [DONE]\n\n", mark(seed))
		a.kind, a.keep = "good", true
		a.parts = [][]byte{fmt.Appendf(nil, "%sContent-Length: %d\r\n\r\n%s", head, len(body), body)}
		return a
	}
	l := lies[rng.IntN(len(lies))]
	a.kind = l.name
	b := l.make(rng, seed)
	switch rng.IntN(4) {
	case 0: // cut anywhere
		b = b[:rng.IntN(len(b)+1)]
	case 1: // something is changed on the way
		for range 1 + rng.IntN(3) {
			if len(b) > 0 {
				b[rng.IntN(len(b))] = byte(rng.IntN(256))
			}
		}
	}
	switch rng.IntN(12) {
	case 0: // in drops
		a.pause = time.Millisecond
		for range 20 {
			n := min(len(b), 1+rng.IntN(3))
			a.parts, b = append(a.parts, b[:n]), b[n:]
		}
		a.parts = append(a.parts, b)
	default:
		for len(b) > 0 {
			n := min(len(b), 1+rng.IntN(1+len(b)))
			a.parts, b = append(a.parts, b[:n]), b[n:]
		}
	}
	a.hang, a.reset = rng.IntN(50) == 0 && l.name == "stream", rng.IntN(6) == 0
	return a
}

// stream makes up what an event stream's body may be.
func stream(rng *rand.Rand, seed uint64) string {
	var b strings.Builder
	for range rng.IntN(8) {
		end := pick(rng, "\n", "\n", "\r\n", "\r", "\n\r")
		switch rng.IntN(12) {
		case 0:
			b.Write(noise(rng, rng.IntN(2000)))
		case 1:
			b.WriteString(strings.Repeat("\x00", rng.IntN(2000)))
		case 2:
			b.WriteString(pick(rng, "data: ", ": ", "id: ", "event: ", "retry: ", "x", "") + strings.Repeat("x", rng.IntN(200_000)) + end)
		case 3:
			b.WriteString(strings.Repeat(pick(rng, end, ":"+end, ": ping"+end+end, "id"+end, "data"+end+end, "retry: 1"+end+end), rng.IntN(3000)))
		case 4:
			b.WriteString("\xef\xbb\xbf\xef\xbb\xbf" + "data: \xe6\xb5" + end + end)
		case 5:
			b.WriteString("retry: " + strings.Repeat("9", rng.IntN(100)) + end + end)
		case 6:
			b.WriteString("id: a\x00b" + end + "data: nul" + end + end)
		case 7:
			b.WriteString("id: sg1.AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA." + end + "data: yours?" + end + end)
		case 8:
			b.WriteString("event: ssegate.error" + end + "data: {\"reason\":\"made up\"}" + end + end)
		case 9:
			b.WriteString("data: [DONE]" + end + end)
		default:
			fmt.Fprintf(&b, "event: e%sid: %d%sdata: %s%sdata: more%s%s", end, rng.IntN(100), end, mark(seed), end, end, end)
		}
	}
	return b.String()
}

// coded is a body with content codings that may be garbage, cut short, or far
// larger than they look.
func coded(rng *rand.Rand, seed uint64) []byte {
	plain := []byte(stream(rng, seed))
	switch rng.IntN(40) {
	case 0:
		plain = make([]byte, 4<<20) // a bomb: one line
	case 1:
		plain = bytes.Repeat([]byte("data: x\n\n"), 200_000)
	case 2:
		plain = bytes.Repeat([]byte("\n"), 1<<20)
	}
	coding := pick(rng, "gzip", "x-gzip", "deflate", "br", "zstd", "gzip, br", "gzip, gzip, gzip", "snappy", "gzip,,gzip", "GZIP", "identity, gzip")
	var b bytes.Buffer
	b.Write(plain)
	for c := range strings.SplitSeq(strings.ToLower(coding), ",") {
		packed := pack(strings.TrimSpace(c), b.Bytes())
		b.Reset()
		b.Write(packed)
	}
	body := b.Bytes()
	switch rng.IntN(5) {
	case 0:
		body = noise(rng, rng.IntN(2000))
	case 1:
		body = body[:rng.IntN(len(body)+1)]
	case 2:
		for range 1 + len(body)/500 {
			if len(body) > 0 {
				body[rng.IntN(len(body))] ^= byte(1 + rng.IntN(255))
			}
		}
	case 3:
		body = append(body, noise(rng, rng.IntN(200))...)
	}
	return fmt.Appendf(nil, "%sContent-Encoding: %s\r\n\r\n%s", head, coding, body)
}

func pack(coding string, plain []byte) []byte {
	var b bytes.Buffer
	var w io.WriteCloser
	switch coding {
	case "gzip", "x-gzip":
		w, _ = gzip.NewWriterLevel(&b, gzip.BestSpeed)
	case "deflate":
		w, _ = zlib.NewWriterLevel(&b, zlib.BestSpeed)
	case "br":
		w = brotli.NewWriterLevel(&b, 1)
	case "zstd":
		w, _ = zstd.NewWriter(&b, zstd.WithEncoderConcurrency(1))
	default:
		return plain
	}
	w.Write(plain)
	w.Close()
	return b.Bytes()
}

func noise(rng *rand.Rand, n int) []byte {
	b := make([]byte, n)
	for i := range b {
		b[i] = byte(rng.IntN(256))
	}
	return b
}

func pick(rng *rand.Rand, of ...string) string { return of[rng.IntN(len(of))] }

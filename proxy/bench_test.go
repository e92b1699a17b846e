package proxy

import (
	"bufio"
	"io"
	"net"
	"strconv"
	"strings"
	"testing"
)

// BenchmarkPassThrough is one client on one kept connection: the whole way
// through sockets, a raw backend that costs next to nothing, and back.
//
//	go test -run - -bench PassThrough ./proxy
func BenchmarkPassThrough(b *testing.B) {
	for _, bench := range []struct{ name, request, answer string }{
		{"length", benchGet, benchHead + "Content-Length: 100\r\n\r\n" + strings.Repeat("x", 100)},
		{"chunked", benchGet, benchHead + "Transfer-Encoding: chunked\r\n\r\n64\r\n" + strings.Repeat("x", 100) + "\r\n0\r\n\r\n"},
		{"empty", benchGet, "HTTP/1.1 204 No Content\r\nDate: d\r\n\r\n"},
		{"post", benchPost, benchHead + "Content-Length: 100\r\n\r\n" + strings.Repeat("x", 100)},
		{"64KiB", benchGet, benchHead + "Content-Length: 65536\r\n\r\n" + strings.Repeat("x", 64<<10)},
	} {
		b.Run(bench.name, func(b *testing.B) {
			w := newWorld(b, []string{cheap(b, bench.request, bench.answer)})
			c, err := net.Dial("tcp", w.addr)
			if err != nil {
				b.Fatal(err)
			}
			defer c.Close()
			r := bufio.NewReaderSize(c, 64<<10)
			b.ReportAllocs()
			for b.Loop() {
				if _, err := io.WriteString(c, bench.request); err != nil {
					b.Fatal(err)
				}
				if err := skipAnswer(r); err != nil {
					b.Fatal(err)
				}
			}
		})
	}
}

const (
	benchGet = "GET /api/v1/things/17?full=1 HTTP/1.1\r\nHost: api.example.com\r\nUser-Agent: Mozilla/5.0 (X11; Linux x86_64)\r\n" +
		"Accept: application/json\r\nAccept-Encoding: gzip, br\r\nAccept-Language: en\r\nCookie: session=0123456789abcdef\r\nReferer: https://www.example.com/\r\n" +
		"Connection: keep-alive\r\n\r\n"
	benchHead = "HTTP/1.1 200 OK\r\nServer: uvicorn\r\nDate: Sun, 22 Nov 2026 10:00:00 GMT\r\nContent-Type: application/json\r\nCache-Control: no-store\r\nVary: Origin\r\n"
)

var benchPost = strings.Replace(strings.Replace(benchGet, "GET", "POST", 1), "Connection: keep-alive\r\n", "Content-Length: 20\r\n", 1) + "{\"question\": \"why?\"}"

// cheap is a backend that waits for the end of the request and sends bytes.
func cheap(t testing.TB, request, answer string) string {
	end := "\r\n\r\n"
	if strings.HasPrefix(request, "POST") {
		end = "}"
	}
	return rawBackend(t, func(c net.Conn, _ *bufio.Reader) {
		buf := make([]byte, 64<<10)
		n := 0
		for {
			m, err := c.Read(buf[n:])
			if err != nil {
				return
			}
			if n += m; strings.HasSuffix(string(buf[n-len(end):n]), end) {
				n = 0
				if _, err := io.WriteString(c, answer); err != nil {
					return
				}
			}
		}
	})
}

// skipAnswer reads an answer without looking at it.
func skipAnswer(r *bufio.Reader) error {
	length, chunked := 0, false
	for {
		line, err := r.ReadSlice('\n')
		if err != nil {
			return err
		}
		if len(line) == 2 {
			break
		}
		if s := string(line); strings.HasPrefix(s, "Content-Length: ") {
			length, _ = strconv.Atoi(s[16 : len(s)-2])
		} else {
			chunked = chunked || s == "Transfer-Encoding: chunked\r\n"
		}
	}
	for chunked {
		line, err := r.ReadSlice('\n')
		if err != nil {
			return err
		}
		n, err := strconv.ParseInt(string(line[:len(line)-2]), 16, 0)
		if err != nil {
			return err
		}
		if _, err := r.Discard(int(n) + 2); err != nil || n == 0 {
			return err
		}
	}
	_, err := r.Discard(length)
	return err
}

// BenchmarkGuard is what reading and checking a head, and building the one
// that goes upstream, cost by themselves.
func BenchmarkGuard(b *testing.B) {
	w := newWorld(b, nil)
	raw := benchGet[strings.Index(benchGet, "\r\n")+2:]
	b.ReportAllocs()
	for b.Loop() {
		x := &exchange{p: w.p, method: "GET", proto: "http", route: w.route}
		if bad := x.parseHead(raw); bad != nil {
			b.Fatal(bad)
		}
		f, bad := x.framing()
		if bad != nil {
			b.Fatal(bad)
		}
		if bad := x.takeTarget("/api/v1/things/17?full=1", f.hosts); bad != nil {
			b.Fatal(bad)
		}
		x.reqID = x.requestID()
		x.outgoing()
	}
}

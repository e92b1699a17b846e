package load

import (
	"errors"
	"slices"
	"strings"
	"testing"
)

type lines []string

func (l *lines) line(b []byte) { *l = append(*l, string(b)) }

func TestResponse(t *testing.T) {
	f := func(raw string, status int, over bool, want ...string) {
		t.Helper()
		for cut := range len(raw) { // in two, and byte by byte
			for _, pieces := range [][]string{{raw[:cut], raw[cut:]}, strings.Split(raw, "")} {
				var r response
				var got lines
				for _, p := range pieces {
					if err := r.feed([]byte(p), &got); err != nil {
						t.Fatalf("%q: %v", pieces, err)
					}
				}
				if r.status != status || r.over() != over || !slices.Equal(got, want) {
					t.Fatalf("%q: status %d, over %v, %q; want %d, %v, %q", pieces, r.status, r.over(), []string(got), status, over, want)
				}
			}
		}
	}
	const chunked = "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n"
	f(chunked+"5\r\na\nbc\n\r\nA\r\nd\r\n\nefghi\r\n0\r\n\r\n", 200, true, "a", "bc", "d", "")
	f(chunked+"3\r\nab\n\r\n2\r\ncd\r\n2\r\ne\n\r\n", 200, false, "ab", "cde") // an event over three chunks
	f("HTTP/1.1 503 Busy\r\ncontent-length: 6\r\n\r\nno\nway", 503, true, "no")
	f("HTTP/1.1 202 Accepted\r\nContent-Length: 0\r\n\r\n", 202, true)
	f("HTTP/1.1 204 No Content\r\n\r\n", 204, true)
	f("HTTP/1.0 200 OK\r\nX: chunked\r\n\r\na\nb\n", 200, false, "a", "b")
}

func TestResponseAgain(t *testing.T) {
	var r response
	var got lines
	for range 3 {
		r.reset()
		if err := r.feed([]byte("HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\na\n"), &got); err != nil || !r.over() {
			t.Fatalf("%v, over %v", err, r.over())
		}
	}
	if len(got) != 3 {
		t.Errorf("%q", []string(got))
	}
}

func TestResponseRefused(t *testing.T) {
	for _, raw := range []string{
		"SSH-2.0-OpenSSH_9.2\r\n\r\n",
		"HTTP/1.1 abc\r\n\r\n",
		"HTTP/1.1 200 OK\r\nContent-Length: -1\r\n\r\n",
		"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\nhello\r\n",
		strings.Repeat("x", maxHead+1),
	} {
		var r response
		if err := r.feed([]byte(raw), nil); !errors.Is(err, errResponse) {
			t.Errorf("%.40q: %v", raw, err)
		}
	}
}

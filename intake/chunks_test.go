package intake

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"net/http/httputil"
	"strings"
	"testing"
)

// pieces feeds b to a decoder in pieces that next sizes, and returns the data.
func pieces(b []byte, next func() int) (data []byte, ended bool, err error) {
	var c chunks
	for len(b) > 0 {
		p := bytes.Clone(b[:min(max(next(), 1), len(b))])
		b = b[len(p):]
		var n int
		n, ended, err = c.strip(p)
		data = append(data, p[:n]...)
		if ended || err != nil {
			break
		}
	}
	return data, ended, err
}

func TestChunksWhateverThePieces(t *testing.T) {
	rng := rand.New(rand.NewPCG(1, 2))
	for range 300 {
		var raw, want []byte
		for range rng.IntN(12) {
			data := []byte(strings.Repeat("x\r\ny0", rng.IntN(40)) + "z")
			want = append(want, data...)
			ext := []string{"", ";a=b", " ; a=\"c\"", "\t"}[rng.IntN(4)]
			end := []string{"\r\n", "\n"}[rng.IntN(2)]
			raw = fmt.Appendf(raw, []string{"%x", "%X", "0%x"}[rng.IntN(3)]+"%s%s%s\r\n", len(data), ext, end, data)
		}
		raw = append(raw, []string{"0\r\n\r\n", "000\r\nA: b\r\nC: d\r\n\r\n", "0;x\n\n"}[rng.IntN(3)]...)
		got, ended, err := pieces(append(raw, "HTTP/1.1 200"...), func() int { return rng.IntN(20) })
		if !ended || err != nil || !bytes.Equal(got, want) {
			t.Fatalf("%q: got %q, ended %v, %v", raw, got, ended, err)
		}
	}
}

func TestBadChunks(t *testing.T) {
	for _, raw := range []string{
		"\r\n", "x\r\n", "-1\r\n", "+1\r\n", "1x\r\n", "11111111111111111\r\n", "1\r\nab\r\n", "1\r\na\rb", "1\r\na\r\r\n",
		"5" + strings.Repeat(";", 5000), "0\r\n" + strings.Repeat("a: b\r\n", 1000),
	} {
		if _, ended, err := pieces([]byte(raw), func() int { return 3 }); !errors.Is(err, ErrFraming) || ended {
			t.Errorf("%.20q: ended %v, %v", raw, ended, err)
		}
	}
}

// FuzzChunks: what the standard library reads as a whole body, we read alike.
func FuzzChunks(f *testing.F) {
	f.Add([]byte("5\r\nhello\r\n0\r\n\r\n"), uint8(1))
	f.Add([]byte("a;x=y\nhelloworld\n0\n\n"), uint8(3))
	f.Fuzz(func(t *testing.T, raw []byte, step uint8) {
		got, ended, err := pieces(raw, func() int { return int(step) })
		whole, again, err2 := pieces(raw, func() int { return len(raw) })
		if !bytes.Equal(got, whole) || ended != again || (err == nil) != (err2 == nil) {
			t.Fatalf("pieces matter: %q %v %v, %q %v %v", got, ended, err, whole, again, err2)
		}
		want, werr := io.ReadAll(httputil.NewChunkedReader(bytes.NewReader(raw)))
		if ended && werr == nil && !bytes.Equal(got, want) {
			t.Fatalf("got %q, net/http %q", got, want)
		}
	})
}

func BenchmarkChunks(b *testing.B) {
	one := []byte("55\r\n" + strings.Repeat("d", 0x55) + "\r\n")
	raw := bytes.Repeat(one, 100)
	buf := make([]byte, len(raw))
	var c chunks
	b.SetBytes(int64(len(raw)))
	for b.Loop() {
		copy(buf, raw)
		if _, _, err := c.strip(buf); err != nil {
			b.Fatal(err)
		}
	}
}

package reconnect

import (
	"errors"
	"hash/crc32"
	"math"
	"strings"
	"testing"

	"ssegate/sse"
)

func sample(epoch, seq uint64) EdgeID {
	return EdgeID{
		Stream: sse.StreamID{0, 1, 2, 3, 250, 251, 252, 253, 254, 255, 62, 63, 64, 65, 66, 67},
		Owner:  OwnerTag("node-a-5f3c"),
		Pos:    sse.Pos{Epoch: epoch, Seq: seq},
	}
}

func TestEdgeIDRoundTrip(t *testing.T) {
	numbers := []uint64{0, 1, 25, 63, 64, 65, 4095, 4096, 1_790_000_000_123, 1<<48 - 1, 1<<53 + 1, 1<<63 - 1, math.MaxUint64}
	for _, epoch := range numbers {
		for _, seq := range numbers {
			want := sample(epoch, seq)
			text := want.String()
			got, err := ParseEdgeID([]byte(text))
			if err != nil || got != want {
				t.Errorf("%v: %q reads back as %v, %v", want, text, got, err)
			}
			if epoch < 1<<54 && len(text) > 64 || len(text) > maxEdgeID {
				t.Errorf("%q is %d characters long", text, len(text))
			}
			if i := strings.IndexFunc(text, func(r rune) bool {
				return !strings.ContainsRune(digits+".", r)
			}); i >= 0 {
				t.Errorf("%q has a character that is not allowed in a header without preflight, at %d", text, i)
			}
		}
	}
}

// TestEdgeIDText holds the form fast: ids are out in the world, and nodes of
// two versions run side by side during a deploy.
func TestEdgeIDText(t *testing.T) {
	const want = "sg1.AAECA_r7_P3-_z4_QEFCQ8yvmlo_YvLBaDEUGx7.BAAA-mus7"
	if got := sample(1_790_000_000_123, 4096).String(); got != want {
		t.Errorf("got %q, want %q", got, want)
	}
}

func TestEdgeIDDamage(t *testing.T) {
	f := func(text string, want error) {
		t.Helper()
		if id, err := ParseEdgeID([]byte(text)); !errors.Is(err, want) {
			t.Errorf("%q: got %v, %v; want %v", text, id, err, want)
		}
	}
	for _, id := range []EdgeID{sample(1_790_000_000_123, 7), sample(1, 1<<63-1), sample(1<<48-1, 0)} {
		whole := id.String()
		for n := range len(whole) {
			want := ErrDamagedEdgeID
			if n < len(edgePrefix) {
				want = ErrNotEdgeID
			}
			f(whole[:n], want)
			f(whole[n+1:], ErrNotEdgeID)
			for c := range 256 {
				if byte(c) == whole[n] {
					continue
				}
				want := ErrDamagedEdgeID
				if n < len(edgePrefix) {
					want = ErrNotEdgeID
				}
				f(whole[:n]+string([]byte{byte(c)})+whole[n+1:], want)
				f(whole[:n]+string([]byte{byte(c)})+whole[n:], want)
			}
			if n+1 < len(whole) && whole[n] != whole[n+1] && n >= len(edgePrefix) {
				f(whole[:n]+whole[n+1:n+2]+whole[n:n+1]+whole[n+2:], ErrDamagedEdgeID)
			}
		}
		f(whole+"A", ErrDamagedEdgeID)
		f(whole+whole, ErrDamagedEdgeID)
		f(" "+whole, ErrNotEdgeID)
		f(strings.ToLower(whole), ErrDamagedEdgeID)
		f(strings.ToUpper(whole), ErrNotEdgeID)
	}
	for _, theirs := range []string{"", "1", "42", "evt_01J8", "sg", "sg1", "sg2.AAAA", "1790000000123-7", "urn:uuid:0d5c"} {
		f(theirs, ErrNotEdgeID)
	}
}

// TestEdgeIDByHand: a right check is no excuse for a wrong form.
func TestEdgeIDByHand(t *testing.T) {
	names := sample(1, 1).String()[:edgeNames]
	for _, text := range []string{
		names + ".B", names + "B.", names + "B", names + "AB.B", names + "B.AB", names + "B.B.B", names + "!.B",
		names + "Q__________.B",                      // 11 digits that are more than 64 bits
		names[:len(names)-1] + "!B.B",                // no base64
		names[:len(names)-1] + "\nB.B",               // what base64 skips
		edgePrefix + "AAAA", edgePrefix, names + ".", // too short
	} {
		b := []byte(text)
		b = appendCheck(b, crc32.ChecksumIEEE(b))
		if id, err := ParseEdgeID(b); !errors.Is(err, ErrDamagedEdgeID) {
			t.Errorf("%q: got %v, %v", b, id, err)
		}
	}
}

func TestOwnerTag(t *testing.T) {
	if OwnerTag("a") == OwnerTag("b") {
		t.Error("tags do not tell nodes apart")
	}
}

func TestMinterAllocates(t *testing.T) {
	m := NewMinter(sse.NewStreamID(), OwnerTag("a"), 1_790_000_000_123)
	buf := make([]byte, 0, 64)
	if n := testing.AllocsPerRun(100, func() { buf = m.Append(buf[:0], 123_456) }); n != 0 {
		t.Errorf("%v allocations an id, want 0", n)
	}
}

func FuzzParseEdgeID(f *testing.F) {
	f.Add([]byte(sample(1_790_000_000_123, 7).String()))
	f.Add([]byte(sample(1, 1<<63-1).String()))
	f.Add([]byte("sg1.x"))
	f.Fuzz(func(t *testing.T, b []byte) {
		id, err := ParseEdgeID(b)
		switch {
		case err == nil:
			if id.String() != string(b) {
				t.Errorf("%q and %q are the same id", b, id.String())
			}
		case errors.Is(err, ErrNotEdgeID):
			if strings.HasPrefix(string(b), edgePrefix) {
				t.Errorf("%q: %v", b, err)
			}
		case !errors.Is(err, ErrDamagedEdgeID) || id != (EdgeID{}):
			t.Errorf("%q: %v, %v", b, id, err)
		}
		// The same bytes with a check that holds reach what stands behind it.
		b = appendCheck(append([]byte(edgePrefix), b...), crc32.ChecksumIEEE(append([]byte(edgePrefix), b...)))
		if id, err := ParseEdgeID(b); err == nil && id.String() != string(b) {
			t.Errorf("%q and %q are the same id", b, id.String())
		}
	})
}

func FuzzEdgeIDRoundTrip(f *testing.F) {
	f.Add([]byte("0123456789abcdef"), "node", uint64(1), uint64(1))
	f.Fuzz(func(t *testing.T, stream []byte, node string, epoch, seq uint64) {
		want := EdgeID{Owner: OwnerTag(node), Pos: sse.Pos{Epoch: epoch, Seq: seq}}
		copy(want.Stream[:], stream)
		if got, err := ParseEdgeID([]byte(want.String())); err != nil || got != want {
			t.Errorf("%v reads back as %v, %v", want, got, err)
		}
	})
}

func BenchmarkMinterAppend(b *testing.B) {
	m := NewMinter(sse.NewStreamID(), OwnerTag("a"), 1_790_000_000_123)
	buf := make([]byte, 0, 64)
	var seq uint64
	b.ReportAllocs()
	for b.Loop() {
		seq++
		buf = m.Append(buf[:0], seq)
	}
}

func BenchmarkParseEdgeID(b *testing.B) {
	id := []byte(sample(1_790_000_000_123, 123_456).String())
	b.ReportAllocs()
	for b.Loop() {
		if _, err := ParseEdgeID(id); err != nil {
			b.Fatal(err)
		}
	}
}

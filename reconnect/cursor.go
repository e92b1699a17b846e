package reconnect

import (
	"bytes"
	"crypto/rand"
	"crypto/sha256"
	"encoding/base64"
	"encoding/binary"
	"hash/crc32"
	"math"
	"slices"

	"ssegate/sse"
)

// A Cursor is what an id says that stands for a place in several topics at
// once. As text it is
//
//	sg2.BBBB…
//
// B being base64url of: one byte for the form; eight that name the set of
// topics, or a base; the places; and the CRC-32 of all before, text included.
// The places are, in the order of the topics' ids and as uvarints,
//
//   - in the form that stands alone, each topic's Seq;
//   - in the form with a base, for each topic that is not where the base has
//     it, how many topics were left out before it, and how much further it is.
//
// A base is a vector of all places that the cluster keeps under a name, so that
// a client's id is short however many topics it follows. Alone, four topics
// make 64 characters.
type Cursor struct {
	Set    CursorSet // of the form that stands alone
	Base   CursorSet // of the other; zero: it stands alone
	Places []uint64  // Seqs, or what is on top of the base's
	skip   []int     // of the form with a base: topics left out before each place
}

// CursorSet names a set of topics, or a base.
type CursorSet [8]byte

const (
	cursorPrefix = "sg2."
	cursorAlone  = 1
	cursorBased  = 2
	cursorHead   = 1 + len(CursorSet{})
	cursorCheck  = crc32.Size
	// maxCursor is how long an id may be, in characters, before nobody reads
	// it.
	maxCursor = 64 << 10
)

// SortTopics puts topics into the order in which a Cursor has them, and names
// the set.
func SortTopics(ids []sse.StreamID) (set CursorSet) {
	slices.SortFunc(ids, func(a, b sse.StreamID) int { return bytes.Compare(a[:], b[:]) })
	h := sha256.New()
	for i := range ids {
		h.Write(ids[i][:])
	}
	return CursorSet(h.Sum(nil))
}

// NewCursorBase draws the name of a base.
func NewCursorBase() (base CursorSet) {
	for base == (CursorSet{}) {
		rand.Read(base[:]) // never fails since Go 1.24
	}
	return base
}

// AppendCursor appends the id of a place in all topics of a set: seqs, in the
// order of SortTopics.
func AppendCursor(dst []byte, set CursorSet, seqs []uint64) []byte {
	var buf [96]byte
	raw := append(append(buf[:0], cursorAlone), set[:]...)
	for _, seq := range seqs {
		raw = binary.AppendUvarint(raw, seq)
	}
	return appendCursor(dst, raw)
}

// AppendBasedCursor is AppendCursor in terms of a base, whose places are was.
// None of seqs is below it.
func AppendBasedCursor(dst []byte, base CursorSet, was, seqs []uint64) []byte {
	var buf [96]byte
	raw := append(append(buf[:0], cursorBased), base[:]...)
	skipped := uint64(0)
	for i, seq := range seqs {
		if seq == was[i] {
			skipped++
			continue
		}
		raw = binary.AppendUvarint(raw, skipped)
		raw = binary.AppendUvarint(raw, seq-was[i])
		skipped = 0
	}
	return appendCursor(dst, raw)
}

func appendCursor(dst, raw []byte) []byte {
	crc := crc32.Update(crc32.ChecksumIEEE([]byte(cursorPrefix)), crc32.IEEETable, raw)
	raw = binary.BigEndian.AppendUint32(raw, crc)
	dst = append(dst, cursorPrefix...)
	return base64.RawURLEncoding.AppendEncode(dst, raw)
}

// ParseCursor reads what AppendCursor or AppendBasedCursor wrote. The error is
// ErrNotEdgeID or ErrDamagedEdgeID.
func ParseCursor(id []byte) (*Cursor, error) {
	text, ok := bytes.CutPrefix(id, []byte(cursorPrefix))
	if !ok {
		return nil, ErrNotEdgeID
	}
	raw := make([]byte, base64.RawURLEncoding.DecodedLen(len(text)))
	n, err := base64.RawURLEncoding.Strict().Decode(raw, text)
	if err != nil || len(id) > maxCursor || n < cursorHead+cursorCheck || bytes.ContainsAny(text, "\r\n") {
		return nil, ErrDamagedEdgeID
	}
	raw, check := raw[:n-cursorCheck], raw[n-cursorCheck:n]
	crc := crc32.Update(crc32.ChecksumIEEE([]byte(cursorPrefix)), crc32.IEEETable, raw)
	if binary.BigEndian.Uint32(check) != crc {
		return nil, ErrDamagedEdgeID
	}
	c := &Cursor{}
	name, rest := CursorSet(raw[1:cursorHead]), raw[cursorHead:]
	switch raw[0] {
	case cursorAlone:
		c.Set = name
	case cursorBased:
		c.Base = name
	default:
		return nil, ErrDamagedEdgeID
	}
	for len(rest) > 0 {
		var v uint64
		if raw[0] == cursorBased {
			if v, rest, ok = cutUvarint(rest); !ok || v > uint64(maxCursor) {
				return nil, ErrDamagedEdgeID
			}
			c.skip = append(c.skip, int(v))
		}
		if v, rest, ok = cutUvarint(rest); !ok {
			return nil, ErrDamagedEdgeID
		}
		c.Places = append(c.Places, v)
	}
	return c, nil
}

func cutUvarint(b []byte) (v uint64, rest []byte, ok bool) {
	v, n := binary.Uvarint(b)
	if n <= 0 {
		return 0, nil, false
	}
	return v, b[n:], true
}

// Seqs are the places in the n topics of a set; was are those of the cursor's
// base, if it has one. false when it is a place in other topics.
func (c *Cursor) Seqs(set CursorSet, n int, was []uint64) (seqs []uint64, ok bool) {
	if c.Base == (CursorSet{}) {
		return c.Places, c.Set == set && len(c.Places) == n
	}
	if len(was) != n {
		return nil, false
	}
	seqs = slices.Clone(was)
	at := 0
	for i, more := range c.Places {
		at += c.skip[i]
		if at >= n || more > math.MaxUint64-seqs[at] {
			return nil, false
		}
		seqs[at] += more
		at++
	}
	return seqs, true
}

// AppendCursorBase appends what is kept of a base: the set of topics, and the
// place in each.
func AppendCursorBase(dst []byte, set CursorSet, seqs []uint64) []byte {
	dst = append(append(dst, cursorAlone), set[:]...)
	for _, seq := range seqs {
		dst = binary.AppendUvarint(dst, seq)
	}
	return dst
}

// ParseCursorBase reads what AppendCursorBase wrote, for n topics of a set;
// false when it is something else.
func ParseCursorBase(b []byte, set CursorSet, n int) (seqs []uint64, ok bool) {
	if len(b) < cursorHead || b[0] != cursorAlone || CursorSet(b[1:cursorHead]) != set {
		return nil, false
	}
	seqs = make([]uint64, 0, min(n, len(b)))
	for b = b[cursorHead:]; len(b) > 0; {
		var v uint64
		if v, b, ok = cutUvarint(b); !ok {
			return nil, false
		}
		seqs = append(seqs, v)
	}
	return seqs, len(seqs) == n
}

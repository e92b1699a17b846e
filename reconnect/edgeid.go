package reconnect

import (
	"bytes"
	"crypto/sha256"
	"encoding/base64"
	"errors"
	"hash/crc32"

	"ssegate/sse"
)

// EdgeID is what an id that this cluster minted says: which stream, who owned
// it when the frame was numbered, and where in the stream the frame is.
//
// As text it is
//
//	sg1.SSSS…OOOO…EEEE.NNNNCCCCCC
//
// S and O: stream and owner tag, 32 characters of base64url; E and N: epoch
// and sequence, digits of base 64 in the same alphabet, no leading zeros; C:
// the CRC-32 of all that stands before it. It is case-sensitive, of
// [A-Za-z0-9._-] only, and at most 64 characters long for every epoch below
// 2^54 (65 above).
type EdgeID struct {
	Stream sse.StreamID
	Owner  [8]byte // OwnerTag of the node that numbered the frame
	Pos    sse.Pos
}

var (
	// ErrNotEdgeID says that an id is not of our form: somebody else's, to be
	// handed on as it is.
	ErrNotEdgeID = errors.New("reconnect: not an id of ours")
	// ErrDamagedEdgeID says that an id begins like one of ours but was cut
	// short or changed on its way.
	ErrDamagedEdgeID = errors.New("reconnect: an id of ours, but damaged")
)

// OwnerTag is the short name of a node in ids: it leads back to the node
// without telling clients what the node is called.
func OwnerTag(nodeID string) (tag [8]byte) {
	sum := sha256.Sum256([]byte(nodeID))
	copy(tag[:], sum[:])
	return tag
}

const (
	edgePrefix = "sg1."
	edgeNames  = len(edgePrefix) + 32 // where the epoch begins
	edgeCheck  = 6                    // characters of the CRC
	maxDigits  = 11                   // of a uint64 in base 64
	maxEdgeID  = edgeNames + maxDigits + 1 + maxDigits + edgeCheck
	digits     = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_"
)

// Minter makes the ids of one stream in one term of one owner. It is never
// changed after NewMinter, so it may be used concurrently.
type Minter struct {
	prefix []byte // all that stands before the sequence
	crc    uint32 // of prefix
}

// NewMinter prepares the ids of a stream; owner is the OwnerTag of the node
// whose term epoch is.
func NewMinter(stream sse.StreamID, owner [8]byte, epoch uint64) *Minter {
	var names [24]byte
	copy(names[copy(names[:], stream[:]):], owner[:])
	p := make([]byte, 0, maxEdgeID)
	p = append(p, edgePrefix...)
	p = base64.RawURLEncoding.AppendEncode(p, names[:])
	p = append(appendDigits(p, epoch), '.')
	return &Minter{prefix: p, crc: crc32.ChecksumIEEE(p)}
}

// Append appends the id of frame seq to dst. It allocates only if dst has
// less than 65 bytes of room.
func (m *Minter) Append(dst []byte, seq uint64) []byte {
	dst = append(dst, m.prefix...)
	at := len(dst)
	dst = appendDigits(dst, seq)
	crc := ^m.crc
	for _, c := range dst[at:] { // so few bytes are not worth a call of crc32.Update
		crc = crc32.IEEETable[byte(crc)^c] ^ crc>>8
	}
	return appendCheck(dst, ^crc)
}

// String is the id as text.
func (id EdgeID) String() string {
	return string(NewMinter(id.Stream, id.Owner, id.Pos.Epoch).Append(nil, id.Pos.Seq))
}

// ParseEdgeID reads what a Minter wrote, byte for byte: there is one text for
// each id. The error is ErrNotEdgeID or ErrDamagedEdgeID. Any change of one
// character, or of several within 32 bits, is certain to be noticed; other
// damage and truncation escape once in 2^32 times.
func ParseEdgeID(b []byte) (EdgeID, error) {
	if !bytes.HasPrefix(b, []byte(edgePrefix)) {
		return EdgeID{}, ErrNotEdgeID
	}
	at := len(b) - edgeCheck
	if at < edgeNames || len(b) > maxEdgeID {
		return EdgeID{}, ErrDamagedEdgeID
	}
	var check [edgeCheck]byte
	if !bytes.Equal(b[at:], appendCheck(check[:0], crc32.ChecksumIEEE(b[:at]))) {
		return EdgeID{}, ErrDamagedEdgeID
	}
	// From here on damage is next to impossible, but somebody may have made
	// an id by hand.
	var id EdgeID
	var names [24]byte
	n, err := base64.RawURLEncoding.Decode(names[:], b[len(edgePrefix):edgeNames])
	if err != nil || n != len(names) { // fewer: it skips line ends
		return EdgeID{}, ErrDamagedEdgeID
	}
	copy(id.Owner[:], names[copy(id.Stream[:], names[:]):])
	epoch, seq, found := bytes.Cut(b[edgeNames:at], []byte{'.'})
	var ok1, ok2 bool
	id.Pos.Epoch, ok1 = parseDigits(epoch)
	id.Pos.Seq, ok2 = parseDigits(seq)
	if !found || !ok1 || !ok2 {
		return EdgeID{}, ErrDamagedEdgeID
	}
	return id, nil
}

// appendDigits writes n in base 64, the highest digit first.
func appendDigits(dst []byte, n uint64) []byte {
	var buf [maxDigits]byte
	i := len(buf) - 1
	for buf[i] = digits[n&63]; n > 63; buf[i] = digits[n&63] {
		n >>= 6
		i--
	}
	return append(dst, buf[i:]...)
}

// parseDigits reads what appendDigits wrote and nothing else.
func parseDigits(b []byte) (n uint64, ok bool) {
	if len(b) == 0 || len(b) > maxDigits || len(b) > 1 && b[0] == digits[0] {
		return 0, false
	}
	for _, c := range b {
		d, ok := digit(c)
		if !ok || n>>58 != 0 {
			return 0, false
		}
		n = n<<6 | d
	}
	return n, true
}

func digit(c byte) (uint64, bool) {
	switch {
	case c >= 'A' && c <= 'Z':
		return uint64(c - 'A'), true
	case c >= 'a' && c <= 'z':
		return uint64(c-'a') + 26, true
	case c >= '0' && c <= '9':
		return uint64(c-'0') + 52, true
	case c == '-':
		return 62, true
	case c == '_':
		return 63, true
	}
	return 0, false
}

// appendCheck writes a CRC as six digits, with leading zeros.
func appendCheck(dst []byte, crc uint32) []byte {
	return append(dst,
		digits[crc>>30], digits[crc>>24&63], digits[crc>>18&63],
		digits[crc>>12&63], digits[crc>>6&63], digits[crc&63])
}

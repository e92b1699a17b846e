package bus

import (
	"encoding/binary"
	"errors"
	"fmt"

	"ssegate/sse"
)

// A parcel is what drivers carry: one version byte, then messages until its
// end. A message is
//
//	flags    1 byte
//	kind     1 byte
//	[from]   length and bytes, unless the message before it says the same
//	[stream] 16 bytes, unless zero or as in the message before it
//	[call]   number, unless zero
//	body     length and bytes
//
// Lengths and numbers are uvarints. The first message of each AppendMessages
// leans on no message before it, so a parcel may be added to.
const parcelVersion = 1

const (
	hasFrom    = 1 << iota // from follows
	hasStream              // a stream id follows
	sameStream             // the stream is that of the message before
	hasCall                // a call number follows

	messageFlags = hasFrom | hasStream | sameStream | hasCall
)

// ErrGarbled says that bytes are not what a node of this version sends.
var ErrGarbled = errors.New("bus: garbled")

// AppendMessages adds msgs to the parcel in dst and returns it. An empty dst
// begins a parcel; else dst is one that AppendMessages returned.
func AppendMessages(dst []byte, msgs []Message) []byte {
	if len(dst) == 0 {
		dst = append(dst, parcelVersion)
	}
	for i := range msgs {
		m := &msgs[i]
		var flags byte
		if i == 0 || m.From != msgs[i-1].From {
			flags |= hasFrom
		}
		switch {
		case m.Stream.IsZero():
		case i > 0 && m.Stream == msgs[i-1].Stream:
			flags |= sameStream
		default:
			flags |= hasStream
		}
		if m.Call != 0 {
			flags |= hasCall
		}
		dst = append(dst, flags, byte(m.Kind))
		if flags&hasFrom != 0 {
			dst = binary.AppendUvarint(dst, uint64(len(m.From)))
			dst = append(dst, m.From...)
		}
		if flags&hasStream != 0 {
			dst = append(dst, m.Stream[:]...)
		}
		if flags&hasCall != 0 {
			dst = binary.AppendUvarint(dst, m.Call)
		}
		dst = binary.AppendUvarint(dst, uint64(len(m.Body)))
		dst = append(dst, m.Body...)
	}
	return dst
}

// EncodedLen returns a bound of how many bytes AppendMessages adds for msgs.
func EncodedLen(msgs []Message) int {
	n := 1
	for i := range msgs {
		n += 2 + 3*binary.MaxVarintLen64 + len(msgs[i].Stream) + len(msgs[i].From) + len(msgs[i].Body)
	}
	return n
}

// DecodeMessages reads a parcel. The Bodies share b's bytes; an empty one is
// nil. The error is ErrGarbled; no message is returned with it.
func DecodeMessages(b []byte) ([]Message, error) {
	if len(b) == 0 || b[0] != parcelVersion {
		return nil, fmt.Errorf("%w: not a parcel of version %d", ErrGarbled, parcelVersion)
	}
	in := input{b: b[1:]}
	var msgs []Message
	var from string
	var stream sse.StreamID
	for len(in.b) > 0 {
		var m Message
		flags := in.byte()
		m.Kind = Kind(in.byte())
		if flags&hasFrom != 0 {
			if name := in.chunk(); string(name) != from {
				from = string(name)
			}
		}
		m.From = from
		if flags&hasStream != 0 {
			copy(stream[:], in.take(uint64(len(stream))))
		}
		if flags&(hasStream|sameStream) != 0 {
			m.Stream = stream
		}
		if flags&hasCall != 0 {
			m.Call = in.uvarint()
		}
		m.Body = in.chunk()
		if in.bad || flags&^messageFlags != 0 {
			return nil, fmt.Errorf("%w: message %d of a parcel", ErrGarbled, len(msgs))
		}
		msgs = append(msgs, m)
	}
	return msgs, nil
}

// input reads from the front of b. Once something was asked for that is not
// there, bad stays true and all further answers are zero.
type input struct {
	b   []byte
	bad bool
}

// take returns the next n bytes, sharing them, or nil when n is 0.
func (in *input) take(n uint64) []byte {
	if in.bad || n > uint64(len(in.b)) {
		in.b, in.bad = nil, true
		return nil
	}
	if n == 0 {
		return nil
	}
	p := in.b[:n:n]
	in.b = in.b[n:]
	return p
}

func (in *input) byte() byte {
	if p := in.take(1); p != nil {
		return p[0]
	}
	return 0
}

func (in *input) uvarint() uint64 {
	v, n := binary.Uvarint(in.b)
	if n <= 0 {
		in.b, in.bad = nil, true
		return 0
	}
	in.b = in.b[n:]
	return v
}

func (in *input) varint() int64 {
	v, n := binary.Varint(in.b)
	if n <= 0 {
		in.b, in.bad = nil, true
		return 0
	}
	in.b = in.b[n:]
	return v
}

// chunk returns a length and that many bytes.
func (in *input) chunk() []byte { return in.take(in.uvarint()) }

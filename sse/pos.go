package sse

import (
	"crypto/rand"
	"encoding/base64"
	"errors"
	"fmt"
)

// Pos is the position of a frame in its stream. Seq counts the frames of a
// stream from 1, without holes, for the stream's whole life. Epoch is the term
// of the owner that numbered it (milliseconds of the Unix clock when the term
// began, and always more than the term before). A new owner goes on with Seq
// where the log of the old one ended, so two frames may bear the same Seq in
// two epochs; a follower that has Seq n wants n+1, whatever the epoch.
//
// The zero Pos is the place before the first frame.
type Pos struct {
	Epoch, Seq uint64
}

// Before reports whether p was numbered before q: by epoch, then by sequence.
func (p Pos) Before(q Pos) bool {
	return p.Epoch < q.Epoch || p.Epoch == q.Epoch && p.Seq < q.Seq
}

// IsZero reports whether p is the place before the first frame.
func (p Pos) IsZero() bool { return p == Pos{} }

// String is the form <epoch>-<seq> that logs and Redis stream ids use.
func (p Pos) String() string { return fmt.Sprintf("%d-%d", p.Epoch, p.Seq) }

// StreamID names a stream in the whole cluster: 128 random bits, so that
// knowing one is the right to nothing but asking for it, and guessing one is
// hopeless.
type StreamID [16]byte

// NewStreamID draws a fresh id from the system's random source.
func NewStreamID() StreamID {
	var id StreamID
	rand.Read(id[:]) // never fails since Go 1.24
	return id
}

// ErrBadStreamID says that a text is not the name of any stream.
var ErrBadStreamID = errors.New("not a stream id: want 22 characters of [A-Za-z0-9_-]")

// String is the 22-character form that stands in URLs and headers.
func (id StreamID) String() string { return base64.RawURLEncoding.EncodeToString(id[:]) }

// IsZero reports whether id names no stream.
func (id StreamID) IsZero() bool { return id == StreamID{} }

// ParseStreamID reads the form that String gives. The error is ErrBadStreamID.
func ParseStreamID(s string) (id StreamID, err error) {
	if base64.RawURLEncoding.DecodedLen(len(s)) != len(id) {
		return StreamID{}, ErrBadStreamID
	}
	n, err := base64.RawURLEncoding.Strict().Decode(id[:], []byte(s))
	if err != nil || n != len(id) {
		return StreamID{}, ErrBadStreamID
	}
	return id, nil
}

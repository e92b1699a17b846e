package client

import (
	"bytes"
	"crypto/sha256"
	"encoding/base64"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"hash"
	"io"
)

// Names of the events that carry streams of bytes.
const (
	StreamEvent = "ssegate.stream" // where a stream begins, ends or was cut
	PieceEvent  = "ssegate.piece"
)

var (
	// ErrCut says that the publisher of a stream broke off.
	ErrCut = errors.New("the stream was cut by its publisher")
	// ErrMissing says that pieces are missing, or that they came out of order.
	ErrMissing = errors.New("pieces are missing")
	// ErrDigest says that the bytes are not those that were sent.
	ErrDigest = errors.New("the digest is another")
	// ErrTooLarge says that a stream has more bytes than Most, or that too many
	// are open.
	ErrTooLarge = errors.New("the stream is too large")
	// ErrBadEvent says that an event of this name says something else.
	ErrBadEvent = errors.New("not an event of a stream")
)

// StreamError is what is wrong with one stream; the others go on.
type StreamError struct {
	Stream string
	Err    error // one of those above, or what Create's writer said
}

func (e *StreamError) Error() string { return "stream " + e.Stream + ": " + e.Err.Error() }

// Unwrap is Err.
func (e *StreamError) Unwrap() error { return e.Err }

// File is a stream of bytes.
type File struct {
	Stream string // its id
	Type   string // content type
	Name   string // that its publisher gave it; never trust it as a path
	Size   int64  // in bytes, once it is whole; until then what was announced, 0 if nothing was
	SHA256 string // in hex, once it is whole
	Data   []byte // once it is whole, unless Create takes the bytes
}

// Reassembler puts streams of bytes together again from the events that a
// client receives. It checks that no piece is missing, that they are in order,
// and the digest of the whole. It is for one goroutine at a time. The zero
// Reassembler keeps streams of up to 64 MiB in memory.
type Reassembler struct {
	// Most is how many bytes of one stream are taken; 0 = 64 MiB, or no limit
	// with Create.
	Most int64
	// Open is how many streams may be under way; 0 = 16.
	Open int
	// Create gives the writer for a stream's bytes. It is closed when the
	// stream is whole or has failed. nil: they are kept in memory.
	Create func(f File) (io.WriteCloser, error)

	files map[string]*open
}

type open struct {
	File
	total int // pieces, 0 = not known
	next  int // piece
	bytes int64
	sum   hash.Hash
	to    io.WriteCloser // nil: memory
	kept  bytes.Buffer
}

type mark struct {
	Stream string `json:"stream"`
	State  string `json:"state"`
	Kind   string `json:"kind"`
	Type   string `json:"content_type"`
	Name   string `json:"name"`
	Total  int    `json:"total"`
	Bytes  int64  `json:"bytes"`
	SHA256 string `json:"sha256"`
}

type piece struct {
	Stream string `json:"stream"`
	Index  int    `json:"index"`
	Offset int64  `json:"offset"`
	Data   string `json:"data"`
}

// Take takes an event and returns a file when that was the last of it. Events
// of other names are none of its business, and neither are streams whose
// beginning it has not seen. Errors are *StreamError; the stream is given up
// then.
func (r *Reassembler) Take(event string, data []byte) (*File, error) {
	switch event {
	case StreamEvent:
		var m mark
		if err := json.Unmarshal(data, &m); err != nil || m.Stream == "" {
			return nil, &StreamError{m.Stream, fmt.Errorf("%w: %s", ErrBadEvent, event)}
		}
		return r.mark(&m)
	case PieceEvent:
		var p piece
		if err := json.Unmarshal(data, &p); err != nil || p.Stream == "" {
			return nil, &StreamError{p.Stream, fmt.Errorf("%w: %s", ErrBadEvent, event)}
		}
		if o := r.files[p.Stream]; o != nil {
			if err := r.piece(o, &p); err != nil {
				return nil, r.fail(o, err)
			}
		}
	}
	return nil, nil
}

// Drop gives all streams up that are under way, and returns their ids: after a
// gap they will not become whole.
func (r *Reassembler) Drop() (ids []string) {
	for id, o := range r.files {
		ids = append(ids, id)
		_ = r.fail(o, ErrMissing)
	}
	return ids
}

func (r *Reassembler) mark(m *mark) (*File, error) {
	o := r.files[m.Stream]
	switch {
	case m.State == "begin" && m.Kind == "pieces" && o == nil:
		return nil, r.begin(m)
	case o == nil:
		return nil, nil
	case m.State == "cut":
		return nil, r.fail(o, ErrCut)
	case m.State != "end":
		return nil, nil
	}
	sum := hex.EncodeToString(o.sum.Sum(nil))
	switch {
	case m.Total != o.next || m.Bytes != o.bytes:
		return nil, r.fail(o, fmt.Errorf("%w: %d of %d came", ErrMissing, o.next, m.Total))
	case m.SHA256 != "" && m.SHA256 != sum:
		return nil, r.fail(o, ErrDigest)
	}
	delete(r.files, o.Stream)
	if o.to != nil {
		if err := o.to.Close(); err != nil {
			return nil, &StreamError{o.Stream, err}
		}
	} else {
		o.Data = o.kept.Bytes()
	}
	o.Size, o.SHA256 = o.bytes, sum
	return &o.File, nil
}

func (r *Reassembler) begin(m *mark) error {
	o := &open{File: File{Stream: m.Stream, Type: m.Type, Name: m.Name, Size: m.Bytes}, total: m.Total, sum: sha256.New()}
	most := r.Open
	if most <= 0 {
		most = 16
	}
	if len(r.files) >= most {
		return &StreamError{m.Stream, fmt.Errorf("%w: %d are under way", ErrTooLarge, len(r.files))}
	}
	if limit := r.most(); limit > 0 && m.Bytes > limit {
		return &StreamError{m.Stream, fmt.Errorf("%w: %d bytes", ErrTooLarge, m.Bytes)}
	}
	if r.Create != nil {
		to, err := r.Create(o.File)
		if err != nil {
			return &StreamError{m.Stream, err}
		}
		o.to = to
	}
	if r.files == nil {
		r.files = make(map[string]*open)
	}
	r.files[m.Stream] = o
	return nil
}

func (r *Reassembler) most() int64 {
	if r.Most == 0 && r.Create == nil {
		return 64 << 20
	}
	return r.Most
}

func (r *Reassembler) piece(o *open, p *piece) error {
	switch {
	case p.Index < o.next:
		return nil // it came again
	case p.Index > o.next || p.Offset != o.bytes || o.total > 0 && p.Index >= o.total:
		return fmt.Errorf("%w: piece %d came where %d should", ErrMissing, p.Index, o.next)
	}
	b, err := base64.StdEncoding.DecodeString(p.Data)
	if err != nil {
		return fmt.Errorf("%w: piece %d is not base64", ErrBadEvent, p.Index)
	}
	if limit := r.most(); limit > 0 && o.bytes+int64(len(b)) > limit {
		return fmt.Errorf("%w: more than %d bytes", ErrTooLarge, limit)
	}
	o.next++
	o.bytes += int64(len(b))
	o.sum.Write(b)
	if o.to != nil {
		_, err = o.to.Write(b)
		return err
	}
	o.kept.Write(b)
	return nil
}

// fail gives a stream up.
func (r *Reassembler) fail(o *open, err error) error {
	delete(r.files, o.Stream)
	if o.to != nil {
		err = errors.Join(err, o.to.Close())
	}
	return &StreamError{o.Stream, err}
}

package redisreg

import (
	"encoding/json"
	"errors"
	"strconv"
	"strings"
	"time"

	"ssegate/registry"
	"ssegate/sse"
)

// The forms in which words of package registry are stored: JSON, of which a
// reader skips the fields it does not know, so that nodes of two versions can
// share a Redis. The shadowed field makes a stream's name readable there.
type (
	record struct {
		Stream string `json:"stream"`
		*registry.Record
	}
	bid struct {
		Stream string `json:"stream"`
		*registry.Bid
	}
	connection struct {
		Stream string `json:"stream"`
		*registry.Connection
	}
)

func encodeRecord(r *registry.Record) (string, error) {
	return encode(record{r.Stream.String(), r})
}

func decodeRecord(s string) (r registry.Record, err error) {
	d := record{Record: &r}
	if err := json.Unmarshal([]byte(s), &d); err != nil {
		return registry.Record{}, err
	}
	r.Stream, err = sse.ParseStreamID(d.Stream)
	return r, err
}

// encodeBid puts the stream first, where scripts can compare it.
func encodeBid(b *registry.Bid) (string, error) {
	s, err := encode(bid{b.Stream.String(), b})
	return b.Stream.String() + " " + s, err
}

func decodeBid(s string) (b registry.Bid, err error) {
	stream, data, ok := strings.Cut(s, " ")
	if !ok {
		return b, errors.New("want a stream, a blank and a bid")
	}
	d := bid{Bid: &b}
	if err := json.Unmarshal([]byte(data), &d); err != nil {
		return registry.Bid{}, err
	}
	b.Stream, err = sse.ParseStreamID(stream)
	return b, err
}

func encodeConn(c *registry.Connection) (string, error) {
	return encode(connection{c.Stream.String(), c})
}

func decodeConn(s string) (c registry.Connection, err error) {
	d := connection{Connection: &c}
	if err := json.Unmarshal([]byte(s), &d); err != nil {
		return registry.Connection{}, err
	}
	c.Stream, err = sse.ParseStreamID(d.Stream)
	return c, err
}

// decodeNode reads "<milliseconds> <node>": when it was last seen stands in
// front, as Redis writes it there.
func decodeNode(s string) (n registry.Node, err error) {
	seen, data, ok := strings.Cut(s, " ")
	if !ok {
		return n, errors.New("want a time, a blank and a node")
	}
	at, err := strconv.ParseInt(seen, 10, 64)
	if err != nil {
		return n, err
	}
	if err := json.Unmarshal([]byte(data), &n); err != nil {
		return registry.Node{}, err
	}
	n.Seen = time.UnixMilli(at)
	return n, nil
}

func encode(v any) (string, error) {
	b, err := json.Marshal(v)
	return string(b), err
}

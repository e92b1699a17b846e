//go:build !linux

package intake

import "net"

// A Set reads nothing on this system: its Add refuses every connection, and
// each takes a goroutine of the caller's.
type Set struct{}

// New returns such a set.
func New(int) (*Set, error) { return &Set{}, nil }

// Close does nothing.
func (*Set) Close() {}

// Add refuses the connection.
func (*Set) Add(net.Conn, Options, Sink) (conn *Conn, ok bool, err error) { return nil, false, nil }

// A Conn is never made here.
type Conn struct{}

// Resume does nothing.
func (*Conn) Resume() {}

// Close does nothing.
func (*Conn) Close(error) {}

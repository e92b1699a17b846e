package cluster

import (
	"encoding/binary"
	"time"

	"ssegate/hub"
)

// Priority of a message.
type Priority uint8

const (
	// PriorityNormal is what a message has that says nothing.
	PriorityNormal Priority = iota
	// PriorityLow: a client that is far behind goes without it.
	PriorityLow
	// PriorityHigh is kept apart for those who count; it overtakes nothing.
	PriorityHigh
)

// Meta says to whom a message of a topic goes. The zero Meta: to everybody who
// follows the topic.
type Meta struct {
	Priority Priority
	Expires  int64 // Unix ms, from which on it is handed to nobody; 0: never
	// Session, KB and Task keep a message from connections that have asked for
	// another session, knowledge base or task. "" keeps it from none.
	Session, KB, Task string
	// Connection, unless "", is the only connection that gets the message.
	Connection string
	// Primary messages reach a connection by the first of its topics only, so
	// that what is sent to several of them arrives once.
	Primary bool
}

// Filter is what a connection has asked for, and what it is. The zero Filter
// takes all but what is for a single connection.
type Filter struct {
	Session, KB, Task string
	Connection        string // its id
	Secondary         bool   // this is not the first of its topics
}

// The form of a Meta: metaVersion, flags, then in the order of the flags what
// they say is there; texts with their length before them.
const metaVersion = 1

const (
	metaLow = 1 << iota
	metaHigh
	metaPrimary
	metaExpires
	metaSession
	metaKB
	metaTask
	metaConnection
)

// Encode returns the Meta as frames bear it; nil for the zero Meta.
func (m *Meta) Encode() []byte {
	if *m == (Meta{}) {
		return nil
	}
	var flags byte
	set := func(flag byte, on bool) {
		if on {
			flags |= flag
		}
	}
	set(metaLow, m.Priority == PriorityLow)
	set(metaHigh, m.Priority == PriorityHigh)
	set(metaPrimary, m.Primary)
	set(metaExpires, m.Expires != 0)
	set(metaSession, m.Session != "")
	set(metaKB, m.KB != "")
	set(metaTask, m.Task != "")
	set(metaConnection, m.Connection != "")
	b := []byte{metaVersion, flags}
	if m.Expires != 0 {
		b = binary.AppendVarint(b, m.Expires)
	}
	for _, text := range []string{m.Session, m.KB, m.Task, m.Connection} {
		if text != "" {
			b = binary.AppendUvarint(b, uint64(len(text)))
			b = append(b, text...)
		}
	}
	return b
}

// metaView is a Meta that shares the bytes it was read from: it is read for
// each follower of a topic.
type metaView struct {
	flags                         byte
	expires                       int64
	session, kb, task, connection []byte
}

func (v *metaView) read(b []byte) bool {
	if len(b) < 2 || b[0] != metaVersion {
		return false
	}
	v.flags, b = b[1], b[2:]
	if v.flags&metaExpires != 0 {
		n := 0
		if v.expires, n = binary.Varint(b); n <= 0 {
			return false
		}
		b = b[n:]
	}
	for _, f := range []struct {
		flag byte
		to   *[]byte
	}{{metaSession, &v.session}, {metaKB, &v.kb}, {metaTask, &v.task}, {metaConnection, &v.connection}} {
		if v.flags&f.flag == 0 {
			continue
		}
		size, n := binary.Uvarint(b)
		if n <= 0 || size == 0 || size > uint64(len(b)-n) {
			return false
		}
		*f.to, b = b[n:n+int(size)], b[n+int(size):]
	}
	return len(b) == 0
}

// Takes reports whether the connection gets a message, however far behind it
// is. What cannot be read goes to nobody: it may not be meant for all.
func (f *Filter) Takes(meta []byte, now time.Time) bool { return f.takes(meta, now, false) }

func (f *Filter) takes(meta []byte, now time.Time, far bool) bool {
	if meta == nil {
		return true
	}
	var v metaView
	return v.read(meta) && f.meant(&v) &&
		(v.flags&metaExpires == 0 || v.expires > now.UnixMilli()) &&
		(v.flags&metaLow == 0 || !far)
}

// meant reports whether a message is for the connection, expired or not.
func (f *Filter) meant(v *metaView) bool {
	return (v.connection == nil || string(v.connection) == f.Connection) &&
		meets(v.session, f.Session) && meets(v.kb, f.KB) && meets(v.task, f.Task) &&
		(v.flags&metaPrimary == 0 || !f.Secondary)
}

// meets reports whether a message is not for another one than was asked for.
func meets(is []byte, asked string) bool {
	return is == nil || asked == "" || string(is) == asked
}

// Want is the Filter as a follower has it. ring is how many frames the stream
// keeps in memory: who is further behind than half of them goes without what
// is of low priority.
func (f *Filter) Want(ring int) func(hub.FrameMeta) bool {
	return func(m hub.FrameMeta) bool { return f.takes(m.Meta, time.Now(), m.Behind > ring/2) }
}

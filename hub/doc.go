// Package hub owns local fan-out: numbered frames of a stream go to the
// sockets of the clients that follow it on this node.
//
// A [Stream] keeps its newest frames in a ring of append-only segments, each
// frame already in the form in which it goes to an HTTP/1.1 client. A
// [Follower] is a cursor into that ring and nothing else: it has no goroutine
// and no buffer, so a client that has nothing to read costs a few hundred
// bytes, and a slow one costs no more until the ring has gone on without it.
// Then it reads from the stream's [Source], or is cut, by policy.
//
// What always holds:
//
//   - A follower gets each numbered frame that it wants once and in order, or
//     is ended with a Reason that says why not.
//   - Nobody waits for anybody: a write is one attempt that never blocks, and
//     what does not fit waits for its socket to tell that there is room.
//   - Whatever is not an event (heartbeat, goodbye) is written between whole
//     events only.
//   - No lock of a stream is held while a socket is written to, and a
//     follower's lock is taken before its stream's, never after.
//   - The memory of all rings together has a bound, see Config.Memory.
//
// It must not know HTTP beyond chunk framing, nor Redis, AMQP, nodes, config
// files or loggers: it counts and returns. It imports the standard library,
// golang.org/x/sys/unix and ssegate/sse.
package hub

// Package rabbit is the bus on RabbitMQ.
//
// There is one direct exchange, named by the prefix and durable, and for each
// connected node one queue, bound to it once, by the node's id: what a node
// publishes with another's id as routing key arrives there. The queue is
// exclusive, so the broker deletes it with the node's connection; its name has
// the session in it, for a queue that was named by the node alone would lock
// the node out until the broker has given up the half-open connection of the
// session before. Nothing is persistent.
//
// A queue is bounded in bytes, so that a node that stands still does not fill
// the broker. It refuses what does not fit (reject-publish), for then the
// sender gets a nack and knows; drop-head would lose the oldest in silence.
//
// A node publishes on one connection and consumes on another, because a broker
// in a memory or disk alarm stops reading from connections that publish. It
// consumes with a prefetch limit and acknowledges many deliveries at once, not
// with automatic acknowledgement: that has no flow control, and the client
// library would hold whatever a slow handler has not taken yet in memory,
// without bound.
//
// It must not know Redis, streams or followers.
package rabbit

// Package bus owns the carrying of messages from node to node: the words, the
// codec, the interface and the in-memory driver. The bus carries speed; the
// log carries truth: a message may be lost, and who needs it finds out and
// reads the log.
//
// It must not know who listens, what a stream is for, or where logs are kept.
package bus

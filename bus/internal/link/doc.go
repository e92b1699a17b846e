// Package link owns what the drivers that go through a broker have in common:
// the bounded queue between Send and the one writer, the batching, the loop
// that connects and connects again, the probe that notices a broker that has
// stopped answering, and the handler's calls, one at a time.
//
// It must not know which broker it is, nor what the messages say. A driver is
// a dial function and the Conn that it returns.
package link

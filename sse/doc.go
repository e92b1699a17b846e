// Package sse owns the bytes of the event stream protocol (WHATWG HTML §9.2):
// events, positions, frames, the decoder, the encoder and the rules for ids.
//
// A Decoder cuts what an upstream sends into blocks and tells what each of them
// says. AppendBlock writes a block back as it came, byte for byte, but with an id
// of ours if there is one; AppendMessage writes an event of our own. The two ways
// do not share code on purpose: what a service said is never put into other
// words, and what ssegate says is never copied unseen.
//
// It knows nothing of HTTP, sockets, logs or nodes, and imports only the
// standard library.
package sse

// Package sse owns the bytes of the event stream protocol (WHATWG HTML §9.2):
// events, positions, frames, the decoder, the encoder and the rules for ids.
//
// It knows nothing of HTTP, sockets, logs or nodes, and imports only the
// standard library.
package sse

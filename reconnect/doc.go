// Package reconnect owns continuity: the Log of a stream and its in-memory
// driver, the gaps that are told to a client, the ids that a client echoes
// and the jitter of retry hints.
//
// It must not know sockets, HTTP, or who owns a stream. Child packages put
// the Log on outside services.
package reconnect

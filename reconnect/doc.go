// Package reconnect owns continuity: the Log of a stream, the Journal that
// numbers topics by itself, both in memory; gaps, the ids and cursors that a
// client echoes, jitter and back-off.
//
// It must not know sockets, HTTP, or who owns a stream. Child packages put
// Log and Journal on outside services.
package reconnect

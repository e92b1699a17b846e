// Package registry owns who is where: nodes and their leases, which node owns
// which stream in which epoch, which nodes follow it, keys and fingerprints
// that lead to streams, and client connections; notes for a time, and what is
// due at a time. It holds the words, the contracts and the in-memory driver;
// registry/redisreg puts it in Redis.
//
// It must not know frames, sockets or the bus.
package registry

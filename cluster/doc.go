// Package cluster is one node's part in the life of streams that any node may
// serve: the streams it owns, the replicas it keeps for followers of streams
// that others own, the outbox that tells log and bus what happened here, the
// calls between nodes, elections by key, leases, and what is done when an
// owner dies.
//
// A local follower never waits for anything in here: the pump appends to the
// hub's ring and marks the stream; the outbox and the registrar, with
// goroutines of their own, tell the others.
//
// Topics are streams without an owner: any node publishes, the log numbers,
// and every node that has subscribers of a topic keeps a replica of it.
//
// The package must not know HTTP, sockets, or which driver stands behind a
// log, registry or bus.
package cluster

// Package redisreg is the registry in Redis (6.2 or newer; standalone,
// Sentinel or Cluster).
//
// Keys, all below one prefix:
//
//	nodes               sorted set: node id, by the end of its lease
//	cleaner             the one node that sweeps
//	{node:<id>}:node    what the node says of itself; lives as long as its lease
//	{node:<id>}:conns   hash: connection id, connection; ends with the lease
//	{<stream>}:record   hash: epoch, owner, data
//	{<stream>}:follow   sorted set: node id, by the end of its interest
//	key:<attach key>    "<stream> <bid>"
//	print:<fingerprint> list of "<end> <stream>", newest first
//	note:<name>         the note
//	gathered:<name>     list of values, newest first
//	due                 sorted set: item, by when it is due
//
// Every key has a TTL, so nothing outlives the nodes that wrote it; a dead
// node in the index is passed over by readers and removed by Sweep. Interest
// of a node without a lease is passed over as well and ends with its own ttl.
//
// What belongs together shares a hash tag and is changed by one script; what
// does not goes out in one pipeline, which Redis Cluster splits.
//
// It must not know the bus, frames or sockets.
package redisreg

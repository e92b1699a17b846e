// Package redisbus is the bus on Redis pub/sub, for a cluster that has Redis
// and no RabbitMQ.
//
// Each node subscribes to one channel, <prefix>:bus:<node id>, and publishes to
// those of others. Where the client is a Redis Cluster client the channels are
// sharded (SSUBSCRIBE, SPUBLISH; Redis 7), for else each message would go to
// every server of the cluster. Nothing is stored, no key is written. Redis says
// how many received a message: nobody means that it was not routed.
//
// A subscriber that does not keep up is cut off by Redis when its output buffer
// is full (client-output-buffer-limit pubsub, 32 MiB unless configured), and
// finds out as it would of any lost connection.
//
// It must not know streams, followers, or what else is kept in Redis.
package redisbus

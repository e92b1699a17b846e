// Package consul is discovery through Consul: it finds the endpoints of
// services, registers this node as one of its own service, finds the others,
// and holds the lock of the one node that cleans up after the dead.
//
// A Consul that is slow, stopped or gone stops nobody: the last lists stand,
// every call has an end, and what was registered is registered again when it
// is back. The environment variables of Consul's own tools (CONSUL_HTTP_TOKEN,
// CONSUL_CACERT and so on) hold where Config says nothing.
package consul

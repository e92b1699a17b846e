// Package discover owns which addresses are alive: the endpoints of upstream
// services, which of them to ask next and which to set aside, and the peer
// nodes. It holds the words and the balancer;
// discover/consul finds them through Consul.
//
// It must not know streams or clients.
package discover

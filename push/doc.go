// Package push owns what services say to users, channels and listeners: what
// a message is, where it goes, the HTTP API that takes it, and what became of
// it: receipts and the webhook. How it gets there is package cluster's: a
// topic is a stream that any node may add to.
//
// The API is an http.Handler, so that the internal listener of a node can
// serve it as it is and the public one through an adaptor. It must not know
// Redis, RabbitMQ, configuration files or fasthttp.
package push

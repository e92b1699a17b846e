//go:build linux

package main

import (
	"context"
	"time"

	"ssegate/bench/internal/load"
)

// program is one way to run what is measured.
type program struct {
	name, about string
	wares       []ware // what must be installed for it
	rival       bool   // not ssegate
	// start starts it for a workload, with its service at an address, and
	// returns when it answers.
	start func(ctx context.Context, s *stage, w *workload, upstream string) (*play, error)
}

// startWithin bounds the start of a program.
const startWithin = 30 * time.Second

// programs are all that can be measured, in the order in which they take turns.
func programs() []program {
	cluster := []ware{redisWare, rabbitWare}
	return []program{
		{
			name: "ssegate", about: "one node, everything in memory: the default",
			start: startSsegate(1, false),
		},
		{
			name: "ssegate-cluster", about: "one node with its log in Redis and its bus on RabbitMQ",
			wares: cluster,
			start: startSsegate(1, true),
		},
		{
			name: "ssegate-two", about: "two nodes on Redis and RabbitMQ: clients at one, the publisher at the other; CPU of both",
			wares: cluster,
			start: startSsegate(2, true),
		},
		{
			name: "nginx", about: "one worker, proxy_buffering off, kept connections upstream",
			wares: []ware{nginxWare, nchanWare}, rival: true,
			start: startNginx("1"),
		},
		{
			name: "nginx-auto", about: "the same with worker_processes auto: a worker a core",
			wares: []ware{nginxWare, nchanWare}, rival: true,
			start: startNginx("auto"),
		},
		{
			name: "nchan", about: "nginx with the module nchan, one worker, messages in shared memory",
			wares: []ware{nginxWare, nchanWare}, rival: true,
			start: startNginx("1"),
		},
		{
			name: "haproxy", about: "http-no-delay, http-reuse always, a thread a core",
			wares: []ware{haproxyWare}, rival: true,
			start: startHAProxy(true),
		},
		{
			name: "haproxy-lazy", about: "the same without http-no-delay, as it comes",
			wares: []ware{haproxyWare}, rival: true,
			start: startHAProxy(false),
		},
		{
			name: "floor", about: "no proxy: one thread that reads what the service writes, writes it to the client and looks at nothing. " +
				"What it costs is the kernel's part, which no proxy can save but by writing later",
			rival: true,
			start: startFloor,
		},
	}
}

// ids of streams and channels are the same for every program.
const channel = "bench"

// rawPublish is how nchan takes an event: the body is the data.
func rawPublish(addr string) load.Publish {
	return load.Publish{Addr: addr, Path: "/pub/" + channel, Type: "text/plain"}
}

// pushPublish is how ssegate's push API takes one event, or a batch.
func pushPublish(addr string) (one, batch load.Publish) {
	const before, after = `{"target":{"channel":"` + channel + `"},"data":"`, `"}`
	one = load.Publish{
		Addr: addr, Path: "/api/v1/messages/send", Type: "application/json",
		Before: before, After: after,
	}
	batch = one
	batch.Path = "/api/v1/messages/batch"
	batch.Open, batch.Between, batch.Close = "[", ",", "]"
	return one, batch
}

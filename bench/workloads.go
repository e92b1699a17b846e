//go:build linux

package main

import (
	"fmt"
	"slices"
	"time"

	"ssegate/bench/internal/load"
)

// pushed turns the push API on, with events like those of a backend: without
// the envelope.
const pushed = "[push]\npayload = \"data\"\n"

// workload is one piece of work that programs are measured with.
type workload struct {
	name   string
	family string  // of several that differ in one number, and are drawn as one line
	x      float64 // that number
	title  string
	about  string
	plan   load.Plan
	config string   // lines of ssegate's route and what follows it
	takers []string // programs that it applies to
	// figures are what is shown of it, the first being what it is about.
	figures []string
	// rival is whom ssegate is compared with: the ratio is of the first figure.
	rival string
	// rated is the count that CPU is divided by where that is not events.
	rated func(p load.Plan) float64
}

// runs is how often it is measured of so many: half as often where no goal
// depends on it.
func (w *workload) runs(n int) int {
	if slices.ContainsFunc(goals, func(g goal) bool { return g.workload == w.name }) {
		return n
	}
	return max(1, n/2)
}

// workloads are all of them, at their full size.
func workloads() []workload {
	var (
		proxies = []string{"ssegate", "ssegate-cluster", "nginx", "nginx-auto", "haproxy"}
		pushers = []string{"ssegate", "ssegate-cluster", "ssegate-two", "nchan"}
		own     = []string{"ssegate", "ssegate-cluster"}

		joining = "attach = \"content\"\n"

		paced     = []string{cpuEvent, lateP50, lateP99, residentMB, redisEvent, rabbitEvent}
		full      = []string{cpuEvent, perSecond, residentMB, redisEvent, rabbitEvent}
		publishes = []string{cpuEvent, perSecond, lateP50, lateP99, answerP99, residentMB, redisEvent, rabbitEvent}
		streams   = func(p load.Plan) float64 { return float64(p.Streams) }
	)
	list := []workload{
		{
			name: "paced", title: "Proxying, paced",
			about:  "500 clients with a stream each; the service sends each an event of 64 B every 20 ms.",
			plan:   load.Plan{Kind: load.Proxied, Clients: 500, Size: 64, Every: 20 * time.Millisecond, Warm: 2 * time.Second, Lasts: 10 * time.Second},
			takers: append(slices.Clone(proxies), "haproxy-lazy", "floor"), figures: paced, rival: "nginx",
		},
		{
			name: "full", title: "Proxying, as fast as it goes",
			about:  "50 clients with a stream of 20 000 events each; the service writes one event at a time.",
			plan:   load.Plan{Kind: load.Proxied, Clients: 50, Size: 64, Events: 20000},
			takers: append(slices.Clone(proxies), "floor"), figures: full, rival: "nginx",
		},
		{
			name: "full-20", title: "Proxying, 20 events a write",
			about:  "The same, but the service writes 20 events at a time, as one chunk.",
			plan:   load.Plan{Kind: load.Proxied, Clients: 50, Size: 64, Events: 20001, Batch: 20},
			takers: append(slices.Clone(proxies), "floor"), figures: full, rival: "nginx",
		},
		{
			name: "full-20-long", title: "Proxying, 20 events a write, longer than the log",
			about:  "The same with 100 001 events, ten times what a log keeps: memory is used again, and what it costs to touch it first weighs less.",
			plan:   load.Plan{Kind: load.Proxied, Clients: 50, Size: 64, Events: 100001, Batch: 20},
			takers: []string{"ssegate", "ssegate-cluster", "nginx"}, figures: full, rival: "nginx",
		},
		{
			name: "short", title: "Many short streams",
			about:  "2 000 streams of 20 events, 100 at a time, each over a connection of its own. Opening and ending are part of the cost.",
			plan:   load.Plan{Kind: load.Short, Clients: 100, Streams: 2000, Size: 64, Events: 20},
			takers: proxies, figures: []string{cpuEvent, perSecond, firstP50, firstP99, redisEvent, rabbitEvent}, rival: "nginx",
		},
		{
			name: "fanout", title: "Fan-out, paced",
			about:  "1 000 subscribers of one channel, 50 messages a second.",
			plan:   load.Plan{Kind: load.Fan, Clients: 1000, Size: 64, Every: 20 * time.Millisecond, Publishers: 1, Warm: 2 * time.Second, Lasts: 10 * time.Second},
			config: pushed, takers: pushers, figures: paced, rival: "nchan",
		},
		{
			name: "fanout-full", title: "Fan-out, as fast as it goes",
			about:  "1 600 messages to 1 000 subscribers of one channel; 16 publishers, each of which sends the next message when the last was answered.",
			plan:   load.Plan{Kind: load.Fan, Clients: 1000, Size: 64, Events: 1600, Publishers: 16},
			config: pushed, takers: pushers, figures: publishes, rival: "nchan",
		},
		{
			name: "joined", title: "One stream, many followers, paced",
			about:  "1 000 clients join one stream of the service (`attach = \"content\"`), which has an event every 20 ms.",
			plan:   load.Plan{Kind: load.Joined, Clients: 1000, Size: 64, Every: 20 * time.Millisecond, Warm: 2 * time.Second, Lasts: 10 * time.Second},
			config: joining, takers: own, figures: paced,
		},
		{
			name: "joined-full", title: "One stream, many followers, as fast as it goes",
			about:  "The same with a stream of 4 000 events.",
			plan:   load.Plan{Kind: load.Joined, Clients: 1000, Size: 64, Events: 4000},
			config: joining, takers: own, figures: full,
		},
		{
			name: "publish", title: "Publishing one by one",
			about:  "20 000 messages through the HTTP API, 16 connections, one subscriber.",
			plan:   load.Plan{Kind: load.Fan, Clients: 1, Size: 64, Events: 20000, Publishers: 16},
			config: pushed, takers: pushers, figures: publishes, rival: "nchan",
		},
		{
			name: "publish-100", title: "Publishing in batches of 100",
			about:  "400 000 messages in batches of 100 through the HTTP API, 4 connections, one subscriber.",
			plan:   load.Plan{Kind: load.Fan, Clients: 1, Size: 64, Events: 400000, Publishers: 4, Batch: 100},
			config: pushed, takers: []string{"ssegate", "ssegate-cluster", "ssegate-two"}, figures: publishes,
		},
		{
			name: "idle-subscribers", title: "Idle subscribers",
			about:  "8 000 subscribers of one channel, before and after one message.",
			plan:   load.Plan{Kind: load.Idle, Published: true, Clients: 8000, Size: 64, Settle: 5 * time.Second},
			config: pushed, takers: []string{"ssegate", "ssegate-cluster", "nchan"}, figures: []string{bytesClient, bytesUsed, residentMB}, rival: "nchan",
		},
		{
			name: "idle-streams", title: "Idle proxied streams",
			about:  "8 000 streams that had one event each; the connection to the service included.",
			plan:   load.Plan{Kind: load.Idle, Clients: 8000, Size: 64, Settle: 5 * time.Second},
			takers: []string{"ssegate", "ssegate-cluster", "nginx", "haproxy"}, figures: []string{bytesClient, residentMB}, rival: "nginx",
		},
		{
			name: "most-subscribers", title: "As many idle subscribers as the limit of open files allows",
			about:  "19 500 subscribers, with 20 000 files a process.",
			plan:   load.Plan{Kind: load.Idle, Published: true, Clients: 19500, Size: 64, Settle: 5 * time.Second},
			config: pushed, takers: []string{"ssegate", "nchan"}, figures: []string{bytesClient, bytesUsed, residentMB}, rival: "nchan",
		},
		{
			name: "most-streams", title: "As many idle proxied streams as the limit of open files allows",
			about:  "9 800 streams, which need two files each, with 20 000 files a process.",
			plan:   load.Plan{Kind: load.Idle, Clients: 9800, Size: 64, Settle: 5 * time.Second},
			takers: []string{"ssegate", "nginx", "haproxy"}, figures: []string{bytesClient, residentMB}, rival: "nginx",
		},
		{
			name: "connects", title: "Connects",
			about:  "10 000 streams of a single event, 64 at a time, each over a connection of its own.",
			plan:   load.Plan{Kind: load.Short, Clients: 64, Streams: 10000, Size: 64, Events: 1},
			takers: proxies, figures: []string{cpuStream, streamsSecond, wholeP50, wholeP99}, rival: "nginx", rated: streams,
		},
		{
			name: "subscribes", title: "Subscribes",
			about:  "10 000 subscriptions to a channel, 64 at a time, each left as soon as it is answered.",
			plan:   load.Plan{Kind: load.Glance, Clients: 64, Streams: 10000, Size: 64},
			config: pushed, takers: []string{"ssegate", "ssegate-cluster", "nchan"}, figures: []string{cpuStream, streamsSecond, wholeP50, wholeP99}, rival: "nchan", rated: streams,
		},
		{
			name: "resume", title: "Coming back on another node",
			about: "1 000 clients with a stream each, 10 events a second, are cut at once and come back at once on the other node with " +
				"their last event ids. Times are from a client's connecting: to its first event, and to the last of those that it had missed.",
			plan:   load.Plan{Kind: load.Resume, Clients: 1000, Size: 64, Every: 100 * time.Millisecond, Warm: 3 * time.Second, Lasts: 4 * time.Second},
			takers: []string{"ssegate-two"}, figures: []string{firstP50, firstP99, firstMax, wholeP50, wholeMax},
		},
	}
	list = append(list, growth(paced)...)
	for i := range list {
		p := &list[i].plan
		p.Batch = max(p.Batch, 1)
		p.Patience = 2 * time.Minute
	}
	return list
}

// growth are the families that show how a cost grows with one number while the
// rest stays as it is.
func growth(paced []string) []workload {
	var list []workload
	for _, n := range []int{100, 500, 2000} {
		list = append(list, workload{
			name: fmt.Sprintf("streams-%d", n), family: "streams", x: float64(n),
			title: "Cost by number of streams",
			about: "10 000 events a second over 100, 500 and 2 000 streams.",
			plan: load.Plan{Kind: load.Proxied, Clients: n, Size: 64, Every: time.Duration(n) * 100 * time.Microsecond,
				Warm: 2 * time.Second, Lasts: 6 * time.Second},
			takers: []string{"ssegate", "ssegate-cluster", "nginx"}, figures: paced, rival: "nginx",
		})
	}
	for _, n := range []int{100, 1000, 5000} {
		list = append(list, workload{
			name: fmt.Sprintf("subscribers-%d", n), family: "subscribers", x: float64(n),
			title: "Cost by number of subscribers",
			about: "50 000 deliveries a second to 100, 1 000 and 5 000 subscribers of one channel.",
			plan: load.Plan{Kind: load.Fan, Clients: n, Size: 64, Every: time.Duration(n) * 20 * time.Microsecond, Publishers: 1,
				Warm: 2 * time.Second, Lasts: 6 * time.Second},
			config: pushed,
			takers: []string{"ssegate", "nchan"}, figures: paced, rival: "nchan",
		})
	}
	for _, n := range []int{64, 1 << 10, 16 << 10} {
		list = append(list, workload{
			name: fmt.Sprintf("size-%d", n), family: "size", x: float64(n),
			title: "Cost by size of an event",
			about: "100 streams with an event each 20 ms, of 64 B, 1 KiB and 16 KiB.",
			plan: load.Plan{Kind: load.Proxied, Clients: 100, Size: n, Every: 20 * time.Millisecond,
				Warm: 2 * time.Second, Lasts: 6 * time.Second},
			takers: []string{"ssegate", "ssegate-cluster", "nginx", "haproxy"}, figures: paced, rival: "nginx",
		})
	}
	for _, n := range []int{100, 1000, 10000} {
		list = append(list, workload{
			name: fmt.Sprintf("past-%d", n), family: "past", x: float64(n),
			title:  "Cost by length of history",
			about:  "100 clients at once ask for all of a stream of 100, 1 000 and 10 000 events that is over, behind its first event.",
			plan:   load.Plan{Kind: load.Replay, Clients: 100, Size: 64, Events: n},
			takers: []string{"ssegate", "ssegate-cluster"}, figures: []string{cpuEvent, perSecond, firstP50, firstP99, wholeP99, redisEvent},
		})
	}
	for _, n := range []int{100, 1000, 10000} {
		list = append(list, workload{
			name: fmt.Sprintf("history-%d", n), family: "history", x: float64(n),
			title:  "Cost by length of a channel's history",
			about:  "100 clients at once ask for all of the 100, 1 000 and 10 000 messages that were published to a channel.",
			plan:   load.Plan{Kind: load.Replay, Published: true, Clients: 100, Size: 64, Events: n},
			config: pushed,
			takers: []string{"ssegate", "ssegate-cluster", "nchan"}, figures: []string{cpuEvent, perSecond, firstP50, firstP99, wholeP99, redisEvent},
			rival: "nchan",
		})
	}
	return list
}

// scaled is the workload at another size: so many times the clients, events and
// time.
func (w workload) scaled(by float64) workload {
	if by == 1 {
		return w
	}
	times := func(n, least int) int {
		if n == 0 {
			return 0
		}
		return max(int(float64(n)*by), min(n, least))
	}
	p := &w.plan
	p.Clients = times(p.Clients, 4)
	p.Streams = times(p.Streams, 4)
	if p.Kind != load.Short {
		p.Events = times(p.Events, 4*max(p.Publishers, 1)*p.Batch)
	}
	for _, d := range []*time.Duration{&p.Warm, &p.Lasts, &p.Settle} {
		if *d > 0 {
			*d = max(time.Duration(float64(*d)*by), 100*time.Millisecond)
		}
	}
	return w
}

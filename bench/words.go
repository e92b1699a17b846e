//go:build linux

package main

const foreword = `# Benchmarks

What event streams cost: ssegate beside the programs that stand in its place elsewhere, all with the same load, in turn, in
one run on one machine. This page and its charts are written by ` + "`make bench`" + ` and not by hand.

- Command: ` + "`%s`" + `
- Date: %s
- Machine: %s
- Everything is on this one machine, over loopback: the measured program, and in a second process the service behind it and
  the clients in front of it. Each process may have 20 000 open files.

## How it is measured

Each program is started anew for every measurement and ended after it. Programs take turns (A B C A B C …), so that whatever
else the machine does hits all alike; **compare within a table**, and mind the ratios, which are taken run by run, more than
the figures.

- **CPU** is user and system time of the program and its children, from ` + "`/proc/<pid>/stat`" + ` and, to the nanosecond, the
  ` + "`schedstat`" + ` of its threads, between two moments at which the load stands still, divided by the events that reached
  clients meanwhile. Connecting is not in it but where it says so. It is steadier than time on the wall.
- **Late** is the time from the service's (or publisher's) write to the client's read; each event bears its own time. The
  load's own delay is in it, for all alike.
- **Resident** is the Pss in ` + "`/proc/<pid>/smaps_rollup`" + `. What a client costs is the difference between the program with all
  clients and the same program without, after a first round of an eighth of them had come and gone, divided by their number.
- **Lost or doubled** events are found by number. One that is, an answer that is refused, or a connection that is cut
  makes a measurement not count, and the whole run fail.

An event of 64 B has 64 bytes of data. The service writes each as a chunk of its own. What is paced is spread evenly
over the streams, in steps of a quarter of a millisecond; as fast as it goes means 64 writes to one stream before the next
gets its turn, or until the stream takes no more, which one thread of the load does: some programs wait for it. ssegate runs with its default configuration, but for ` + "`[push]`, `attach`" + ` or the cluster
where the work is about them; it adds an id to every event, which makes a short one about twice as long on the wire.

Versions:

`

const afterword = `
## What it does not measure

- The network: loopback has no delay and no loss, and the kernel's part of a write there includes the reading side's.
- The kernel's memory for sockets, some kilobytes a connection, the same for all.
- TLS, HTTP/2, compression.
- More than two cores, more than one machine, more clients than 20 000 files allow.
- Redis and RabbitMQ under other load, or over a network. Their own CPU is shown beside that of ssegate, not in it.
- Hours: leaks and fragmentation show up elsewhere.
- What only one of them can do. The others forget a proxied stream when its client is cut; ssegate pays above for being
  able to go on with it, on any node, without a lost event.
`

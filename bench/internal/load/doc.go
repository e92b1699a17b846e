// Package load is the load of ssegate's benchmarks: the service behind the
// program that is measured, and the clients and publishers in front of it, in
// one process of its own.
//
// On two cores a heavy load would measure itself. So there are two threads,
// one for the service and the publishers and one for the clients, each with an
// epoll set and raw sockets; what is sent lies ready but for a number and a
// time, and of what comes back only line ends and the first bytes of each line
// are looked at. Both sides share one clock, so that an event can say when it
// was sent.
//
// Every event bears the number of its stream and its own number in it. A
// client that sees any but the next one has found a lost or a doubled event.
//
// What is done is a [Plan]; [Main] does it, led by the conductor (package
// bench) over standard input and output.
package load

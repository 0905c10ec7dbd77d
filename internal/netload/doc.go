// Package netload is a small load generator for networks and the server that
// it talks to: TCP and UDP streams, request/response, and connect/close.
//
// A [Server] listens on one port, TCP and UDP, so that a NAT which publishes
// that one port is enough. [Run] does one run of a [Spec] against it and
// returns a [Result]. PROTOCOL.md says what goes over the wire.
//
// # The window
//
// A run has two phases, the warm-up and the measured one, over the same
// connections. Each starts when nothing is on its way and, at its end, waits
// until what was sent has arrived (or, for UDP, until nothing more comes). So
// the counts of the measured phase are exact and nothing of the warm-up is in
// them. An [Observer] at each end starts before the first message. It stops
// when the measured time is over; with [Spec.Count], when everything has arrived.
//
// # The loops
//
// The loops that send and receive use blocking sockets and make one system
// call a message. They don't go through Go's network poller: under emulation
// epoll and the wake-ups of goroutines would be a large part of what is
// measured. They don't allocate. What bounds them is the run's deadline, at
// which the sockets are shut down, not a timeout of the socket: that would
// arm a timer for every message. Only where a message can get lost (udp_rr) and
// where each message has a socket of its own (tcp_crr) have the sockets
// timeouts. A main program calls [Prepare] first.
//
// Socket buffers and congestion control are the system's defaults, as they
// are with iperf3 and netperf. Nagle's algorithm is off for tcp_rr only.
package netload

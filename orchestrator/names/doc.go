// Package names answers the DNS queries of pods: a [Server] listens on the gateway
// addresses of the networks of one hypervisor, knows the pods of each network by
// name, and forwards what it doesn't know.
//
// # What is answered
//
// A network's zone is NETWORK.DOMAIN, such as blue.brfuse.internal:
//
//	web.blue.brfuse.internal              A, AAAA  the ready records of that name, in turn
//	9fc764e77b.blue.brfuse.internal       A, AAAA  one record by its id, while it is ready
//	_80._tcp.web.blue.brfuse.internal     SRV      a port by its number, the target a record by its id
//	_http._tcp.web.blue.brfuse.internal   SRV      the same by the port's name
//	3.0.231.10.in-addr.arpa               PTR      the first name of the record, ready or not
//	blue.brfuse.internal                  SOA, NS, A and AAAA: the gateways
//
// Where a pod's name is the id of another, the id wins. A name with no ready record
// exists and has no data; a name of no record doesn't exist (RFC 2308, with the zone's
// SOA in both answers). DOMAIN itself is a zone as well, with the one network in it:
// nothing below DOMAIN is ever forwarded. An answer has 256 records at most, others the
// next time.
//
// The reverse zones of the network's subnets are answered here, by whole octets or
// nibbles inside of a subnet; where a subnet is longer than /24, the rest of its /24 is
// forwarded, and the SOA is nevertheless that of the /24.
//
// # Who is answered
//
// Only who asks from an address in the network's subnets, the gateways among them:
// packets of others are dropped and their connections closed, without an answer,
// and counted. Link-local addresses are others, too: to ask a gateway, a pod has an
// address of its subnet. So the names of a network are seen from that network only,
// as far as source addresses can't be forged, which the guard of the taps sees to.
//
// # What is forwarded
//
// Everything else goes to the upstreams by UDP, and by TCP when an answer was
// truncated. Each query has a random id and a socket of its own, connected to the
// upstream, so its port is random, too (RFC 5452). An upstream that fails loses its
// place to the next. Only so many queries are forwarded at once for a network and for
// a client; what is too much gets SERVFAIL at once.
//
// Zone transfers and classes other than IN are refused, opcodes other than QUERY are
// not implemented. ANY gets one HINFO (RFC 8482); ANY of foreign names is
// forwarded by TCP only. Answers by UDP have 1232 bytes at most.
package names

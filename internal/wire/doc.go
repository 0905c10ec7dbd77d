// Package wire makes sessions between a hypervisor's daemon and the agent in
// one of its VMs, over a byte stream that knows no connections.
//
// A virtio-serial port stays open on one side while the program on the other
// side dies and starts again; bytes of the past reach whoever reads next. So a
// session begins with a handshake over a fresh nonce ([Host], [Guest]), carries
// a heartbeat with that nonce, and ends as soon as the heartbeat fails or a
// foreign byte shows. Within a session, hashicorp/yamux gives three streams:
// heartbeat, calls to the agent and calls to the daemon. Calls are ttrpc.
//
// Neither side trusts what it reads. Every length is checked before anything
// is allocated for it, the streams of a session are fixed, and the number of
// calls under way is limited, so a hostile guest can end its own session and
// no more. docs/protocol.md has the layout of all frames.
package wire

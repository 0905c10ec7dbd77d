// Package rtnl is brfuse's one door to rtnetlink: links, addresses, routes,
// neighbours, taps and bridges of one network namespace. No other package
// imports a netlink library.
//
// Where the kernel interrupts a dump because the table changed under it
// (NLM_F_DUMP_INTR), the dump is taken again; callers never see a torn one.
package rtnl

import (
	"errors"
	"fmt"

	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"
)

// Handle is an rtnetlink socket of one network namespace. It stays in that
// namespace whatever its users' threads do, and is safe for concurrent use.
type Handle struct {
	nl *netlink.Handle
}

// New returns a handle of the calling thread's network namespace.
func New() (*Handle, error) {
	// Named family: without one the library opens an XFRM socket too, which
	// small kernels lack.
	nl, err := netlink.NewHandle(unix.NETLINK_ROUTE)
	if err != nil {
		return nil, fmt.Errorf("open rtnetlink: %w", err)
	}
	return &Handle{nl: nl}, nil
}

// Close closes the socket.
func (h *Handle) Close() { h.nl.Close() }

// dumpTries bounds how often an interrupted dump is taken again.
const dumpTries = 16

// dump calls f again while the kernel interrupts it.
func dump[T any](f func() (T, error)) (T, error) {
	var v T
	var err error
	for range dumpTries {
		if v, err = f(); !errors.Is(err, netlink.ErrDumpInterrupted) {
			return v, err
		}
	}
	return v, err
}

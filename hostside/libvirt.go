package hostside

import (
	"context"

	"github.com/brfuse/brfuse/hostside/internal/libvirtvm"
)

// LibvirtChannel returns the path of the socket at which the agent of a domain is
// reached, for [vnic.VM.Channel], from the domain's XML. The domain, whose address is
// as [vnic.ParseLibvirt] reads it, need not run. Without such a channel the error is a
// [vnic.ErrNotFound] that has the XML to add, without the domain a [vnic.ErrUnknownVM].
func LibvirtChannel(ctx context.Context, domain string) (path string, err error) {
	return libvirtvm.Channel(ctx, domain)
}

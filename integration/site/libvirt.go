package site

import (
	"context"
	"fmt"
	"os"

	"github.com/brfuse/brfuse/internal/libvirttest"
)

// HypervisorEnv names the environment variable by which sites, unless told
// otherwise, have guests as domains of a libvirtd: "libvirt".
const HypervisorEnv = "BRFUSE_TEST_HYPERVISOR"

// wantsLibvirt tells whether guests are domains.
func wantsLibvirt(o Options) (bool, error) {
	switch v := os.Getenv(HypervisorEnv); v {
	case "", "qmp":
		return o.Libvirt, nil
	case "libvirt":
		return true, nil
	default:
		return false, fmt.Errorf("%s=%q is neither qmp nor libvirt", HypervisorEnv, v)
	}
}

// domains is a libvirtd for vmlab.
type domains struct{ *libvirttest.Daemon }

// Start implements [vmlab.Libvirt].
func (d domains) Start(ctx context.Context, name, domainXML string) error {
	if err := d.Define(ctx, domainXML); err != nil {
		return err
	}
	return d.StartDomain(ctx, name)
}

// Domain implements [vmlab.Libvirt].
func (d domains) Domain(name string) string { return d.Address(name) }

// Libvirt returns the site's libvirtd, nil when QEMU is started without.
func (s *Site) Libvirt() *libvirttest.Daemon { return s.libvirt }

package topology_test

import (
	"context"
	"errors"
	"fmt"
	"os"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/brfuse/brfuse/hostside/topology"
	"github.com/brfuse/brfuse/internal/libvirttest"
)

// TestIntegrationLibvirt has libvirt start domains with what is printed for it,
// and QEMU have the bridges.
func TestIntegrationLibvirt(t *testing.T) {
	if os.Geteuid() != 0 {
		require.Empty(t, os.Getenv("CI"), "CI must run as root")
		t.Skip("needs root")
	}
	ctx, cancel := context.WithTimeout(t.Context(), 2*time.Minute)
	defer cancel()
	d, err := libvirttest.Start(ctx, libvirttest.Options{})
	if errors.Is(err, libvirttest.ErrMissing) && os.Getenv("CI") == "" {
		t.Skip(err)
	}
	require.NoError(t, err)
	t.Cleanup(func() { assert.NoError(t, d.Close()) })
	dir := t.TempDir()
	for i, w := range []topology.Wish{
		{VNICs: 62, Machine: topology.Q35, CPUs: 2},
		{VNICs: topology.MaxVNICs, Machine: topology.Q35, CPUs: 2},
		{VNICs: 62, Machine: topology.PC, CPUs: 1},
	} {
		t.Run(fmt.Sprintf("%d on %s", w.VNICs, w.Machine), func(t *testing.T) {
			l, err := topology.PlanFor(w)
			require.NoError(t, err)
			name := fmt.Sprint("vm", i)
			l.QMP, l.Channel = "", dir+"/"+name
			devices, domain, ok := strings.Cut(l.LibvirtXML(), "<!-- in <domain> -->")
			require.True(t, ok)
			root := "pcie-root"
			if w.Machine == topology.PC {
				root = "pci-root"
			}
			require.NoError(t, d.Define(ctx, fmt.Sprintf(`<domain type='qemu'>
  <name>%s</name><uuid>0b0e7d0e-4f0c-4a5e-9c55-6d1f6c1f8f1%d</uuid>
  <memory unit='MiB'>64</memory><vcpu>%d</vcpu>
  <os><type arch='x86_64' machine='%s'>hvm</type></os><features><acpi/></features>
  <devices><memballoon model='none'/><controller type='usb' model='none'/><controller type='pci' index='0' model='%s'/>%s</devices>%s
</domain>`, name, i, w.CPUs, w.Machine, root, devices, domain)))
			if err := d.StartDomain(ctx, name); err != nil {
				t.Log(d.DomainLog(name))
				t.FailNow()
			}
			t.Cleanup(func() { assert.NoError(t, d.DestroyDomain(ctx, name)) })
			out, err := d.Virsh(ctx, "qemu-monitor-command", name, "--hmp", "info qtree")
			require.NoError(t, err)
			for n := 1; n <= l.Bridges; n++ {
				assert.Regexp(t, fmt.Sprintf(`dev: pci.*bridge, id "ua-brf-br%d"`, n), out)
			}
			assert.NotContains(t, bridges(out), "shpc = true")
		})
	}
}

// bridges returns the lines of conventional bridges' properties.
func bridges(qtree string) string {
	var b strings.Builder
	for part := range strings.SplitSeq(qtree, "dev: ") {
		if strings.HasPrefix(part, "pci-bridge,") {
			b.WriteString(part)
		}
	}
	return b.String()
}

package rig

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"net/netip"
	"os"
	"path/filepath"

	"github.com/brfuse/brfuse/bench/internal/fused"
	"github.com/brfuse/brfuse/bench/internal/pin"
	"github.com/brfuse/brfuse/integration/site"
	"github.com/brfuse/brfuse/integration/vmlab"
	"github.com/brfuse/brfuse/internal/nettopo"
	"github.com/brfuse/brfuse/internal/rtnl"
	"github.com/brfuse/brfuse/vnic"
)

const (
	guestMemory = 512 // MiB
	vnicSlots   = 31  // one PCI bridge
)

// node is a hypervisor with a guest.
type node struct {
	rig    *Rig
	name   string // the guest's
	number int    // from 0; addresses follow from it

	site   *site.Site
	nl     *rtnl.Handle // in the hypervisor's namespace
	conn   *rtnl.Conn   // likewise
	vm     *vmlab.VM
	ownMAC vnic.MAC // of the guest's own NIC
	uplink string   // its name in the guest
	vhost  bool     // the kernel serves it
	fused  map[string]*fused.Fused
}

// boot makes namespace and bridge, and boots the guest with its own NIC.
func (n *node) boot(ctx context.Context) (err error) {
	dir := filepath.Join(n.rig.scratch.Dir, n.name)
	if err := os.Mkdir(dir, 0o755); err != nil {
		return err
	}
	if n.site, err = site.New(ctx, n.rig.lab, site.Options{Dir: dir, LogLevel: "info", Image: n.image()}); err != nil {
		return err
	}
	if err := n.site.Net.NS().Do(n.dial); err != nil {
		return err
	}
	if err := n.addBridge(); err != nil {
		return err
	}
	cfg := vmlab.Config{Name: n.name, CPUs: n.rig.opts.CPUs, Mem: guestMemory, VNICs: vnicSlots, Append: n.rig.opts.Append}
	if n.rig.opts.QEMUArgs != nil {
		cfg.ExtraArgs = n.rig.opts.QEMUArgs(n.name)
	}
	if n.vm, err = n.site.BootConfig(ctx, cfg); err != nil {
		return err
	}
	if nodes := n.rig.layout.Nodes; nodes != nil {
		if err := pin.QEMU(n.vm.PID(), nodes[n.number].VCPUs, nodes[n.number].Others); err != nil {
			return err
		}
	}
	return n.plugOwn(ctx)
}

// image adds what topologies and loads need to what the rig's user wants.
func (n *node) image() vmlab.Image {
	img := n.rig.opts.Image
	img.Modules = append(nettopo.Modules(), img.Modules...)
	img.Files = maps.Clone(img.Files)
	if img.Files == nil {
		img.Files = map[string]string{}
	}
	img.Files[toolPath] = n.rig.tool
	return img
}

// dial opens netlink in the calling thread's namespace.
func (n *node) dial() (err error) {
	if n.nl, err = rtnl.New(); err != nil {
		return err
	}
	n.conn, err = rtnl.Dial()
	return err
}

// connect starts brfused, which gets to know the guest, and makes its networks.
func (n *node) connect(ctx context.Context) (err error) {
	if err := n.site.StartDaemon(ctx); err != nil {
		return err
	}
	if err := n.site.AddVM(ctx, n.vm); err != nil {
		return fmt.Errorf("%w\n--- brfused:\n%s", err, n.site.LogTail())
	}
	n.fused = map[string]*fused.Fused{}
	for topology, net := range n.networks() {
		if n.fused[topology], err = fused.Open(ctx, n.site, n.vm.Name(), net); err != nil {
			return err
		}
	}
	return nil
}

func (n *node) close() error {
	var errs []error
	for _, f := range n.fused {
		if f != nil {
			errs = append(errs, f.Close())
		}
	}
	if n.conn != nil {
		errs = append(errs, n.conn.Close())
	}
	if n.nl != nil {
		n.nl.Close()
	}
	if n.site != nil {
		errs = append(errs, n.site.Close())
	}
	return errors.Join(errs...)
}

// hostPlace is the hypervisor's namespace.
func (n *node) hostPlace() *Place {
	return &Place{Name: "hypervisor of guest " + n.name, host: n.site.Net, dir: n.site.Dir, tool: n.rig.tool}
}

// place is a namespace of the guest; "" is the first one.
func (n *node) place(netns string) *Place {
	name := "guest " + n.name
	if netns != "" {
		name += ", pod " + netns
	}
	return &Place{Name: name, vm: n.vm, netns: netns, tool: toolPath}
}

// addr returns an address of the node's share of a network: 100 of the last octet
// are a node's.
func (n *node) addr(network netip.Prefix, host byte) netip.Addr {
	b := network.Addr().As4()
	b[3] = byte(n.number)*100 + host
	return netip.AddrFrom4(b)
}

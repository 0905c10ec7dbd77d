package cli

import (
	"context"
	"fmt"
	"text/tabwriter"

	"github.com/spf13/cobra"

	brfusev1 "github.com/brfuse/brfuse/api/brfuse/v1"
	"github.com/brfuse/brfuse/vnic"
)

func (a *app) network() *cobra.Command {
	c := &cobra.Command{Use: "network", Short: "Create, list and remove networks"}
	c.AddCommand(a.networkCreate(), a.networkList(), a.networkRemove())
	return c
}

func (a *app) networkCreate() *cobra.Command {
	var n brfusev1.Network
	var noMasquerade bool
	c := &cobra.Command{
		Use:   "create NAME {--subnet PREFIX [--subnet PREFIX6] | --no-addresses}",
		Short: "Create a network: a segment with address pools",
		Long: `create makes a network. To create the same one again is no error. Its type says
what carries its frames:

  bridge   a bridge of this hypervisor. It has the gateway addresses, and traffic to
           outside is masqueraded once, on the host. With --bridge NAME --external an
           existing bridge is used as it is.
  overlay  such a bridge on each hypervisor that shares the store, joined by VXLAN.
  vlan     a bridge joined to a VLAN of --uplink. The gateways are routers out there.
  macvtap  no bridge: each vNIC is a macvtap of --uplink. The gateways are routers out
           there; the host itself isn't reached, ports can't be published, and
           bandwidths can't be limited.

With --no-addresses vNICs get none: pods take them by DHCP, or route. Then only their
MAC is checked, and they still can't be DHCP servers or IPv6 routers.`,
		Example: `  brfuse network create blue --subnet 10.9.0.0/24 --subnet fd00:9::/64
  brfuse network create lab --subnet 192.0.2.0/24 --bridge br0 --external
  brfuse network create office --type vlan --uplink eth1 --vlan 100 --no-addresses`,
		Args: cobra.ExactArgs(1),
		RunE: func(c *cobra.Command, args []string) error {
			if len(n.GetSubnets()) == 0 && !n.GetUnaddressed() {
				return usagef("network create needs --subnet or --no-addresses; see `brfuse network create --help`")
			}
			n.Name, n.Masquerade = args[0], !noMasquerade && routed(&n)
			return a.call(c.Context(), func(ctx context.Context, cl brfusev1.BrfuseClient) error {
				got, err := cl.CreateNetwork(ctx, &brfusev1.CreateNetworkRequest{Network: &n})
				if err != nil {
					return err
				}
				return a.print(got, func(w *tabwriter.Writer) { networkTable(w, []*brfusev1.Network{got}) })
			})
		},
	}
	f := c.Flags()
	f.StringVar(&n.Kind, "type", string(vnic.KindBridge), "what carries its frames: bridge, overlay, vlan or macvtap")
	f.Uint32Var(&n.Vni, "vni", 0, "number of an overlay on the wire (default: a free one)")
	f.StringVar(&n.Uplink, "uplink", "", "link of the hypervisor that a vlan or macvtap network uses")
	f.Uint32Var(&n.Vlan, "vlan", 0, "tag of a vlan network, 1-4094")
	f.StringSliceVar(&n.Subnets, "subnet", nil, "address pool, at most one a family")
	f.BoolVar(&n.Unaddressed, "no-addresses", false, "vNICs get no addresses")
	f.StringSliceVar(&n.Gateways, "gateway", nil, "gateway of each subnet, in the same order (default: the first host address)")
	f.StringVar(&n.Bridge, "bridge", "", "bridge's name (default: made from the network's name)")
	f.BoolVar(&n.External, "external", false, "the bridge exists and is configured by others")
	f.BoolVar(&noMasquerade, "no-masquerade", false, "route the pods' own addresses to outside; so it is where the host has no gateway address")
	f.Uint32Var(&n.Mtu, "mtu", 0, "MTU in bytes (default 1500; of an overlay, what the underlay leaves)")
	return c
}

// routed tells whether the host is the network's router.
func routed(n *brfusev1.Network) bool {
	switch vnic.NetworkKind(n.GetKind()) {
	case vnic.KindBridge, vnic.KindOverlay:
		return !n.GetExternal() && !n.GetUnaddressed()
	}
	return false
}

func (a *app) networkList() *cobra.Command {
	return &cobra.Command{
		Use:   "list",
		Short: "List networks",
		RunE: func(c *cobra.Command, _ []string) error {
			return a.call(c.Context(), func(ctx context.Context, cl brfusev1.BrfuseClient) error {
				got, err := cl.ListNetworks(ctx, &brfusev1.ListNetworksRequest{})
				if err != nil {
					return err
				}
				return a.print(got, func(w *tabwriter.Writer) { networkTable(w, got.GetNetworks()) })
			})
		},
	}
}

func (a *app) networkRemove() *cobra.Command {
	return &cobra.Command{
		Use:   "rm NAME",
		Short: "Remove a network",
		Args:  cobra.ExactArgs(1),
		RunE: func(c *cobra.Command, args []string) error {
			return a.call(c.Context(), func(ctx context.Context, cl brfusev1.BrfuseClient) error {
				got, err := cl.RemoveNetwork(ctx, &brfusev1.RemoveNetworkRequest{Name: args[0]})
				if err != nil {
					return err
				}
				return a.print(got, func(w *tabwriter.Writer) { fmt.Fprintf(w, "removed network %s\n", args[0]) })
			})
		},
	}
}

func networkTable(w *tabwriter.Writer, nets []*brfusev1.Network) {
	fmt.Fprintln(w, "NAME\tTYPE\tBRIDGE\tSUBNETS\tGATEWAYS\tMTU\tMASQUERADE\tATTACHMENTS")
	for _, m := range nets {
		fmt.Fprintf(w, "%s\t%s\t%s\t%s\t%s\t%d\t%t\t%d\n", m.GetName(), networkType(m), orDash(m.GetBridge()), join(m.GetSubnets()), join(m.GetGateways()),
			m.GetMtu(), m.GetMasquerade(), m.GetAttachments())
	}
}

// networkType names the type, with what tells networks of it apart: "overlay/VNI",
// "vlan/UPLINK.TAG", "macvtap/UPLINK".
func networkType(m *brfusev1.Network) string {
	switch vnic.NetworkKind(m.GetKind()) {
	case vnic.KindOverlay:
		return fmt.Sprintf("%s/%d", m.GetKind(), m.GetVni())
	case vnic.KindVLAN:
		return fmt.Sprintf("%s/%s.%d", m.GetKind(), m.GetUplink(), m.GetVlan())
	case vnic.KindMacvtap:
		return m.GetKind() + "/" + m.GetUplink()
	}
	return orDash(m.GetKind())
}

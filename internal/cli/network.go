package cli

import (
	"context"
	"fmt"
	"text/tabwriter"

	"github.com/spf13/cobra"

	brfusev1 "github.com/brfuse/brfuse/api/brfuse/v1"
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
		Use:   "create NAME --subnet PREFIX [--subnet PREFIX6]",
		Short: "Create a network: a bridge with address pools",
		Long: `create makes a network. Its bridge carries the gateway addresses, and traffic to
outside is masqueraded once, on the host. With --bridge NAME --external an
existing bridge is used as it is. To create the same network again is no error.`,
		Example: `  brfuse network create blue --subnet 10.9.0.0/24 --subnet fd00:9::/64
  brfuse network create lab --subnet 192.0.2.0/24 --bridge br0 --external`,
		Args: cobra.ExactArgs(1),
		RunE: func(c *cobra.Command, args []string) error {
			if len(n.GetSubnets()) == 0 {
				return usagef("network create needs --subnet; see `brfuse network create --help`")
			}
			n.Name, n.Masquerade = args[0], !noMasquerade && !n.GetExternal()
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
	f.StringSliceVar(&n.Subnets, "subnet", nil, "address pool, at most one a family (required)")
	f.StringSliceVar(&n.Gateways, "gateway", nil, "gateway of each subnet, in the same order (default: the first host address)")
	f.StringVar(&n.Bridge, "bridge", "", "bridge's name (default: made from the network's name)")
	f.BoolVar(&n.External, "external", false, "the bridge exists and is configured by others")
	f.BoolVar(&noMasquerade, "no-masquerade", false, "route the pods' own addresses to outside; so it is with --external")
	f.Uint32Var(&n.Mtu, "mtu", 0, "MTU in bytes (default 1500)")
	return c
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
	fmt.Fprintln(w, "NAME\tBRIDGE\tSUBNETS\tGATEWAYS\tMTU\tMASQUERADE\tATTACHMENTS")
	for _, m := range nets {
		fmt.Fprintf(w, "%s\t%s\t%s\t%s\t%d\t%t\t%d\n", m.GetName(), m.GetBridge(), join(m.GetSubnets()), join(m.GetGateways()),
			m.GetMtu(), m.GetMasquerade(), m.GetAttachments())
	}
}

package cli

import (
	"context"
	"fmt"
	"text/tabwriter"
	"time"

	"github.com/spf13/cobra"
	"google.golang.org/protobuf/types/known/durationpb"

	brfusev1 "github.com/brfuse/brfuse/api/brfuse/v1"
)

func (a *app) pool() *cobra.Command {
	c := &cobra.Command{
		Use:   "pool",
		Short: "Keep vNICs plugged in VMs, for attaches to take",
		Long: `A pool is a number of vNICs that are plugged into a VM and parked there: attaching a
pod takes one of them, and detaching gives it back, clean, instead of plugging and
unplugging. There is one for each VM and network, if it is wanted.`,
	}
	c.AddCommand(a.poolSet(), a.poolList(), a.poolRemove())
	return c
}

func (a *app) poolSet() *cobra.Command {
	var req brfusev1.SetPoolRequest
	var idle time.Duration
	c := &cobra.Command{
		Use:   "set --vm VM --network NETWORK --low N --high N",
		Short: "Make or change the pool of a VM and network",
		Long: `set keeps at least --low vNICs of the network parked in the VM, plugged in the
background, and lets detaches park up to --high. A pool that nobody used for --idle
shrinks to --low. Parked vNICs take slots; an attach that finds no free slot takes
that of a parked vNIC.

An attach with a MAC or number of queues of its own, or a smaller MTU than the
network's, is made without the pool.`,
		Example: `  brfuse pool set --vm vm1 --network blue --low 4 --high 16`,
		RunE: func(c *cobra.Command, _ []string) error {
			if req.GetVm() == "" || req.GetNetwork() == "" || !c.Flags().Changed("high") {
				return usagef("pool set needs --vm, --network and --high; see `brfuse pool set --help`")
			}
			if idle != 0 {
				req.Idle = durationpb.New(idle)
			}
			return a.call(c.Context(), func(ctx context.Context, cl brfusev1.BrfuseClient) error {
				got, err := cl.SetPool(ctx, &req)
				if err != nil {
					return err
				}
				return a.print(got, func(w *tabwriter.Writer) { poolTable(w, []*brfusev1.Pool{got}) })
			})
		},
	}
	f := c.Flags()
	f.StringVar(&req.Vm, "vm", "", "VM (required)")
	f.StringVar(&req.Network, "network", "", "network (required)")
	f.Uint32Var(&req.Low, "low", 0, "so many vNICs are kept parked")
	f.Uint32Var(&req.High, "high", 0, "so many may be parked (required)")
	f.DurationVar(&idle, "idle", 0, "shrink to --low when unused for so long (default 5m)")
	f.Uint32Var(&req.Queues, "queues", 0, "queue pairs of its vNICs (default 1)")
	return c
}

func (a *app) poolList() *cobra.Command {
	return &cobra.Command{
		Use:   "list",
		Short: "List pools with how many vNICs they hold",
		RunE: func(c *cobra.Command, _ []string) error {
			return a.call(c.Context(), func(ctx context.Context, cl brfusev1.BrfuseClient) error {
				got, err := cl.ListPools(ctx, &brfusev1.ListPoolsRequest{})
				if err != nil {
					return err
				}
				return a.print(got, func(w *tabwriter.Writer) { poolTable(w, got.GetPools()) })
			})
		},
	}
}

func (a *app) poolRemove() *cobra.Command {
	var req brfusev1.RemovePoolRequest
	c := &cobra.Command{
		Use:   "rm --vm VM --network NETWORK",
		Short: "Unplug a pool's parked vNICs and forget it",
		RunE: func(c *cobra.Command, _ []string) error {
			if req.GetVm() == "" || req.GetNetwork() == "" {
				return usagef("pool rm needs --vm and --network; see `brfuse pool rm --help`")
			}
			return a.call(c.Context(), func(ctx context.Context, cl brfusev1.BrfuseClient) error {
				got, err := cl.RemovePool(ctx, &req)
				if err != nil {
					return err
				}
				return a.print(got, func(w *tabwriter.Writer) {
					fmt.Fprintf(w, "removed pool of network %s in vm %s\n", req.GetNetwork(), req.GetVm())
				})
			})
		},
	}
	f := c.Flags()
	f.StringVar(&req.Vm, "vm", "", "VM (required)")
	f.StringVar(&req.Network, "network", "", "network (required)")
	return c
}

func poolTable(w *tabwriter.Writer, pools []*brfusev1.Pool) {
	fmt.Fprintln(w, "VM\tNETWORK\tLOW\tHIGH\tIDLE\tQUEUES\tPARKED\tFILLING\tIN USE\tHITS\tMISSES\tLAST ERROR")
	for _, m := range pools {
		fmt.Fprintf(w, "%s\t%s\t%d\t%d\t%s\t%d\t%d\t%d\t%d\t%d\t%d\t%s\n", m.GetVm(), m.GetNetwork(), m.GetLow(), m.GetHigh(),
			m.GetIdle().AsDuration(), m.GetQueues(), m.GetParked(), m.GetFilling(), m.GetInUse(), m.GetHits(), m.GetMisses(), orDash(m.GetLastError()))
	}
}

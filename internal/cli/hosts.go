package cli

import (
	"context"
	"fmt"
	"text/tabwriter"
	"time"

	"github.com/spf13/cobra"

	brfusev1 "github.com/brfuse/brfuse/api/brfuse/v1"
	"github.com/brfuse/brfuse/vnic"
)

func (a *app) hosts() *cobra.Command {
	c := &cobra.Command{
		Use:   "hosts",
		Short: "List the hypervisors that share a store",
		Long: `hosts lists the hypervisors that share a store, with their state:

  alive     its brfused renews its word in the store
  dead      it does not; what it has stays its own
  released  it was dead for too long: its addresses are given back`,
		RunE: func(c *cobra.Command, _ []string) error {
			return a.call(c.Context(), func(ctx context.Context, cl brfusev1.BrfuseClient) error {
				got, err := cl.ListHypervisors(ctx, &brfusev1.ListHypervisorsRequest{})
				if err != nil {
					return err
				}
				return a.print(got, func(w *tabwriter.Writer) { hostTable(w, got.GetHypervisors(), time.Now()) })
			})
		},
	}
	c.AddCommand(a.hostsRemove())
	return c
}

func (a *app) hostsRemove() *cobra.Command {
	return &cobra.Command{
		Use:   "rm NAME",
		Short: "Release all that a dead hypervisor holds, and forget it",
		Args:  cobra.ExactArgs(1),
		RunE: func(c *cobra.Command, args []string) error {
			return a.call(c.Context(), func(ctx context.Context, cl brfusev1.BrfuseClient) error {
				got, err := cl.RemoveHypervisor(ctx, &brfusev1.RemoveHypervisorRequest{Name: args[0]})
				if err != nil {
					return err
				}
				return a.print(got, func(w *tabwriter.Writer) { fmt.Fprintf(w, "removed hypervisor %s\n", args[0]) })
			})
		},
	}
}

func hostTable(w *tabwriter.Writer, list []*brfusev1.Hypervisor, now time.Time) {
	fmt.Fprintln(w, "NAME\tSTATE\tUNDERLAY\tMTU\tAPI\tVERSION\tUP\tATTACHMENTS")
	for _, m := range list {
		up := "-" // since when it is dead isn't known
		if m.GetState() == vnic.HypervisorAlive && m.GetStarted() != nil {
			up = max(now.Sub(m.GetStarted().AsTime()), 0).Truncate(time.Second).String()
		}
		fmt.Fprintf(w, "%s\t%s\t%s\t%d\t%s\t%s\t%s\t%d\n", m.GetName(), m.GetState(), orDash(m.GetUnderlay()), m.GetMtu(),
			orDash(m.GetApi()), orDash(m.GetVersion()), up, m.GetAttachments())
	}
}

// hostOf shows which hypervisor an attachment is on.
func hostOf(m *brfusev1.Attachment) string {
	if m.GetHypervisorDead() {
		return m.GetHypervisor() + " (dead)"
	}
	return orDash(m.GetHypervisor())
}

package cli

import (
	"context"
	"errors"
	"fmt"
	"text/tabwriter"

	"github.com/spf13/cobra"

	brfusev1 "github.com/brfuse/brfuse/api/brfuse/v1"
)

func (a *app) gc() *cobra.Command {
	var req brfusev1.GCRequest
	c := &cobra.Command{
		Use:   "gc",
		Short: "Remove what belongs to no attachment",
		Long: `gc compares the store, the hypervisors and the host's links. It removes what
belongs to no attachment, removes attachments that have lost their device or tap,
and repairs taps that are not in their bridge. brfused does so by itself whenever
it starts or a VM or agent comes back; gc shows that nothing is left.`,
		RunE: func(c *cobra.Command, _ []string) error {
			return a.call(c.Context(), func(ctx context.Context, cl brfusev1.BrfuseClient) error {
				got, err := cl.GC(ctx, &req)
				if err != nil {
					return err
				}
				return a.print(got, func(w *tabwriter.Writer) {
					verb := "removed"
					if req.GetDryRun() {
						verb = "would remove"
					}
					for _, f := range got.GetFindings() {
						fmt.Fprintf(w, "%s: %s\n", verb, f)
					}
					if len(got.GetFindings()) == 0 {
						fmt.Fprintln(w, "nothing to remove")
					}
				})
			})
		},
	}
	c.Flags().BoolVar(&req.DryRun, "dry-run", false, "only show")
	return c
}

// errChecks is returned when a check of doctor fails, after they were printed.
var errChecks = errors.New("some checks failed")

func (a *app) doctor() *cobra.Command {
	return &cobra.Command{
		Use:   "doctor",
		Short: "Check the host and every VM",
		RunE: func(c *cobra.Command, _ []string) error {
			return a.call(c.Context(), func(ctx context.Context, cl brfusev1.BrfuseClient) error {
				got, err := cl.Doctor(ctx, &brfusev1.DoctorRequest{})
				if err != nil {
					return err
				}
				if err := a.print(got, func(w *tabwriter.Writer) { doctorTable(w, got) }); err != nil {
					return err
				}
				for _, ch := range got.GetChecks() {
					if ch.GetStatus() == "fail" {
						return errChecks
					}
				}
				return nil
			})
		},
	}
}

func doctorTable(w *tabwriter.Writer, m *brfusev1.DoctorResponse) {
	for _, ch := range m.GetChecks() {
		fmt.Fprintf(w, "%s\t%s\t%s\n", ch.GetStatus(), ch.GetName(), ch.GetDetail())
		if r := ch.GetRemedy(); r != "" {
			fmt.Fprintf(w, "\t\tremedy: %s\n", r)
		}
	}
}

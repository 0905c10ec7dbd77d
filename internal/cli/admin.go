package cli

import (
	"context"
	"errors"
	"fmt"
	"text/tabwriter"
	"time"

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
	var o pathOptions
	c := &cobra.Command{
		Use:   "doctor [--path POD [--vm VM]]",
		Short: "Check the host and every VM, or show what a pod's packets cross",
		Long: `doctor checks the host and every VM.

With --path it shows, from the pod to the wire, every device, queueing discipline,
hook and network namespace that a packet of the pod crosses, in the guest and on the
host, with their counters; it looks twice, and shows what changed in between. The
pod is one that brfuse attached, or, with --vm, any in that VM: the name or path of
a network namespace, the id of a process, or with --runtime a container.`,
		Example: `  brfuse doctor
  brfuse doctor --path web
  brfuse doctor --path web-1 --runtime docker --vm vm1 --watch 10s
  brfuse doctor --path 4711 --vm vm1 --to 10.1.0.9 -o json`,
		RunE: func(c *cobra.Command, _ []string) error {
			if c.Flags().Changed("path") {
				return a.path(c.Context(), &o)
			}
			for _, name := range []string{"vm", "ifname", "runtime", "to", "watch"} {
				if c.Flags().Changed(name) {
					return usagef("--%s is of use with --path only; see `%s --help`", name, c.CommandPath())
				}
			}
			return a.checks(c.Context())
		},
	}
	f := c.Flags()
	f.StringVar(&o.req.Pod, "path", "", "show what packets of this pod cross")
	f.StringVar(&o.req.Vm, "vm", "", "the pod's VM; default: that of its only attachment")
	f.StringVar(&o.req.Interface, "ifname", "", "interface in the pod; default: eth0, or one that is attached")
	f.StringVar(&o.req.Runtime, "runtime", "", "the pod is a container of docker, containerd or podman")
	f.StringVar(&o.req.To, "to", "", "address that the packets are for; default: where default routes lead to")
	f.DurationVar(&o.watch, "watch", time.Second, "time between two looks at the counters; 0: look once")
	return c
}

func (a *app) checks(ctx context.Context) error {
	return a.call(ctx, func(ctx context.Context, cl brfusev1.BrfuseClient) error {
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
}

func doctorTable(w *tabwriter.Writer, m *brfusev1.DoctorResponse) {
	for _, ch := range m.GetChecks() {
		fmt.Fprintf(w, "%s\t%s\t%s\n", ch.GetStatus(), ch.GetName(), ch.GetDetail())
		if r := ch.GetRemedy(); r != "" {
			fmt.Fprintf(w, "\t\tremedy: %s\n", r)
		}
	}
}

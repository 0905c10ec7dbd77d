package cli

import (
	"context"
	"path/filepath"
	"text/tabwriter"

	"github.com/spf13/cobra"
	"google.golang.org/protobuf/types/known/durationpb"

	brfusev1 "github.com/brfuse/brfuse/api/brfuse/v1"
)

func (a *app) vmMigrate() *cobra.Command {
	var req brfusev1.MigrateVMRequest
	c := &cobra.Command{
		Use:   "migrate NAME --qmp SOCKET --channel SOCKET",
		Short: "Move a running VM and its vNICs to another QEMU process",
		Long: `migrate moves a running VM to a QEMU process on this hypervisor that was started
with the same arguments, sockets of its own, and -incoming defer, such as a newer
version of QEMU. Pods keep their vNICs, addresses and connections. The QEMU that the
VM leaves is told to quit. When a migration fails, the VM goes on where it was, and
the QEMU that waited is told to quit.`,
		Example: `  brfuse vm migrate vm1 --qmp /run/vm1b.qmp --channel /run/vm1b.agent`,
		Args:    cobra.ExactArgs(1),
		RunE: func(c *cobra.Command, args []string) error {
			if req.GetQmp() == "" || req.GetChannel() == "" {
				return usagef("vm migrate needs --qmp and --channel; see `brfuse vm migrate --help`")
			}
			req.Name = args[0]
			req.Timeout = durationpb.New(a.timeout)
			for _, path := range []*string{&req.Qmp, &req.Channel} {
				var err error
				if *path, err = filepath.Abs(*path); err != nil { // the daemon has another working directory
					return err
				}
			}
			return a.call(c.Context(), func(ctx context.Context, cl brfusev1.BrfuseClient) error {
				got, err := cl.MigrateVM(ctx, &req)
				if err != nil {
					return err
				}
				return a.print(got, func(w *tabwriter.Writer) { vmTable(w, []*brfusev1.VM{got}) })
			})
		},
	}
	c.Flags().StringVar(&req.Qmp, "qmp", "", "QMP unix socket of the QEMU that waits (required)")
	c.Flags().StringVar(&req.Channel, "channel", "", "unix socket of its port org.brfuse.agent.0 (required)")
	return c
}

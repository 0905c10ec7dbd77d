package cli

import (
	"cmp"
	"context"
	"fmt"
	"path/filepath"
	"strings"
	"text/tabwriter"

	"github.com/spf13/cobra"

	brfusev1 "github.com/brfuse/brfuse/api/brfuse/v1"
)

func (a *app) vm() *cobra.Command {
	c := &cobra.Command{Use: "vm", Short: "Register, list and forget VMs"}
	c.AddCommand(a.vmAdd(), a.vmList(), a.vmRemove(), a.vmMigrate())
	return c
}

func (a *app) vmAdd() *cobra.Command {
	var req brfusev1.AddVMRequest
	c := &cobra.Command{
		Use:   "add NAME {--qmp SOCKET --channel SOCKET|vsock:CID:PORT | --libvirt URI}",
		Short: "Register a VM",
		Long: `add registers a VM: either a running QEMU, by a QMP socket of brfuse's own and the
channel to the agent in the guest, or a domain of libvirt, by its URI and name.
` + "`brfuse topology`" + ` prints QEMU's arguments, or libvirt's XML, for what it needs. The
channel of a domain is the one that its XML has for the agent.

To add a VM again is no error. With --guest-network it sets anew which networks the
guest may use, and without it leaves them as they are; --guest-network all takes a
restriction back. What the guest has by then stays.`,
		Args: cobra.ExactArgs(1),
		RunE: func(c *cobra.Command, args []string) error {
			req.Name = args[0]
			if err := checkVMAdd(&req); err != nil {
				return err
			}
			return a.call(c.Context(), func(ctx context.Context, cl brfusev1.BrfuseClient) error {
				got, err := cl.AddVM(ctx, &req)
				if err != nil {
					return err
				}
				return a.print(got, func(w *tabwriter.Writer) { vmTable(w, []*brfusev1.VM{got}) })
			})
		},
	}
	c.Flags().StringVar(&req.Qmp, "qmp", "", "QEMU's QMP unix socket, for brfuse alone")
	c.Flags().StringVar(&req.Libvirt, "libvirt", "", "libvirt domain, such as qemu:///system/NAME")
	c.Flags().StringSliceVar(&req.GuestNetworks, "guest-network", nil,
		"network that the guest's container engines may use, repeatable; \"all\" or \"none\" (default: as it is, all at first)")
	c.Flags().StringVar(&req.Channel, "channel", "", "unix socket of the virtio-serial port org.brfuse.agent.0, or vsock:CID:PORT (default: that of the domain)")
	return c
}

// checkVMAdd checks which of the flags there are, and makes paths absolute: the
// daemon has another working directory.
func checkVMAdd(req *brfusev1.AddVMRequest) (err error) {
	switch {
	case req.GetLibvirt() != "" && req.GetQmp() != "":
		return usagef("vm add takes --qmp or --libvirt, not both; see `brfuse vm add --help`")
	case req.GetLibvirt() == "" && (req.GetQmp() == "" || req.GetChannel() == ""):
		return usagef("vm add needs --qmp and --channel, or --libvirt; see `brfuse vm add --help`")
	}
	if req.GetQmp() != "" {
		if req.Qmp, err = filepath.Abs(req.GetQmp()); err != nil {
			return err
		}
	}
	if req.GetChannel() != "" && !strings.HasPrefix(req.GetChannel(), "vsock:") {
		req.Channel, err = filepath.Abs(req.GetChannel())
	}
	return err
}

func (a *app) vmList() *cobra.Command {
	return &cobra.Command{
		Use:   "list",
		Short: "List VMs with their state, agent and slots",
		RunE: func(c *cobra.Command, _ []string) error {
			return a.call(c.Context(), func(ctx context.Context, cl brfusev1.BrfuseClient) error {
				got, err := cl.ListVMs(ctx, &brfusev1.ListVMsRequest{})
				if err != nil {
					return err
				}
				return a.print(got, func(w *tabwriter.Writer) { vmTable(w, got.GetVms()) })
			})
		},
	}
}

func (a *app) vmRemove() *cobra.Command {
	var force bool
	c := &cobra.Command{
		Use:   "rm NAME",
		Short: "Forget a VM",
		Args:  cobra.ExactArgs(1),
		RunE: func(c *cobra.Command, args []string) error {
			return a.call(c.Context(), func(ctx context.Context, cl brfusev1.BrfuseClient) error {
				got, err := cl.RemoveVM(ctx, &brfusev1.RemoveVMRequest{Name: args[0], Force: force})
				if err != nil {
					return err
				}
				return a.print(got, func(w *tabwriter.Writer) { fmt.Fprintf(w, "removed vm %s\n", args[0]) })
			})
		},
	}
	c.Flags().BoolVar(&force, "force", false, "detach its pods first")
	return c
}

func vmTable(w *tabwriter.Writer, vms []*brfusev1.VM) {
	fmt.Fprintln(w, "NAME\tSTATE\tAGENT\tHOTPLUG\tSLOTS\tATTACHMENTS\tGUEST NETWORKS\tQEMU\tREACHED BY")
	for _, m := range vms {
		agent := m.GetAgent()
		if v := m.GetAgentVersion(); v != "" {
			agent += " (" + v + ")"
		}
		slots := "-" // not known while QEMU does not answer
		if m.GetSlotsTotal() > 0 {
			slots = fmt.Sprintf("%d/%d", m.GetSlotsUsed(), m.GetSlotsTotal())
		}
		allowed := "all"
		if len(m.GetGuestNetworks()) > 0 {
			allowed = join(m.GetGuestNetworks())
		}
		fmt.Fprintf(w, "%s\t%s\t%s\t%s\t%s\t%d\t%s\t%s\t%s\n", m.GetName(), m.GetState(), agent, orDash(m.GetHotplug()),
			slots, m.GetAttachments(), allowed, orDash(m.GetQemuVersion()), cmp.Or(m.GetQmp(), m.GetLibvirt()))
	}
}

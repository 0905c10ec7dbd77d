package cli

import (
	"fmt"
	"path/filepath"
	"strconv"
	"strings"

	"github.com/spf13/cobra"

	"github.com/brfuse/brfuse/hostside/topology"
)

func (a *app) topology() *cobra.Command {
	var wish topology.Wish
	var target, qmp, channel, check string
	var libvirt bool
	c := &cobra.Command{
		Use:   "topology --vnics N [--cpus N] [--machine q35|pc] [--for qemu|libvirt] | --vnics N --check VM",
		Short: "Print the PCI layout that a VM must boot with for N vNICs, or check one that runs",
		Long: `topology prints what to add to a VM for N vNICs: hotplug slots, a QMP socket of
brfuse's own and the agent's channel, and on standard error what they cost. It
asks no daemon. With --libvirt it prints XML for a domain that brfuse reaches by
libvirt; give --qmp to have a QMP socket in that, too.

With --check it asks the daemon about a VM that runs, and tells whether it has
room for N vNICs in all, fast hotplug and the channel. The exit code is 1 when
it lacks any.`,
		Example: `  brfuse topology --vnics 62 --cpus 2 --qmp /run/vm1.qmp --channel /run/vm1.agent
  brfuse topology --vnics 31 --libvirt
  brfuse topology --vnics 248 --check vm1`,
		RunE: func(c *cobra.Command, _ []string) error {
			if c.Flags().Changed("check") {
				if check == "" {
					return usagef("--check needs the name of a vm; see `%s --help`", c.CommandPath())
				}
				return a.checkTopology(c.Context(), check, wish.VNICs)
			}
			l, err := topology.PlanFor(wish)
			if err != nil {
				return &usageError{err}
			}
			if libvirt {
				target = "libvirt"
			}
			if l.QMP, err = filepath.Abs(qmp); err != nil {
				return err
			}
			if libvirt && !c.Flags().Changed("qmp") {
				l.QMP = ""
			}
			if l.Channel, err = filepath.Abs(channel); err != nil {
				return err
			}
			return a.printLayout(l, target)
		},
	}
	f := c.Flags()
	f.IntVar(&wish.VNICs, "vnics", topology.SlotsPerBridge, fmt.Sprintf("number of vNICs, at most %d", topology.MaxVNICs))
	f.IntVar(&wish.CPUs, "cpus", 1, "number of the guest's CPUs: they bound interrupt vectors")
	f.StringVar(&wish.Machine, "machine", topology.Q35, "QEMU's machine: q35 or pc")
	f.StringVar(&target, "for", "qemu", "qemu: arguments; libvirt: XML")
	f.BoolVar(&libvirt, "libvirt", false, "XML for a VM of libvirt, without a QMP socket")
	f.StringVar(&qmp, "qmp", topology.DefaultQMP, "QMP socket")
	f.StringVar(&channel, "channel", topology.DefaultChannel, "socket of the agent's channel")
	f.StringVar(&check, "check", "", "name of a VM that runs, to be checked")
	c.MarkFlagsMutuallyExclusive("libvirt", "for")
	c.MarkFlagsMutuallyExclusive("libvirt", "check")
	return c
}

// printLayout prints a layout for one or the other to standard output, and what
// it costs to standard error, where it is in nobody's way.
func (a *app) printLayout(l topology.Layout, target string) error {
	var text string
	switch target {
	case "qemu":
		text = argumentLines(l.QEMUArgs())
	case "libvirt":
		text = l.LibvirtXML()
	default:
		return usagef("--for %q is neither qemu nor libvirt", target)
	}
	if a.output == "json" {
		doc := map[string]any{
			"vnics": l.VNICs, "cpus": l.CPUs, "machine": l.Machine, "slots": l.Slots, "bridges": l.Bridges,
			"qmp": l.QMP, "channel": l.Channel, "cost": costOf(l), "notes": l.Notes(),
		}
		if target == "qemu" {
			doc["arguments"] = l.QEMUArgs()
		} else {
			doc["xml"] = text
		}
		return a.printJSON(doc)
	}
	if _, err := fmt.Fprint(a.main.Stdout, text); err != nil {
		return err
	}
	for _, n := range l.Notes() {
		fmt.Fprintln(a.main.Stderr, "# "+n)
	}
	return nil
}

// costOf is a layout's cost for machines.
func costOf(l topology.Layout) map[string]any {
	c := l.Cost()
	vectors := map[string]int{}
	for n, of := range c.Vectors {
		vectors[strconv.Itoa(n)] = of
	}
	return map[string]any{
		"bootMs": c.BootMS, "qemuKiB": c.QEMUKiB, "vnicsQemuKiB": c.VNICKiB, "vnicsGuestKiB": c.GuestKiB,
		"vnicsByVectors": vectors, "lastPlugMs": c.PlugMS,
	}
}

// argumentLines writes an option and its value a line, to be pasted into a
// shell's command.
func argumentLines(args []string) string {
	var b strings.Builder
	for i, arg := range args {
		b.WriteString(shellQuote(arg))
		switch {
		case i == len(args)-1:
			b.WriteString("\n")
		case i%2 == 0:
			b.WriteString(" ")
		default:
			b.WriteString(" \\\n")
		}
	}
	return b.String()
}

// shellQuote quotes a word where a shell would need it.
func shellQuote(s string) string {
	const plain = "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789-_=,./:@%+"
	if s != "" && strings.Trim(s, plain) == "" {
		return s
	}
	return "'" + strings.ReplaceAll(s, "'", `'\''`) + "'"
}

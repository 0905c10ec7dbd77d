package cli

import (
	"encoding/json"
	"fmt"
	"path/filepath"
	"strings"

	"github.com/spf13/cobra"

	"github.com/brfuse/brfuse/hostside/topology"
)

func (a *app) topology() *cobra.Command {
	var vnics int
	var target, qmp, channel string
	c := &cobra.Command{
		Use:   "topology --vnics N [--for qemu|libvirt]",
		Short: "Print the PCI layout that a VM must boot with for N vNICs",
		Long: `topology prints what to add to a q35 machine for N vNICs: hotplug slots, a QMP
socket of brfuse's own and the agent's channel. It asks no daemon.`,
		Example: `  brfuse topology --vnics 62 --qmp /run/vm1.qmp --channel /run/vm1.agent
  brfuse topology --vnics 31 --for libvirt`,
		RunE: func(*cobra.Command, []string) error {
			l, err := topology.Plan(vnics)
			if err != nil {
				return &usageError{err}
			}
			if l.QMP, err = filepath.Abs(qmp); err != nil {
				return err
			}
			if l.Channel, err = filepath.Abs(channel); err != nil {
				return err
			}
			return a.printLayout(l, target)
		},
	}
	f := c.Flags()
	f.IntVar(&vnics, "vnics", topology.SlotsPerBridge, "number of vNICs")
	f.StringVar(&target, "for", "qemu", "qemu: arguments; libvirt: XML")
	f.StringVar(&qmp, "qmp", topology.DefaultQMP, "QMP socket")
	f.StringVar(&channel, "channel", topology.DefaultChannel, "socket of the agent's channel")
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
		enc := json.NewEncoder(a.main.Stdout)
		enc.SetIndent("", "  ")
		enc.SetEscapeHTML(false)
		doc := map[string]any{"vnics": l.VNICs, "slots": l.Slots, "bridges": l.Bridges, "qmp": l.QMP, "channel": l.Channel, "notes": l.Notes()}
		if target == "qemu" {
			doc["arguments"] = l.QEMUArgs()
		} else {
			doc["xml"] = text
		}
		return enc.Encode(doc)
	}
	if _, err := fmt.Fprint(a.main.Stdout, text); err != nil {
		return err
	}
	for _, n := range l.Notes() {
		fmt.Fprintln(a.main.Stderr, "# "+n)
	}
	return nil
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

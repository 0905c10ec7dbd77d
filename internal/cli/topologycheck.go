package cli

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"slices"
	"text/tabwriter"

	brfusev1 "github.com/brfuse/brfuse/api/brfuse/v1"
	"github.com/brfuse/brfuse/hostside/topology"
	"github.com/brfuse/brfuse/vnic"
)

// errLacks is returned when a VM lacks what was asked for.
var errLacks = errors.New("the vm lacks what it takes")

// checkTopology tells whether a VM of the daemon's has room for so many vNICs.
func (a *app) checkTopology(ctx context.Context, name string, vnics int) error {
	if vnics < 1 {
		return usagef("--vnics %d: at least 1", vnics)
	}
	return a.call(ctx, func(ctx context.Context, cl brfusev1.BrfuseClient) error {
		got, err := cl.ListVMs(ctx, &brfusev1.ListVMsRequest{})
		if err != nil {
			return err
		}
		for _, m := range got.GetVms() {
			if m.GetName() == name {
				return a.printCheck(name, topology.Check(topology.Running{
					Name: name, State: m.GetState(), ACPI: m.GetHotplug() == "acpi",
					Slots: int(m.GetSlotsTotal()), Used: int(m.GetSlotsUsed()), Agent: m.GetAgent() == "connected",
				}, vnics))
			}
		}
		return fmt.Errorf("check vm %s: %w; see `brfuse vm list`", name, vnic.ErrUnknownVM)
	})
}

func (a *app) printCheck(name string, findings []topology.Finding) error {
	lacks := slices.ContainsFunc(findings, func(f topology.Finding) bool { return !f.OK })
	if err := a.printFindings(name, findings, !lacks); err != nil {
		return err
	}
	if lacks {
		return fmt.Errorf("check vm %s: %w", name, errLacks)
	}
	return nil
}

func (a *app) printFindings(name string, findings []topology.Finding, ok bool) error {
	if a.output == "json" {
		var list []map[string]any
		for _, f := range findings {
			list = append(list, map[string]any{"what": f.What, "ok": f.OK, "detail": f.Detail})
		}
		return a.printJSON(map[string]any{"vm": name, "ok": ok, "findings": list})
	}
	w := tabwriter.NewWriter(a.main.Stdout, 0, 0, 2, ' ', 0)
	for _, f := range findings {
		verdict := "ok"
		if !f.OK {
			verdict = "LACKS"
		}
		fmt.Fprintf(w, "%s\t%s\t%s\n", verdict, f.What, f.Detail)
	}
	return w.Flush()
}

// printJSON writes what is no message of the API.
func (a *app) printJSON(doc any) error {
	enc := json.NewEncoder(a.main.Stdout)
	enc.SetIndent("", "  ")
	enc.SetEscapeHTML(false)
	return enc.Encode(doc)
}

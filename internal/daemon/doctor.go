package daemon

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"strings"

	brfusev1 "github.com/brfuse/brfuse/api/brfuse/v1"
	"github.com/brfuse/brfuse/hostside"
	"github.com/brfuse/brfuse/internal/buildinfo"
)

// Outcomes of a check.
const (
	statusOK   = "ok"
	statusWarn = "warn"
	statusFail = "fail"
)

// Doctor implements [Prober]: it checks the host, then each VM.
func (p *parts) Doctor(ctx context.Context) []*brfusev1.Check {
	checks := []*brfusev1.Check{
		checkDevice("tap", "/dev/net/tun", statusFail, "load the kernel module tun"),
		checkFilter(),
		checkOption("published ports", hostside.ProbePublish),
		checkOption("bandwidth", hostside.ProbeBandwidth),
		checkDevice("vhost", "/dev/vhost-net", statusWarn, "load the kernel module vhost_net; without it QEMU itself copies every packet"),
		checkSysctl("forwarding IPv4", "/proc/sys/net/ipv4/ip_forward", "1", "brfused sets it when the first network is made"),
		checkSysctl("forwarding IPv6", "/proc/sys/net/ipv6/conf/all/forwarding", "1", "brfused sets it when the first network with an IPv6 subnet is made"),
		checkBridgeFilter(),
	}
	vms, err := p.orch.VMs(ctx)
	if err != nil {
		return append(checks, &brfusev1.Check{Name: "store", Status: statusFail, Detail: err.Error()})
	}
	for _, m := range states(ctx, p, vms) {
		checks = append(checks, checkVM(m)...)
	}
	findings, err := p.orch.GC(ctx, true)
	switch {
	case err != nil:
		checks = append(checks, &brfusev1.Check{Name: "leftovers", Status: statusWarn, Detail: err.Error()})
	case len(findings) > 0:
		checks = append(checks, &brfusev1.Check{Name: "leftovers", Status: statusWarn, Detail: strings.Join(findings, "; "), Remedy: "brfuse gc"})
	default:
		checks = append(checks, &brfusev1.Check{Name: "leftovers", Status: statusOK, Detail: "none"})
	}
	return checks
}

func checkDevice(name, path, missing, remedy string) *brfusev1.Check {
	f, err := os.OpenFile(path, os.O_RDWR, 0)
	if err == nil {
		f.Close()
		return &brfusev1.Check{Name: name, Status: statusOK, Detail: path}
	}
	return &brfusev1.Check{Name: name, Status: missing, Detail: err.Error(), Remedy: remedy}
}

// checkFilter asks the kernel for what anti-spoofing and masquerading need.
func checkFilter() *brfusev1.Check {
	if err := hostside.Probe(); err != nil {
		return &brfusev1.Check{Name: "packet filter", Status: statusFail, Detail: err.Error()}
	}
	return &brfusev1.Check{Name: "packet filter", Status: statusOK, Detail: "nftables has all that is needed"}
}

// checkOption asks the kernel for what only some attachments need.
func checkOption(name string, probe func() error) *brfusev1.Check {
	if err := probe(); err != nil {
		return &brfusev1.Check{Name: name, Status: statusWarn, Detail: err.Error()}
	}
	return &brfusev1.Check{Name: name, Status: statusOK, Detail: "the kernel has all that is needed"}
}

func checkSysctl(name, path, want, remedy string) *brfusev1.Check {
	got, err := os.ReadFile(path)
	if err != nil {
		return &brfusev1.Check{Name: name, Status: statusWarn, Detail: err.Error()}
	}
	if strings.TrimSpace(string(got)) == want {
		return &brfusev1.Check{Name: name, Status: statusOK, Detail: path + " is " + want}
	}
	return &brfusev1.Check{Name: name, Status: statusWarn, Detail: path + " is " + strings.TrimSpace(string(got)), Remedy: remedy}
}

// checkBridgeFilter warns of iptables rules that see bridged frames: they
// filter traffic between pods of one network.
func checkBridgeFilter() *brfusev1.Check {
	const path = "/proc/sys/net/bridge/bridge-nf-call-iptables"
	got, err := os.ReadFile(path)
	switch {
	case errors.Is(err, fs.ErrNotExist):
		return &brfusev1.Check{Name: "bridge filter", Status: statusOK, Detail: "module br_netfilter is not loaded"}
	case err != nil:
		return &brfusev1.Check{Name: "bridge filter", Status: statusWarn, Detail: err.Error()}
	case strings.TrimSpace(string(got)) == "0":
		return &brfusev1.Check{Name: "bridge filter", Status: statusOK, Detail: path + " is 0"}
	}
	return &brfusev1.Check{
		Name: "bridge filter", Status: statusWarn, Detail: path + " is " + strings.TrimSpace(string(got)) + ": the host's forward rules see traffic inside of a network",
		Remedy: "set it to 0, or accept the bridges bf-* in the forward chain",
	}
}

func checkVM(m *brfusev1.VM) []*brfusev1.Check {
	name := "vm " + m.GetName()
	silent, gone := "QEMU is there and does not answer on "+m.GetQmp(), "QEMU does not answer on "+m.GetQmp()
	remedy := "see if it is stopped, hangs, or serves another client on that socket"
	if m.GetLibvirt() != "" {
		silent, gone = "libvirtd does not answer for "+m.GetLibvirt(), m.GetLibvirt()+" is no domain that runs"
		remedy = "see if libvirtd runs; the domain may, and its pods go on"
	}
	if m.GetState() == "silent" {
		return []*brfusev1.Check{{Name: name, Status: statusFail, Detail: silent, Remedy: remedy}}
	}
	if m.GetState() != "running" {
		return []*brfusev1.Check{{Name: name, Status: statusFail, Detail: gone, Remedy: "start the vm, or `brfuse vm rm " + m.GetName() + "`"}}
	}
	checks := []*brfusev1.Check{{Name: name, Status: statusOK, Detail: "QEMU " + m.GetQemuVersion() + " answers"}}
	hotplug := &brfusev1.Check{Name: name + " hotplug", Status: statusOK, Detail: m.GetHotplug()}
	if m.GetHotplug() == "native" {
		hotplug.Status, hotplug.Detail = statusWarn, "native PCI Express hotplug: each detach takes more than 5 s"
		hotplug.Remedy = "boot it with ACPI hotplug and the layout of `brfuse topology`"
	}
	slots := &brfusev1.Check{Name: name + " slots", Status: statusOK, Detail: fmt.Sprintf("%d of %d in use", m.GetSlotsUsed(), m.GetSlotsTotal())}
	if m.GetSlotsUsed() >= m.GetSlotsTotal() {
		slots.Status = statusWarn // what pools have parked gives way to an attach
		slots.Remedy = "boot it with more, see `brfuse topology --vnics N`, unless `brfuse pool list` shows parked vNICs"
	}
	agent := &brfusev1.Check{Name: name + " agent", Status: statusOK, Detail: "version " + m.GetAgentVersion()}
	switch {
	case m.GetAgent() != "connected":
		agent.Status, agent.Detail, agent.Remedy = statusFail, "no session on "+m.GetChannel(), "start brfuse-agent in the guest"
	case m.GetAgentVersion() != buildinfo.Version():
		agent.Status = statusWarn
		agent.Detail += ", brfused is " + buildinfo.Version()
		agent.Remedy = "install the same release on both"
	}
	return append(checks, hotplug, slots, agent)
}

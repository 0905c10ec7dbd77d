package rig

import (
	"bufio"
	"context"
	"encoding/json"
	"errors"
	"os"
	"runtime"
	"strings"
	"time"

	"github.com/brfuse/brfuse/bench/internal/result"
)

// Environment returns what measurements of this rig depend on. It has a fused pod up
// for a moment, to look at what its NIC has turned on.
func (r *Rig) Environment(ctx context.Context) (e result.Environment, err error) {
	a := r.nodes[0]
	v, err := a.vm.Environment(ctx)
	if err != nil {
		return e, err
	}
	e = result.Environment{
		Rig: r.Name(), Time: time.Now().UTC(), Brfuse: v.Brfuse, Go: v.Go,
		Kernel: v.Kernel, CPU: cpuModel(), CPUs: v.CPUs, Load: v.Load, Pinned: r.pinned(),
		QEMU: v.QEMU, Accel: v.Accel, Vhost: a.vhost, GuestKernel: v.GuestKernel, GuestCPUs: v.GuestCPUs, Arch: runtime.GOARCH,
		Offloads: map[string]string{},
	}
	s, err := r.Up(ctx, result.Fused)
	if err != nil {
		return e, err
	}
	err = errors.Join(
		offloads(ctx, e.Offloads, "guest", a.place("")), offloads(ctx, e.Offloads, "pod", s.Server), offloads(ctx, e.Offloads, "host", a.hostPlace()),
	)
	return e, errors.Join(err, s.Down(ctx))
}

// offloads notes what the links of a place have turned on.
func offloads(ctx context.Context, all map[string]string, where string, p *Place) error {
	out, err := p.RunTool(ctx, "offloads")
	if err != nil {
		return err
	}
	var links map[string][]string
	if err := json.Unmarshal([]byte(out), &links); err != nil {
		return err
	}
	for name, on := range links {
		if name != "lo" {
			all[where+":"+name] = strings.Join(on, " ")
		}
	}
	return nil
}

// cpuModel returns the name of this machine's CPU, "" where the kernel doesn't tell.
func cpuModel() string {
	f, err := os.Open("/proc/cpuinfo")
	if err != nil {
		return ""
	}
	defer f.Close()
	for in := bufio.NewScanner(f); in.Scan(); {
		if key, value, ok := strings.Cut(in.Text(), ":"); ok && strings.TrimSpace(key) == "model name" {
			return strings.TrimSpace(value)
		}
	}
	return ""
}

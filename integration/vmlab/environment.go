package vmlab

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"os"
	"runtime"
	"strings"

	"github.com/brfuse/brfuse/internal/buildinfo"
)

// Environment is what a measurement in a guest depends on beside what is measured.
type Environment struct {
	Brfuse      string `json:"brfuse"`
	Kernel      string `json:"kernel"`
	CPUs        int    `json:"cpus"`
	Load        string `json:"load"` // averages of 1, 5 and 15 minutes, before
	QEMU        string `json:"qemu"`
	Accel       string `json:"accel"`
	GuestKernel string `json:"guestKernel"`
	GuestCPUs   int    `json:"guestCPUs"`
	Go          string `json:"go"`
}

// Environment returns what a measurement in the guest depends on, as it is now.
func (vm *VM) Environment(ctx context.Context) (Environment, error) {
	e := Environment{
		Brfuse: buildinfo.Version(), CPUs: runtime.NumCPU(), Load: LoadAverage(), Accel: vm.lab.Accel,
		GuestKernel: vm.lab.Kernel.Release, GuestCPUs: vm.cfg.CPUs, Go: runtime.Version(),
	}
	release, err := os.ReadFile("/proc/sys/kernel/osrelease")
	if err != nil {
		return e, err
	}
	e.Kernel = string(bytes.TrimSpace(release))
	raw, err := vm.Monitor().Do(ctx, "query-version", nil)
	if err != nil {
		return e, err
	}
	var v struct {
		QEMU struct{ Major, Minor, Micro int }
	}
	if err := json.Unmarshal(raw, &v); err != nil {
		return e, fmt.Errorf("read qemu's version: %w", err)
	}
	e.QEMU = fmt.Sprintf("%d.%d.%d", v.QEMU.Major, v.QEMU.Minor, v.QEMU.Micro)
	return e, nil
}

// LoadAverage returns this machine's load: the averages of 1, 5 and 15 minutes.
func LoadAverage() string {
	b, err := os.ReadFile("/proc/loadavg")
	f := strings.Fields(string(b))
	if err != nil || len(f) < 3 {
		return "unknown"
	}
	return strings.Join(f[:3], " ")
}

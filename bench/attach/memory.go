package main

import (
	"context"
	"errors"
	"fmt"
	"os"
	"strconv"
	"strings"
)

// memoryPods is with how many attachments memory is looked at.
const memoryPods = 20

// Goals in KiB.
const (
	daemonGoal = 50 << 10
	agentGoal  = 20 << 10
)

// memory is what the processes have in memory with some attachments.
type memory struct {
	Attachments int `json:"attachments"`
	Daemon      int `json:"daemonKiB"`
	Agent       int `json:"agentKiB"`
}

// memory attaches many pods at once, looks, and detaches them again.
func (r *rig) memory(ctx context.Context) (m memory, err error) {
	m.Attachments = memoryPods
	pods, err := r.addPods(ctx, "many", memoryPods)
	if err != nil {
		return m, err
	}
	err = each(pods, func(pod string) error {
		_, err := r.cold.Attach(ctx, pod)
		return err
	})
	if err != nil {
		return m, err
	}
	status, err := os.ReadFile(fmt.Sprintf("/proc/%d/status", r.site.DaemonPID()))
	if err != nil {
		return m, err
	}
	if m.Daemon, err = resident(status); err != nil {
		return m, err
	}
	if status, err = r.vm.Get(ctx, fmt.Sprintf("/proc/%d/status", r.agent.PID)); err != nil {
		return m, err
	}
	if m.Agent, err = resident(status); err != nil {
		return m, err
	}
	return m, each(pods, func(pod string) error {
		_, _, err := r.cold.Detach(ctx, pod)
		return err
	})
}

// resident returns the resident set size in KiB that a /proc/PID/status tells.
func resident(status []byte) (int, error) {
	for line := range strings.Lines(string(status)) {
		if v, ok := strings.CutPrefix(line, "VmRSS:"); ok {
			return strconv.Atoi(strings.TrimSuffix(strings.TrimSpace(v), " kB"))
		}
	}
	return 0, errors.New("read memory of a process: no VmRSS, has it ended?")
}

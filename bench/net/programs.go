package main

import (
	"context"
	"os/exec"
	"strings"
	"time"
)

// packages are Debian's of the foreign programs.
var packages = []string{"iperf3", "sockperf", "redis-server", "nginx-light", "wrk"}

// programs returns the versions of the foreign programs, as far as dpkg tells them.
func programs(ctx context.Context) map[string]string {
	ctx, cancel := context.WithTimeout(ctx, 10*time.Second)
	defer cancel()
	args := append([]string{"-W", "-f", `${Package} ${Version}\n`}, packages...)
	out, _ := exec.CommandContext(ctx, "dpkg-query", args...).Output() // those that are there, even if others aren't
	versions := map[string]string{}
	for line := range strings.Lines(string(out)) {
		if name, version, ok := strings.Cut(strings.TrimSpace(line), " "); ok {
			versions[name] = version
		}
	}
	return versions
}

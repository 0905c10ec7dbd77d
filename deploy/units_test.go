package deploy_test

import (
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
)

var programs = []string{"brfused", "brfuse-agent"}

// TestUnits has systemd read the units and judge how open they leave a system.
func TestUnits(t *testing.T) {
	analyze, err := exec.LookPath("systemd-analyze")
	if err != nil {
		t.Skip("no systemd-analyze")
	}
	for _, program := range programs {
		t.Run(program, func(t *testing.T) {
			unit := read(t, "systemd/"+program+".service")
			require.Contains(t, unit, "ExecStart=/usr/local/bin/"+program+" ")
			path := filepath.Join(t.TempDir(), program+".service")
			there := strings.Replace(unit, "/usr/local/bin/"+program, "/bin/true", 1)
			require.NoError(t, os.WriteFile(path, []byte(there), 0o600))
			out, err := exec.CommandContext(t.Context(), analyze, "verify", "--man=no", path).CombinedOutput()
			require.NoError(t, err, "%s", out)
			assert.Empty(t, string(out))
			out, err = exec.CommandContext(t.Context(), analyze, "security", "--offline=true", "--threshold=50", path).CombinedOutput()
			assert.NoError(t, err, "%s", out)
		})
	}
}

// TestUnitsOfAgent: with a mount namespace of its own, the agent would keep
// namespaces of dead pods; without these capabilities, it could not work.
func TestUnitsOfAgent(t *testing.T) {
	var keys []string
	for _, s := range settings(t, "systemd/brfuse-agent.service") {
		keys = append(keys, s.key)
		if s.key == "CapabilityBoundingSet" {
			for _, c := range []string{"CAP_NET_ADMIN", "CAP_SYS_ADMIN", "CAP_SYS_PTRACE", "CAP_NET_RAW"} {
				assert.Contains(t, strings.Fields(s.value), c)
			}
		}
	}
	for _, key := range keys {
		mounts := slices.ContainsFunc([]string{
			"Private", "ProtectSystem", "ProtectHome", "ProtectKernel", "ProtectControlGroups", "ProtectProc", "ProtectClock",
			"Mount", "Bind", "TemporaryFileSystem", "Root", "ReadOnly", "ReadWrite", "Inaccessible", "NoExec", "ExecPaths",
			"DynamicUser", "Device",
		}, func(prefix string) bool { return strings.HasPrefix(key, prefix) })
		assert.False(t, mounts, key)
	}
	assert.Contains(t, keys, "CapabilityBoundingSet")
	assert.Contains(t, keys, "RuntimeDirectoryPreserve", "sockets stay when the agent stops")
}

// TestFlags: what units, manifests and documents tell people to write exists.
func TestFlags(t *testing.T) {
	_, daemonSet := manifest(t)
	for _, program := range programs {
		known := flagsOf(t, program)
		var used []string
		for _, s := range settings(t, "systemd/"+program+".service") {
			if s.key == "ExecStart" {
				used = append(used, flagsIn(strings.Fields(s.value)...)...)
			}
		}
		for line := range strings.Lines(read(t, "README.md")) {
			if _, args, ok := strings.Cut(line, strings.ToUpper(strings.ReplaceAll(program, "-", "_"))+"_ARGS="); ok {
				used = append(used, flagsIn(strings.Fields(strings.Trim(strings.TrimSpace(args), "|` "))...)...)
			}
			if _, args, ok := strings.Cut(line, "`"+program+" "); ok {
				args, _, _ = strings.Cut(args, "`")
				used = append(used, flagsIn(strings.Fields(args)...)...)
			}
		}
		if program == "brfuse-agent" {
			pod := daemonSet.Spec.Template.Spec
			for _, c := range append(pod.InitContainers, pod.Containers...) {
				used = append(used, flagsIn(c.Args...)...)
			}
			used = append(used, "docker-plugin") // of the README, for brfuse.spec
		}
		require.NotEmpty(t, used)
		for _, name := range used {
			assert.True(t, known[name], "%s has no flag %q", program, name)
		}
	}
}

// TestReadme: every file is named.
func TestReadme(t *testing.T) {
	readme := read(t, "README.md")
	for _, pattern := range []string{"systemd/*", "modules-load/*", "udev/*", "networkd/*", "networkmanager/*", "cni/*", "docker/*", "kubernetes/*", "container/Containerfile"} {
		names, err := filepath.Glob(pattern)
		require.NoError(t, err)
		require.NotEmpty(t, names, pattern)
		for _, name := range names {
			assert.Contains(t, readme, "`"+name+"`")
		}
	}
}

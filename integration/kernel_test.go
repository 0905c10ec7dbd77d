package integration

import (
	"context"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/brfuse/brfuse/integration/vmlab"
)

// kernelTests are those of package port that are skipped where the kernel lacks a module.
var kernelTests = []string{"TestIntegrationVLAN", "TestIntegrationVLANCarriesFrames", "TestIntegrationWarnings"}

// TestIntegrationKernel runs tests of the host's half on Debian's kernel, in a guest
// that is the hypervisor: this machine's kernel may lack what they are about.
func TestIntegrationKernel(t *testing.T) {
	ctx, lab := openLab(t)
	dir := shortDir(t)
	const program = "/sbin/port.test"
	initrd, err := lab.Build(ctx, filepath.Join(dir, "initrd"), vmlab.Image{
		Modules:  []string{"8021q", "veth", "bridge", "br_netfilter", "tun", "nf_tables"},
		Programs: []string{"/usr/sbin/nft", "/usr/sbin/sysctl"},
		Files:    map[string]string{program: buildTest(ctx, t, dir, "github.com/brfuse/brfuse/hostside/internal/port")},
	})
	require.NoError(t, err)
	vm, err := lab.Boot(ctx, vmlab.Config{Name: "kernel", Dir: dir, Initrd: initrd})
	require.NoError(t, err)
	t.Cleanup(func() { assert.NoError(t, vm.Close()) })

	ctx, cancel := context.WithTimeout(ctx, 5*time.Minute)
	defer cancel()
	res, err := vm.Run(ctx, program, "-test.v", "-test.run", "^("+strings.Join(kernelTests, "|")+")$")
	t.Logf("%s%s", res.Stdout, res.Stderr)
	require.NoError(t, err)
	require.NoError(t, res.Err())
	for _, name := range kernelTests {
		assert.Contains(t, res.Stdout, "\n--- PASS: "+name+" (", "it must not be skipped")
	}
}

// buildTest builds the tests of a package as a static program, and returns its path.
func buildTest(ctx context.Context, t *testing.T, dir, pkg string) string {
	t.Helper()
	file := filepath.Join(dir, "test")
	cmd := exec.CommandContext(ctx, "go", "test", "-c", "-trimpath", "-ldflags=-s -w", "-o", file, pkg)
	cmd.Env = append(os.Environ(), "CGO_ENABLED=0")
	out, err := cmd.CombinedOutput()
	require.NoError(t, err, "%s", out)
	return file
}

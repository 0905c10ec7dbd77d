package integration

import (
	"context"
	"os"
	"strings"
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/brfuse/brfuse/integration/site"
	"github.com/brfuse/brfuse/integration/vmlab"
)

// TestIntegrationExampleAttach runs the example that needs no daemon.
func TestIntegrationExampleAttach(t *testing.T) {
	ctx, s := newSite(t, site.Options{})
	prog, err := s.Lab.GoBuild(ctx, "./examples/attach")
	require.NoError(t, err)
	vm, err := s.Boot(ctx, "vm1", 31)
	require.NoError(t, err)
	require.NoError(t, vm.Put(ctx, "/tmp/index.html", []byte("from the pod\n"), 0o644))
	_, err = vm.AddPod(ctx, "web", "busybox", "httpd", "-f", "-p", "80", "-h", "/tmp")
	require.NoError(t, err)

	out, err := os.Create(s.Dir + "/example.out")
	require.NoError(t, err)
	defer func() { assert.NoError(t, out.Close()) }()
	cmd := s.Net.Command(prog, "-qmp", vm.Ref().QMP, "-libvirt", vm.Ref().Libvirt, "-channel", vm.Ref().Channel, "-pod", "web",
		"-publish", "8080:80", "-egress", "100000000")
	cmd.Stdout, cmd.Stderr = out, out
	p, err := vmlab.StartProcess(cmd)
	require.NoError(t, err)
	defer p.Kill()
	require.NoError(t, site.Until(ctx, "the example's attachment", func(context.Context) (bool, error) {
		return strings.Contains(readFile(t, out.Name()), "pod web has 10.230.0.2/24"), nil
	}), readFile(t, out.Name()))
	onHost(ctx, t, s, "ping", "-c", "1", "-W", "5", "10.230.0.2")
	assert.Equal(t, "from the pod\n", onHost(ctx, t, s, "curl", "-sS", "-m", "10", "http://10.230.0.1:8080/index.html"))
	assert.Contains(t, onHost(ctx, t, s, "nft", "list", "table", "bridge", "brfuse"), "limit rate over 12500000 bytes/second")
	require.NoError(t, p.Signal(os.Interrupt))
	select {
	case <-p.Done():
	case <-ctx.Done():
		require.Fail(t, "the example does not end")
	}
	require.NoError(t, p.Err(), readFile(t, out.Name()))
	assertNothingLeft(ctx, t, s, vm)
}

package cnitest_test

import (
	"bytes"
	"context"
	"errors"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"github.com/containernetworking/cni/libcni"
	"github.com/containernetworking/cni/pkg/types"
	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/brfuse/brfuse/guestside/cni/cnitest"
)

// TestShellExec runs plugins by the shell of this machine.
func TestShellExec(t *testing.T) {
	dir := t.TempDir()
	build(t, filepath.Join(dir, cnitest.Brfuse), "github.com/brfuse/brfuse/cmd/brfuse-cni")
	sh := &cnitest.ShellExec{Run: func(ctx context.Context, script string) (string, string, int, error) {
		var stdout, stderr bytes.Buffer
		cmd := exec.CommandContext(ctx, "/bin/sh", "-s")
		cmd.Stdin, cmd.Stdout, cmd.Stderr = strings.NewReader(script), &stdout, &stderr
		err := cmd.Run()
		if exit, ok := errors.AsType[*exec.ExitError](err); ok {
			return stdout.String(), stderr.String(), exit.ExitCode(), nil
		}
		return stdout.String(), stderr.String(), 0, err
	}}
	cni := libcni.NewCNIConfigWithCacheDir([]string{dir}, t.TempDir(), sh)
	info, err := cni.GetVersionInfo(t.Context(), cnitest.Brfuse)
	require.NoError(t, err)
	assert.Contains(t, info.SupportedVersions(), "1.1.0")

	l, err := libcni.NetworkConfFromBytes([]byte(`{"cniVersion":"1.1.0","name":"pods","plugins":[{"type":"brfuse","socket":"/it's nowhere"}]}`))
	require.NoError(t, err)
	err = cni.GetStatusNetworkList(t.Context(), l)
	var e *types.Error
	require.ErrorAs(t, err, &e)
	assert.Equal(t, types.ErrPluginNotAvailable, e.Code)
	assert.Contains(t, e.Details, "/it's nowhere")
}

package cnid

import (
	"bufio"
	"context"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/brfuse/brfuse/vnic"
)

func TestNetnsFor(t *testing.T) {
	s := New(Config{})
	for _, tt := range []struct {
		name, path, want string
	}{
		{"as named", "/proc/self/ns/net", "/proc/self/ns/net"},
		{"relative", "blue", ""},
		{"missing", "/nowhere", ""},
		{"no namespace", "/proc/self/exe", ""},
	} {
		t.Run(tt.name, func(t *testing.T) {
			got, err := s.netnsFor(os.Getpid(), tt.path)
			if tt.want == "" {
				require.ErrorIs(t, err, vnic.ErrUnknownPod)
				return
			}
			require.NoError(t, err)
			assert.Equal(t, tt.want, got)
		})
	}
	t.Run("a plugin that is gone already", func(t *testing.T) {
		got, err := s.netnsFor(0, "/proc/self/ns/net")
		require.NoError(t, err)
		assert.Equal(t, "/proc/self/ns/net", got)
	})
}

// TestIntegrationNetnsOfAnotherMountNamespace has a plugin that sees other files
// than the agent, such as when one of them runs in a container.
func TestIntegrationNetnsOfAnotherMountNamespace(t *testing.T) {
	if os.Geteuid() != 0 {
		if os.Getenv("CI") != "" {
			t.Fatal("needs root")
		}
		t.Skip("needs root")
	}
	dir := t.TempDir()
	ctx, cancel := context.WithTimeout(t.Context(), 20*time.Second)
	defer cancel()
	// The plugin's folder has namespaces of its own: "both" is there for the agent
	// too, but another one.
	script := fmt.Sprintf("mount -t tmpfs none %[1]s && for f in both theirs; do touch %[1]s/$f && mount --bind /proc/self/ns/net %[1]s/$f || exit; done; echo ready; exec sleep 100", dir)
	cmd := exec.CommandContext(ctx, "unshare", "--mount", "--net", "/bin/sh", "-c", script)
	stdout, err := cmd.StdoutPipe()
	require.NoError(t, err)
	require.NoError(t, cmd.Start())
	defer func() {
		_ = cmd.Process.Kill() // fails when it has ended, which is as good
		_ = cmd.Wait()
	}()
	line, err := bufio.NewReader(stdout).ReadString('\n')
	require.NoError(t, err)
	require.Equal(t, "ready\n", line)
	pid := cmd.Process.Pid
	require.NoError(t, os.Symlink("/proc/thread-self/ns/net", filepath.Join(dir, "both")))

	for _, name := range []string{"both", "theirs"} {
		got, err := New(Config{}).netnsFor(pid, filepath.Join(dir, name))
		require.NoError(t, err)
		assert.Equal(t, fmt.Sprintf("/proc/%d/root%s/%s", pid, dir, name), got)
		id, err := identify(got)
		require.NoError(t, err)
		want, err := identify(fmt.Sprintf("/proc/%d/ns/net", pid))
		require.NoError(t, err)
		assert.Equal(t, want, id)
	}
	_, err = New(Config{}).netnsFor(pid, filepath.Join(dir, "neither"))
	require.ErrorIs(t, err, vnic.ErrUnknownPod)
}

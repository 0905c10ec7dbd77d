package rtnl_test

import (
	"io/fs"
	"os"
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
	"golang.org/x/sys/unix"

	"github.com/brfuse/brfuse/internal/netnsx"
	"github.com/brfuse/brfuse/internal/rtnl"
)

// inNewNetns runs f in a network namespace of its own.
func inNewNetns(t *testing.T, f func(*rtnl.Handle) error) {
	t.Helper()
	if os.Geteuid() != 0 {
		if os.Getenv("CI") != "" {
			t.Fatal("this test needs root")
		}
		t.Skip("needs root")
	}
	ns, err := netnsx.New()
	require.NoError(t, err)
	defer func() { require.NoError(t, ns.Close()) }()
	require.NoError(t, ns.Do(func() error {
		h, err := rtnl.New()
		if err != nil {
			return err
		}
		defer h.Close()
		return f(h)
	}))
}

func TestIntegrationOpenTap(t *testing.T) {
	inNewNetns(t, func(h *rtnl.Handle) error {
		files, err := rtnl.OpenTap("brf0000000001", 2)
		if err != nil {
			return err
		}
		assert.Len(t, files, 2)
		for _, f := range files {
			flags, err := unix.FcntlInt(f.Fd(), unix.F_GETFD, 0)
			require.NoError(t, err)
			assert.Equal(t, unix.FD_CLOEXEC, flags)
		}
		link, err := h.HostLink("brf0000000001")
		require.NoError(t, err)
		assert.Equal(t, "tun", link.Kind)
		assert.False(t, link.Up)

		for _, queues := range []int{1, 2} {
			_, err = rtnl.OpenTap("brf0000000001", queues)
			require.ErrorIs(t, err, fs.ErrExist)
		}
		_, err = rtnl.OpenTap("a-name-that-is-too-long", 1)
		require.Error(t, err)

		require.NoError(t, rtnl.CloseFiles(files))
		_, err = h.HostLink("brf0000000001")
		require.ErrorIs(t, err, fs.ErrNotExist, "it went with its last descriptor")
		return nil
	})
}

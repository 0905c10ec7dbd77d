package rtnl_test

import (
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
	"golang.org/x/sys/unix"

	"github.com/brfuse/brfuse/internal/rtnl"
	"github.com/brfuse/brfuse/vnic"
)

func TestIntegrationBridgePort(t *testing.T) {
	inNewNetns(t, func(h *rtnl.Handle) error {
		conn, err := rtnl.Dial()
		require.NoError(t, err)
		defer func() { assert.NoError(t, conn.Close()) }()
		require.NoError(t, h.AddBridge(rtnl.Bridge{Name: "br", Alias: "mine", MAC: vnic.NewMAC(), MTU: 1500}))
		files, err := rtnl.OpenTap("brf0000000001", 1)
		require.NoError(t, err)
		defer func() { assert.NoError(t, rtnl.CloseFiles(files)) }()
		look := func(name string) rtnl.HostLink {
			l, err := h.HostLink(name)
			require.NoError(t, err)
			return l
		}
		br, tap, mac := look("br"), look("brf0000000001"), vnic.NewMAC()

		require.NoError(t, conn.Do(rtnl.SetupLink(tap, 1400, "new")))
		want := tap
		want.MTU, want.Alias = 1400, "new"
		assert.Equal(t, want, look(tap.Name))

		for range 2 {
			require.NoError(t, conn.Do(append(rtnl.JoinPort(tap, br, mac, "joined"), rtnl.SetUp(tap.Index))...))
			want.Alias, want.Master, want.Up = "joined", br.Index, true
			assert.Equal(t, want, look(tap.Name))
			require.ErrorIs(t, conn.Do(rtnl.JoinPort(tap, br, mac, "joined")...), unix.EEXIST, "the bridge has the mac already")

			require.NoError(t, conn.Do(rtnl.LeavePort(want, "left")...))
			want.Alias, want.Master, want.Up = "left", 0, false
			assert.Equal(t, want, look(tap.Name), "its queue is as before")
		}
		require.NoError(t, conn.Do(rtnl.DeleteLink(tap)))
		require.ErrorIs(t, conn.Do(rtnl.DeleteLink(tap)), unix.ENODEV)
		require.ErrorIs(t, conn.Do(rtnl.LeavePort(want, "left")...), unix.ENODEV)
		return nil
	})
}

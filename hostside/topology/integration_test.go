package topology_test

import (
	"context"
	"fmt"
	"log/slog"
	"os"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/brfuse/brfuse/hostside/internal/backend"
	"github.com/brfuse/brfuse/hostside/internal/qmpvm"
	"github.com/brfuse/brfuse/hostside/internal/qmpvm/qmptest"
	"github.com/brfuse/brfuse/hostside/topology"
	"github.com/brfuse/brfuse/vnic"
)

// TestIntegrationSlots boots what is printed, and counts over the printed socket.
func TestIntegrationSlots(t *testing.T) {
	for _, w := range []topology.Wish{
		{VNICs: 1, Machine: topology.Q35},
		{VNICs: 62, Machine: topology.Q35},
		{VNICs: 500, Machine: topology.Q35},
		{VNICs: topology.MaxVNICs, Machine: topology.Q35},
		{VNICs: 62, Machine: topology.PC},
	} {
		t.Run(fmt.Sprintf("%d on %s", w.VNICs, w.Machine), func(t *testing.T) {
			l, err := topology.PlanFor(w)
			require.NoError(t, err)
			l.QMP, l.Channel = qmptest.SocketPath(t)+",q", qmptest.SocketPath(t)
			q := qmptest.StartQEMU(t, append([]string{"-M", w.Machine}, l.QEMUArgs()...)...)
			ctx, cancel := context.WithTimeout(t.Context(), 30*time.Second)
			defer cancel()
			// The test's own monitor greets once all sockets are made.
			first := dial(ctx, t, q.Path)
			require.NoError(t, first.Close())
			v := dial(ctx, t, l.QMP)
			s, err := v.Status(ctx)
			require.NoError(t, err)
			if w.Machine == topology.PC {
				s.SlotsTotal -= freeOnRoot
				s.SlotsUsed-- // the channel's device
			}
			if w.VNICs > 434 {
				s.SlotsTotal -= min(31-l.Bridges, topology.MaxVNICs-l.Slots) // beside the bridges on theirs
			}
			assert.Equal(t, l.Slots, s.SlotsTotal)
			assert.Zero(t, s.SlotsUsed)
			assert.Equal(t, backend.HotplugACPI, s.Hotplug)
			_, err = os.Stat(l.Channel)
			assert.NoError(t, err, "the socket of the channel")
			require.NoError(t, v.Close())
		})
	}
}

// freeOnRoot is how many places the root bus of a PC has beside those of the
// host bridge, the ISA bridge and two bridges with slots.
const freeOnRoot = 32 - 4

func dial(ctx context.Context, t *testing.T, path string) *qmpvm.VM {
	t.Helper()
	for {
		v, err := qmpvm.Dial(ctx, vnic.VM{Name: "vm1", QMP: path}, slog.New(slog.DiscardHandler))
		if err == nil {
			return v
		}
		if ctx.Err() != nil {
			require.NoError(t, err)
		}
	}
}

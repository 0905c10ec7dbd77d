package libvirtvm

import (
	"context"
	"slices"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/brfuse/brfuse/hostside/internal/backend"
)

// TestIntegrationTimes prints how long plugs and unplugs take, from the call until
// libvirt has, or has not, the device.
func TestIntegrationTimes(t *testing.T) {
	ctx, cancel := context.WithTimeout(t.Context(), 2*time.Minute)
	defer cancel()
	s := withGuest(t)
	v := s.dial(t)
	s.awaitDriver(ctx, t, v)
	var plug, unplug []time.Duration
	for range 15 {
		n := s.nic(t, 1)
		began := time.Now()
		_, err := v.Plug(ctx, n)
		require.NoError(t, err)
		plug = append(plug, time.Since(began))
		began = time.Now()
		require.NoError(t, v.Unplug(ctx, n.ID))
		unplug = append(unplug, time.Since(began))
	}
	t.Logf("one after the other: plug %s, unplug %s", median(plug), median(unplug))
	nics := make([]backend.NIC, 16)
	for i := range nics {
		nics[i] = s.nic(t, 1)
	}
	all := func(f func(backend.NIC) error) time.Duration {
		t.Helper()
		errs := make(chan error, len(nics))
		began := time.Now()
		for _, n := range nics {
			go func() { errs <- f(n) }()
		}
		for range nics {
			require.NoError(t, <-errs)
		}
		return time.Since(began)
	}
	plugged := all(func(n backend.NIC) error {
		_, err := v.Plug(ctx, n)
		return err
	})
	unplugged := all(func(n backend.NIC) error { return v.Unplug(ctx, n.ID) })
	t.Logf("16 at once: plug %s, unplug %s", plugged, unplugged)
}

func median(d []time.Duration) time.Duration {
	slices.Sort(d)
	return d[len(d)/2]
}

package orchestrator_test

import (
	"fmt"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/brfuse/brfuse/vnic"
)

// TestPoolShrinksWhenIdle lets time pass.
func TestPoolShrinksWhenIdle(t *testing.T) {
	inPool(t, 1, 4, func(r *rig) {
		var list []vnic.Attachment
		for i := range 4 {
			list = append(list, r.attach("web", fmt.Sprintf("eth%d", i)))
		}
		synctest.Wait()
		for _, a := range list {
			r.detach(a)
		}
		assert.Equal(r.t, 4, r.status().Parked)
		wait := func(d time.Duration) {
			time.Sleep(d) //nolint:forbidigo // fake minutes
			synctest.Wait()
		}
		wait(vnic.DefaultPoolIdle - time.Second)
		assert.Equal(r.t, 4, r.status().Parked)
		r.detach(r.attach("web", "eth0"))
		wait(vnic.DefaultPoolIdle - time.Second)
		assert.Equal(r.t, 4, r.status().Parked, "it was used meanwhile")
		wait(time.Second)
		assert.Equal(r.t, 1, r.status().Parked)
		r.settled()
		wait(time.Hour)
		r.settled()
		r.restart()
		synctest.Wait()
		r.settled()
	})
}

// TestPoolShrinksSooner is about a pool that is to be idle for less long than before.
func TestPoolShrinksSooner(t *testing.T) {
	inPool(t, 3, 3, func(r *rig) {
		r.setPool(1, 3) // shrinks in five minutes
		require.NoError(r.t, r.orch.SetPool(r.t.Context(), vnic.Pool{VM: "vm1", Network: "blue", Low: 1, High: 3, Idle: time.Minute}))
		r.settleDown()
		assert.Equal(r.t, 1, r.status().Parked)
		r.settled()
	})
}

package main

import (
	"context"
	"log/slog"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/brfuse/brfuse/orchestrator"
	"github.com/brfuse/brfuse/orchestrator/orchestratortest"
	"github.com/brfuse/brfuse/orchestrator/store"
	"github.com/brfuse/brfuse/orchestrator/store/memstore"
	"github.com/brfuse/brfuse/vnic"
)

// keep runs a keeper on a world in memory, until the returned function is called.
func keep(t *testing.T, world *orchestratortest.World, db store.Store, replicas int, vms ...string) (*orchestrator.Orchestrator, func()) {
	t.Helper()
	return keepBy(t, world, db, replicas, 20*time.Millisecond, vms...)
}

// keepBy is keep with a time after which what failed is tried again.
func keepBy(t *testing.T, world *orchestratortest.World, db store.Store, replicas int, retry time.Duration, vms ...string) (*orchestrator.Orchestrator, func()) {
	t.Helper()
	conn := world.Conn()
	orch, err := orchestrator.New(t.Context(), orchestrator.Config{Store: db, Host: conn, Guest: conn, VMs: conn, Quarantine: -1})
	require.NoError(t, err)
	conn.Notify(orch.Notify)
	k := keeper{orch: orch, app: "web", network: "example", replicas: replicas, retry: retry, log: slog.New(slog.DiscardHandler)}
	for _, vm := range vms {
		k.vms = append(k.vms, vnic.VM{Name: vm, QMP: "/run/" + vm + ".qmp", Channel: "/run/" + vm + ".agent"})
	}
	ctx, cancel := context.WithCancel(t.Context())
	ended := make(chan error, 1)
	go func() { ended <- k.run(ctx) }()
	return orch, func() {
		cancel()
		require.NoError(t, <-ended)
		require.NoError(t, orch.Close())
	}
}

// where returns how many replicas are ready in each VM; nil while one is on its way.
func where(ctx context.Context, orch *orchestrator.Orchestrator) map[string]int {
	list, err := orch.List(ctx, orchestrator.Filter{Network: "example"})
	if err != nil {
		return nil
	}
	at := map[string]int{}
	for _, a := range list {
		if a.Phase != vnic.PhaseReady {
			return nil
		}
		at[a.Request.VM]++
	}
	return at
}

func awaitReplicas(t *testing.T, orch *orchestrator.Orchestrator, want map[string]int, what string) {
	t.Helper()
	require.Eventually(t, func() bool { return assert.ObjectsAreEqual(want, where(t.Context(), orch)) }, 10*time.Second, time.Millisecond, what)
}

func TestReplicasAreKept(t *testing.T) {
	world, db := orchestratortest.New(), memstore.New()
	for _, vm := range []string{"vm1", "vm2"} {
		world.Boot(vm, "web-0", "web-1", "web-2", "web-3")
	}
	orch, stop := keep(t, world, db, 4, "vm1", "vm2")
	awaitReplicas(t, orch, map[string]int{"vm1": 2, "vm2": 2}, "they are spread")
	world.Kill("vm1")
	awaitReplicas(t, orch, map[string]int{"vm2": 4}, "those of a VM that is gone move")
	stop()

	orch, stop = keep(t, world, db, 1, "vm1", "vm2")
	awaitReplicas(t, orch, map[string]int{"vm2": 1}, "a later run goes on, with fewer")
	stop()

	orch, stop = keep(t, world, db, 0, "vm1", "vm2")
	awaitReplicas(t, orch, map[string]int{}, "none is left")
	stop()
	assert.Empty(t, world.Wrong())
}

func TestReplicaWaitsForItsPod(t *testing.T) {
	world := orchestratortest.New()
	world.Boot("vm1", "web-0")
	orch, stop := keep(t, world, memstore.New(), 2, "vm1")
	defer stop()
	awaitReplicas(t, orch, map[string]int{"vm1": 1}, "the one whose pod is there")
	world.StartPod("vm1", "web-1")
	awaitReplicas(t, orch, map[string]int{"vm1": 2}, "the other one, once it is")
	world.KillPod("vm1", "web-0")
	world.StartPod("vm1", "web-0")
	awaitReplicas(t, orch, map[string]int{"vm1": 2}, "one that was started anew")
}

// TestFailureIsNotTriedAtOnce: an attach that fails is a change as well, which must not
// have it tried again without a pause.
func TestFailureIsNotTriedAtOnce(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		world := orchestratortest.New()
		world.Boot("vm1")
		_, stop := keepBy(t, world, memstore.New(), 1, time.Minute, "vm1")
		defer stop()
		time.Sleep(10*time.Minute + time.Second) //nolint:forbidigo // in a bubble of synctest
		assert.Equal(t, 11, world.Calls("prepare"), "at once, and each minute")
	})
}

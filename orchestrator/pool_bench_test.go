package orchestrator_test

import (
	"path/filepath"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/brfuse/brfuse/orchestrator"
	"github.com/brfuse/brfuse/orchestrator/orchestratortest"
	"github.com/brfuse/brfuse/orchestrator/store"
	"github.com/brfuse/brfuse/orchestrator/store/boltstore"
	"github.com/brfuse/brfuse/orchestrator/store/memstore"
	"github.com/brfuse/brfuse/vnic"
)

// BenchmarkCycle attaches and detaches in a world that costs no time: what is
// left is the orchestrator's own part, most of it the store's.
func BenchmarkCycle(b *testing.B) {
	stores := map[string]func(b *testing.B) store.Store{
		"memory": func(*testing.B) store.Store { return memstore.New() },
		"disk": func(b *testing.B) store.Store {
			b.Helper()
			s, err := boltstore.Open(filepath.Join(b.TempDir(), "db"))
			require.NoError(b, err)
			return s
		},
	}
	for name, open := range stores {
		for _, warm := range []bool{false, true} {
			kind := map[bool]string{false: "cold", true: "warm"}[warm]
			b.Run(kind+"/"+name, func(b *testing.B) { benchmarkCycle(b, open(b), warm) })
		}
	}
}

func benchmarkCycle(b *testing.B, s store.Store, warm bool) {
	b.Helper()
	counted := &countingStore{Store: s}
	world := orchestratortest.New()
	world.Boot("vm1", "web")
	world.Swift("vm1")
	conn := world.Conn()
	orch, err := orchestrator.New(b.Context(), orchestrator.Config{Store: counted, Host: conn, Guest: conn, VMs: conn})
	require.NoError(b, err)
	defer func() { require.NoError(b, orch.Close()) }()
	conn.Notify(orch.Notify)
	require.NoError(b, orch.AddVM(b.Context(), vm("vm1")))
	_, err = orch.CreateNetwork(b.Context(), vnic.Network{Name: "blue", Subnets: prefixes("10.1.0.0/24")})
	require.NoError(b, err)
	cycle := func() {
		a, err := orch.Attach(b.Context(), request("web", "eth0"))
		require.NoError(b, err)
		_, err = orch.Detach(b.Context(), a.ID)
		require.NoError(b, err)
	}
	if warm {
		require.NoError(b, orch.SetPool(b.Context(), vnic.Pool{VM: "vm1", Network: "blue", High: 2}))
	}
	cycle()
	before := counted.updates.Load()
	b.ResetTimer()
	for b.Loop() {
		cycle()
	}
	b.ReportMetric(float64(counted.updates.Load()-before)/float64(b.N), "updates/op")
}

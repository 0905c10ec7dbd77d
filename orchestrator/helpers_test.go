package orchestrator_test

import (
	"context"
	"net/netip"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/brfuse/brfuse/orchestrator"
	"github.com/brfuse/brfuse/orchestrator/orchestratortest"
	"github.com/brfuse/brfuse/orchestrator/store"
	"github.com/brfuse/brfuse/orchestrator/store/memstore"
	"github.com/brfuse/brfuse/vnic"
)

// rig is a daemon's orchestrator in a world with VM vm1, which has the pods web
// and db, and the networks blue (both families) and red (IPv4).
type rig struct {
	t     *testing.T
	world *orchestratortest.World
	store store.Store
	conn  *orchestratortest.Conn
	orch  *orchestrator.Orchestrator
	cfg   orchestrator.Config
}

// inRig runs a test in a bubble, where synctest.Wait waits for all that goes on
// in the background, and time costs none. r.t is the t of the bubble.
func inRig(t *testing.T, test func(r *rig)) {
	t.Helper()
	synctest.Test(t, func(t *testing.T) {
		r := newRig(t)
		synctest.Wait()
		test(r)
	})
}

func newRig(t *testing.T) *rig {
	t.Helper()
	r := &rig{t: t, world: orchestratortest.New(), store: memstore.New()}
	r.world.Boot("vm1", "web", "db")
	r.start()
	require.NoError(t, r.orch.AddVM(t.Context(), vm("vm1")))
	_, err := r.orch.CreateNetwork(t.Context(), vnic.Network{Name: "blue", Subnets: prefixes("10.1.0.0/24", "fd00:1::/64")})
	require.NoError(t, err)
	_, err = r.orch.CreateNetwork(t.Context(), vnic.Network{Name: "red", Subnets: prefixes("10.2.0.0/29")})
	require.NoError(t, err)
	return r
}

// start begins a daemon's life on the world and the store as they are.
func (r *rig) start() {
	r.t.Helper()
	r.conn = r.world.Conn()
	r.cfg.Store, r.cfg.Host, r.cfg.Guest, r.cfg.VMs = r.conn.Store(r.store), r.conn, r.conn, r.conn
	var err error
	r.orch, err = orchestrator.New(context.Background(), r.cfg)
	require.NoError(r.t, err)
	r.conn.Notify(r.orch.Notify)
	orch := r.orch
	r.t.Cleanup(func() { require.NoError(r.t, orch.Close()) })
}

// restart ends the daemon as by kill -9, and starts another.
func (r *rig) restart() {
	r.t.Helper()
	r.conn.Crash()
	require.NoError(r.t, r.orch.Close())
	r.start()
}

func (r *rig) attach(pod, iface string) vnic.Attachment {
	r.t.Helper()
	a, err := r.orch.Attach(r.t.Context(), request(pod, iface))
	require.NoError(r.t, err)
	return a
}

func (r *rig) all() []vnic.Attachment {
	r.t.Helper()
	list, err := r.orch.List(r.t.Context(), orchestrator.Filter{})
	require.NoError(r.t, err)
	return list
}

// list prints all attachments as "KEY PHASE".
func (r *rig) list() string {
	r.t.Helper()
	var lines []string
	for _, a := range r.all() {
		lines = append(lines, a.Request.String()+" "+string(a.Phase))
	}
	return strings.Join(lines, "\n")
}

// leases prints the keys of all leases and indices in the store.
func (r *rig) leases() string {
	r.t.Helper()
	var lines []string
	require.NoError(r.t, r.store.View(r.t.Context(), func(tx store.ReadTx) error {
		for _, prefix := range []string{"attachment/", "endpoint/", "key/", "ipam/lease/", "ipam/owner/", "ipam/mac/", "ipam/reserved/", "port/", "vnic/", "idle/"} {
			items, err := tx.Scan(prefix, 0)
			if err != nil {
				return err
			}
			for _, it := range items {
				lines = append(lines, it.Key)
			}
		}
		return nil
	}))
	return strings.Join(lines, "\n")
}

const empty = "network blue on bf-blue\nnetwork red on bf-red"

// nothingLeft checks that no attachment left anything anywhere.
func (r *rig) nothingLeft() {
	r.t.Helper()
	require.Equal(r.t, empty, r.world.String())
	require.Empty(r.t, r.leases())
}

func vm(name string) vnic.VM {
	return vnic.VM{Name: name, QMP: "/run/vm/" + name + ".qmp", Channel: "/run/vm/" + name + ".agent"}
}

func request(pod, iface string) vnic.Request {
	return vnic.Request{Key: vnic.Key{VM: "vm1", Pod: pod, Interface: iface}, Network: "blue"}
}

func prefixes(s ...string) []netip.Prefix {
	list := make([]netip.Prefix, len(s))
	for i, p := range s {
		list[i] = netip.MustParsePrefix(p)
	}
	return list
}

// settleDown lets a minute pass, in which what is tried again succeeds.
func (r *rig) settleDown() {
	time.Sleep(time.Minute) //nolint:forbidigo // a fake minute
	synctest.Wait()
}

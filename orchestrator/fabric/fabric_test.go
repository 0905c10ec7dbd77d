package fabric_test

import (
	"context"
	"encoding/json"
	"fmt"
	"iter"
	"net/netip"
	"slices"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/brfuse/brfuse/orchestrator/fabric"
	"github.com/brfuse/brfuse/orchestrator/store"
	"github.com/brfuse/brfuse/orchestrator/store/memstore"
	"github.com/brfuse/brfuse/vnic"
)

// rig is a Fabric of hypervisor "a", and what it has declared.
type rig struct {
	t  *testing.T
	db *cutStore
	f  *fabric.Fabric

	mu       sync.Mutex
	stations map[vnic.MAC]vnic.Station // guarded by mu
	names    map[vnic.ID]fabric.Named  // guarded by mu
	calls    []string                  // guarded by mu
	fail     error                     // guarded by mu
	backends []vnic.Backend            // guarded by mu
	changed  []string                  // guarded by mu
}

// cutStore is a store whose watches can be ended, as by a compaction.
type cutStore struct {
	store.Store
	mu  sync.Mutex
	cut context.CancelCauseFunc // guarded by mu
	ctx context.Context         // guarded by mu
}

func newCutStore() *cutStore {
	s := &cutStore{Store: memstore.New()}
	s.ctx, s.cut = context.WithCancelCause(context.Background())
	return s
}

func (s *cutStore) end(err error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.cut(err)
	s.ctx, s.cut = context.WithCancelCause(context.Background())
}

// Watch implements [store.Store].
func (s *cutStore) Watch(ctx context.Context, prefix string, from int64) iter.Seq2[store.Event, error] {
	s.mu.Lock()
	life := s.ctx
	s.mu.Unlock()
	return func(yield func(store.Event, error) bool) {
		ctx, cancel := context.WithCancel(ctx)
		defer cancel()
		defer context.AfterFunc(life, cancel)()
		for ev, err := range s.Store.Watch(ctx, prefix, from) {
			if err != nil && life.Err() != nil {
				err = context.Cause(life)
			}
			if !yield(ev, err) {
				return
			}
		}
	}
}

func inRig(t *testing.T, test func(r *rig)) {
	t.Helper()
	synctest.Test(t, func(t *testing.T) {
		r := &rig{t: t, db: newCutStore(), stations: map[vnic.MAC]vnic.Station{}, names: map[vnic.ID]fabric.Named{}}
		r.f = fabric.Start(fabric.Config{
			Store: r.db, Self: "a", Underlay: netip.MustParseAddr("192.0.2.1"), Overlay: r, Names: namesOf{r}, Services: r, Resync: time.Hour,
			Changed: func(n string) { r.mu.Lock(); defer r.mu.Unlock(); r.changed = append(r.changed, n) },
		})
		test(r)
		require.NoError(t, r.f.Close())
		require.NoError(t, r.db.Close())
	})
}

func (r *rig) note(format string, args ...any) error {
	r.calls = append(r.calls, fmt.Sprintf(format, args...))
	return r.fail
}

// ReplaceStations implements [fabric.Overlay].
func (r *rig) ReplaceStations(_ context.Context, _ string, all []vnic.Station) error {
	r.mu.Lock()
	defer r.mu.Unlock()
	clear(r.stations)
	for _, s := range all {
		r.stations[s.MAC] = s
	}
	return r.note("replace %d", len(all))
}

// SetStations implements [fabric.Overlay].
func (r *rig) SetStations(_ context.Context, _ string, some []vnic.Station) error {
	r.mu.Lock()
	defer r.mu.Unlock()
	for _, s := range some {
		r.stations[s.MAC] = s
	}
	return r.note("set %d", len(some))
}

// RemoveStations implements [fabric.Overlay].
func (r *rig) RemoveStations(_ context.Context, _ string, macs []vnic.MAC) error {
	r.mu.Lock()
	defer r.mu.Unlock()
	for _, m := range macs {
		delete(r.stations, m)
	}
	return r.note("remove %d", len(macs))
}

// SetServices implements [fabric.Services].
func (r *rig) SetServices(_ context.Context, all []vnic.Backend) error {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.backends = all
	return r.fail
}

// namesOf implements [fabric.Names].
type namesOf struct{ *rig }

func (n namesOf) Serve(context.Context, vnic.Network) (bool, error) { return true, nil }

func (n namesOf) Replace(_ string, all []fabric.Named) error {
	n.mu.Lock()
	defer n.mu.Unlock()
	clear(n.names)
	for _, p := range all {
		n.names[p.ID] = p
	}
	return nil
}

func (n namesOf) Put(_ string, p fabric.Named) error {
	n.mu.Lock()
	defer n.mu.Unlock()
	n.names[p.ID] = p
	return nil
}

func (n namesOf) Delete(_ string, id vnic.ID) error {
	n.mu.Lock()
	defer n.mu.Unlock()
	delete(n.names, id)
	return nil
}

func (n namesOf) Stop(string) {}

// endpoint is pod i of hypervisor b.
func endpoint(i int) vnic.Endpoint {
	return vnic.Endpoint{
		ID: vnic.ID(fmt.Sprintf("%010d", i)), Network: "over", Hypervisor: "b", Underlay: netip.MustParseAddr("192.0.2.2"),
		Key: vnic.Key{VM: "vm1", Pod: fmt.Sprintf("pod%d", i), Interface: "eth0"}, MAC: vnic.MAC{2, 0, 0, 0, byte(i >> 8), byte(i)},
		Addresses: []netip.Addr{netip.AddrFrom4([4]byte{10, 7, byte(i >> 8), byte(i)})}, Ready: true,
	}
}

func (r *rig) put(list ...vnic.Endpoint) {
	r.t.Helper()
	_, err := r.db.Update(r.t.Context(), func(tx store.Tx) error {
		for _, e := range list {
			if err := fabric.PutEndpoint(tx, e); err != nil {
				return err
			}
		}
		return nil
	})
	require.NoError(r.t, err)
	synctest.Wait()
}

func (r *rig) drop(e vnic.Endpoint) {
	r.t.Helper()
	_, err := r.db.Update(r.t.Context(), func(tx store.Tx) error { return tx.Delete(fabric.EndpointKey(e.Network, e.ID)) })
	require.NoError(r.t, err)
	synctest.Wait()
}

func (r *rig) use() {
	r.t.Helper()
	require.NoError(r.t, r.f.Use(r.t.Context(), vnic.Network{Name: "over", Kind: vnic.KindOverlay}))
}

// done returns what the overlay was told since the last time.
func (r *rig) done() []string {
	synctest.Wait()
	r.mu.Lock()
	defer r.mu.Unlock()
	calls := r.calls
	r.calls = nil
	return calls
}

// TestChanges: a change is handed on by itself, and only what differs.
func TestChanges(t *testing.T) {
	inRig(t, func(r *rig) {
		r.put(endpoint(1), endpoint(2))
		r.use()
		assert.Equal(t, []string{"replace 2"}, r.done())
		r.put(endpoint(3))
		assert.Equal(t, []string{"set 1"}, r.done())
		r.put(endpoint(3))
		assert.Empty(t, r.done(), "it is the same")
		mine := endpoint(4)
		mine.Hypervisor = "a"
		r.put(mine)
		assert.Equal(t, []string{"remove 1"}, r.done(), "what is here is no station")
		assert.Len(t, r.names, 4, "but has a name")
		moved := endpoint(1)
		moved.MAC[1] = 9
		r.put(moved)
		assert.Equal(t, []string{"remove 1", "set 1"}, r.done())
		r.drop(endpoint(2))
		assert.Equal(t, []string{"remove 1"}, r.done())
		assert.Len(t, r.stations, 2)
		assert.Len(t, r.names, 3)
		r.f.Drop("over")
		r.put(endpoint(5))
		assert.Empty(t, r.done())
	})
}

// TestMACTakenOver: a MAC that goes from one attachment to the next within a batch is
// the next one's.
func TestMACTakenOver(t *testing.T) {
	inRig(t, func(r *rig) {
		r.put(endpoint(1))
		r.use()
		next := endpoint(2)
		next.MAC = endpoint(1).MAC
		_, err := r.db.Update(t.Context(), func(tx store.Tx) error {
			if err := tx.Delete(fabric.EndpointKey("over", endpoint(1).ID)); err != nil {
				return err
			}
			return fabric.PutEndpoint(tx, next)
		})
		require.NoError(t, err)
		synctest.Wait()
		assert.Equal(t, next.Addresses, r.stations[next.MAC].Addresses)
		assert.Len(t, r.stations, 1)
	})
}

// TestGap: after a gap in the changes all is read and declared anew.
func TestGap(t *testing.T) {
	for _, cause := range []error{store.ErrCompacted, assert.AnError} {
		inRig(t, func(r *rig) {
			r.put(endpoint(1), endpoint(2))
			r.use()
			r.done()
			r.db.end(cause)
			synctest.Wait()
			r.drop(endpoint(1))
			r.put(endpoint(3))
			time.Sleep(time.Minute) //nolint:forbidigo // in a bubble of synctest
			assert.Equal(t, []string{"replace 2"}, r.done())
			assert.NotContains(t, r.stations, endpoint(1).MAC)
			assert.Contains(t, r.stations, endpoint(3).MAC)
			assert.Contains(t, r.changed, "over", "it may have been removed meanwhile")
			r.put(endpoint(4))
			assert.Equal(t, []string{"set 1"}, r.done())
		})
	}
}

// TestOtherFamily: what is behind an underlay of the other family can't be reached, and
// must not be in the way of the others.
func TestOtherFamily(t *testing.T) {
	inRig(t, func(r *rig) {
		out := endpoint(1)
		out.Underlay = netip.MustParseAddr("2001:db8::1")
		r.put(out, endpoint(2))
		r.use()
		assert.Equal(t, []string{"replace 1"}, r.done())
		out.Ready = false
		r.put(out)
		r.done()
		r.mu.Lock()
		defer r.mu.Unlock()
		assert.NotContains(t, r.stations, out.MAC)
		assert.Contains(t, r.stations, endpoint(2).MAC)
	})
}

func TestHolders(t *testing.T) {
	inRig(t, func(r *rig) {
		here, there, second := endpoint(1), endpoint(2), endpoint(3)
		here.Pod, there.Pod, second.Pod = "web", "web", "web"
		here.Hypervisor, second.Network = "a", "flat"
		r.put(here, there, second, endpoint(4))
		r.done()
		assert.Equal(t, []string{"a", "b"}, r.f.Holders("web"))
		assert.Equal(t, []string{"b"}, r.f.Holders("pod4"))
		assert.Empty(t, r.f.Holders("nobody"))
	})
}

// TestFailure: what could not be handed on is declared again with all else.
func TestFailure(t *testing.T) {
	inRig(t, func(r *rig) {
		r.put(endpoint(1))
		r.use()
		r.done()
		r.mu.Lock()
		r.fail = assert.AnError
		r.mu.Unlock()
		r.put(endpoint(2))
		time.Sleep(150 * time.Millisecond) //nolint:forbidigo // in a bubble of synctest
		r.mu.Lock()
		r.fail = nil
		r.mu.Unlock()
		time.Sleep(time.Minute) //nolint:forbidigo // in a bubble of synctest
		calls := r.done()
		assert.Equal(t, "set 1", calls[0])
		assert.Equal(t, "replace 2", calls[len(calls)-1])
		r.mu.Lock()
		assert.Len(t, r.stations, 2)
		r.mu.Unlock()
		time.Sleep(time.Hour) //nolint:forbidigo // in a bubble of synctest
		assert.Equal(t, []string{"replace 2"}, r.done(), "all is declared anew now and then")
	})
}

func (r *rig) publish(s vnic.Service) {
	r.t.Helper()
	b, err := json.Marshal(s)
	require.NoError(r.t, err)
	_, err = r.db.Update(r.t.Context(), func(tx store.Tx) error { return tx.Put(fabric.ServicePrefix+s.Name, b) })
	require.NoError(r.t, err)
	synctest.Wait()
}

// TestServiceNames: pods have the names of the services that lead to them.
func TestServiceNames(t *testing.T) {
	inRig(t, func(r *rig) {
		e := endpoint(1)
		e.Labels = map[string]string{"app": "web"}
		r.put(e, endpoint(2))
		r.use()
		svc := vnic.Service{Name: "shop", Network: "over", Protocol: "tcp", Port: 80, Target: 8080, Labels: map[string]string{"app": "web"}, Mode: vnic.ServiceIngress}
		assert.Equal(t, 1, r.f.Ready(svc), "it is not written down yet")
		r.publish(svc)
		assert.Equal(t, []vnic.Service{svc}, r.names[e.ID].Services)
		assert.Empty(t, r.names[endpoint(2).ID].Services)
		assert.Equal(t, 1, r.f.Ready(svc))
		require.Len(t, r.backends, 1)
		assert.Equal(t, []vnic.Target{{To: netip.MustParseAddrPort("10.7.0.1:8080")}}, r.backends[0].Targets)
		e.Ready = false
		r.put(e)
		assert.Zero(t, r.f.Ready(svc))
		assert.Empty(t, r.backends[0].Targets)
		_, err := r.db.Update(t.Context(), func(tx store.Tx) error { return tx.Delete(fabric.ServicePrefix + "shop") })
		require.NoError(t, err)
		synctest.Wait()
		assert.Empty(t, r.backends)
	})
}

// TestDamaged: an entry that can't be read is left out, and harms no other.
func TestDamaged(t *testing.T) {
	inRig(t, func(r *rig) {
		_, err := r.db.Update(t.Context(), func(tx store.Tx) error { return tx.Put(fabric.EndpointPrefix+"over/x", []byte("{")) })
		require.NoError(t, err)
		r.put(endpoint(1))
		r.use()
		assert.Len(t, r.stations, 1)
		assert.True(t, slices.Contains(r.done(), "replace 1"))
	})
}

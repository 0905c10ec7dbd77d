package ipam_test

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"net/netip"
	"os"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/stretchr/testify/assert"

	"github.com/brfuse/brfuse/orchestrator/ipam"
	"github.com/brfuse/brfuse/orchestrator/store"
	"github.com/brfuse/brfuse/orchestrator/store/etcdstore"
	"github.com/brfuse/brfuse/orchestrator/store/scoped"
	"github.com/brfuse/brfuse/vnic"
)

// callLimit bounds a call, as the orchestrator does.
const callLimit = 10 * time.Second

// host is a hypervisor whose daemon dies now and then.
type host struct {
	*stage
	name string
	pool *ipam.Pool

	mu    sync.RWMutex // held by who runs a call, and for writing while the daemon is dead
	wire  *wire
	etcd  *etcdstore.Store
	store store.Store // etcd as this hypervisor sees it
	lives int         // how many times it was released
}

// open starts the daemon, when etcd can be reached. The host is held for writing.
func (h *host) open(ctx context.Context) {
	h.wire = newWire(h.t, h.members.Endpoints())
	h.until(ctx, "open the store", func() error {
		s, err := openStore(ctx, h.wire.endpoints(), requestLimit)
		if err == nil {
			h.etcd = s
		}
		return err
	})
	h.store = scoped.New(h.etcd, homeOf(h.name), ipam.OwnPrefixes())
}

// die has the daemon end as it does by kill -9, perhaps be released, and come back.
func (h *host) die(ctx context.Context, release bool) {
	h.wire.close()
	_ = h.etcd.Close() //nolint:contextcheck // it has none, and can't say goodbye
	h.mu.Lock()
	defer h.mu.Unlock()
	if release {
		h.book.forget(h.name)
		h.until(ctx, "release a hypervisor", func() error {
			_, err := ipam.ReleaseHypervisor(ctx, h.other, homeOf(h.name), h.name)
			return err
		})
		h.lives++
	}
	h.open(ctx)
}

// worker leases and gives back on a hypervisor.
type worker struct {
	*host
	rnd   *rand.Rand
	next  int // number of the next pod or reservation
	lives int // of the host, when has and doubts were of use
	has   []holding
	// taken may have addresses; given may still have theirs. No address of those is in use.
	taken, given []holding
}

// step makes one call at random.
func (w *worker) step(ctx context.Context) {
	w.mu.RLock()
	defer w.mu.RUnlock()
	if w.lives != w.host.lives {
		w.lives, w.has, w.taken, w.given = w.host.lives, nil, nil, nil
	}
	reserved := slices.IndexFunc(w.has, func(h holding) bool { return h.vm != "" })
	switch n := w.rnd.IntN(24); {
	case n < 3 && len(w.taken) > 0:
		w.look(ctx)
	case n < 6 && len(w.taken)+len(w.given) > 0:
		w.giveAgain(ctx)
	case n < 10:
		w.take(ctx, nil)
	case n < 12:
		w.take(ctx, w.anyAddress())
	case n < 14:
		w.reserve(ctx)
	case n < 16 && reserved >= 0:
		w.takeOver(ctx, reserved)
	case n < 22 && len(w.has) > 0:
		w.give(ctx, w.rnd.IntN(len(w.has)))
	default:
		_, err := w.pool.GiveBack(ctx, w.store, w.net)
		w.outcome(ctx, err)
	}
}

// call makes a transaction, which is broken off now and then.
func (w *worker) call(ctx context.Context, fn func(store.Tx) error) (outcome, error) {
	ctx, cancel := context.WithTimeout(ctx, callLimit)
	defer cancel()
	if w.rnd.IntN(5) == 0 {
		early := time.AfterFunc(time.Duration(w.rnd.IntN(int(20*time.Millisecond))), cancel)
		defer early.Stop()
	}
	_, err := w.store.Update(ctx, fn)
	return w.outcome(ctx, err), err
}

// outcome tells what an error means, and waits a moment when etcd is not there.
func (w *worker) outcome(ctx context.Context, err error) outcome {
	o := unmade
	switch {
	case err == nil:
		o = made
	case errors.Is(err, store.ErrUnclear):
		o = unclear
	case errors.Is(err, vnic.ErrPoolExhausted), errors.Is(err, vnic.ErrAddressTaken), errors.Is(err, vnic.ErrAddressOutside):
	case errors.Is(err, store.ErrUnavailable), errors.Is(err, os.ErrClosed), errors.Is(err, context.Canceled), errors.Is(err, context.DeadlineExceeded):
		rest(ctx, time.Duration(w.rnd.IntN(int(50*time.Millisecond))))
	default:
		assert.Fail(w.t, "an error that nothing explains", "%s: %v", w.name, err)
	}
	w.book.count(o)
	return o
}

func (w *worker) number() int {
	w.next++
	return w.next
}

// anyAddress returns one of the first subnet, or a little beyond.
func (w *worker) anyAddress() []netip.Addr {
	a := w.net.Subnets[0].Addr()
	for range w.rnd.IntN(poolSize + 4) {
		a = a.Next()
	}
	return []netip.Addr{a}
}

// pod returns a new one without addresses.
func (w *worker) pod() holding {
	o := owner(w.number())
	return holding{who: o.Key.Pod + "@" + w.name, owner: o}
}

// take leases addresses for a new pod.
func (w *worker) take(ctx context.Context, want []netip.Addr) {
	h := w.pod()
	full := true
	o, err := w.call(ctx, func(tx store.Tx) (err error) {
		h.addrs, full, err = w.lease(tx, h.owner, want)
		return err
	})
	if errors.Is(err, vnic.ErrPoolExhausted) {
		assert.True(w.t, full, "an exhausted pool has a free address")
	}
	w.took(o, h)
}

// lease leases in a transaction. A pool that is said to be exhausted is to be full.
func (w *worker) lease(tx store.Tx, o ipam.Owner, want []netip.Addr) (addrs []netip.Addr, full bool, err error) {
	leases, err := w.pool.Take(tx, w.net, o, want)
	for _, l := range leases {
		addrs = append(addrs, l.Address)
	}
	if !errors.Is(err, vnic.ErrPoolExhausted) {
		return addrs, true, err
	}
	items, serr := tx.Scan("ipam/lease/blue/", 0)
	if serr != nil {
		return nil, true, serr
	}
	n := 0
	for _, it := range items {
		if strings.Contains(it.Key, "::") == strings.Contains(err.Error(), "::/") {
			n++
		}
	}
	return nil, n == poolSize, err
}

// took notes the outcome of a call that leases.
func (w *worker) took(o outcome, h holding) {
	switch o {
	case made:
		w.book.hold(h)
		w.has = append(w.has, h)
	case unclear:
		w.book.doubt(h)
		w.taken = append(w.taken, h)
	}
}

// reserve reserves an address for a VM of its own.
func (w *worker) reserve(ctx context.Context) {
	vm := fmt.Sprintf("vm%d", w.number())
	h := holding{who: vm + "@" + w.name, vm: vm}
	var want netip.Addr
	if w.rnd.IntN(2) == 0 {
		want = w.anyAddress()[0]
	}
	ipv6 := w.rnd.IntN(2) == 0
	o, _ := w.call(ctx, func(tx store.Tx) error {
		p, err := w.pool.Reserve(tx, w.net, vm, want, ipv6)
		h.addrs = []netip.Addr{p.Addr()}
		return err
	})
	w.took(o, h)
}

// takeOver has a new pod take over a reserved address.
func (w *worker) takeOver(ctx context.Context, i int) {
	was, h := w.has[i], w.pod()
	o, _ := w.call(ctx, func(tx store.Tx) error {
		err := w.pool.TakeOver(tx, was.vm, w.net.Name, was.addrs)
		if err == nil {
			h.addrs, _, err = w.lease(tx, h.owner, was.addrs)
		}
		return err
	})
	switch o {
	case made:
		w.book.swap(was, h)
		w.has[i] = h
	case unclear: // whichever of them it is, it is given back
		w.has = slices.Delete(w.has, i, i+1)
		w.book.drop(was)
		w.book.doubt(was)
		w.book.doubt(h)
		w.given = append(w.given, was, h)
	}
}

// give gives back what a pod or a reservation has.
func (w *worker) give(ctx context.Context, i int) {
	h := w.has[i]
	w.has = slices.Delete(w.has, i, i+1)
	w.book.drop(h)
	switch w.release(ctx, h) {
	case unmade:
		w.book.hold(h)
		w.has = append(w.has, h)
	case unclear:
		w.book.doubt(h)
		w.given = append(w.given, h)
	}
}

func (w *worker) release(ctx context.Context, h holding) outcome {
	o, _ := w.call(ctx, func(tx store.Tx) error {
		if h.vm != "" {
			return w.pool.Unreserve(tx, h.vm, w.net.Name, h.addrs[0])
		}
		return w.pool.Free(tx, h.owner)
	})
	return o
}

// giveAgain gives back, once more, what may or may not be there.
func (w *worker) giveAgain(ctx context.Context) {
	left := func(list []holding) []holding {
		return slices.DeleteFunc(list, func(h holding) bool {
			if w.release(ctx, h) != made {
				return false
			}
			w.book.gone(h)
			return true
		})
	}
	w.taken, w.given = left(w.taken), left(w.given)
}

// look finds out which unclear calls leased something.
func (w *worker) look(ctx context.Context) {
	found := map[string][]netip.Addr{}
	err := w.store.View(ctx, func(tx store.ReadTx) error {
		clear(found)
		leases, err := w.pool.Leases(tx)
		for _, l := range leases {
			found[whose(l)] = append(found[whose(l)], l.Address)
		}
		return err
	})
	if w.outcome(ctx, err) != made {
		return
	}
	for _, h := range w.taken {
		if addrs := found[h.who]; addrs != nil {
			assert.ElementsMatch(w.t, h.addrs, addrs, "%s has all or nothing", h.who)
			w.book.hold(h)
			w.has = append(w.has, h)
		} else {
			w.book.gone(h)
		}
	}
	w.taken = nil
}

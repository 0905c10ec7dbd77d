package orchestrator

import (
	"context"
	"fmt"
	"log/slog"
	"os"
	"sync"
	"time"

	"github.com/brfuse/brfuse/internal/keylock"
	"github.com/brfuse/brfuse/orchestrator/fabric"
	"github.com/brfuse/brfuse/orchestrator/ipam"
	"github.com/brfuse/brfuse/orchestrator/store"
	"github.com/brfuse/brfuse/vnic"
)

// An Orchestrator attaches vNICs to pods and detaches them. It is safe for
// concurrent use. Make it with [New].
type Orchestrator struct {
	cfg   Config
	log   *slog.Logger
	pool  *ipam.Pool
	queue *queue
	locks attachmentLocks
	names keylock.Locks[string]  // of networks and VMs, by their keys in the store
	vnics keylock.Locks[vnic.ID] // of vNICs of pools, but for those that attachments have
	seen  vmStates
	pools pools
	rooms rooms

	shared store.Store // all of the store; cfg.Store is what of it is this hypervisor's to see
	fabric *fabric.Fabric
	uses   uses
	mine   vmNames // VMs that both halves were told of

	life context.Context // ends when Close begins
	end  context.CancelFunc

	mu     sync.Mutex
	closed bool           // guarded by mu
	calls  sync.WaitGroup // of calls that change something; Add under mu
}

// New tells both halves of the networks and VMs in the store, begins to
// reconcile, and returns without waiting for the end of that. An error of a half
// is logged and tried again later; only a store that can't be read is an error.
func New(ctx context.Context, cfg Config) (*Orchestrator, error) {
	cfg, err := cfg.complete()
	if err != nil {
		return nil, fmt.Errorf("start orchestrator: %w", err)
	}
	o := &Orchestrator{cfg: cfg, log: cfg.Log, shared: cfg.Store, queue: newQueue(cfg.Log)}
	o.pool = ipam.New(ipam.Options{Quarantine: cfg.Quarantine, Hypervisor: o.Hypervisor()})
	o.life, o.end = context.WithCancel(context.Background())
	if c := cfg.Cluster; c != nil {
		o.cfg.Store = View(o.shared, c.Self.Name)
		o.cfg.Host = lazyHost{cfg.Host, o}
	}
	if err := o.start(ctx); err != nil {
		_ = o.Close() // it returns nil
		return nil, fmt.Errorf("start orchestrator: %w", err)
	}
	return o, nil
}

// start takes up what the store says, and what the others do.
func (o *Orchestrator) start(ctx context.Context) error {
	if err := o.join(ctx); err != nil {
		return err
	}
	o.follow() //nolint:contextcheck // it has a life of its own, until Close
	if err := o.recover(ctx); err != nil {
		return err
	}
	if o.cfg.Cluster == nil {
		return nil
	}
	o.calls.Go(o.keepAlive)
	o.calls.Go(o.giveBack)
	if o.cfg.Cluster.ReleaseAfter > 0 {
		o.calls.Go(o.reap)
	}
	return nil
}

// recover takes up what the store says, after a restart.
func (o *Orchestrator) recover(ctx context.Context) error {
	var nets []networkRecord
	var vms []vmRecord
	err := o.cfg.Store.View(ctx, func(tx store.ReadTx) (err error) {
		if nets, err = all[networkRecord](tx, networkPrefix); err != nil {
			return err
		}
		vms, err = all[vmRecord](tx, vmPrefix)
		return err
	})
	if err != nil {
		return err
	}
	for _, n := range nets {
		if used, err := o.usesNetwork(ctx, n.Name); err != nil {
			return err
		} else if o.cfg.Cluster != nil && !used && !n.Removing {
			continue // it is made when a vNIC of it comes
		}
		if err := o.restoreNetwork(ctx, n.Name); err != nil {
			o.log.Error("network is not set up, it will be tried again", "network", n.Name, "error", err)
			o.queue.add("network "+n.Name, func(ctx context.Context) error { return o.restoreNetwork(ctx, n.Name) })
		}
	}
	var wg sync.WaitGroup
	for _, vm := range vms {
		if vm.Migrating != nil {
			o.locks.close(vm.Name) // until it is known where the VM is
		}
		wg.Go(func() {
			if err := o.restoreVM(ctx, vm.Name); err != nil {
				o.log.Error("vm is not registered, it will be tried again", "vm", vm.Name, "error", err)
				o.queue.add("register vm "+vm.Name, func(ctx context.Context) error { return o.restoreVM(ctx, vm.Name) })
			}
		})
	}
	wg.Wait()
	o.sweepSoon()
	if o.cfg.Cluster != nil {
		o.queue.add("remove networks that are not needed", o.sweepNetworks)
	}
	return nil
}

// Close stops what runs in the background and waits for it. Calls that are
// running are cancelled: an attach undoes itself. Attachments stay. The store
// and the halves are the caller's to close, afterwards.
func (o *Orchestrator) Close() error {
	o.mu.Lock()
	o.closed = true
	o.mu.Unlock()
	o.end()
	o.pools.close()
	o.calls.Wait()
	o.queue.close()
	if o.fabric != nil {
		return o.fabric.Close()
	}
	return nil
}

// begin counts a call that changes something, until done. Its context also ends
// when the Orchestrator closes.
func (o *Orchestrator) begin(ctx context.Context) (_ context.Context, done func(), err error) {
	o.mu.Lock()
	defer o.mu.Unlock()
	if o.closed {
		return nil, nil, fmt.Errorf("orchestrator: %w", os.ErrClosed)
	}
	o.calls.Add(1)
	ctx, cancel := context.WithCancel(ctx)
	stop := context.AfterFunc(o.life, cancel)
	return ctx, func() { stop(); cancel(); o.calls.Done() }, nil
}

// logFor returns a logger that names the attachment.
func (o *Orchestrator) logFor(r *record) *slog.Logger {
	log := o.log.With("attachment", string(r.ID), "key", r.key().String())
	if r.Device != "" {
		log = log.With("vnic", string(r.Device))
	}
	return log
}

// reconcileSoon reconciles a VM in the background, until that works.
func (o *Orchestrator) reconcileSoon(vm string) {
	o.queue.add("reconcile vm "+vm, func(ctx context.Context) error { return o.reconcile(ctx, vm) })
}

// guestPause is between two of the things that a VM's guest brings about by telling
// the same again.
const guestPause = time.Second

// rest waits for as long.
func rest(ctx context.Context) {
	timer := time.NewTimer(guestPause)
	defer timer.Stop()
	select {
	case <-timer.C:
	case <-ctx.Done():
	}
}

// reconcileForGuest is reconcileSoon for what a guest may say as often as it likes:
// the first time it is done at once, and however much it says meanwhile, only once
// more after a pause.
func (o *Orchestrator) reconcileForGuest(vm string) {
	o.queue.add("reconcile vm "+vm+" at its guest's word", func(ctx context.Context) error {
		if err := o.reconcile(ctx, vm); err != nil {
			return err
		}
		rest(ctx)
		return nil
	})
}

// reconcileAllSoon is reconcileSoon for all VMs.
func (o *Orchestrator) reconcileAllSoon(ctx context.Context) error {
	vms, err := o.VMs(ctx)
	for _, vm := range vms {
		o.reconcileSoon(vm.Name)
	}
	return err
}

// sweepSoon removes taps of no VM in the background, until that works.
func (o *Orchestrator) sweepSoon() { o.queue.add("remove stray taps", o.sweep) }

// undoSoon takes an attachment back in the background, until that works.
func (o *Orchestrator) undoSoon(id vnic.ID) {
	o.queue.keep("undo attachment "+string(id), func(ctx context.Context) error { return o.undoLeftover(ctx, id) })
}

// named runs fn under the lock of a network or VM.
func (o *Orchestrator) named(ctx context.Context, name string, fn func() error) error {
	unlock, err := o.names.Lock(ctx, name)
	if err != nil {
		return fmt.Errorf("wait for another operation on it: %w", err)
	}
	defer unlock()
	return fn()
}

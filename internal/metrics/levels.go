package metrics

import (
	"context"
	"errors"
	"math"
	"net/netip"
	"sync"
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"github.com/brfuse/brfuse/orchestrator"
	"github.com/brfuse/brfuse/orchestrator/fabric"
	"github.com/brfuse/brfuse/orchestrator/names"
	"github.com/brfuse/brfuse/orchestrator/store"
	"github.com/brfuse/brfuse/vnic"
)

// Host is what is asked of the host half. Its methods return soon after ctx ends.
type Host interface {
	// Free returns how many slots of a running VM are free, and how many it has, or
	// [vnic.ErrVMGone].
	Free(ctx context.Context, vm string) (free, total int, err error)
	// Dropped returns how many packets were dropped, by reason.
	Dropped(ctx context.Context) (map[string]uint64, error)
	// OverlayDrift counts what was repaired in the kernel's tables.
	OverlayDrift() vnic.Drift
}

// Names is what is asked of the name server.
type Names interface {
	Stats() map[string]names.Stats // by network
}

// Parts are what is asked for levels.
type Parts struct {
	Orch *orchestrator.Orchestrator
	Host Host
	// Names is nil when none are served.
	Names Names
	// Shared is the store when other hypervisors share it, else nil.
	Shared store.Store
}

// vmLimit bounds how long a VM is waited for.
const vmLimit = time.Second

var (
	poolVNICs  = desc("pool_vnics", "vNICs of a pool.", "vm", "network", "state")
	poolHits   = desc("pool_hits_total", "Attaches that took a parked vNIC.", "vm", "network")
	poolMisses = desc("pool_misses_total", "Attaches that a pool had no vNIC for.", "vm", "network")
	slots      = desc("slots", "Hotplug slots of a running VM.", "vm", "state")
	channelUp  = desc("channel_up", "Whether there is a session with a VM's agent.", "vm")
	leases     = desc("leases", "Addresses that pods, and hypervisors in overlays, have, on all hypervisors.", "network", "family")
	free       = desc("free_addresses", "Addresses that no pod has; reserved ones, and those that were given back just now, are among them.", "network", "family")
	drift      = desc("overlay_drift_total", "Entries of overlays in the kernel's tables that others changed and that were repaired.", "kind")
	dropped    = desc("guard_dropped_packets_total", "Packets from and to pods that were dropped.", "reason")
	ready      = desc("services_ready", "Ready pods of a published service, on all hypervisors.", "service")
	others     = desc("hypervisors", "Hypervisors that share the store.", "state")

	dnsQueries   = desc("dns_queries_total", "Answered queries.", "network", "rcode")
	dnsDuration  = desc("dns_query_duration_seconds", `Times until answers; source "outside" are other servers.`, "network", "source")
	dnsForwarded = desc("dns_forwarded_total", "Queries that went to other servers.", "network")
	dnsFailures  = desc("dns_forward_failures_total", "Queries that no other server answered.", "network")
	dnsDiscarded = desc("dns_discarded_total", "Queries and connections that were not served.", "network", "reason")
	dnsRecords   = desc("dns_records", "Pods that names are served of, ready or not.", "network")
)

func desc(name, help string, labels ...string) *prometheus.Desc {
	return prometheus.NewDesc("brfuse_"+name, help, labels, nil)
}

func gauge(d *prometheus.Desc, v float64, labels ...string) prometheus.Metric {
	return prometheus.MustNewConstMetric(d, prometheus.GaugeValue, v, labels...)
}

func counter[T int | uint64](d *prometheus.Desc, v T, labels ...string) prometheus.Metric {
	return prometheus.MustNewConstMetric(d, prometheus.CounterValue, float64(v), labels...)
}

// Ask has each scrape ask the parts of a daemon. It is to be called once, and the
// parts are to outlive m.
func (m *Metrics) Ask(p Parts) error {
	list := []source{
		{name: "pools", descs: []*prometheus.Desc{poolVNICs, poolHits, poolMisses}, ask: p.pools},
		{name: "vms", descs: []*prometheus.Desc{slots, channelUp}, ask: p.vms},
		{name: "networks", descs: []*prometheus.Desc{leases, free}, ask: p.networks},
		{name: "services", descs: []*prometheus.Desc{ready}, ask: p.services},
		{name: "guard", descs: []*prometheus.Desc{dropped}, ask: p.guard},
		{name: "overlay", descs: []*prometheus.Desc{drift}, ask: p.overlay},
	}
	if p.Names != nil {
		list = append(list, source{
			name: "dns", descs: []*prometheus.Desc{dnsQueries, dnsDuration, dnsForwarded, dnsFailures, dnsDiscarded, dnsRecords}, ask: p.dns,
		})
	}
	if p.Shared != nil {
		list = append(list, source{name: "hypervisors", descs: []*prometheus.Desc{others}, ask: p.hypervisors})
	}
	for i := range list {
		list[i].turn = make(chan struct{}, 1)
	}
	return m.reg.Register(&sources{list: list, life: m.life, asks: &m.asks})
}

func (p Parts) pools(ctx context.Context, emit func(prometheus.Metric)) error {
	pools, err := p.Orch.Pools(ctx)
	for _, s := range pools {
		emit(gauge(poolVNICs, float64(s.Parked), s.VM, s.Network, "parked"))
		emit(gauge(poolVNICs, float64(s.Filling), s.VM, s.Network, "filling"))
		emit(gauge(poolVNICs, float64(s.InUse), s.VM, s.Network, "in_use"))
		emit(counter(poolHits, s.Hits, s.VM, s.Network))
		emit(counter(poolMisses, s.Misses, s.VM, s.Network))
	}
	return err
}

// vms asks all VMs at once: one that is silent doesn't use up the others' time.
func (p Parts) vms(ctx context.Context, emit func(prometheus.Metric)) error {
	vms, err := p.Orch.VMs(ctx)
	if err != nil {
		return err
	}
	ctx, cancel := context.WithTimeout(ctx, vmLimit)
	defer cancel()
	errs := make([]error, len(vms))
	var wg sync.WaitGroup
	for i, vm := range vms {
		up := 0.0
		if p.Orch.AgentUp(vm.Name) {
			up = 1
		}
		emit(gauge(channelUp, up, vm.Name))
		wg.Go(func() { errs[i] = p.slots(ctx, vm.Name, emit) })
	}
	wg.Wait()
	return errors.Join(errs...)
}

func (p Parts) slots(ctx context.Context, vm string, emit func(prometheus.Metric)) error {
	n, total, err := p.Host.Free(ctx, vm)
	switch {
	case errors.Is(err, vnic.ErrVMGone), errors.Is(err, vnic.ErrUnknownVM):
		return nil // it has none
	case err != nil:
		return err
	}
	emit(gauge(slots, float64(n), vm, "free"))
	emit(gauge(slots, float64(total-n), vm, "used"))
	return nil
}

func (p Parts) networks(ctx context.Context, emit func(prometheus.Metric)) error {
	nets, err := p.Orch.Networks(ctx)
	for _, n := range nets {
		v4, v6 := p.Orch.Leased(n.Name)
		for _, s := range n.Subnets {
			family, used := "ipv4", v4
			if s.Addr().Is6() {
				family, used = "ipv6", v6
			}
			emit(gauge(leases, float64(used), n.Name, family))
			emit(gauge(free, size(s)-float64(used), n.Name, family))
		}
	}
	return err
}

// size is how many addresses of a subnet are for pods: the first, the last and the
// gateway are not.
func size(s netip.Prefix) float64 {
	return math.Exp2(float64(s.Addr().BitLen()-s.Bits())) - 3
}

func (p Parts) services(ctx context.Context, emit func(prometheus.Metric)) error {
	list, err := p.Orch.Services(ctx)
	for _, s := range list {
		emit(gauge(ready, float64(s.Ready), s.Name))
	}
	return err
}

func (p Parts) guard(ctx context.Context, emit func(prometheus.Metric)) error {
	counts, err := p.Host.Dropped(ctx)
	for reason, n := range counts {
		emit(counter(dropped, n, reason))
	}
	return err
}

func (p Parts) overlay(_ context.Context, emit func(prometheus.Metric)) error {
	d := p.Host.OverlayDrift()
	emit(counter(drift, d.Missing, "missing"))
	emit(counter(drift, d.Wrong, "wrong"))
	emit(counter(drift, d.Foreign, "foreign"))
	return nil
}

func (p Parts) hypervisors(ctx context.Context, emit func(prometheus.Metric)) error {
	known, err := fabric.Hypervisors(ctx, p.Shared)
	if err != nil {
		return err
	}
	states := map[string]int{vnic.HypervisorAlive: 0, vnic.HypervisorDead: 0, vnic.HypervisorReleased: 0}
	for _, k := range known {
		states[k.State()]++
	}
	for state, n := range states {
		emit(gauge(others, float64(n), state))
	}
	return nil
}

package main

import (
	"context"
	"errors"
	"fmt"
	"net/netip"
	"time"

	"github.com/brfuse/brfuse/orchestrator"
	"github.com/brfuse/brfuse/orchestrator/orchestratortest"
	"github.com/brfuse/brfuse/orchestrator/store/etcdstore"
	"github.com/brfuse/brfuse/vnic"
)

// network is the overlay that all pods are in.
var network = vnic.Network{
	Name: "over", Kind: vnic.KindOverlay,
	Subnets: []netip.Prefix{netip.MustParsePrefix("10.64.0.0/12"), netip.MustParsePrefix("fd00:64::/64")},
}

const (
	// aliveTTL is long: many hypervisors share few CPUs with all else.
	aliveTTL = time.Minute
	// joinAtOnce is how many hypervisors join, or leave, at a time.
	joinAtOnce = 8
	joinLimit  = time.Minute
	// patience is how long a request may take: how long it takes is what is measured.
	patience = time.Minute
)

// hypervisor is a simulated one.
type hypervisor struct {
	nowhere
	name  string
	etcd  *etcdstore.Store
	store *deaf
	orch  *orchestrator.Orchestrator
	pods  []vnic.Attachment
}

// fleet is all hypervisors.
type fleet []*hypervisor

// newFleet has all join, and registers a VM on each.
func newFleet(ctx context.Context, cfg etcdstore.Config, o options) (fleet, error) {
	hs := make(fleet, o.hypervisors)
	for i := range hs {
		hs[i] = &hypervisor{name: fmt.Sprintf("hypervisor-%04d", i), pods: make([]vnic.Attachment, o.pods)}
		hs[i].number = i
	}
	_, err := atOnce(ctx, joinAtOnce, len(hs), func(ctx context.Context, _, i int) error {
		return hs[i].join(ctx, cfg)
	})
	if err != nil {
		return nil, errors.Join(err, hs.close()) //nolint:contextcheck // has to be done when ctx has ended too
	}
	return hs, nil
}

// close ends all orchestrators and connections.
func (hs fleet) close() error {
	_, err := atOnce(context.Background(), joinAtOnce, len(hs), func(_ context.Context, _, i int) error { return hs[i].close() }) //nolint:contextcheck // as Close of what it closes
	return err
}

func (h *hypervisor) join(ctx context.Context, cfg etcdstore.Config) (err error) {
	ctx, cancel := context.WithTimeoutCause(ctx, joinLimit, fmt.Errorf("%s did not join within %s", h.name, joinLimit))
	defer cancel()
	if h.etcd, err = etcdstore.Open(ctx, cfg); err != nil {
		return err
	}
	h.store = &deaf{Store: h.etcd}
	world := orchestratortest.New()
	names := make([]string, len(h.pods))
	for i := range names {
		names[i] = podName(i)
	}
	world.Boot(h.vm(), append(names, samplePod, firstPod)...)
	world.SetSlots(h.vm(), len(names)+2)
	conn := world.Conn()
	h.orch, err = orchestrator.New(ctx, orchestrator.Config{
		Store: h.store, Host: conn, Guest: conn, VMs: conn,
		Cluster: &orchestrator.Cluster{
			Self:      vnic.Hypervisor{Name: h.name, Underlay: h.underlay(), MTU: 1450},
			Overlay:   h.nowhere,
			KeepAlive: h.keepAlive,
		},
		Deadlines: orchestrator.Deadlines{Store: patience},
	})
	if err != nil {
		return err
	}
	conn.Notify(h.orch.Notify)
	return h.orch.AddVM(ctx, vnic.VM{Name: h.vm(), QMP: "/run/qmp", Channel: "/run/agent"})
}

func (h *hypervisor) close() error {
	var err error
	if h.orch != nil {
		err = h.orch.Close()
	}
	if h.etcd != nil {
		err = errors.Join(err, h.etcd.Close())
	}
	return err
}

// keepAlive holds the key that says the hypervisor is alive, once.
func (h *hypervisor) keepAlive(ctx context.Context, key string, value []byte, held func()) error {
	l, err := h.etcd.Alive(ctx, key, value, aliveTTL)
	if err != nil {
		return err
	}
	held()
	select {
	case <-l.Lost():
		return fmt.Errorf("%s was lost", key)
	case <-ctx.Done():
		return errors.Join(ctx.Err(), l.Close(context.WithoutCancel(ctx)))
	}
}

func (h *hypervisor) vm() string { return "vm-" + h.name }

func (h *hypervisor) key(pod string) vnic.Key {
	return vnic.Key{VM: h.vm(), Pod: pod, Interface: "eth0"}
}

// samplePod is the pod whose transactions the bare ones are made after, and firstPod
// one that is there before it.
const (
	samplePod = "shop-frontend-5d4f8c7b9d-samp"
	firstPod  = "shop-frontend-5d4f8c7b9d-frst"
)

// podName is as long as those of Kubernetes often are.
func podName(i int) string { return fmt.Sprintf("shop-frontend-5d4f8c7b9d-%04d", i) }

func (h *hypervisor) attach(ctx context.Context, pod string) (vnic.Attachment, error) {
	return h.orch.Attach(ctx, vnic.Request{Key: h.key(pod), Network: network.Name})
}

// nowhere is where a simulated hypervisor programs stations.
type nowhere struct{ number int }

func (n nowhere) underlay() netip.Addr {
	return netip.AddrFrom4([4]byte{172, 16, byte(n.number >> 8), byte(n.number)})
}

// ReplaceStations implements [orchestrator.Overlay], as the methods below do.
func (nowhere) ReplaceStations(context.Context, string, []vnic.Station) error { return nil }

func (nowhere) SetStations(context.Context, string, []vnic.Station) error { return nil }

func (nowhere) RemoveStations(context.Context, string, []vnic.MAC) error { return nil }

func (nowhere) SetHostAddresses(string, []netip.Prefix) {}

func (n nowhere) BridgeMAC(context.Context, string) (vnic.MAC, error) {
	return vnic.MAC{2, 0, 0, 0, byte(n.number >> 8), byte(n.number)}, nil
}

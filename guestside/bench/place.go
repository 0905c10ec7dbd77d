package bench

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"net"
	"net/netip"
	"os"
	"path/filepath"
	"slices"
	"strings"

	"golang.org/x/sys/unix"

	"github.com/brfuse/brfuse/internal/netnsx"
	"github.com/brfuse/brfuse/internal/nettopo"
	"github.com/brfuse/brfuse/vnic"
)

// place is a worker and what lies between its namespace and the VM's first one.
type place struct {
	order  Order
	told   Place
	worker *worker
	nat    *nettopo.Spec // nil: nothing
}

// make makes a place, or nothing.
func (b *Bench) make(ctx context.Context, o Order) (_ *place, err error) {
	p := &place{order: o}
	defer func() {
		if err != nil {
			ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), downLimit)
			defer cancel()
			err = errors.Join(err, b.remove(ctx, p))
		}
	}()
	if err := b.removeRecorded(ctx); err != nil {
		return nil, fmt.Errorf("remove what another bench left: %w", err)
	}
	if p.told.Port, err = freePort(ctx); err != nil {
		return nil, err
	}
	own, err := interfaces()
	if err != nil {
		return nil, err
	}
	p.told.Addresses = reachable(own)
	if o.Topology == Native {
		p.worker, err = startWorker(b.cfg, nil)
		return p, err
	}
	ns, err := netnsx.New()
	if err != nil {
		return nil, err
	}
	defer func() { err = errors.Join(err, ns.Close()) }() // the worker holds it
	if p.worker, err = startWorker(b.cfg, ns); err != nil {
		return nil, err
	}
	p.told.Netns = fmt.Sprintf("/proc/%d/ns/net", p.worker.pid())
	if o.Topology == Fused {
		return p, nil
	}
	return p, b.makeNAT(ctx, p, own)
}

// makeNAT joins a place to the VM's first namespace as Docker joins a container.
func (b *Bench) makeNAT(ctx context.Context, p *place, own []iface) error {
	up, err := uplink(ctx, own, p.order)
	if err != nil {
		return err
	}
	subnet, err := freeSubnet(own)
	if err != nil {
		return err
	}
	gateway := subnet.Addr().Next()
	spec := nettopo.Spec{
		Kind: NAT, Pod: p.told.Netns, Interface: "eth0",
		Address: netip.PrefixFrom(gateway.Next(), subnet.Bits()), Gateway: gateway,
		Uplink: up.name, MTU: up.mtu, Publish: []uint16{p.told.Port},
	}
	if err := b.record(spec); err != nil {
		return err
	}
	p.nat = &spec
	return nettopo.Up(ctx, spec)
}

// remove removes a place, also half of one, and may be called again.
func (b *Bench) remove(ctx context.Context, p *place) error {
	if p.worker != nil {
		p.worker.kill()
	}
	if p.nat == nil {
		return nil
	}
	if err := nettopo.Down(ctx, *p.nat); err != nil {
		return err
	}
	p.nat = nil
	return b.unrecord()
}

// record writes down what will have to be removed.
func (b *Bench) record(s nettopo.Spec) error {
	raw, err := json.Marshal(s)
	if err != nil {
		return fmt.Errorf("write down what is made: %w", err)
	}
	if err := os.MkdirAll(filepath.Dir(b.cfg.Record), 0o700); err != nil {
		return fmt.Errorf("write down what is made: %w", err)
	}
	if err := os.WriteFile(b.cfg.Record, raw, 0o600); err != nil {
		return fmt.Errorf("write down what is made: %w", err)
	}
	return nil
}

func (b *Bench) unrecord() error {
	if err := os.Remove(b.cfg.Record); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return fmt.Errorf("forget what was made: %w", err)
	}
	return nil
}

// removeRecorded removes what an agent left that died. A record that makes no sense
// was cut off while it was written, before anything was made.
func (b *Bench) removeRecorded(ctx context.Context) error {
	raw, err := os.ReadFile(b.cfg.Record)
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	if err != nil {
		return err
	}
	var spec nettopo.Spec
	if err := json.Unmarshal(raw, &spec); err != nil {
		b.cfg.Log.Warn("record of a bench is no record", "file", b.cfg.Record, "error", err)
		return b.unrecord()
	}
	if err := nettopo.Down(ctx, spec); err != nil {
		return err
	}
	b.cfg.Log.Info("removed what a bench left", "uplink", spec.Uplink, "subnet", spec.Address.Masked())
	return b.unrecord()
}

// iface is a link of the first namespace that is up, with its IPv4 addresses.
type iface struct {
	name  string
	mtu   int
	addrs []netip.Prefix
}

// interfaces returns those of the first namespace, lo left out.
func interfaces() ([]iface, error) {
	links, err := net.Interfaces()
	if err != nil {
		return nil, fmt.Errorf("list links: %w", err)
	}
	var list []iface
	for _, l := range links {
		if l.Flags&net.FlagLoopback != 0 || l.Flags&net.FlagUp == 0 {
			continue
		}
		addrs, err := l.Addrs()
		if err != nil {
			continue // it has gone meanwhile
		}
		i := iface{name: l.Name, mtu: l.MTU}
		for _, a := range addrs {
			if p, err := netip.ParsePrefix(a.String()); err == nil && p.Addr().Is4() {
				i.addrs = append(i.addrs, p)
			}
		}
		list = append(list, i)
	}
	return list, nil
}

// maxAddresses is how many addresses the daemon is told of.
const maxAddresses = maxReach

// reachable returns addresses by which another machine may reach the first
// namespace. brfuse's own links lead to no place that counts as the VM's.
func reachable(list []iface) (addrs []netip.Addr) {
	for _, i := range list {
		if strings.HasPrefix(i.name, "brf") || strings.HasPrefix(i.name, "bfb") {
			continue
		}
		for _, p := range i.addrs {
			if p.Addr().IsGlobalUnicast() && len(addrs) < maxAddresses {
				addrs = append(addrs, p.Addr())
			}
		}
	}
	return addrs
}

// uplink returns the NIC by which a pod behind NAT leaves.
func uplink(ctx context.Context, list []iface, o Order) (iface, error) {
	own := o.Own
	if !own.IsValid() {
		var err error
		if own, err = sourceTo(ctx, o.Peer); err != nil {
			return iface{}, err
		}
	}
	at := slices.IndexFunc(list, func(i iface) bool {
		return slices.ContainsFunc(i.addrs, func(p netip.Prefix) bool { return p.Addr() == own })
	})
	if at < 0 {
		return iface{}, fmt.Errorf("no NIC of this vm that is up has the address %s: %w", own, vnic.ErrInvalid)
	}
	return list[at], nil
}

// sourceTo returns the address that the first namespace reaches another one from.
// A connected UDP socket knows, and sends nothing.
func sourceTo(ctx context.Context, to netip.Addr) (netip.Addr, error) {
	var d net.Dialer
	conn, err := d.DialContext(ctx, "udp", netip.AddrPortFrom(to, 9).String())
	if err != nil {
		return netip.Addr{}, fmt.Errorf("find the route to %s: %w", to, err)
	}
	defer conn.Close()
	return conn.LocalAddr().(*net.UDPAddr).AddrPort().Addr().Unmap(), nil
}

// freeSubnet returns one of some rare subnets that overlaps with none of the VM's.
func freeSubnet(list []iface) (netip.Prefix, error) {
	for _, s := range []string{"172.31.213.0/29", "10.213.177.0/29", "192.168.213.0/29", "100.127.213.0/29"} {
		subnet := netip.MustParsePrefix(s)
		taken := slices.ContainsFunc(list, func(i iface) bool { return slices.ContainsFunc(i.addrs, subnet.Overlaps) })
		if !taken {
			return subnet, nil
		}
	}
	return netip.Prefix{}, fmt.Errorf("all subnets for the pod are in use in this vm; leave nat out: %w", vnic.ErrInUse)
}

// portTries is how many ports are tried that have TCP free and UDP taken.
const portTries = 16

// freePort returns a port that nobody in the first namespace has, of TCP and UDP.
func freePort(ctx context.Context) (uint16, error) {
	var lc net.ListenConfig
	var last error
	for range portTries {
		l, err := lc.Listen(ctx, "tcp4", ":0")
		if errors.Is(err, unix.EAFNOSUPPORT) {
			return 0, fmt.Errorf("brfuse-agent may open no IPv4 sockets; its systemd unit takes brfuse-agent-bench.conf for that: %w: %w", err, vnic.ErrUnsupported)
		}
		if err != nil {
			return 0, fmt.Errorf("find a free port: %w", err)
		}
		addr := l.Addr().(*net.TCPAddr).AddrPort()
		u, err := lc.ListenPacket(ctx, "udp4", fmt.Sprintf(":%d", addr.Port()))
		_ = l.Close() // nothing came by it
		if err == nil {
			return addr.Port(), u.Close()
		}
		last = err
	}
	return 0, fmt.Errorf("find a free port: %w", last)
}

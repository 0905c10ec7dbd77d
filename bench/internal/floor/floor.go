// Package floor gives a pod a hotplugged NIC by the least that does it, to have
// something to compare brfuse with: no store, no checks, no packet filter, one
// message to the hypervisor, and a program in the guest that is ready and
// waits. Tap, bridge port and network backend are made beforehand. Beside it, it
// moves a NIC that is plugged and waits in the guest, and back, by the least
// that does that.
package floor

import (
	"bufio"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"time"

	"github.com/brfuse/brfuse/bench/internal/floor/order"
	"github.com/brfuse/brfuse/integration/vmlab"
	"github.com/brfuse/brfuse/internal/netnsx"
	"github.com/brfuse/brfuse/internal/rtnl"
	"github.com/brfuse/brfuse/vnic"
)

// Program is where the guest has the program that moves NICs.
const Program = "/sbin/rawmove"

// Source is the main package of that program.
const Source = "./bench/internal/floor/rawmove"

// QEMUArgs returns the arguments by which QEMU gives the guest the port for
// that program, with a socket at path.
func QEMUArgs(path string) []string {
	return []string{
		"-device", "virtio-serial-pci,id=bench",
		"-chardev", "socket,id=benchport,server=on,wait=off,path=" + path,
		"-device", "virtserialport,bus=bench.0,chardev=benchport,name=" + order.Port,
	}
}

// Config says where a Floor is to be.
type Config struct {
	VM     *vmlab.VM
	Net    *netnsx.NS   // the host's side
	Socket string       // the path that QEMUArgs was given
	Pod    string       // a pod in the guest
	Spare  string       // where the NIC that waits is to be: a slot that nobody else uses
	Subnet netip.Prefix // IPv4; the bridge gets its first address, and no pod the same twice
	Prefix netip.Prefix // IPv6, likewise
}

// Floor plugs and unplugs one NIC at a time, and moves another that is always
// there. It isn't safe for concurrent use.
type Floor struct {
	cfg    Config
	slot   slot
	nl     *rtnl.Handle
	conn   *rtnl.Conn
	bridge rtnl.HostLink
	port   net.Conn
	in     *bufio.Reader
	proc   *vmlab.GuestProcess

	gw4   netip.Addr // the bridge's addresses
	gw6   netip.Addr
	addr4 netip.Addr // the last pod's
	addr6 netip.Addr
	mac   vnic.MAC // of the last NIC that was plugged
	spare vnic.MAC // of the one that waits
}

// Times are the parts of an attach that the guest tells of.
type Times struct {
	Move    time.Duration // the message that moves, renames and sets up
	Address time.Duration // the one that gives the addresses, and the routes if there are any
}

// New makes the bridge, starts the program in the guest and plugs the NIC that
// waits.
func New(ctx context.Context, cfg Config) (*Floor, error) {
	f := &Floor{cfg: cfg, gw4: cfg.Subnet.Addr().Next(), gw6: cfg.Prefix.Addr().Next(), spare: vnic.NewMAC()}
	f.addr4, f.addr6 = f.gw4, f.gw6
	if err := f.setUp(ctx); err != nil {
		return nil, errors.Join(fmt.Errorf("set up the floor: %w", err), f.Close())
	}
	return f, nil
}

func (f *Floor) setUp(ctx context.Context) error {
	if err := f.cfg.Net.Do(f.openBridge); err != nil {
		return err
	}
	if err := f.startProgram(ctx); err != nil {
		return err
	}
	return f.plugSpare(ctx)
}

// Use has the next NICs be plugged in that slot, "BUS/DEVICE" with the device in
// hexadecimal.
func (f *Floor) Use(where string) (err error) {
	f.slot, err = parseSlot(where)
	return err
}

func (f *Floor) startProgram(ctx context.Context) (err error) {
	if f.port, err = new(net.Dialer).DialContext(ctx, "unix", f.cfg.Socket); err != nil {
		return err
	}
	f.in = bufio.NewReader(f.port)
	f.proc, err = f.cfg.VM.Start(ctx, vmlab.Command{Argv: []string{Program}})
	return err
}

// Close lets go of what f holds. Bridge, guest and its program are left to
// their namespace's and the guest's end.
func (f *Floor) Close() error {
	var err error
	if f.port != nil {
		err = f.port.Close()
	}
	if f.conn != nil {
		err = errors.Join(err, f.conn.Close())
	}
	if f.nl != nil {
		f.nl.Close()
	}
	return err
}

// Prepare makes tap, bridge port and network backend, and has the guest wait
// for the NIC. Attach comes next.
func (f *Floor) Prepare(ctx context.Context) error {
	f.mac = vnic.NewMAC()
	if err := f.prepareHost(ctx, plugged, f.mac); err != nil {
		return fmt.Errorf("prepare the host: %w", err)
	}
	if _, err := f.order(ctx, f.next(order.Await, f.mac)); err != nil {
		return fmt.Errorf("prepare the guest: %w", err)
	}
	return nil
}

// next returns an order for a NIC, with addresses that no pod has had.
func (f *Floor) next(verb order.Verb, mac vnic.MAC) order.Order {
	f.addr4, f.addr6 = f.addr4.Next(), f.addr6.Next()
	return order.Order{
		Verb: verb, MAC: mac, Netns: f.cfg.Pod, Interface: "eth0",
		Addresses: []netip.Prefix{
			netip.PrefixFrom(f.addr4, f.cfg.Subnet.Bits()), netip.PrefixFrom(f.addr6, f.cfg.Prefix.Bits()),
		},
	}
}

// order gives an order and returns the first report on it.
func (f *Floor) order(ctx context.Context, o order.Order) (order.Report, error) {
	b, err := json.Marshal(o)
	if err == nil {
		_, err = f.port.Write(append(b, '\n'))
	}
	if err != nil {
		return order.Report{}, err
	}
	return f.report(ctx)
}

// Attach plugs the NIC, and returns its address when the guest has reported
// that it is in the pod.
func (f *Floor) Attach(ctx context.Context) (netip.Addr, Times, error) {
	if err := f.plug(ctx, plugged, f.mac, f.slot); err != nil {
		return f.addr4, Times{}, err
	}
	rep, err := f.report(ctx)
	if err != nil {
		return f.addr4, Times{}, fmt.Errorf("await the guest's report: %w", err)
	}
	return f.addr4, Times{rep.Move, rep.Address}, nil
}

// report reads what the program says next.
func (f *Floor) report(ctx context.Context) (rep order.Report, err error) {
	stop := context.AfterFunc(ctx, func() { _ = f.port.SetReadDeadline(time.Now()) }) // makes the read end
	defer stop()
	line, err := f.in.ReadBytes('\n')
	if err != nil {
		return rep, errors.Join(context.Cause(ctx), err)
	}
	if err := json.Unmarshal(line, &rep); err != nil {
		return rep, err
	}
	if rep.Error != "" {
		err = errors.New(rep.Error)
	}
	return rep, err
}

package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"io"
	"net/netip"
	"time"

	"golang.org/x/sys/unix"

	"github.com/brfuse/brfuse/internal/rtnl"
	"github.com/brfuse/brfuse/vnic"
)

// nicLimit bounds the wait for a NIC that has been plugged.
const nicLimit = 20 * time.Second

// nic waits for a NIC in this namespace, sets it up, gives it an address and
// prints its name.
func nic(ctx context.Context, args []string, out io.Writer) error {
	var mac vnic.MAC
	var addr netip.Prefix
	f := flag.NewFlagSet("nic", flag.ContinueOnError)
	f.TextVar(&mac, "mac", vnic.MAC{}, "the NIC's `MAC`")
	f.TextVar(&addr, "address", netip.Prefix{}, "its address, as a `prefix`")
	if err := parse(f, args, "mac", "address"); err != nil {
		return err
	}
	ctx, cancel := context.WithTimeout(ctx, nicLimit)
	defer cancel()
	return withConn(func(c *rtnl.Conn) error {
		l, err := awaitNIC(ctx, c, mac)
		if err != nil {
			return fmt.Errorf("await a NIC with MAC %s: %w", mac, err)
		}
		if err := c.Do(rtnl.SetUp(l.Index), rtnl.SetAddr(l.Index, addr)); err != nil {
			return fmt.Errorf("set %s up with %s: %w", l.Name, addr, err)
		}
		return write(out, struct {
			Name string `json:"name"`
		}{l.Name})
	})
}

func awaitNIC(ctx context.Context, c *rtnl.Conn, mac vnic.MAC) (l rtnl.Link, err error) {
	mon, err := rtnl.NewMonitor(c)
	if err != nil {
		return l, err
	}
	stop := context.AfterFunc(ctx, func() { _ = mon.Close() }) // makes Next end
	defer func() {
		if stop() {
			err = errors.Join(err, mon.Close())
		}
	}()
	for {
		u, err := mon.Next() // at first, the links there are
		if err != nil {
			return l, errors.Join(ctx.Err(), err)
		}
		for _, change := range u.Changes {
			if change.Link.HasMAC(mac) && !change.Gone {
				return change.Link, nil
			}
		}
	}
}

// neighbours has the kernel rely on the MACs that it has learned in this namespace.
func neighbours(_ context.Context, args []string, _ io.Writer) error {
	_, rest, err := verb("neighbours", args, "confirm")
	if err != nil {
		return err
	}
	if err := parse(flag.NewFlagSet("neighbours confirm", flag.ContinueOnError), rest); err != nil {
		return err
	}
	h, err := rtnl.New()
	if err != nil {
		return err
	}
	defer h.Close()
	return h.ConfirmNeighbours()
}

// route adds or deletes a route by way of another machine.
func route(_ context.Context, args []string, _ io.Writer) error {
	v, rest, err := verb("route", args, "add", "del")
	if err != nil {
		return err
	}
	var to netip.Prefix
	var via netip.Addr
	f := flag.NewFlagSet("route "+v, flag.ContinueOnError)
	f.TextVar(&to, "to", netip.Prefix{}, "where it leads to, a `prefix`")
	f.TextVar(&via, "via", netip.Addr{}, "the `address` that it leads by")
	dev := f.String("dev", "", "`name` of the link that it leads over")
	if err := parse(f, rest, "to", "via", "dev"); err != nil {
		return err
	}
	return withConn(func(c *rtnl.Conn) error {
		l, err := c.Link(*dev)
		if err != nil {
			return err
		}
		r := rtnl.Route{Route: vnic.Route{Destination: to, Gateway: via}, Index: l.Index}
		if v == "add" {
			return c.Do(rtnl.AddRoute(r))
		}
		return c.Do(rtnl.DelRoute(r).Tolerate(unix.ESRCH))
	})
}

// offloads prints what each link of this namespace has turned on.
func offloads(_ context.Context, args []string, out io.Writer) error {
	if err := parse(flag.NewFlagSet("offloads", flag.ContinueOnError), args); err != nil {
		return err
	}
	on := map[string][]string{}
	err := withConn(func(c *rtnl.Conn) error {
		links, err := c.Links()
		for _, l := range links {
			on[l.Name] = c.Offloads(l.Name)
		}
		return err
	})
	if err != nil {
		return err
	}
	return write(out, on)
}

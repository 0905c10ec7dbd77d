package guestside

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"

	"github.com/brfuse/brfuse/internal/rtnl"
	"github.com/brfuse/brfuse/vnic"
)

// Check compares a vNIC that was moved with its order. A [vnic.ErrDiffers] names
// all that is not as ordered: name, MAC, link, MTU when the order has one,
// addresses and routes. What the pod has beyond the order is its own affair. It is
// a [vnic.ErrUnknownPod] or [vnic.ErrNICMissing] when the pod or the vNIC is not
// there. One that was handed over has to be somewhere, and no more.
func (a *Agent) Check(ctx context.Context, m vnic.Move) (err error) {
	release, err := a.begin(ctx, m)
	if err != nil {
		return err
	}
	defer release()
	if m.Handover {
		return a.checkHandedOver(ctx, m)
	}
	pod, err := a.openPod(m.Netns)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, pod.Close()) }()
	var diffs []string
	err = within(pod, func(c *rtnl.Conn) error {
		diffs, err = a.differences(c, m)
		return err
	})
	if err == nil && len(diffs) > 0 {
		err = fmt.Errorf("%s: %w", strings.Join(diffs, ", "), vnic.ErrDiffers)
	}
	if err != nil {
		return fmt.Errorf("check vnic %s in pod %s: %w", m.MAC, m.Netns, err)
	}
	return nil
}

func (a *Agent) checkHandedOver(ctx context.Context, m vnic.Move) error {
	if _, ok := a.links.find(m.MAC); ok {
		return nil
	}
	p, ok, err := a.search(ctx, m.MAC)
	switch {
	case err != nil:
		return err
	case !ok:
		return fmt.Errorf("check vnic %s: it is in no network namespace of the vm: %w", m.MAC, vnic.ErrNICMissing)
	}
	return p.close()
}

// differences looks at a vNIC by a connection in its pod.
func (a *Agent) differences(c *rtnl.Conn, m vnic.Move) ([]string, error) {
	all, addrs, err := linksAndAddrs(c)
	if err != nil {
		return nil, err
	}
	l, ok := rtnl.FindMAC(all, m.MAC)
	if ok = ok && (l.Kind == "" || l.Kind == a.standIn); !ok {
		l, ok = a.renumbered(all, m)
	}
	if !ok {
		return nil, fmt.Errorf("it is not there: %w", vnic.ErrNICMissing)
	}
	var routes []rtnl.Route
	if err := c.Do(rtnl.GetRoutes(&routes)); err != nil {
		return nil, err
	}
	var diffs []string
	diff := func(differs bool, format string, args ...any) {
		if differs {
			diffs = append(diffs, fmt.Sprintf(format, args...))
		}
	}
	diff(l.Name != m.Interface, "it is named %s, not %s", l.Name, m.Interface)
	diff(l.MAC != m.MAC, "its mac is %s", l.MAC)
	diff(!l.Up, "it is down")
	diff(m.MTU != 0 && l.MTU != m.MTU, "its mtu is %d, not %d", l.MTU, m.MTU)
	have := prefixes(addrs, l.Index)
	for _, p := range m.Addresses {
		diff(!slices.Contains(have, p), "address %s is missing", p)
	}
	for _, r := range m.Routes {
		there := slices.ContainsFunc(routes, func(h rtnl.Route) bool { return h.Index == l.Index && h.Route == r })
		diff(!there, "route %s is missing", routeText(r))
	}
	return diffs, nil
}

// renumbered finds a vNIC by its name whose MAC was changed, where the kernel does
// not tell which one it was made with. That is so for stand-ins only.
func (a *Agent) renumbered(all []rtnl.Link, m vnic.Move) (rtnl.Link, bool) {
	i := slices.IndexFunc(all, func(l rtnl.Link) bool {
		return l.Name == m.Interface && l.Permanent.IsZero() && a.standIn != "" && l.Kind == a.standIn
	})
	if i < 0 {
		return rtnl.Link{}, false
	}
	return all[i], true
}

func routeText(r vnic.Route) string {
	if !r.Gateway.IsValid() {
		return "to " + r.Destination.String()
	}
	return "to " + r.Destination.String() + " via " + r.Gateway.String()
}

// NameFree returns a [vnic.ErrNameTaken] when a pod has an interface of that name,
// a [vnic.ErrUnknownPod] when there is no such pod, and a [vnic.ErrInvalid] when it
// is the vm's own namespace.
func (a *Agent) NameFree(ctx context.Context, netns, iface string) (err error) {
	if err := ctx.Err(); err != nil {
		return err
	}
	if err := vnic.CheckInterface(iface); err != nil {
		return err
	}
	pod, err := a.openPod(netns)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, pod.Close()) }()
	var all []rtnl.Link
	if err := within(pod, func(c *rtnl.Conn) error { return c.Do(rtnl.GetLinks(&all)) }); err != nil {
		return fmt.Errorf("look into pod %s: %w", netns, err)
	}
	return nameFree(all, vnic.Move{Netns: netns, Interface: iface})
}

package libvirtvm

import (
	"context"
	"encoding/json"
	"fmt"
	"regexp"
	"strings"
	"time"

	"github.com/digitalocean/go-libvirt"

	"github.com/brfuse/brfuse/hostside/internal/backend"
	"github.com/brfuse/brfuse/vnic"
)

// orphan is what QEMU has of a vNIC that libvirt doesn't know, since libvirtd died
// in the middle of a plug.
type orphan struct{ device, backend bool }

// backendID is the id that libvirt gives the backend of a vNIC's device in QEMU.
func backendID(id vnic.ID) string { return "host" + alias(id) }

// backendName finds the backends of vNICs in what `info network` prints; see
// backendID. QMP has no query of backends.
var backendName = regexp.MustCompile(`\bhost` + aliasPrefix + `(` + vnic.Prefix + `[0-9a-f]{10})\b`)

// findOrphans looks for orphans. A libvirtd that allows nobody to talk to QEMU has
// to do without.
func (v *VM) findOrphans(ctx context.Context, c *client) error {
	var devices []struct {
		Name string `json:"name"`
	}
	var network string
	err := v.monitor(ctx, c, "qom-list", map[string]any{"path": "/machine/peripheral"}, &devices)
	if err == nil {
		err = v.monitor(ctx, c, "human-monitor-command", map[string]any{"command-line": "info network"}, &network)
	}
	if hasCode(err, libvirt.ErrAuthFailed, libvirt.ErrAccessDenied, libvirt.ErrNoSupport, libvirt.ErrOperationDenied) {
		v.log.Warn("libvirt doesn't let ask QEMU: what an interrupted plug left is not found", "error", err)
		return nil
	}
	if err != nil {
		return err
	}
	found := map[vnic.ID]orphan{}
	for _, d := range devices {
		if id, ok := aliasID(d.Name); ok {
			found[id] = orphan{device: true}
		}
	}
	for _, m := range backendName.FindAllStringSubmatch(network, -1) {
		if id, ok := vnic.IDFromName(m[1]); ok {
			o := found[id]
			o.backend = true
			found[id] = o
		}
	}
	// What libvirt knows is looked at after QEMU: what is plugged meanwhile is no orphan.
	d, err := v.fetch(ctx, c)
	if err != nil {
		return err
	}
	for id := range d.vnics() {
		delete(found, id)
	}
	v.nics.setOrphans(found)
	if len(found) != 0 {
		v.log.Warn("QEMU has devices of interrupted plugs that libvirt doesn't know", "count", len(found))
	}
	return nil
}

// freeTap has QEMU close what it has open of a vNIC's tap: in an orphan, or as
// descriptors that a libvirtd passed just before it died.
func (v *VM) freeTap(ctx context.Context, n backend.NIC) error {
	err := v.do(ctx, func(c *client) error {
		for i := range n.Queues {
			name := fmt.Sprintf("tapfd-%s%d", alias(n.ID), i) // as libvirt calls them
			err := v.monitor(ctx, c, "closefd", map[string]any{"fdname": name}, nil)
			if err != nil && !describes(err, "not found") {
				return err
			}
		}
		return v.findOrphans(ctx, c)
	})
	if err != nil {
		return err
	}
	return v.clearWay(ctx, n.ID, false)
}

// monitor asks QEMU by way of libvirt. QEMU's refusals are libvirt.Errors without code.
func (v *VM) monitor(ctx context.Context, c *client, command string, args map[string]any, into any) error {
	cmd, err := json.Marshal(map[string]any{"execute": command, "arguments": args})
	if err != nil {
		return err
	}
	var text string
	err = c.call(ctx, func() (err error) {
		text, err = c.lv.QEMUDomainMonitorCommand(v.run, string(cmd), 0)
		return err
	})
	if err != nil {
		return fmt.Errorf("ask QEMU by way of libvirt: %s: %w", command, err)
	}
	var answer struct {
		Return json.RawMessage `json:"return"`
		Error  *struct {
			Desc string `json:"desc"`
		} `json:"error"`
	}
	if err := json.Unmarshal([]byte(text), &answer); err != nil {
		return fmt.Errorf("ask QEMU by way of libvirt: %s: %w", command, err)
	}
	if answer.Error != nil {
		return fmt.Errorf("%s: %w", command, libvirt.Error{Message: answer.Error.Desc})
	}
	if into == nil {
		return nil
	}
	if err := json.Unmarshal(answer.Return, into); err != nil {
		return fmt.Errorf("ask QEMU by way of libvirt: %s: decode answer: %w", command, err)
	}
	return nil
}

// removeOrphan removes what QEMU alone has of a vNIC. Hold the lock of id.
func (v *VM) removeOrphan(ctx context.Context, id vnic.ID) error {
	gone := func(err error) bool { return describes(err, "not found") }
	err := v.do(ctx, func(c *client) error { return v.deleteOrphan(ctx, c, id) })
	if err != nil {
		return err
	}
	err = v.do(ctx, func(c *client) error {
		return v.monitor(ctx, c, "netdev_del", map[string]any{"id": backendID(id)}, nil)
	})
	if err != nil && !gone(err) {
		return fmt.Errorf("remove the backend of an interrupted plug: %w", err)
	}
	v.forget(id)
	return nil
}

// deleteOrphan asks the guest to let go of an orphan, and returns when it has.
func (v *VM) deleteOrphan(ctx context.Context, c *client, id vnic.ID) error {
	events, stop, err := v.qemuEvents(ctx, c, id)
	if err != nil {
		return err
	}
	defer stop()
	for {
		err := v.monitor(ctx, c, "device_del", map[string]any{"id": alias(id)}, nil)
		switch {
		case describes(err, "not found"):
			return nil
		case err != nil && !unplugPending(err) && !guestBusy(err):
			return err
		}
		timer := time.NewTimer(v.again())
		select {
		case err = <-events: // and now QEMU doesn't find it any more
		case <-timer.C:
		case <-c.nc.lost:
			err = libvirt.ErrInterrupted
		case <-v.ended:
			err = v.err()
		case <-ctx.Done():
			err = fmt.Errorf("await the guest's release of an interrupted plug's device: %w", context.Cause(ctx))
		}
		timer.Stop()
		if err != nil && !unplugPending(err) && !guestBusy(err) {
			return err
		}
	}
}

// qemuEvents follows QEMU's own events of a device: libvirt has none of one that
// it doesn't know. The channel gets one value.
func (v *VM) qemuEvents(ctx context.Context, c *client, id vnic.ID) (<-chan error, func(), error) { //nolint:contextcheck // they end with stop, or the VM
	life, stop := context.WithCancel(c.life)
	result := make(chan error, 1)
	err := c.call(ctx, func() error {
		events, err := c.lv.SubscribeQEMUEvents(life, v.where.Name)
		if err != nil {
			return err
		}
		c.wg.Go(func() {
			for e := range events { // to its end, or go-libvirt stops
				if err, ok := leaves(e, id); ok {
					select {
					case result <- err:
					default:
					}
				}
			}
		})
		return nil
	})
	if err != nil {
		stop()
		return nil, nil, fmt.Errorf("follow QEMU's events: %w", err)
	}
	return result, stop, nil
}

// leaves tells whether QEMU's event says that a vNIC's device is gone, or, by err,
// why it stays.
func leaves(e libvirt.DomainEvent, id vnic.ID) (err error, ok bool) {
	var data struct {
		Device string `json:"device"`
	}
	_, details, _ := strings.Cut(string(e.Details), "{") // behind the length of the text
	details, _, _ = strings.Cut(details, "\x00")
	if json.Unmarshal([]byte("{"+details), &data) != nil || data.Device != alias(id) {
		return nil, false
	}
	switch e.Event {
	case "DEVICE_DELETED":
		return nil, true
	case "DEVICE_UNPLUG_GUEST_ERROR":
		return errGuestRefused, true
	}
	return nil, false
}

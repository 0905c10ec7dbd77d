package nettopo

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"strings"

	"github.com/brfuse/brfuse/internal/rtnl"
)

// forwardingMark begins the alias of the link that has the gateway while the uplink's forwarding is
// on only for us. The uplink's name follows.
const forwardingMark = "brfuse-bench: Down turns forwarding off at "

// forward lets packets in by the uplink and by the pod's gateway be forwarded.
func (b *builder) forward(context.Context) error {
	gateway := bridgeName
	if b.Kind == Veth {
		gateway = vethName
	}
	if err := rtnl.SetForwarding(gateway, true); err != nil {
		return err
	}
	on, err := rtnl.Forwarding(b.Uplink)
	if err != nil || on {
		return err
	}
	l, err := b.c.Link(gateway)
	if err != nil {
		return err
	}
	// Remembered first: a crash between the two turns off what is off.
	if err := b.c.Do(rtnl.SetLink(l.Index, rtnl.Change{Alias: forwardingMark + b.Uplink})); err != nil {
		return err
	}
	return rtnl.SetForwarding(b.Uplink, true)
}

// unforward undoes what forward did to the uplink, if l remembers that it did.
func unforward(l rtnl.Link) error {
	uplink, ok := strings.CutPrefix(l.Alias, forwardingMark)
	if !ok {
		return nil
	}
	err := rtnl.SetForwarding(uplink, false)
	if err != nil && !errors.Is(err, fs.ErrNotExist) { // the uplink is gone
		return fmt.Errorf("restore: %w", err)
	}
	return nil
}

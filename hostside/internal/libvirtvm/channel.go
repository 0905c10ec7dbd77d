package libvirtvm

import (
	"context"
	"fmt"

	"github.com/digitalocean/go-libvirt"

	"github.com/brfuse/brfuse/vnic"
)

// agentPort is the name of the virtio-serial port that agents use.
const agentPort = "org.brfuse.agent.0"

// channelXML is what a domain without channel lacks.
const channelXML = `<channel type='unix'><target type='virtio' name='` + agentPort + `'/></channel>`

// Channel returns the path of the socket of the domain's agent. libvirt chooses
// it when the domain starts, unless the XML says it. The error is [vnic.ErrNotFound]
// when there is none, and [vnic.ErrUnknownVM] when there is no such domain.
func Channel(ctx context.Context, domain string) (string, error) {
	where, err := vnic.ParseLibvirt(domain)
	if err != nil {
		return "", err
	}
	path, err := channel(ctx, address{where})
	if err != nil {
		return "", fmt.Errorf("channel of domain %s: %w", where.Name, err)
	}
	return path, nil
}

func channel(ctx context.Context, where address) (string, error) {
	c, err := dial(ctx, where)
	if err != nil {
		return "", err
	}
	defer c.close()
	var text string
	err = c.call(ctx, func() error {
		d, err := c.lv.DomainLookupByName(where.Name)
		if err == nil {
			text, err = c.lv.DomainGetXMLDesc(d, 0)
		}
		return err
	})
	if libvirt.IsNotFound(err) {
		return "", fmt.Errorf("libvirt has no such domain, see `virsh list --all`: %w", vnic.ErrUnknownVM)
	}
	if err != nil {
		return "", fmt.Errorf("read its xml: %w", err)
	}
	d, err := parseDomain(text)
	if err != nil {
		return "", err
	}
	return d.channel()
}

// channel returns the path of the agent's socket.
func (d *domain) channel() (string, error) {
	for _, dev := range d.Devices.All {
		if dev.XMLName.Local != "channel" || dev.Target.Name != agentPort {
			continue
		}
		switch {
		case dev.Type != "unix":
			return "", fmt.Errorf("it is of type %s; make it %s: %w", dev.Type, channelXML, vnic.ErrInvalid)
		case dev.Source.Path == "":
			return "", fmt.Errorf("libvirt chooses its path when the domain starts: start it first, or give the path by <source mode='bind' path='...'/>: %w",
				vnic.ErrVMGone)
		}
		return dev.Source.Path, nil
	}
	return "", fmt.Errorf("it has none for brfuse's agent; add %s to its devices, by `virsh edit`, and start it anew: %w", channelXML, vnic.ErrNotFound)
}

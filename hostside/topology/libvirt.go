package topology

import (
	"encoding/xml"
	"fmt"
	"strings"
)

type controller struct {
	XMLName xml.Name `xml:"controller"`
	Type    string   `xml:"type,attr"`
	Index   int      `xml:"index,attr"`
	Model   string   `xml:"model,attr"`
	Alias   alias    `xml:"alias"`
	Target  *chassis `xml:"target"`
	Address *address `xml:"address"`
}

type chassis struct {
	Number int `xml:"chassisNr,attr"`
}

type alias struct {
	Name string `xml:"name,attr"`
}

type address struct {
	Type     string `xml:"type,attr"`
	Domain   string `xml:"domain,attr"`
	Bus      string `xml:"bus,attr"`
	Slot     string `xml:"slot,attr"`
	Function string `xml:"function,attr"`
}

type channel struct {
	XMLName xml.Name `xml:"channel"`
	Type    string   `xml:"type,attr"`
	Source  struct {
		Mode string `xml:"mode,attr"`
		Path string `xml:"path,attr"`
	} `xml:"source"`
	Target struct {
		Type string `xml:"type,attr"`
		Name string `xml:"name,attr"`
	} `xml:"target"`
}

type commandline struct {
	XMLName xml.Name `xml:"qemu:commandline"`
	NS      string   `xml:"xmlns:qemu,attr"`
	Args    []qemuArg
}

type qemuArg struct {
	XMLName xml.Name `xml:"qemu:arg"`
	Value   string   `xml:"value,attr"`
}

// LibvirtXML returns the elements to add to a domain: the first part to
// <devices>, the qemu:commandline after it, if there is one, to <domain>.
func (l Layout) LibvirtXML() string {
	var b strings.Builder
	b.WriteString("<!-- in <devices> -->\n")
	for _, c := range l.controllers() {
		element(&b, c)
	}
	ch := channel{Type: "unix"}
	ch.Source.Mode, ch.Source.Path = "bind", l.Channel
	ch.Target.Type, ch.Target.Name = "virtio", ChannelName
	element(&b, ch)
	b.WriteString("<!-- in <domain> -->\n")
	c := commandline{NS: "http://libvirt.org/schemas/domain/qemu/1.0"}
	for _, a := range append(l.LibvirtArgs(), l.qmpArgs()...) {
		c.Args = append(c.Args, qemuArg{Value: a})
	}
	if len(c.Args) != 0 {
		element(&b, c)
	}
	return b.String()
}

func (l Layout) controllers() (list []controller) {
	next := max(l.FirstIndex, 1)
	add := func(model, id string, on *address) (index int) {
		c := controller{Type: "pci", Index: next, Model: model, Alias: alias{"ua-" + id}, Address: on}
		if model == "pci-bridge" {
			c.Target = &chassis{firstChassis + len(list) + 1}
		}
		list = append(list, c)
		next++
		return c.Index
	}
	top := 0
	if l.kind() == nested {
		top = add("pcie-to-pci-bridge", topID, place(add("pcie-root-port", fmt.Sprintf(portID, 1), nil), 0))
	}
	for i := 1; i <= l.Bridges; i++ {
		id := fmt.Sprintf(bridgeID, i)
		switch l.kind() {
		case flat:
			add("pcie-to-pci-bridge", id, place(add("pcie-root-port", fmt.Sprintf(portID, i), nil), 0))
		case nested:
			add("pci-bridge", id, place(top, i))
		case onRoot:
			add("pci-bridge", id, nil)
		}
	}
	return list
}

func place(bus, slot int) *address {
	return &address{Type: "pci", Domain: "0x0000", Bus: fmt.Sprintf("0x%02x", bus), Slot: fmt.Sprintf("0x%02x", slot), Function: "0x0"}
}

// LibvirtArgs returns the arguments that libvirt must pass on to QEMU, since it
// has no words of its own for them. Those about vNICs go for all virtio NICs.
func (l Layout) LibvirtArgs() (args []string) {
	if l.kind() != flat {
		args = append(args, "-global", "pci-bridge.shpc=off")
		for i := 1; i <= l.Bridges; i++ {
			// QEMU makes devices that are written as JSON last: those of libvirt are.
			args = append(args, "-device", fmt.Sprintf(`{"driver":"%s","bus":"ua-%s","addr":"0x0"}`, placeholder, fmt.Sprintf(bridgeID, i)))
		}
	}
	if n, all := l.vectors(); !all {
		args = append(args, "-global", fmt.Sprintf("virtio-net-pci.vectors=%d", n))
	}
	return args
}

// element writes v with its empty elements in the short form.
func element(b *strings.Builder, v any) {
	text, err := xml.MarshalIndent(v, "", "  ")
	if err != nil {
		panic(err) // types of this file, all of which can be encoded
	}
	s := string(text)
	for _, name := range []string{"alias", "address", "source", "target", "qemu:arg"} {
		s = strings.ReplaceAll(s, "></"+name+">", "/>")
	}
	b.WriteString(s + "\n")
}

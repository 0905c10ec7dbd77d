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
	Address *address `xml:"address"`
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
// <devices>, the qemu:commandline after it to <domain>.
func (l Layout) LibvirtXML() string {
	var b strings.Builder
	b.WriteString("<!-- in <devices> -->\n")
	first := max(l.FirstIndex, 1)
	for i := range l.Bridges {
		port, bridge := first+2*i, first+2*i+1
		element(&b, controller{
			Type: "pci", Index: port, Model: "pcie-root-port", Alias: alias{fmt.Sprintf("ua-"+portID, i+1)},
		})
		element(&b, controller{
			Type: "pci", Index: bridge, Model: "pcie-to-pci-bridge", Alias: alias{fmt.Sprintf("ua-"+bridgeID, i+1)},
			Address: &address{Type: "pci", Domain: "0x0000", Bus: fmt.Sprintf("0x%02x", port), Slot: "0x00", Function: "0x0"},
		})
	}
	ch := channel{Type: "unix"}
	ch.Source.Mode, ch.Source.Path = "bind", l.Channel
	ch.Target.Type, ch.Target.Name = "virtio", ChannelName
	element(&b, ch)
	b.WriteString("<!-- in <domain> -->\n")
	element(&b, commandline{
		NS:   "http://libvirt.org/schemas/domain/qemu/1.0",
		Args: []qemuArg{{Value: "-qmp"}, {Value: "unix:" + escape(l.QMP) + ",server=on,wait=off"}},
	})
	return b.String()
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

package vmlab

import (
	"bytes"
	"context"
	"crypto/sha256"
	"encoding/xml"
	"errors"
	"fmt"
	"io/fs"
	"net"
	"os"
	"strings"
	"text/template"

	"github.com/brfuse/brfuse/hostside/topology"
)

// Libvirt is a libvirtd that guests may run under.
type Libvirt interface {
	// Start defines a domain, or defines it again, and starts it.
	Start(ctx context.Context, name, domainXML string) error
	// Domain returns what brfuse takes for a domain's name: "URI/NAME".
	Domain(name string) string
}

// domainXML is a guest as libvirt describes it. What only the lab has to do with is
// added to QEMU's arguments.
var domainXML = template.Must(template.New("domain").Funcs(template.FuncMap{"x": escapeXML}).Parse(`<domain type='{{x .Type}}' xmlns:qemu='http://libvirt.org/schemas/domain/qemu/1.0'>
  <name>{{x .Name}}</name>
  <uuid>{{.UUID}}</uuid>
  <memory unit='MiB'>{{.Mem}}</memory>
  <vcpu>{{.CPUs}}</vcpu>
  <os>
    <type arch='x86_64' machine='q35'>hvm</type>
    <kernel>{{x .Kernel}}</kernel>
    <initrd>{{x .Initrd}}</initrd>
    <cmdline>{{x .Cmdline}}</cmdline>
  </os>
  <features><acpi/><apic/></features>
  {{.CPU}}
  <on_poweroff>destroy</on_poweroff>
  <on_reboot>{{if .Reboots}}restart{{else}}destroy{{end}}</on_reboot>
  <on_crash>destroy</on_crash>
  <devices>
    <emulator>{{x .QEMU}}</emulator>
    <controller type='usb' model='none'/>
    <controller type='pci' index='0' model='pcie-root'/>
{{.Devices}}
    <controller type='virtio-serial' index='0'><address type='pci' domain='0x0000' bus='0x00' slot='0x1e' function='0x0'/></controller>
    <channel type='unix'><source mode='connect' path='{{x .LabPort}}'/><target type='virtio' name='org.brfuse.lab.0'/></channel>
    <serial type='file'><source path='{{x .Serial}}' append='on'/><target port='0'/></serial>
    <memballoon model='none'/>
  </devices>
  <qemu:commandline>
{{- range .Args}}
    <qemu:arg value='{{x .}}'/>
{{- end}}
  </qemu:commandline>
</domain>
`))

func escapeXML(s string) (string, error) {
	var b bytes.Buffer
	err := xml.EscapeText(&b, []byte(s))
	return b.String(), err
}

// domain returns the guest's XML for libvirt.
func (c Config) domain(kernel, qemu, accel string) (string, error) {
	layout, err := topology.PlanFor(topology.Wish{VNICs: c.VNICs, CPUs: c.CPUs})
	if err != nil {
		return "", err
	}
	layout.Channel = c.file("agent")
	devices, _, ok := strings.Cut(layout.LibvirtXML(), "<!-- in <domain> -->")
	if !ok {
		return "", errors.New("the XML of package topology has no part for the domain")
	}
	args := append(layout.LibvirtArgs(),
		"-chardev", "socket,id=labqmp,path="+c.file("labqmp"), "-mon", "labqmp,mode=control")
	if c.Disk != "" {
		args = append(args, "-drive", "if=virtio,format=raw,snapshot="+onOff(!c.KeepWrites)+",file="+c.Disk)
	}
	typ, cpu := "qemu", "<cpu mode='maximum'/>"
	if accel == "kvm" {
		typ, cpu = "kvm", "<cpu mode='host-passthrough'><feature policy='disable' name='arch-capabilities'/></cpu>"
	}
	var b strings.Builder
	err = domainXML.Execute(&b, struct {
		Config
		UUID, Type, CPU, Kernel, Cmdline, QEMU, Devices, LabPort, Serial string

		Args []string
	}{
		Config: c, UUID: c.uuid(), Type: typ, CPU: cpu, Kernel: kernel, Cmdline: c.cmdline(), QEMU: qemu, Devices: devices,
		LabPort: c.file("labport"), Serial: c.file("serial"), Args: append(args, c.ExtraArgs...),
	})
	return b.String(), err
}

// uuid is the same for the same VM, as libvirt wants it of one that is defined again.
func (c Config) uuid() string {
	h := sha256.Sum256([]byte(c.Dir + "/" + c.Name))
	h[6], h[8] = h[6]&0x0f|0x40, h[8]&0x3f|0x80 // RFC 9562, version 4
	return fmt.Sprintf("%x-%x-%x-%x-%x", h[:4], h[4:6], h[6:8], h[8:10], h[10:16])
}

// startDomain has libvirt start the guest. QEMU connects to both of the lab's
// sockets while it starts.
func (vm *VM) startDomain(ctx context.Context) (err error) {
	port, err := listen(vm.cfg.file("labport"))
	if err != nil {
		return err
	}
	defer port.Close()
	mon, err := listen(vm.cfg.file("labqmp"))
	if err != nil {
		return err
	}
	defer mon.Close()
	text, err := vm.cfg.domain(vm.lab.Kernel.Image, vm.lab.qemu, vm.lab.Accel)
	if err != nil {
		return err
	}
	if err := vm.cfg.Libvirt.Start(ctx, vm.cfg.Name, text); err != nil {
		return err
	}
	labConn, err := port.accept(ctx)
	if err != nil {
		return fmt.Errorf("await qemu at the lab's port: %w", err)
	}
	proc, err := peerProcess(labConn)
	if err != nil {
		return errors.Join(err, labConn.Close())
	}
	monConn, err := mon.accept(ctx)
	if err != nil {
		proc.Kill()
		return errors.Join(fmt.Errorf("await qemu at the lab's monitor: %w", err), labConn.Close())
	}
	vm.proc, vm.sess, vm.mon = proc, newSession(labConn), newMonitor(monConn)
	return nil
}

// listener is a unix socket that takes one connection. Its file goes with it.
type listener struct{ *net.UnixListener }

func listen(path string) (listener, error) {
	if err := os.Remove(path); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return listener{}, err
	}
	l, err := net.ListenUnix("unix", &net.UnixAddr{Name: path, Net: "unix"})
	return listener{l}, err
}

func (l listener) accept(ctx context.Context) (*net.UnixConn, error) {
	if deadline, ok := ctx.Deadline(); ok {
		if err := l.SetDeadline(deadline); err != nil {
			return nil, err
		}
	}
	return l.AcceptUnix()
}

package libvirtvm

import (
	"fmt"
	"os"
	"path/filepath"

	"github.com/brfuse/brfuse/vnic"
)

// address is where a domain is.
type address struct{ vnic.LibvirtDomain }

// Names of the sockets of a libvirtd for all drivers, and of one for QEMU alone.
var socketNames = []string{"libvirt-sock", "virtqemud-sock"}

// uri is what libvirtd is asked to open.
func (a address) uri() string {
	if a.Session {
		return "qemu:///session"
	}
	return "qemu:///system"
}

// socket is libvirtd's socket: the given one, or the first usual one that exists.
func (a address) socket() string {
	if a.Socket != "" {
		return a.Socket
	}
	dir := "/run/libvirt"
	if a.Session {
		dir = filepath.Join(runtimeDir(), "libvirt")
	}
	for _, name := range socketNames {
		path := filepath.Join(dir, name)
		if _, err := os.Stat(path); err == nil {
			return path
		}
	}
	return filepath.Join(dir, socketNames[0])
}

// runtimeDir is where the user's sockets are.
func runtimeDir() string {
	if dir := os.Getenv("XDG_RUNTIME_DIR"); dir != "" {
		return dir
	}
	return fmt.Sprintf("/run/user/%d", os.Getuid())
}

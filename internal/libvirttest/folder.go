package libvirttest

import (
	"bytes"
	"errors"
	"os"
	"path/filepath"
)

// Settings of the daemon and of its QEMU driver. With another user than root,
// libvirtd probes QEMU anew for each domain where /dev/kvm is root's alone: that
// takes over a minute. There is no virtlogd to write logs, and nothing to confine.
const (
	daemonConf = `unix_sock_group = "root"
auth_unix_rw = "none"
auth_unix_ro = "none"
log_outputs = "2:file:/var/log/libvirt/libvirtd.log"
`
	qemuConf = `user = "root"
group = "root"
stdio_handler = "file"
security_driver = "none"
cgroup_controllers = [ ]
namespaces = [ ]
`
)

// The user that libvirt's QEMU driver looks for before it reads its settings.
const (
	driverUser  = "libvirt-qemu"
	driverEntry = driverUser + ":x:64055:64055::/nonexistent:/usr/sbin/nologin\n"
	driverGroup = driverUser + ":x:64055:\n"
)

// makeFolder makes the files that the daemon finds in place of the machine's.
func makeFolder() (dir string, err error) {
	dir, err = os.MkdirTemp("", "brflv")
	if err != nil {
		return "", err
	}
	defer func() {
		if err != nil {
			err = errors.Join(err, os.RemoveAll(dir))
		}
	}()
	for _, d := range []string{"etc", "run/libvirt", "lib/libvirt", "log/libvirt", "cache/libvirt"} {
		if err := os.MkdirAll(filepath.Join(dir, d), 0o755); err != nil {
			return "", err
		}
	}
	files := map[string]string{"etc/libvirtd.conf": daemonConf, "etc/qemu.conf": qemuConf}
	for name, entry := range map[string]string{"passwd": driverEntry, "group": driverGroup} {
		b, err := os.ReadFile("/etc/" + name)
		if err != nil {
			return "", err
		}
		if !bytes.Contains(b, []byte(driverUser+":")) {
			b = append(b, entry...)
		}
		files[name] = string(b)
	}
	for name, text := range files {
		if err := os.WriteFile(filepath.Join(dir, name), []byte(text), 0o644); err != nil {
			return "", err
		}
	}
	return dir, nil
}

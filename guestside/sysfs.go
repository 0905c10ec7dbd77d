package guestside

import (
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"time"

	"golang.org/x/sys/unix"

	"github.com/brfuse/brfuse/internal/rtnl"
)

// Where the kernel shows devices. What is in /sys/class/net is that of the first
// namespace, as long as nobody mounts another /sys over it.
const (
	pciDevices    = "/sys/bus/pci/devices"
	virtioDrivers = "/sys/bus/virtio/drivers/" + virtioDriver
	netDevices    = "/sys/class/net"
)

// Settings of a link, such as whether its MAC was given to it, and of each of its
// queues that only files tell.
var (
	linkFiles = []string{"addr_assign_type", "gro_flush_timeout", "napi_defer_hard_irqs", "threaded"}
	rxFiles   = []string{"rps_cpus", "rps_flow_cnt"}
	txFiles   = []string{
		"xps_cpus", "xps_rxqs", "byte_queue_limits/limit_max", "byte_queue_limits/limit_min",
		"byte_queue_limits/hold_time", "tx_maxrate",
	}
)

// sysfsFacts returns those settings. Files that there are not are no facts.
func sysfsFacts(name string) (rtnl.Facts, error) {
	// The files are found from there, since each way through /sys takes time.
	dir, err := unix.Open(filepath.Join(netDevices, name), unix.O_PATH|unix.O_DIRECTORY|unix.O_CLOEXEC, 0)
	if err != nil {
		return nil, fmt.Errorf("look at %s in %s: %w", name, netDevices, err)
	}
	defer unix.Close(dir)
	f := rtnl.Facts{}
	for _, file := range linkFiles {
		addFile(f, dir, file)
	}
	for prefix, files := range map[string][]string{"rx-": rxFiles, "tx-": txFiles} {
		for i := 0; ; i++ {
			queue := "queues/" + prefix + strconv.Itoa(i) + "/"
			// Each kernel that has queues has the last of the files.
			if !addFile(f, dir, queue+files[len(files)-1]) {
				break
			}
			for _, file := range files[:len(files)-1] {
				addFile(f, dir, queue+file)
			}
		}
	}
	return f, nil
}

// addFile makes what is in a file a fact, and tells whether there is such a file.
func addFile(f rtnl.Facts, dir int, file string) bool {
	s, err := readSmall(dir, file)
	if err == nil {
		f[file] = s
	}
	return err == nil
}

// readSmall reads a file of the kernel's by as few system calls as possible. Its
// path is relative to the folder dir.
func readSmall(dir int, path string) (string, error) {
	fd, err := unix.Openat(dir, path, unix.O_RDONLY|unix.O_CLOEXEC, 0)
	if err != nil {
		return "", err
	}
	defer unix.Close(fd)
	var buf [512]byte
	n, err := unix.Read(fd, buf[:])
	if err != nil {
		return "", err
	}
	return string(buf[:n]), nil
}

// neighbourFacts returns in what the settings for a link's neighbours are not the
// defaults, with which every new link and every link that is moved starts.
func neighbourFacts(name string) rtnl.Facts {
	f := rtnl.Facts{}
	for _, family := range []string{"ipv4", "ipv6"} {
		dir := "/proc/sys/net/" + family + "/neigh/"
		entries, err := os.ReadDir(dir + name)
		if err != nil {
			continue // the kernel or the link has no such family
		}
		for _, e := range entries {
			now, err := readSmall(unix.AT_FDCWD, dir+name+"/"+e.Name())
			if err != nil {
				continue
			}
			if initial, err := readSmall(unix.AT_FDCWD, dir+"default/"+e.Name()); err == nil && now != initial {
				f[family+" neighbours' "+e.Name()] = now
			}
		}
	}
	return f
}

// age returns for how long a PCI device has been there, and false when the kernel
// doesn't tell: it counts for how long a device was awake, which one of virtio
// always is.
func age(pci string) (time.Duration, bool) {
	if pci == "" {
		return 0, false
	}
	s, err := readSmall(unix.AT_FDCWD, filepath.Join(pciDevices, pci, "power/runtime_active_time"))
	if err != nil {
		return 0, false
	}
	ms, err := strconv.ParseInt(strings.TrimSpace(s), 10, 64)
	return time.Duration(ms) * time.Millisecond, err == nil && ms > 0
}

// Package netnsx is brfuse's one door to network namespaces: it opens them,
// makes them, tells them apart and runs functions inside of them. No other
// package calls setns or locks threads.
//
// A [NS] keeps its namespace alive. With a dead pod's namespace, that keeps
// the pod's vNIC from coming back: hold the NS of a pod for one call, not longer.
package netnsx

import (
	"errors"
	"fmt"
	"io/fs"
	"path/filepath"
	"strings"

	"golang.org/x/sys/unix"

	"github.com/brfuse/brfuse/vnic"
)

// Dir is where named namespaces are mounted (ip-netns(8)).
const Dir = "/run/netns"

// self is the calling thread's namespace.
const self = "/proc/thread-self/ns/net"

// ID tells namespaces apart. It is comparable. The kernel may give the ID of a
// dead namespace to a new one.
type ID struct{ Dev, Ino uint64 }

// NS is an open network namespace. It is safe for concurrent use until closed.
type NS struct {
	fd int
	id ID
}

// Current returns the calling thread's namespace.
func Current() (*NS, error) {
	ns, err := open(self)
	if err != nil {
		return nil, fmt.Errorf("open the current network namespace: %w", err)
	}
	return ns, nil
}

// Open opens the namespace of a pod: by its name in [Dir], by an absolute path,
// or, when ref is all digits, by the id of a process in it. When there is no
// such namespace, the error is [vnic.ErrUnknownPod].
func Open(ref string) (*NS, error) {
	path, err := Path(ref)
	if err != nil {
		return nil, err
	}
	ns, err := open(path)
	switch {
	case err == nil:
		return ns, nil
	case errors.Is(err, fs.ErrNotExist), errors.Is(err, unix.ESRCH), errors.Is(err, unix.ENOTDIR),
		errors.Is(err, unix.ENXIO), errors.Is(err, errNoNetns): // ENXIO: a socket
		return nil, fmt.Errorf("open network namespace %q: %w: %w; %s", ref, err, vnic.ErrUnknownPod, remedy)
	default:
		return nil, fmt.Errorf("open network namespace %q: %w", ref, err)
	}
}

const remedy = "name one that `ip netns list` shows in the vm, or give its absolute path or the id of a process in it"

// Path returns where the namespace that ref names is to be found. It need not exist.
func Path(ref string) (string, error) {
	switch {
	case filepath.IsAbs(ref):
		return ref, nil
	case ref == "" || ref == "." || ref == ".." || strings.Contains(ref, "/"):
		return "", fmt.Errorf("network namespace %q is no name: %w; %s", ref, vnic.ErrUnknownPod, remedy)
	case strings.Trim(ref, "0123456789") == "":
		return "/proc/" + ref + "/ns/net", nil
	}
	return filepath.Join(Dir, ref), nil
}

// errNoNetns is returned for a file that is no network namespace, such as
// what is left of a named one once it is unmounted.
var errNoNetns = errors.New("not a network namespace")

// open opens the namespace at path. The path may come from outside: a pipe
// must not block, and a terminal must not become ours.
func open(path string) (*NS, error) {
	fd, err := unix.Open(path, unix.O_RDONLY|unix.O_CLOEXEC|unix.O_NONBLOCK|unix.O_NOCTTY, 0)
	if err != nil {
		return nil, err
	}
	ns := &NS{fd: fd}
	if err := ns.identify(); err != nil {
		return nil, errors.Join(err, ns.Close())
	}
	return ns, nil
}

func (n *NS) identify() error {
	if kind, err := unix.IoctlRetInt(n.fd, unix.NS_GET_NSTYPE); err != nil || kind != unix.CLONE_NEWNET {
		return errNoNetns
	}
	var st unix.Stat_t
	if err := unix.Fstat(n.fd, &st); err != nil {
		return fmt.Errorf("stat: %w", err)
	}
	n.id = ID{Dev: st.Dev, Ino: st.Ino}
	return nil
}

// ID returns what tells n from other namespaces.
func (n *NS) ID() ID { return n.id }

// FD returns n's descriptor, which stays n's. It is what netlink attributes
// such as IFLA_NET_NS_FD take.
func (n *NS) FD() int { return n.fd }

// Close lets go of the namespace. It is called once.
func (n *NS) Close() error {
	if err := unix.Close(n.fd); err != nil {
		return fmt.Errorf("close network namespace: %w", err)
	}
	return nil
}

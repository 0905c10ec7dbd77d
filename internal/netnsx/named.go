package netnsx

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strconv"

	"golang.org/x/sys/unix"

	"github.com/brfuse/brfuse/vnic"
)

// Add makes a network namespace of that name in [Dir]. It lasts until [Remove],
// also when this process ends. Its loopback is down. When there is something of that
// name, the error is [fs.ErrExist]. The caller closes what is returned.
func Add(name string) (*NS, error) {
	ns, err := add(name)
	if err != nil {
		return nil, fmt.Errorf("add network namespace %s: %w", name, err)
	}
	return ns, nil
}

func add(name string) (*NS, error) {
	path, err := namePath(name)
	if err != nil {
		return nil, err
	}
	if err := os.MkdirAll(Dir, 0o755); err != nil {
		return nil, err
	}
	f, err := os.OpenFile(path, os.O_CREATE|os.O_EXCL|os.O_RDONLY, 0o444)
	if err != nil {
		return nil, err
	}
	if err := f.Close(); err != nil {
		return nil, errors.Join(err, os.Remove(path))
	}
	ns, err := New()
	if err != nil {
		return nil, errors.Join(err, os.Remove(path))
	}
	if err := unix.Mount("/proc/self/fd/"+strconv.Itoa(ns.fd), path, "", unix.MS_BIND, ""); err != nil {
		return nil, errors.Join(fmt.Errorf("mount: %w", err), ns.Close(), os.Remove(path))
	}
	return ns, nil
}

// namePath returns where the namespace of that name is mounted. References of other
// kinds, such as paths, are no names.
func namePath(name string) (string, error) {
	path, err := Path(name)
	if err == nil && filepath.Dir(path) != Dir {
		err = fmt.Errorf("network namespace %q is no name: %w; choose one with a letter and without a slash", name, vnic.ErrInvalid)
	}
	return path, err
}

// Exists tells whether there is something of that name in [Dir], be it a namespace or
// what a broken [Add] left of one.
func Exists(name string) (bool, error) {
	path, err := namePath(name)
	if err == nil {
		_, err = os.Lstat(path)
	}
	if errors.Is(err, fs.ErrNotExist) {
		return false, nil
	}
	if err != nil {
		return false, fmt.Errorf("look for network namespace: %w", err)
	}
	return true, nil
}

// Remove takes the name from a network namespace in [Dir], and what a broken [Add]
// left of one. The namespace ends when nothing else holds it. One that is not there is
// no error.
func Remove(name string) error {
	path, err := namePath(name)
	if err != nil {
		return fmt.Errorf("remove network namespace: %w", err)
	}
	err = unix.Unmount(path, unix.MNT_DETACH|unix.UMOUNT_NOFOLLOW)
	if err == nil || errors.Is(err, unix.EINVAL) || errors.Is(err, unix.ENOENT) { // EINVAL: not mounted
		err = os.Remove(path)
	}
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return fmt.Errorf("remove network namespace %s: %w", name, err)
	}
	return nil
}

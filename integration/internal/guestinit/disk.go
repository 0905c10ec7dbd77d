package main

import (
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"time"

	"golang.org/x/sys/unix"
)

const (
	newRoot  = "/newroot"
	diskWait = 20 * time.Second
)

// moveToDisk makes the file system on device the root, if one is named. What
// the initramfs has beside it is copied there: the image's files over those that
// are there, all else where nothing of that name is.
func moveToDisk() error {
	device, ok := cmdline("brfuse.root")
	if !ok {
		return nil
	}
	if err := awaitFile(device, diskWait); err != nil {
		return fmt.Errorf("root disk: %w", err)
	}
	if err := os.MkdirAll(newRoot, 0o755); err != nil {
		return err
	}
	if err := unix.Mount(device, newRoot, "ext4", 0, ""); err != nil {
		return fmt.Errorf("mount %s: %w", device, err)
	}
	if err := removeReplaced("/etc/imagefiles", newRoot); err != nil {
		return fmt.Errorf("replace files on disk: %w", err)
	}
	if err := copyMissing("/", newRoot); err != nil {
		return fmt.Errorf("copy initramfs to disk: %w", err)
	}
	return switchRoot()
}

// switchRoot makes newRoot the root of this process and of all that it starts.
// The initramfs can't be unmounted, and pivot_root doesn't take it, so it is
// mounted over.
func switchRoot() error {
	for _, dir := range []string{"/proc", "/sys", "/dev", "/run", "/tmp"} {
		if err := os.MkdirAll(newRoot+dir, 0o755); err != nil {
			return err
		}
		if err := unix.Mount(dir, newRoot+dir, "", unix.MS_MOVE, ""); err != nil {
			return fmt.Errorf("move %s: %w", dir, err)
		}
	}
	if err := unix.Chdir(newRoot); err != nil {
		return err
	}
	if err := unix.Mount(".", "/", "", unix.MS_MOVE, ""); err != nil {
		return fmt.Errorf("move root: %w", err)
	}
	if err := unix.Chroot("."); err != nil {
		return fmt.Errorf("change root: %w", err)
	}
	return unix.Chdir("/")
}

// removeReplaced removes the files under root that a JSON list of paths names.
func removeReplaced(list, root string) error {
	b, err := os.ReadFile(list)
	if err != nil {
		return err
	}
	var paths []string
	if err := json.Unmarshal(b, &paths); err != nil {
		return fmt.Errorf("decode %s: %w", list, err)
	}
	for _, path := range paths {
		if err := os.Remove(filepath.Join(root, path)); err != nil && !errors.Is(err, fs.ErrNotExist) {
			return err
		}
	}
	return nil
}

// copyMissing copies what of the file system of from is not there in to. Kernel
// modules are loaded by now, and mounted file systems stay where they are.
func copyMissing(from, to string) error {
	var root unix.Stat_t
	if err := unix.Stat(from, &root); err != nil {
		return err
	}
	return filepath.WalkDir(from, func(path string, d fs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		var st unix.Stat_t
		if err := unix.Lstat(path, &st); err != nil {
			return err
		}
		if d.IsDir() && (st.Dev != root.Dev || path == "/lib/modules" || path == to) {
			return fs.SkipDir
		}
		dest := filepath.Join(to, path)
		if _, err := os.Lstat(dest); !errors.Is(err, fs.ErrNotExist) {
			return err
		}
		switch d.Type() {
		case fs.ModeDir:
			return os.MkdirAll(dest, 0o755)
		case fs.ModeSymlink:
			target, err := os.Readlink(path)
			if err != nil {
				return err
			}
			return os.Symlink(target, dest)
		case 0:
			return copyFile(path, dest, fs.FileMode(st.Mode&0o777))
		}
		return nil
	})
}

func copyFile(from, to string, mode fs.FileMode) error {
	b, err := os.ReadFile(from)
	if err != nil {
		return err
	}
	return os.WriteFile(to, b, mode)
}

// awaitFile waits for a device that the kernel is about to make: devtmpfs tells
// of nothing, so it is looked at again and again.
func awaitFile(path string, limit time.Duration) error {
	tick := time.NewTicker(10 * time.Millisecond)
	defer tick.Stop()
	for end := time.Now().Add(limit); ; <-tick.C {
		_, err := os.Stat(path)
		if err == nil {
			return nil
		}
		if time.Now().After(end) {
			return fmt.Errorf("not there after %v: %w", limit, err)
		}
	}
}

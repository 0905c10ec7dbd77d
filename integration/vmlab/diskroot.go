package vmlab

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"maps"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
)

// finish removes and adds what the recipe says.
func (d Disk) finish(root string) error {
	for _, pattern := range d.Remove {
		paths, err := filepath.Glob(filepath.Join(root, pattern))
		if err != nil {
			return err
		}
		if len(paths) == 0 {
			return fmt.Errorf("remove %s: nothing of that name in the packages", pattern)
		}
		for _, p := range paths {
			if err := os.RemoveAll(p); err != nil {
				return err
			}
		}
	}
	for _, name := range slices.Sorted(maps.Keys(d.Links)) {
		path := filepath.Join(root, name)
		if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
			return err
		}
		if err := os.Symlink(d.Links[name], path); err != nil {
			return err
		}
	}
	for _, path := range slices.Sorted(maps.Keys(d.Files)) {
		if err := putFile(filepath.Join(root, path), d.Files[path], strings.HasSuffix(path, "/")); err != nil {
			return err
		}
	}
	return nil
}

// putFile replaces what a package may have there, and never writes through a
// link of its.
func putFile(dest string, content []byte, dir bool) error {
	if dir {
		return os.MkdirAll(dest, 0o755)
	}
	if err := os.MkdirAll(filepath.Dir(dest), 0o755); err != nil {
		return err
	}
	if err := os.Remove(dest); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return err
	}
	return os.WriteFile(dest, content, 0o644)
}

// mergedRoot makes the folders that Debian's packages expect to be links.
func mergedRoot(root string) error {
	for _, dir := range []string{"bin", "sbin", "lib", "lib64"} {
		if err := os.MkdirAll(filepath.Join(root, "usr", dir), 0o755); err != nil {
			return err
		}
		if err := os.Symlink("usr/"+dir, filepath.Join(root, dir)); err != nil {
			return err
		}
	}
	return nil
}

// unpack unpacks a package without its documentation.
func unpack(ctx context.Context, deb, root string) error {
	from := exec.CommandContext(ctx, "dpkg-deb", "--fsys-tarfile", deb)
	to := exec.CommandContext(ctx, "tar", "-x", "-C", root, "--keep-directory-symlink",
		"--exclude=./usr/share/doc", "--exclude=./usr/share/man", "--exclude=./usr/share/locale")
	pipe, err := from.StdoutPipe()
	if err != nil {
		return err
	}
	to.Stdin = pipe
	if err := from.Start(); err != nil {
		return err
	}
	_, err = runTool(to, root)
	if werr := from.Wait(); werr != nil {
		return errors.Join(fmt.Errorf("read package %s: %w", filepath.Base(deb), werr), err)
	}
	return err
}

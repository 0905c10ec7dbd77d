package vmlab

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"runtime"
	"strings"
)

// kernelPackage depends on the newest kernel that Debian has for VMs.
const kernelPackage = "linux-image-cloud-amd64"

// Kernel is an unpacked kernel package.
type Kernel struct {
	Release string // as uname -r tells it
	Image   string // path of the bzImage
	modules string // path of lib/modules/RELEASE
}

// fetchKernel returns the cached kernel. It downloads and unpacks Debian's
// newest one, once, when there is none. It installs nothing.
func fetchKernel(ctx context.Context, cache string) (Kernel, error) {
	if runtime.GOARCH != "amd64" {
		return Kernel{}, fmt.Errorf("guest kernel: only amd64 is supported, this is %s", runtime.GOARCH)
	}
	current := filepath.Join(cache, "kernel", "current")
	if k, err := openKernel(current); err == nil {
		return k, nil
	}
	if err := os.MkdirAll(filepath.Dir(current), 0o755); err != nil {
		return Kernel{}, err
	}
	unlock, err := lock(ctx, current+".lock")
	if err != nil {
		return Kernel{}, err
	}
	defer unlock()
	if k, err := openKernel(current); err == nil {
		return k, nil // another process was faster
	}
	if err := download(ctx, current); err != nil {
		return Kernel{}, fmt.Errorf("fetch guest kernel: %w", err)
	}
	return openKernel(current)
}

// openKernel finds the kernel in a folder that a package was unpacked in.
func openKernel(root string) (Kernel, error) {
	images, err := filepath.Glob(filepath.Join(root, "boot", "vmlinuz-*"))
	if err != nil {
		return Kernel{}, fmt.Errorf("find kernel in %s: %w", root, err)
	}
	if len(images) != 1 {
		return Kernel{}, fmt.Errorf("find kernel in %s: want one image, have %q", root, images)
	}
	release := strings.TrimPrefix(filepath.Base(images[0]), "vmlinuz-")
	k := Kernel{Release: release, Image: images[0], modules: filepath.Join(root, "lib/modules", release)}
	if _, err := os.Stat(k.modules); err != nil {
		return Kernel{}, fmt.Errorf("find modules of kernel %s: %w", release, err)
	}
	return k, nil
}

// download makes current a link to the unpacked newest kernel package.
func download(ctx context.Context, current string) error {
	work, err := os.MkdirTemp(filepath.Dir(current), "new-")
	if err != nil {
		return err
	}
	defer os.RemoveAll(work)
	if err := downloadPackage(ctx, work); err != nil {
		// The package lists may be missing, or name files that are gone.
		if _, uerr := output(ctx, work, "apt-get", "-q", "update"); uerr != nil {
			return errors.Join(err, uerr)
		}
		if err := downloadPackage(ctx, work); err != nil {
			return err
		}
	}
	debs, err := filepath.Glob(filepath.Join(work, "*.deb"))
	if err != nil {
		return err
	}
	if len(debs) != 1 {
		return fmt.Errorf("want one downloaded package, have %q", debs)
	}
	root := filepath.Join(work, "root")
	if _, err := output(ctx, work, "dpkg-deb", "-x", debs[0], root); err != nil {
		return err
	}
	name := strings.TrimSuffix(filepath.Base(debs[0]), ".deb")
	return install(root, filepath.Join(filepath.Dir(current), name), current)
}

// install puts a whole tree in place and then points the link at it, so that
// whoever follows the link finds all or nothing.
func install(root, dest, link string) error {
	if err := os.RemoveAll(dest); err != nil {
		return err
	}
	if err := os.Rename(root, dest); err != nil {
		return err
	}
	next := link + ".new"
	if err := os.RemoveAll(next); err != nil {
		return err
	}
	if err := os.Symlink(filepath.Base(dest), next); err != nil {
		return err
	}
	return os.Rename(next, link)
}

func downloadPackage(ctx context.Context, dir string) error {
	out, err := output(ctx, dir, "apt-cache", "depends", kernelPackage)
	if err != nil {
		return err
	}
	for line := range strings.Lines(out) {
		if name, ok := strings.CutPrefix(strings.TrimSpace(line), "Depends: "); ok {
			// As root, apt would warn that its own user can't write here.
			_, err := output(ctx, dir, "apt-get", "-q", "-o", "APT::Sandbox::User=root", "download", name)
			return err
		}
	}
	return fmt.Errorf("package %s is unknown or depends on nothing", kernelPackage)
}

package vmlab

import (
	"context"
	"crypto/sha256"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"maps"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"time"
)

// Disk is the recipe of a root file system made of Debian packages. No script of
// theirs is run: what those would have made is to be among Files and Links.
type Disk struct {
	// Name is for people, and a part of the file's name. Required.
	Name string
	// Packages are Debian's names; what they depend on comes along, what they
	// recommend does not.
	Packages []string
	// Files are put over it: path -> content. Those that end in '/' are folders.
	Files map[string][]byte
	// Links are symbolic links: path -> target.
	Links map[string]string
	// Remove are paths, or patterns of [filepath.Match], that guests don't need.
	Remove []string
	// MiB is the size of the file system. The file has holes.
	MiB int
}

// BuildDisk returns the file of a root file system for [Config.Disk]. It is made
// once for each recipe and each set of package versions, which takes some ten
// seconds and 120 MB of downloads for container engines; later calls only ask apt
// which versions there are. Older ones of the same name are removed.
func (l *Lab) BuildDisk(ctx context.Context, d Disk) (string, error) {
	file, err := l.buildDisk(ctx, d)
	if err != nil {
		return "", fmt.Errorf("build disk %s: %w", d.Name, err)
	}
	return file, nil
}

func (l *Lab) buildDisk(ctx context.Context, d Disk) (string, error) {
	dir := filepath.Join(l.cache, "disk")
	if err := os.MkdirAll(dir, 0o755); err != nil {
		return "", err
	}
	unlock, err := lock(ctx, filepath.Join(dir, d.Name+".lock"))
	if err != nil {
		return "", err
	}
	defer unlock()
	work, err := os.MkdirTemp(dir, "new-")
	if err != nil {
		return "", err
	}
	defer os.RemoveAll(work)
	apt, err := newApt(work, d.Packages)
	if err != nil {
		return "", err
	}
	versions, err := apt.resolve(ctx)
	if err != nil {
		return "", err
	}
	sum, err := d.sum(versions)
	if err != nil {
		return "", err
	}
	file := filepath.Join(dir, d.Name+"-"+sum+".ext4")
	if _, err := os.Stat(file); err == nil {
		return file, nil
	}
	began := time.Now()
	if err := d.make(ctx, apt, work); err != nil {
		return "", err
	}
	if err := removeOld(filepath.Join(dir, d.Name+"-*.ext4")); err != nil {
		return "", err
	}
	l.log.Info("disk is built", "name", d.Name, "took", time.Since(began))
	return file, os.Rename(filepath.Join(work, "disk"), file)
}

func removeOld(pattern string) error {
	old, err := filepath.Glob(pattern)
	if err != nil {
		return err
	}
	for _, f := range old {
		err = errors.Join(err, os.Remove(f))
	}
	return err
}

// sum identifies what a disk is made of.
func (d Disk) sum(versions string) (string, error) {
	h := sha256.New()
	recipe, err := json.Marshal([]any{d.Packages, d.Links, d.Remove, d.MiB, versions})
	if err != nil {
		return "", err
	}
	h.Write(recipe)
	for _, path := range slices.Sorted(maps.Keys(d.Files)) {
		fmt.Fprintf(h, "%s %d\n", path, len(d.Files[path]))
		h.Write(d.Files[path])
	}
	return fmt.Sprintf("%.8x", h.Sum(nil)), nil
}

// make makes work/disk.
func (d Disk) make(ctx context.Context, apt *apt, work string) error {
	debs, err := apt.download(ctx)
	if err != nil {
		return err
	}
	root := filepath.Join(work, "root")
	if err := mergedRoot(root); err != nil {
		return err
	}
	for _, deb := range debs {
		if err := unpack(ctx, deb, root); err != nil {
			return err
		}
	}
	if err := d.finish(root); err != nil {
		return err
	}
	disk := filepath.Join(work, "disk")
	_, err = output(ctx, work, "mke2fs", "-q", "-t", "ext4", "-O", "^has_journal,^metadata_csum", "-m", "0",
		"-d", root, disk, strconv.Itoa(d.MiB)+"M")
	return err
}

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

// apt asks Debian's archive for packages, as if nothing were installed, and
// leaves this machine's own packages alone.
type apt struct {
	dir      string
	packages []string
}

func newApt(work string, packages []string) (*apt, error) {
	a := &apt{dir: work, packages: packages}
	return a, errors.Join(
		os.MkdirAll(filepath.Join(work, "archives", "partial"), 0o755),
		os.WriteFile(filepath.Join(work, "status"), nil, 0o644),
	)
}

func (a *apt) get(ctx context.Context, args ...string) (string, error) {
	argv := []string{
		"apt-get", "-qq", "-y", "-o", "Dir::State::status=" + filepath.Join(a.dir, "status"),
		"-o", "Dir::Cache::archives=" + filepath.Join(a.dir, "archives"), "-o", "Debug::NoLocking=1",
		"-o", "APT::Sandbox::User=root", "-o", "APT::Install-Recommends=false",
	}
	return output(ctx, a.dir, slices.Concat(argv, args, []string{"install"}, a.packages)...)
}

// resolve returns the file names of the packages, which have the versions. The
// lists of packages are brought up to date if that fails.
func (a *apt) resolve(ctx context.Context) (string, error) {
	out, err := a.get(ctx, "--print-uris")
	if err != nil {
		if _, uerr := output(ctx, a.dir, "apt-get", "-q", "update"); uerr != nil {
			return "", errors.Join(err, uerr)
		}
		if out, err = a.get(ctx, "--print-uris"); err != nil {
			return "", err
		}
	}
	var names []string
	for line := range strings.Lines(out) {
		if fields := strings.Fields(line); len(fields) > 1 {
			names = append(names, fields[1])
		}
	}
	slices.Sort(names)
	return strings.Join(names, "\n"), nil
}

func (a *apt) download(ctx context.Context) ([]string, error) {
	if _, err := a.get(ctx, "--download-only"); err != nil {
		// The lists may name files that are gone.
		if _, uerr := output(ctx, a.dir, "apt-get", "-q", "update"); uerr != nil {
			return nil, errors.Join(err, uerr)
		}
		if _, err := a.get(ctx, "--download-only"); err != nil {
			return nil, err
		}
	}
	return filepath.Glob(filepath.Join(a.dir, "archives", "*.deb"))
}

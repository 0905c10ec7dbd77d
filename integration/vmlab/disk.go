package vmlab

import (
	"context"
	"crypto/sha256"
	"encoding/json"
	"errors"
	"fmt"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"time"
)

// diskKept is how long a disk is kept after its last use.
const diskKept = 24 * time.Hour

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
	// Links are symbolic links: path -> target. One to a folder in which an [Image]
	// has files must be relative.
	Links map[string]string
	// Remove are paths, or patterns of [filepath.Match], that guests don't need.
	Remove []string
	// MiB is the size of the file system. The file has holes.
	MiB int
}

// BuildDisk returns the file of a root file system for [Config.Disk]. It is made
// once for each recipe and each set of package versions, which takes some ten
// seconds and 120 MB of downloads for container engines; later calls only ask apt
// which versions there are. Those that nobody has asked for in a day are removed.
//
// It takes root, apt-get, dpkg-deb, tar and mke2fs. This machine's own packages
// are neither looked at nor changed.
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
	began := time.Now()
	if err := os.Chtimes(file, began, began); err == nil {
		return file, nil
	}
	if err := d.make(ctx, apt, work); err != nil {
		return "", err
	}
	if err := removeOld(filepath.Join(dir, d.Name+"-*.ext4"), began.Add(-diskKept)); err != nil {
		return "", err
	}
	l.log.Info("disk is built", "name", d.Name, "took", time.Since(began))
	return file, os.Rename(filepath.Join(work, "disk"), file)
}

// removeOld removes the files of a pattern that were last used before then.
// Others may be of another work tree, which is about to boot them.
func removeOld(pattern string, then time.Time) error {
	files, err := filepath.Glob(pattern)
	if err != nil {
		return err
	}
	for _, f := range files {
		fi, serr := os.Stat(f)
		if serr == nil && fi.ModTime().Before(then) {
			serr = os.Remove(f)
		}
		err = errors.Join(err, serr)
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

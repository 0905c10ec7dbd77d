package vmlab

import (
	"bufio"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"maps"
	"os"
	"path"
	"path/filepath"
	"slices"
	"strings"

	"github.com/u-root/u-root/pkg/cpio"
)

// guestModules make the guest's console port and vNICs work.
var guestModules = []string{"virtio_pci", "virtio_console", "virtio_net"}

// Image says what is in a guest beside its PID 1, busybox with all its links in
// /bin, Debian's dash as /bin/sh, ip as /sbin/ip, and the virtio drivers.
// The guest's PATH has /sbin first. The zero value is a usable guest.
type Image struct {
	// Modules are kernel modules to load at boot, by name, in this order. What
	// they need is loaded before them; those built into the kernel are skipped.
	Modules []string
	// Files are copied into the guest: path there -> file here. Modes are kept.
	// A program must be static; see [Lab.GoBuild]. They replace those of a [Disk].
	Files map[string]string
	// Programs are programs of this machine to copy, by absolute path here, with
	// the libraries that they need. They have the same path in the guest. Of those
	// that a [Disk] has, it keeps its own.
	Programs []string
	// Start are commands to start at boot, not waited for and not restarted. The
	// output is in the guest's /run/log/NAME.log.
	Start [][]string
}

// Build writes the guest's initramfs to file and returns file. Several guests
// may use it at once.
func (l *Lab) Build(ctx context.Context, file string, img Image) (string, error) {
	guestInit, err := l.GoBuild(ctx, modulePath+"/integration/internal/guestinit")
	if err != nil {
		return "", err
	}
	w := &tree{}
	w.addFile("/init", guestInit)
	w.add(cpio.Symlink("bin/podctl", "/init"))
	w.add(cpio.CharDev("dev/console", 0o600, 5, 1))
	if err := w.addBusybox(ctx, l.busybox); err != nil {
		return "", err
	}
	w.addProgram("/bin/sh", "/bin/dash")
	w.addProgram("/sbin/ip", l.ip)
	for _, p := range img.Programs {
		w.addProgram(p, p)
	}
	dests := slices.Sorted(maps.Keys(img.Files))
	for _, dest := range dests {
		w.addFile(dest, img.Files[dest])
	}
	w.addJSON("etc/autostart", img.Start)
	w.addJSON("etc/imagefiles", dests)
	if err := w.addModules(l.Kernel, append(slices.Clone(guestModules), img.Modules...)); err != nil {
		return "", fmt.Errorf("build image: %w", err)
	}
	if err := w.write(file); err != nil {
		return "", fmt.Errorf("build image %s: %w", file, err)
	}
	return file, nil
}

// tree collects the records of an initramfs. The first error sticks.
type tree struct {
	records []cpio.Record
	err     error
}

func (t *tree) add(rec cpio.Record) { t.records = append(t.records, rec) }

func (t *tree) addFile(dest, src string) {
	fi, err := os.Stat(src)
	if err != nil {
		t.err = errors.Join(t.err, err)
		return
	}
	t.add(cpio.Record{
		ReaderAt: &lazyFile{path: src},
		Info: cpio.Info{
			Name: strings.TrimPrefix(dest, "/"), Mode: cpio.S_IFREG | uint64(fi.Mode().Perm()),
			FileSize: uint64(fi.Size()),
		},
	})
}

// addJSON adds a file that guestinit reads.
func (t *tree) addJSON(dest string, v any) {
	b, err := json.Marshal(v)
	t.err = errors.Join(t.err, err)
	t.add(cpio.StaticFile(dest, string(b), 0o644))
}

func (t *tree) addProgram(dest, src string) {
	libs, err := sharedObjects(src)
	t.err = errors.Join(t.err, err)
	t.addFile(dest, src)
	for _, lib := range libs {
		t.addFile(lib, lib)
	}
}

// addBusybox adds busybox and a link in /bin for each applet, but for those
// that the image has something better for.
func (t *tree) addBusybox(ctx context.Context, busybox string) error {
	if libs, err := sharedObjects(busybox); err != nil || len(libs) > 0 {
		return fmt.Errorf("%s is not static, it needs %q (install busybox-static): %w", busybox, libs, err)
	}
	applets, err := output(ctx, "", busybox, "--list")
	if err != nil {
		return err
	}
	t.addFile("/bin/busybox", busybox)
	for applet := range strings.FieldsSeq(applets) {
		if applet != "sh" && applet != "ip" && applet != "busybox" {
			t.add(cpio.Symlink("bin/"+applet, "busybox"))
		}
	}
	return nil
}

func (t *tree) addModules(k Kernel, names []string) error {
	set, err := openModules(k.modules)
	if err != nil {
		return err
	}
	files, err := set.resolve(names)
	if err != nil {
		return err
	}
	var list strings.Builder
	for _, file := range files {
		dest := path.Join("/lib/modules", k.Release, file)
		t.addFile(dest, filepath.Join(k.modules, file))
		fmt.Fprintln(&list, dest)
	}
	t.add(cpio.StaticFile("etc/modules", list.String(), 0o644))
	return nil
}

// write writes the archive, each folder before what is in it.
func (t *tree) write(file string) error {
	if t.err != nil {
		return t.err
	}
	f, err := os.Create(file)
	if err != nil {
		return err
	}
	buf := bufio.NewWriterSize(f, 1<<20)
	w := cpio.Newc.Writer(buf)
	for _, rec := range t.records {
		for _, dir := range parents(rec.Name) {
			if err == nil {
				err = w.WriteRecord(cpio.Directory(dir, 0o755))
			}
		}
		if err == nil {
			err = w.WriteRecord(rec)
		}
	}
	if err == nil {
		err = w.WriteRecord(cpio.TrailerRecord)
	}
	return errors.Join(err, buf.Flush(), f.Close())
}

// parents returns "a", "a/b" for "a/b/c".
func parents(name string) []string {
	var dirs []string
	for i, c := range name {
		if c == '/' {
			dirs = append(dirs, name[:i])
		}
	}
	return dirs
}

// lazyFile opens its file at the first read and is closed by the writer.
type lazyFile struct {
	path string
	f    *os.File
}

func (l *lazyFile) ReadAt(b []byte, off int64) (int, error) {
	if l.f == nil {
		f, err := os.Open(l.path)
		if err != nil {
			return 0, err
		}
		l.f = f
	}
	return l.f.ReadAt(b, off)
}

func (l *lazyFile) Close() error {
	if l.f == nil {
		return nil
	}
	return l.f.Close()
}

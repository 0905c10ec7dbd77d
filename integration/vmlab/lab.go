package vmlab

import (
	"cmp"
	"context"
	"crypto/sha256"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"os/exec"
	"path"
	"path/filepath"
	"strings"
)

const modulePath = "github.com/brfuse/brfuse"

// ErrMissing is returned by [Open] when this machine lacks a program that the
// lab needs. The text names it and the remedy.
var ErrMissing = errors.New("not installed")

// Options are the options of [Open].
type Options struct {
	// Cache is the folder for kernels and built programs. Default: see the package.
	Cache string
	// Log is told what takes long: downloads, probes, boots. Default: nothing is logged.
	Log *slog.Logger
}

// Lab is what all guests of a machine share. It is safe for concurrent use and
// needs no closing.
type Lab struct {
	Kernel Kernel
	// Accel is "kvm" or "tcg".
	Accel string

	log                *slog.Logger
	cache              string
	qemu, busybox, ip  string
	moduleRoot, binDir string
}

// Open finds what the lab needs, fetches the guest kernel and decides on the
// accelerator. All of it is cached: the first call takes several seconds, later
// ones some milliseconds. The error is [ErrMissing] when programs are missing.
func Open(ctx context.Context, opts Options) (*Lab, error) {
	l := &Lab{log: cmp.Or(opts.Log, slog.New(slog.DiscardHandler))}
	if err := l.findPrograms(); err != nil {
		return nil, err
	}
	var err error
	if l.cache, err = cacheDir(opts.Cache); err != nil {
		return nil, err
	}
	if l.moduleRoot, err = findModule(ctx); err != nil {
		return nil, err
	}
	// Work trees share a cache but no programs.
	l.binDir = filepath.Join(l.cache, "bin", fmt.Sprintf("%.6x", sha256.Sum256([]byte(l.moduleRoot))))
	if l.Kernel, err = fetchKernel(ctx, l.cache); err != nil {
		return nil, err
	}
	if l.Accel, err = l.chooseAccel(ctx); err != nil {
		return nil, err
	}
	return l, nil
}

func (l *Lab) findPrograms() error {
	var missing []string
	for _, p := range []struct {
		path *string
		name string
	}{{&l.qemu, "qemu-system-x86_64"}, {&l.busybox, "busybox"}, {&l.ip, "ip"}} {
		found, err := exec.LookPath(p.name)
		if err != nil {
			missing = append(missing, p.name)
		}
		*p.path = found
	}
	if len(missing) > 0 {
		return fmt.Errorf("programs %s: %w; run scripts/deps as root", strings.Join(missing, ", "), ErrMissing)
	}
	return nil
}

// findModule returns the root of this module's source.
func findModule(ctx context.Context) (string, error) {
	out, err := output(ctx, "", "go", "list", "-m", "-f", "{{.Dir}}", modulePath)
	if err != nil {
		return "", fmt.Errorf("find the source of %s: %w", modulePath, err)
	}
	return strings.TrimSpace(out), nil
}

// GoBuild builds a static program, for guests and for the host, of a main package
// of this module, named by import path or by ./path from the module's root, and
// returns its path, which stays the same. It takes a fraction of a second when
// nothing has changed.
func (l *Lab) GoBuild(ctx context.Context, pkg string, tags ...string) (string, error) {
	return l.build(ctx, l.moduleRoot, pkg, false, tags)
}

// GoBuildIn is [Lab.GoBuild] for a module within this one; dir is the module's
// folder, from this module's root, and pkg is named from there.
func (l *Lab) GoBuildIn(ctx context.Context, dir, pkg string, tags ...string) (string, error) {
	return l.build(ctx, filepath.Join(l.moduleRoot, dir), pkg, false, tags)
}

// GoBuildRace builds a program for the host with the race detector, which takes
// a C compiler. It is [Lab.GoBuild] where there is none.
func (l *Lab) GoBuildRace(ctx context.Context, pkg string, tags ...string) (string, error) {
	_, err := exec.LookPath(cmp.Or(os.Getenv("CC"), "gcc"))
	return l.build(ctx, l.moduleRoot, pkg, err == nil, tags)
}

func (l *Lab) build(ctx context.Context, dir, pkg string, race bool, tags []string) (string, error) {
	name := strings.Join(append([]string{path.Base(pkg)}, tags...), "+")
	args := []string{"build", "-trimpath", "-tags=" + strings.Join(tags, ",")}
	env := append(os.Environ(), "CGO_ENABLED=0")
	if race {
		name += "+race"
		args = append(args, "-race")
		env = append(os.Environ(), "CGO_ENABLED=1")
	} else {
		args = append(args, "-ldflags=-s -w")
	}
	file := filepath.Join(l.binDir, name)
	if err := os.MkdirAll(l.binDir, 0o755); err != nil {
		return "", err
	}
	unlock, err := lock(ctx, file+".lock")
	if err != nil {
		return "", err
	}
	defer unlock()
	cmd := exec.CommandContext(ctx, "go", append(args, "-o", file, pkg)...)
	cmd.Env = env
	if _, err := runTool(cmd, dir); err != nil {
		return "", err
	}
	return file, nil
}

package vmlab

import (
	"context"
	"errors"
	"os"
	"path/filepath"
	"slices"
	"strings"
)

// apt asks Debian's archive for packages, as if nothing were installed, and
// leaves this machine's own packages alone.
type apt struct {
	dir      string
	packages []string
}

func newApt(work string, packages []string) (*apt, error) {
	a := &apt{dir: work, packages: packages}
	return a, errors.Join(
		os.MkdirAll(filepath.Join(work, "cache", "archives", "partial"), 0o755),
		os.WriteFile(filepath.Join(work, "status"), nil, 0o644),
	)
}

func (a *apt) get(ctx context.Context, args ...string) (string, error) {
	argv := []string{
		"apt-get", "-qq", "-y", "-o", "Dir::State::status=" + filepath.Join(a.dir, "status"),
		"-o", "Dir::Cache=" + filepath.Join(a.dir, "cache"), "-o", "Debug::NoLocking=1",
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
	return filepath.Glob(filepath.Join(a.dir, "cache", "archives", "*.deb"))
}

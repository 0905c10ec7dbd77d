package vmlab

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"time"

	"golang.org/x/sys/unix"
)

// scratchYoung is the age below which a folder that nobody holds may be one that is
// being made.
const scratchYoung = time.Minute

// Scratch is a temporary folder of a program that may be killed. It is held by a lock,
// which ends with the process: the next program that asks for one of the same name
// removes those of the same user that nobody holds. Nothing may be mounted in it.
type Scratch struct {
	Dir  string
	held *os.File
}

// NewScratch makes a folder.
func NewScratch(name string) (*Scratch, error) {
	if err := sweep(os.TempDir(), name+"."); err != nil {
		return nil, fmt.Errorf("remove what a killed program left: %w", err)
	}
	dir, err := os.MkdirTemp("", name+".*")
	if err != nil {
		return nil, err
	}
	held, err := hold(dir)
	if err != nil {
		return nil, errors.Join(err, os.RemoveAll(dir))
	}
	return &Scratch{Dir: dir, held: held}, nil
}

// Remove removes the folder. Of nil it does nothing.
func (s *Scratch) Remove() error {
	if s == nil {
		return nil
	}
	return errors.Join(os.RemoveAll(s.Dir), s.held.Close())
}

// sweep removes those folders in dir whose names begin with prefix and that nobody holds.
func sweep(dir, prefix string) error {
	entries, err := os.ReadDir(dir)
	if err != nil {
		return err
	}
	var errs []error
	for _, e := range entries {
		if !strings.HasPrefix(e.Name(), prefix) || !e.IsDir() {
			continue
		}
		path := filepath.Join(dir, e.Name())
		held, err := hold(path)
		switch {
		case errors.Is(err, unix.EWOULDBLOCK), errors.Is(err, fs.ErrNotExist), errors.Is(err, fs.ErrPermission):
			continue // it is in use, gone, or another user's
		case err != nil:
			errs = append(errs, err)
			continue
		}
		ours, err := stale(held)
		if ours {
			err = os.RemoveAll(path)
		}
		errs = append(errs, err, held.Close())
	}
	return errors.Join(errs...)
}

// stale reports whether a folder is this user's, and too old to be one that is being made.
func stale(dir *os.File) (bool, error) {
	var s unix.Stat_t
	if err := unix.Fstat(int(dir.Fd()), &s); err != nil {
		return false, fmt.Errorf("look at %s: %w", dir.Name(), err)
	}
	return int(s.Uid) == os.Geteuid() && time.Since(time.Unix(s.Mtim.Unix())) > scratchYoung, nil
}

// hold takes a folder's lock, or fails when a process has it.
func hold(dir string) (*os.File, error) {
	fd, err := unix.Open(dir, unix.O_RDONLY|unix.O_DIRECTORY|unix.O_NOFOLLOW|unix.O_CLOEXEC, 0)
	if err != nil {
		return nil, fmt.Errorf("open %s: %w", dir, err)
	}
	f := os.NewFile(uintptr(fd), dir)
	if err := unix.Flock(fd, unix.LOCK_EX|unix.LOCK_NB); err != nil {
		return nil, errors.Join(fmt.Errorf("lock %s: %w", dir, err), f.Close())
	}
	return f, nil
}

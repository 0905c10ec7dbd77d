// Package partfile writes files of results that take long to come, such as those of
// benchmarks: what was there before stays until there is something new.
package partfile

import (
	"errors"
	"fmt"
	"os"
)

// File is a new file of results. Until it is closed its name ends in ".part"; what a
// killed program has written is found there. It isn't safe for concurrent use.
type File struct {
	f       *os.File
	path    string // to be renamed to; empty: f is what was asked for
	written bool
}

// Create creates a file of results. What is no regular file, such as /dev/stdout, is
// written to as it is.
func Create(path string) (*File, error) {
	if st, err := os.Stat(path); err == nil && !st.Mode().IsRegular() {
		f, err := os.OpenFile(path, os.O_WRONLY, 0)
		return &File{f: f}, err
	}
	f, err := os.Create(path + ".part")
	if err != nil {
		return nil, err
	}
	return &File{f: f, path: path}, nil
}

// Write implements [io.Writer].
func (f *File) Write(b []byte) (int, error) {
	f.written = f.written || len(b) > 0
	return f.f.Write(b)
}

// Close gives the file its name, in the place of one that was there. When nothing was
// written, it removes the new one instead. It is called once.
func (f *File) Close() error {
	err := f.f.Close()
	switch {
	case f.path == "":
	case !f.written:
		err = errors.Join(err, os.Remove(f.f.Name()))
	case err == nil:
		err = os.Rename(f.f.Name(), f.path)
	}
	if err != nil {
		return fmt.Errorf("close file of results: %w", err)
	}
	return nil
}

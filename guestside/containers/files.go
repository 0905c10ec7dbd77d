package containers

import (
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"slices"
	"strconv"
	"strings"

	"golang.org/x/sys/unix"
)

// Limits of what engines write.
const (
	maxSpec    = 4 << 20  // bytes of a config.json; usual are 10 KiB
	maxList    = 32 << 20 // bytes of podman's list; usual is 1 KiB a container
	maxPIDFile = 32       // bytes
	maxEntries = 16 << 10 // files in a folder, containers in a list
)

// spec is what matters of an OCI runtime's config.json.
type spec struct {
	Annotations map[string]string `json:"annotations"`
	Linux       *struct {
		Namespaces []struct {
			Type string `json:"type"`
			Path string `json:"path"`
		} `json:"namespaces"`
	} `json:"linux"`
}

// network says whether the container has a network namespace other than its
// engine's, and by which path it was given, if it was.
func (s spec) network() (path string, own bool) {
	if s.Linux == nil {
		return "", false
	}
	for _, ns := range s.Linux.Namespaces {
		if ns.Type == "network" {
			return ns.Path, true
		}
	}
	return "", false
}

func parseSpec(b []byte) (spec, error) {
	var s spec
	if err := json.Unmarshal(b, &s); err != nil {
		return spec{}, fmt.Errorf("decode container's config.json: %w", err)
	}
	return s, nil
}

func readSpec(dir *os.Root, name string) (spec, error) {
	b, err := readFile(dir, name, maxSpec)
	if err != nil {
		return spec{}, err
	}
	return parseSpec(b)
}

func parsePID(b []byte) (int, error) {
	pid, err := strconv.ParseInt(strings.TrimSpace(string(b)), 10, 32)
	if err != nil || pid < 1 {
		return 0, fmt.Errorf("process id %.32q is none", b)
	}
	return int(pid), nil
}

func readPID(dir *os.Root, name string) (int, error) {
	b, err := readFile(dir, name, maxPIDFile)
	if err != nil {
		return 0, err
	}
	return parsePID(b)
}

// readFile reads a regular file below a folder. No symbolic link leads out of
// the folder, and a pipe does not make it wait.
func readFile(dir *os.Root, name string, limit int64) (b []byte, err error) {
	f, err := dir.OpenFile(name, os.O_RDONLY|unix.O_NONBLOCK, 0)
	if err != nil {
		return nil, err
	}
	defer func() { err = errors.Join(err, f.Close()) }()
	info, err := f.Stat()
	if err != nil {
		return nil, err
	}
	if !info.Mode().IsRegular() {
		return nil, fmt.Errorf("%s in %s is no regular file", name, dir.Name())
	}
	b, err = io.ReadAll(io.LimitReader(f, limit+1))
	if err == nil && int64(len(b)) > limit {
		err = fmt.Errorf("%s in %s is larger than %d bytes", name, dir.Name(), limit)
	}
	return b, err
}

// folders returns the names of folders in a folder that may be IDs.
func folders(dir *os.Root, name string) (names []string, err error) {
	f, err := dir.Open(name)
	if err != nil {
		return nil, err
	}
	defer func() { err = errors.Join(err, f.Close()) }()
	entries, err := f.ReadDir(maxEntries)
	if err != nil && !errors.Is(err, io.EOF) {
		return nil, err
	}
	for _, e := range entries {
		if e.IsDir() && validID(e.Name()) {
			names = append(names, e.Name())
		}
	}
	slices.Sort(names)
	return names, nil
}

// openRoot opens a folder; nil means that there is none.
func openRoot(path string) (*os.Root, error) {
	dir, err := os.OpenRoot(path)
	if errors.Is(err, fs.ErrNotExist) {
		return nil, nil
	}
	return dir, err
}

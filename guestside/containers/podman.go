package containers

import (
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"slices"
	"strings"

	"github.com/brfuse/brfuse/vnic"
)

// stored is what matters of an element of the lists of containers/storage.
type stored struct {
	ID    string   `json:"id"`
	Names []string `json:"names"`
}

// parseStored reads a list. Elements whose ID is none are left out.
func parseStored(b []byte) ([]stored, error) {
	var list []stored
	if err := json.Unmarshal(b, &list); err != nil {
		return nil, fmt.Errorf("decode list of containers: %w", err)
	}
	if len(list) > maxEntries {
		return nil, fmt.Errorf("decode list of containers: %d are more than %d", len(list), maxEntries)
	}
	return slices.DeleteFunc(list, func(s stored) bool { return !validID(s.ID) }), nil
}

// fromPodman reads the lists of podman's storage and what is in the containers'
// folders: the configuration that the OCI runtime got, and the process ID.
func fromPodman(cfg Config, ref string) (out vnic.Container, err error) {
	var all []entry
	root, run, done, err := podmanFolders(cfg)
	if err != nil {
		return out, err
	}
	defer done()
	if root != nil && run != nil {
		if all, err = storedIn(root, run); err != nil {
			return out, fmt.Errorf("read podman's storage: %w", err)
		}
	}
	e, err := pick(all, ref)
	if err != nil {
		return out, fmt.Errorf("podman's containers in %s: %w", cfg.PodmanRoot, err)
	}
	return cfg.container(all, e)
}

// podmanFolders opens both folders, as far as they are there.
func podmanFolders(cfg Config) (root, run *os.Root, done func(), err error) {
	if root, err = openRoot(cfg.PodmanRoot); err != nil {
		return nil, nil, nil, fmt.Errorf("open podman's storage: %w", err)
	}
	if run, err = openRoot(cfg.PodmanRunRoot); err != nil {
		err = fmt.Errorf("open podman's run folder: %w", err)
	}
	done = func() {
		for _, dir := range []*os.Root{root, run} {
			if dir != nil {
				_ = dir.Close()
			}
		}
	}
	if err != nil {
		done()
		return nil, nil, nil, err
	}
	return root, run, done, nil
}

// storedIn returns the entries of all storage drivers.
func storedIn(root, run *os.Root) ([]entry, error) {
	drivers, err := folders(root, ".")
	if err != nil {
		return nil, err
	}
	var all []entry
	for _, driver := range drivers {
		if !strings.HasSuffix(driver, "-containers") { // such as overlay-containers
			continue
		}
		for _, list := range []struct {
			dir  *os.Root
			name string
		}{{root, "containers.json"}, {root, "volatile-containers.json"}, {run, "volatile-containers.json"}} {
			b, err := readFile(list.dir, driver+"/"+list.name, maxList)
			if errors.Is(err, fs.ErrNotExist) {
				continue
			}
			if err != nil {
				return nil, err
			}
			found, err := parseStored(b)
			if err != nil {
				return nil, fmt.Errorf("%s: %w", list.name, err)
			}
			for _, s := range found {
				all = append(all, podmanEntry(root, run, driver, s))
			}
		}
	}
	return all, nil
}

// podmanEntry makes an entry. One that was never started has no configuration, and
// no process either.
func podmanEntry(root, run *os.Root, driver string, s stored) entry {
	e := entry{id: s.ID, names: s.Names, where: "podman"}
	userdata := driver + "/" + s.ID + "/userdata/"
	e.pid = func() (int, error) { return readPID(run, userdata+"pidfile") }
	for _, dir := range []*os.Root{root, run} {
		if spec, err := readSpec(dir, userdata+"config.json"); err == nil {
			e.spec = spec
			break
		}
	}
	return e
}

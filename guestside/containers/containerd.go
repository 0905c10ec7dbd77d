package containers

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strings"

	"github.com/brfuse/brfuse/vnic"
)

// tasks is the folder of bundles in containerd's state: NAMESPACE/ID in it, the
// same in containerd 1.4 to 2.
const tasks = "io.containerd.runtime.v2.task"

// Annotations of containerd's CRI plugin, and of nerdctl.
const (
	criType      = "io.kubernetes.cri.container-type" // "sandbox" or "container"
	criSandbox   = "io.kubernetes.cri.sandbox-id"
	criPod       = "io.kubernetes.cri.sandbox-name"
	criNamespace = "io.kubernetes.cri.sandbox-namespace"
	criContainer = "io.kubernetes.cri.container-name"
	nerdctlName  = "nerdctl/name"
)

// fromContainerd looks through the bundles of all namespaces.
func fromContainerd(cfg Config, ref string) (out vnic.Container, err error) {
	var all []entry
	for _, state := range cfg.ContainerdStates {
		dir, err := openRoot(filepath.Join(state, tasks))
		if err != nil {
			return out, fmt.Errorf("open containerd's state: %w", err)
		}
		if dir == nil {
			continue
		}
		defer dir.Close() // entries read their process IDs from it
		entries, err := bundles(dir)
		if err != nil {
			return out, fmt.Errorf("read containerd's state: %w", err)
		}
		all = append(all, entries...)
	}
	e, err := pick(all, ref)
	if err != nil {
		return out, fmt.Errorf("containerd's containers in %s: %w", strings.Join(cfg.ContainerdStates, " and "), err)
	}
	return cfg.container(all, e)
}

// bundles returns an entry for each bundle. One that goes away meanwhile, or that
// is no OCI bundle, is left out.
func bundles(dir *os.Root) ([]entry, error) {
	namespaces, err := folders(dir, ".")
	if err != nil {
		return nil, err
	}
	var all []entry
	for _, namespace := range namespaces {
		ids, err := folders(dir, namespace)
		if err != nil && !errors.Is(err, fs.ErrNotExist) {
			return nil, err
		}
		for _, id := range ids {
			bundle := namespace + "/" + id
			spec, err := readSpec(dir, bundle+"/config.json")
			if err != nil {
				continue
			}
			e := criEntry(id, spec)
			e.where = namespace
			e.pid = func() (int, error) { return readPID(dir, bundle+"/init.pid") }
			all = append(all, e)
		}
	}
	return all, nil
}

// criEntry reads the annotations of an entry: its names, and its sandbox.
func criEntry(id string, s spec) entry {
	e := entry{id: id, spec: s}
	add := func(name string) {
		if name != "" {
			e.names = append(e.names, name)
		}
	}
	a := s.Annotations
	switch a[criType] {
	case "sandbox":
		if a[criPod] != "" {
			add(a[criNamespace] + "/" + a[criPod])
			add(a[criPod])
		}
	case "container":
		if a[criPod] != "" && a[criContainer] != "" {
			add(a[criNamespace] + "/" + a[criPod] + "/" + a[criContainer])
		}
		add(a[criContainer])
		if sandbox := a[criSandbox]; validID(sandbox) && sandbox != id {
			e.pod = sandbox
		}
	default:
		add(a[nerdctlName])
	}
	return e
}

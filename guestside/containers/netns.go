package containers

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strconv"
	"strings"

	"github.com/brfuse/brfuse/vnic"
)

// container finds the network namespace of one of all entries.
func (c Config) container(all []entry, e entry) (vnic.Container, error) {
	if e.pod == "" {
		e.pod = sharedWith(all, e)
	}
	out := vnic.Container{ID: e.id, Pod: e.owner()}
	if len(e.names) > 0 {
		out.Name = e.names[0]
	}
	pid, err := e.pid()
	if errors.Is(err, fs.ErrNotExist) {
		return out, notRunning("it has no process")
	}
	if err != nil {
		return out, err
	}
	path, own := e.spec.network()
	if !own {
		return out, errHostNetwork
	}
	if !lasts(path) {
		path = pathOfOwner(all, e)
	}
	out.Netns, err = c.netns(e.id, pid, path)
	return out, err
}

// sharedWith returns the ID of the container in whose network namespace e is,
// or "". Podman, Docker and nerdctl name it by the process: /proc/PID/ns/net.
func sharedWith(all []entry, e entry) string {
	path, _ := e.spec.network()
	rest, ok := strings.CutPrefix(filepath.Clean(path), "/proc/")
	pid, ns, _ := strings.Cut(rest, "/")
	if !ok || ns != "ns/net" {
		return ""
	}
	for _, o := range all {
		if o.id == e.id || o.where != e.where {
			continue
		}
		if p, err := o.pid(); err == nil && strconv.Itoa(p) == pid {
			return o.id
		}
	}
	return ""
}

// pathOfOwner returns the path of the namespace by which the sandbox knows it.
func pathOfOwner(all []entry, e entry) string {
	for _, o := range all {
		if o.id == e.pod && o.where == e.where {
			path, _ := o.spec.network()
			return path
		}
	}
	return ""
}

// lasts says whether a namespace's path does not depend on a process.
func lasts(path string) bool { return filepath.IsAbs(path) && !strings.HasPrefix(path, "/proc/") }

func notRunning(why string) error {
	return fmt.Errorf("%s; start it: %w", why, vnic.ErrUnknownPod)
}

// errHostNetwork is returned for a container without a namespace.
var errHostNetwork = fmt.Errorf("it shares the network of the guest itself; run it with a network of its own: %w", vnic.ErrUnknownPod)

// netns returns the path of a process's network namespace. One that outlives
// the process is preferred, if it can be seen from here and is the same.
func (c Config) netns(id string, pid int, lasting string) (string, error) {
	path := filepath.Join(c.Proc, strconv.Itoa(pid), "ns/net")
	is, err := os.Stat(path)
	if errors.Is(err, fs.ErrNotExist) {
		return "", notRunning(fmt.Sprintf("its process %d is gone", pid))
	}
	if err != nil {
		return "", fmt.Errorf("look at process %d: %w", pid, err)
	}
	own, err := os.Stat(filepath.Join(c.Proc, "self/ns/net"))
	if err != nil {
		return "", fmt.Errorf("look at the guest's own network namespace: %w", err)
	}
	switch {
	case !c.belongs(id, pid):
		return "", notRunning(fmt.Sprintf("its process is gone, and process %d is another container's", pid))
	case os.SameFile(is, own):
		return "", errHostNetwork
	case !lasts(lasting):
		return path, nil
	}
	lasting = filepath.Clean(lasting)
	if there, err := os.Stat(lasting); err == nil && os.SameFile(is, there) {
		return lasting, nil
	}
	return path, nil
}

// belongs says whether a process can be the container's: the number in an
// engine's file may be another process's by now. It is not when its control
// group has another container's ID.
func (c Config) belongs(id string, pid int) bool {
	b, err := os.ReadFile(filepath.Join(c.Proc, strconv.Itoa(pid), "cgroup"))
	if err != nil {
		return true // the namespace is looked at in any case
	}
	other := false
	for line := range strings.Lines(string(b)) {
		for part := range strings.SplitSeq(strings.TrimSpace(line), "/") {
			// docker-ID.scope, cri-containerd-ID.scope, libpod-ID.scope, or the ID
			part = strings.TrimSuffix(part, ".scope")
			if part == id || strings.HasSuffix(part, "-"+id) {
				return true
			}
			other = other || isLongID(part[strings.LastIndexByte(part, '-')+1:])
		}
	}
	return !other
}

// isLongID says whether s looks like an ID that an engine made: 64 hex digits.
func isLongID(s string) bool { return len(s) == 64 && strings.Trim(s, "0123456789abcdef") == "" }

package cnid

import (
	"errors"
	"fmt"
	"path/filepath"
	"slices"
	"strconv"

	"github.com/brfuse/brfuse/internal/netnsx"
	"github.com/brfuse/brfuse/internal/rtnl"
	"github.com/brfuse/brfuse/vnic"
)

// netnsFor returns the path by which the agent reaches the namespace that the
// plugin names by its own. The two may be in different mount namespaces, such as
// when the agent runs in a container: then the path is nothing here or, worse,
// another namespace. A path that will be good after the plugin's end is
// preferred, since the host repeats it to the agent when that was restarted.
func (s *Server) netnsFor(peer int, path string) (string, error) {
	if !filepath.IsAbs(path) {
		return "", fmt.Errorf("CNI_NETNS %q is no absolute path: %w", path, vnic.ErrUnknownPod)
	}
	var want *netnsx.ID
	theirs := filepath.Join("/proc", strconv.Itoa(peer), "root", path)
	if id, err := identify(theirs); err == nil {
		want = &id
	}
	id, err := identify(path)
	if err == nil && (want == nil || id == *want) {
		return path, nil
	}
	if want == nil {
		return "", fmt.Errorf("CNI_NETNS: %w: %w", err, vnic.ErrUnknownPod)
	}
	// Process 1 is the VM's when the agent shares its process ids.
	for _, path := range []string{filepath.Join("/proc/1/root", path), theirs} {
		if id, err := identify(path); err == nil && id == *want {
			return path, nil
		}
	}
	return "", fmt.Errorf("the plugin's network namespace %s can't be reached by the agent; let the agent have the vm's /run/netns: %w", path, vnic.ErrUnknownPod)
}

// identify returns which namespace is at a path.
func identify(path string) (netnsx.ID, error) {
	ns, err := netnsx.Open(path)
	if err != nil {
		return netnsx.ID{}, err
	}
	return ns.ID(), ns.Close()
}

// hasDefaultRoute tells whether a pod has a default route over another of its
// interfaces.
func hasDefaultRoute(netns string) (has bool, err error) {
	ns, err := netnsx.Open(netns)
	if err != nil {
		return false, err
	}
	defer func() { err = errors.Join(err, ns.Close()) }()
	var routes []rtnl.Route
	err = ns.Do(func() error {
		c, err := rtnl.Dial()
		if err != nil {
			return err
		}
		return errors.Join(c.Do(rtnl.GetRoutes(&routes)), c.Close())
	})
	if err != nil {
		return false, fmt.Errorf("look for default routes in %s: %w", netns, err)
	}
	return slices.ContainsFunc(routes, func(r rtnl.Route) bool { return r.Destination.Bits() == 0 }), nil
}

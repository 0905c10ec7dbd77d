package netnsx

import (
	"fmt"
	"iter"
	"os"
	"path/filepath"
	"strings"
)

// dockerDir is where Docker mounts its namespaces, those without a process among
// them.
const dockerDir = "/run/docker/netns"

// All yields the paths of the network namespaces that can be reached from
// here, those with a name first: one path each, as far as it can be told
// without opening them. It costs a system call per process; it is for when
// something is lost.
func All() iter.Seq[string] {
	return func(yield func(string) bool) {
		named, _ := filepath.Glob(filepath.Join(Dir, "*")) // the patterns are well-formed
		docker, _ := filepath.Glob(filepath.Join(dockerDir, "*"))
		named = append(named, docker...)
		seen := map[string]bool{}
		for _, path := range named {
			ns, err := open(path)
			if err != nil {
				continue // a name without a namespace
			}
			target := fmt.Sprintf("net:[%d]", ns.id.Ino)
			known := seen[target]
			seen[target] = true
			if ns.Close() != nil || !known && !yield(path) {
				return
			}
		}
		processes(seen, yield)
	}
}

// processes yields the namespaces of processes that are not in seen.
func processes(seen map[string]bool, yield func(string) bool) {
	entries, err := os.ReadDir("/proc")
	if err != nil {
		return
	}
	for _, e := range entries {
		if strings.Trim(e.Name(), "0123456789") != "" {
			continue
		}
		path := "/proc/" + e.Name() + "/ns/net"
		target, err := os.Readlink(path) // net:[inode]
		if err != nil || seen[target] {
			continue
		}
		seen[target] = true
		if !yield(path) {
			return
		}
	}
}

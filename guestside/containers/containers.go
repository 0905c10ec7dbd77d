// Package containers finds the network namespaces of containers that run in the
// guest. It asks Docker by its API, and reads what containerd and podman write
// about their containers: no engine's client is needed, no daemon of podman's,
// and no command is run.
//
// The files are the engines' own and are read by root, so everything about them
// is bounded: their sizes, how many they are, and where a name in them may lead.
package containers

import (
	"context"
	"fmt"
	"strings"

	"github.com/brfuse/brfuse/vnic"
)

// Runtimes that are known.
const (
	Docker     = "docker"
	Containerd = "containerd"
	Podman     = "podman"
)

// Config says where the engines have their things. The zero value is right for
// distributions' packages, and for k3s.
type Config struct {
	// DockerSocket is that of Docker's API. Default: /run/docker.sock.
	DockerSocket string
	// ContainerdStates are containerd's state folders; those that don't exist are
	// left out. Default: /run/containerd and /run/k3s/containerd.
	ContainerdStates []string
	// PodmanRoot and PodmanRunRoot are the folders of podman's storage. Default:
	// /var/lib/containers/storage and /run/containers/storage.
	PodmanRoot, PodmanRunRoot string
	// Proc is where procfs is mounted. Default: /proc.
	Proc string
}

func (c Config) withDefaults() Config {
	set := func(s *string, to string) {
		if *s == "" {
			*s = to
		}
	}
	set(&c.DockerSocket, "/run/docker.sock")
	set(&c.PodmanRoot, "/var/lib/containers/storage")
	set(&c.PodmanRunRoot, "/run/containers/storage")
	set(&c.Proc, "/proc")
	if c.ContainerdStates == nil {
		c.ContainerdStates = []string{"/run/containerd", "/run/k3s/containerd"}
	}
	return c
}

// Resolve returns a running container of a runtime by its ID, by its name, or by
// a beginning of the ID that no other has. Pods of Kubernetes are found by the
// names of the pod, with or without "NAMESPACE/" before it, or of a container.
//
// The error is [vnic.ErrInvalid] for an unknown runtime or a malformed reference,
// [vnic.ErrUnknownContainer] when there is none such or several are, and
// [vnic.ErrUnknownPod] when the container does not run or has no network
// namespace of its own.
func Resolve(ctx context.Context, cfg Config, runtime, ref string) (vnic.Container, error) {
	cfg = cfg.withDefaults()
	if err := checkRef(ref); err != nil {
		return vnic.Container{}, err
	}
	if err := ctx.Err(); err != nil {
		return vnic.Container{}, fmt.Errorf("resolve %s container %s: %w", runtime, ref, err)
	}
	var found vnic.Container
	var err error
	switch runtime {
	case Docker:
		found, err = fromDocker(ctx, cfg, ref)
	case Containerd:
		found, err = fromContainerd(cfg, ref)
	case Podman:
		found, err = fromPodman(cfg, ref)
	default:
		return vnic.Container{}, fmt.Errorf("runtime %.64q: use %s, %s or %s: %w", runtime, Docker, Containerd, Podman, vnic.ErrInvalid)
	}
	if err != nil {
		return vnic.Container{}, fmt.Errorf("resolve %s container %s: %w", runtime, ref, err)
	}
	return found, nil
}

const maxRef = 253 // characters

func checkRef(ref string) error {
	if len(ref) > maxRef || !validID(strings.ReplaceAll(ref, "/", "-")) {
		return fmt.Errorf("container %.64q: use the ID, the beginning of it, or a name: %w", ref, vnic.ErrInvalid)
	}
	return nil
}

// validID says whether s may be a file's name and part of a URL: engines make no
// other IDs.
func validID(s string) bool {
	return s != "" && len(s) <= maxRef && s[0] != '.' && s[0] != '-' && s[0] != '_' &&
		strings.Trim(s, "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789-_.") == ""
}

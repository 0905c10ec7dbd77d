// Package engines makes guests with real container engines: Docker, containerd
// with its CRI, and podman, all of Debian's packages, and runs containers in them.
//
// It is a module of its own, so that what its tests need, such as the
// definitions of Kubernetes' CRI, is no part of brfuse's dependencies. Its tests
// take root, QEMU, and Debian's archive:
//
//	cd integration/engines && go test ./...
package engines

// Package cnitest is the conformance table of brfuse's CNI plugin: the rules of
// the specification, asked by libcni, of the real plugin program and an agent.
// It runs wherever an [Env] says: on this machine in network namespaces, as this
// package's own tests do, or in a guest.
//
// It is a module of its own, because libcni needs modules that brfuse does not.
// Its tests take root, and nothing else:
//
//	go test ./...
//
// In a guest, [ShellExec] runs the plugin by the guest's shell, while libcni and
// its cache stay on this machine; the programs of [Env] have to be put there.
package cnitest

// Package integration tests brfuse on real parts: QEMU guests with Debian's
// kernel, the daemon, the agent and the command line as users have them. The
// tests need root and what scripts/deps installs:
//
//	make test
//	go test -count=1 -run TestIntegration ./integration/
//
// Where something is missing they are skipped, and fail when CI is set.
package integration

// Package integration tests brfuse on real parts: QEMU guests with Debian's
// kernel, the daemon, the agent and the command line as users have them. The
// tests need root and what scripts/deps installs:
//
//	make test
//	go test -count=1 -run TestIntegration ./integration/
//
// Two tests have more to them than they do by default: TestIntegrationSoak makes
// as many cycles as BRFUSE_SOAK says, however long they take, and
// TestIntegrationCapacityMax plugs as many vNICs as BRFUSE_CAPACITY_MAX says, or
// "all"; `make soak` and `make capacity` run them so. Both, and
// TestIntegrationCapacity, log a line of JSON with what they measured.
//
// Where something is missing they are skipped, and fail when CI is set.
package integration

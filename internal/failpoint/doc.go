// Package failpoint stops a program at named places, so that tests can crash
// it, or something else, exactly there. Without the build tag "failpoints" it
// compiles to nothing.
package failpoint

// Env holds the failpoints in force, separated by commas, each one of:
//
//	NAME=kill        the process ends itself by SIGKILL
//	NAME=error       Hit returns an error
//	NAME=pause:DIR   Hit creates DIR/NAME, then waits until it is removed
const Env = "BRFUSE_FAILPOINTS"

//go:build !failpoints

// Package failpoint stops a program at named places, so that tests can crash
// it, or something else, exactly there. Without the build tag "failpoints" it
// compiles to nothing.
package failpoint

// Enabled tells whether failpoints are compiled in.
const Enabled = false

// Hit does nothing: failpoints are not compiled in.
func Hit(string) error { return nil }

// Package orchestratortest has a world to test an orchestrator in: hypervisors,
// taps, guests and pods in memory. Its state prints as text, any call can be
// made to fail or to wait, and a daemon can be crashed between any two of its
// side effects.
package orchestratortest

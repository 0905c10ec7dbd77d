// Package cluster tests several hypervisors that share a store: three network
// namespaces joined by an underlay, brfused in each, three members of etcd, and
// guests on two of them, and on the third for a while. See package integration for
// how it is run.
//
// All tests share one set-up, and leave it as they found it.
//
// With BRFUSE_TEST_LONG=1 etcd is without a majority for a minute.
package cluster

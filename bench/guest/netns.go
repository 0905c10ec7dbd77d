package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"path/filepath"

	"github.com/brfuse/brfuse/internal/netnsx"
	"github.com/brfuse/brfuse/internal/rtnl"
)

// netns makes or removes a network namespace with a name in /run/netns, as
// ip-netns(8) does. The loopback interface of a new one is up.
func netns(_ context.Context, args []string, _ io.Writer) error {
	v, rest, err := verb("netns", args, "add", "del")
	if err != nil {
		return err
	}
	if len(rest) != 1 || rest[0] == "" || filepath.Base(rest[0]) != rest[0] {
		return fmt.Errorf("netns %s: %w: want one name", v, errUsage)
	}
	name := rest[0]
	if v == "del" {
		return netnsx.Remove(name)
	}
	ns, err := netnsx.Add(name)
	if err != nil {
		return err
	}
	if err = errors.Join(ns.Do(loopbackUp), ns.Close()); err != nil {
		return errors.Join(fmt.Errorf("set lo of network namespace %s up: %w", name, err), netnsx.Remove(name))
	}
	return nil
}

func loopbackUp() error {
	return withConn(func(c *rtnl.Conn) error {
		lo, err := c.Link("lo")
		if err != nil {
			return err
		}
		return c.Do(rtnl.SetUp(lo.Index))
	})
}

// withConn calls f with a connection to the calling thread's namespace.
func withConn(f func(c *rtnl.Conn) error) error {
	c, err := rtnl.Dial()
	if err != nil {
		return err
	}
	return errors.Join(f(c), c.Close())
}

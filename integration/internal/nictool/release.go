package main

import (
	"context"
	"errors"
	"os"
)

// release gives a vNIC to a pod, and lets go of it when somebody writes to fifo.
func release(mac, pod, fifo string) error {
	b, err := newBench(mac)
	if err != nil {
		return err
	}
	b.m.Netns = pod
	if _, err := b.attach(); err != nil {
		return err
	}
	if _, err := os.ReadFile(fifo); err != nil {
		return err
	}
	ctx, cancel := context.WithTimeout(context.Background(), callTime)
	defer cancel()
	return errors.Join(b.agent.Release(ctx, b.m), b.agent.Close())
}

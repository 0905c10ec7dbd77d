// Command cnitimes runs in a guest and takes the times of CNI plugins, called by
// libcni as container engines call them. It reads a plan from the file that is
// its argument and prints a line of JSON a call; see package plan.
package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"os/signal"
	"syscall"
	"time"

	"github.com/containernetworking/cni/libcni"

	"github.com/brfuse/brfuse/integration/engines/bench/plan"
)

func main() {
	ctx, stop := signal.NotifyContext(context.Background(), syscall.SIGTERM)
	err := run(ctx, os.Args[1:])
	stop()
	if err != nil {
		fmt.Fprintln(os.Stderr, "cnitimes:", err)
		os.Exit(1)
	}
}

func run(ctx context.Context, args []string) error {
	if len(args) != 1 {
		return errors.New("usage: cnitimes PLAN")
	}
	b, err := os.ReadFile(args[0])
	if err != nil {
		return err
	}
	var p plan.Plan
	if err := json.Unmarshal(b, &p); err != nil {
		return fmt.Errorf("read %s: %w", args[0], err)
	}
	c := &client{
		plan: p, out: json.NewEncoder(os.Stdout),
		cni: libcni.NewCNIConfigWithCacheDir([]string{p.Dir}, "/run/cnitimes", nil),
	}
	for i := -p.WarmUps; i < p.Rounds; i++ {
		for j := range p.Kinds {
			k := p.Kinds[(i+p.WarmUps+j)%len(p.Kinds)]
			if err := c.measure(ctx, i+1, k); err != nil {
				return fmt.Errorf("round %d: %s: %w", i+1, k.Name, err)
			}
		}
	}
	return nil
}

type client struct {
	plan plan.Plan
	cni  *libcni.CNIConfig
	out  *json.Encoder
}

// measure makes a pod, which is not timed, and adds it to a network and deletes
// it from there.
func (c *client) measure(ctx context.Context, round int, k plan.Kind) (err error) {
	list, err := libcni.NetworkConfFromBytes(k.Conf)
	if err != nil {
		return err
	}
	pod := fmt.Sprintf("%s-%d", k.Name, round+c.plan.WarmUps)
	if err := podctl(ctx, "add", pod); err != nil {
		return err
	}
	defer func() { err = errors.Join(err, podctl(ctx, "rm", pod)) }()
	rt := &libcni.RuntimeConf{ContainerID: pod, NetNS: "/run/netns/" + pod, IfName: "eth0"}
	for _, call := range []struct {
		verb string
		do   func() error
	}{
		{plan.Start, func() error { _, err := c.cni.GetVersionInfo(ctx, list.Plugins[0].Network.Type); return err }},
		{plan.Add, func() error { _, err := c.cni.AddNetworkList(ctx, list, rt); return err }},
		{plan.Del, func() error { return c.cni.DelNetworkList(ctx, list, rt) }},
	} {
		if err := pause(ctx, c.plan.Rest); err != nil {
			return err
		}
		start := time.Now()
		err := call.do()
		took := time.Since(start)
		if err != nil {
			return fmt.Errorf("%s: %w", call.verb, err)
		}
		if err := c.out.Encode(plan.Sample{Round: round, Kind: k.Name, Verb: call.verb, Pod: pod, Took: took}); err != nil {
			return err
		}
	}
	return nil
}

// podctl has the guest's PID 1 make and remove pods.
func podctl(ctx context.Context, args ...string) error {
	out, err := exec.CommandContext(ctx, "podctl", args...).CombinedOutput()
	if err != nil {
		return fmt.Errorf("podctl %q: %w: %s", args, err, out)
	}
	return nil
}

func pause(ctx context.Context, d time.Duration) error {
	t := time.NewTimer(d)
	defer t.Stop()
	select {
	case <-t.C:
		return nil
	case <-ctx.Done():
		return context.Cause(ctx)
	}
}

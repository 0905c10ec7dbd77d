package main

import (
	"context"
	"fmt"
	"time"

	"github.com/brfuse/brfuse/integration/engines"
	"github.com/brfuse/brfuse/internal/samples"
)

// nestedOwn is a bridge that a user made. Containers on such networks, as on those
// of brfuse and unlike those on the bridge that is there from the start, get
// Docker's name server, for which dockerd starts itself and iptables several times.
const nestedOwn = "own-bridge"

// dockerRun is the series of whole runs of a container.
const dockerRun = "docker run/"

// measureDocker runs containers that end at once, on each network in each round.
func (r *rig) measureDocker(ctx context.Context, rounds int, rec *samples.Recorder) error {
	g := r.guest
	if _, err := g.StartDocker(ctx); err != nil {
		return err
	}
	if err := g.LoadDocker(ctx); err != nil {
		return err
	}
	if err := g.Do(ctx, "docker", "network", "create", "-d", "brfuse", "--ipam-driver", "brfuse",
		"--ipam-opt", "network="+network, "-o", "network="+network, fused); err != nil {
		return err
	}
	if err := g.Do(ctx, "docker", "network", "create", "-d", "bridge", nestedOwn); err != nil {
		return err
	}
	networks := []string{nested, nestedOwn, fused}
	for i := -dockerWarmUps; i < rounds; i++ {
		rec.Begin(i + 1)
		for j := range networks {
			n := networks[(i+dockerWarmUps+j)%len(networks)]
			start := time.Now()
			if err := g.Do(ctx, "docker", "run", "--rm", "--network", n, engines.Busybox, "true"); err != nil {
				return fmt.Errorf("round %d: %w", i+1, err)
			}
			rec.Add(dockerRun+n, time.Since(start))
		}
	}
	return nil
}

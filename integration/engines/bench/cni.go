package main

import (
	"bufio"
	"context"
	"encoding/json"
	"fmt"
	"os"
	"strings"
	"time"

	"github.com/brfuse/brfuse/integration/engines/bench/plan"
	"github.com/brfuse/brfuse/internal/samples"
)

// Kinds of networks. What the first two of them are with Docker is as people
// know it.
const (
	fused  = "brfuse"
	pooled = "brfuse-warm"
	nested = "bridge"
	moved  = "host-device"
)

// rest is the time before each CNI call, for what is still going on in the guest
// after the one before.
const rest = 150 * time.Millisecond

// kinds are what is compared. The addresses of all are of IPv4 only.
func kinds() []plan.Kind {
	ipam := func(subnet string) string {
		return `{"type": "host-local", "dataDir": "/run/cni-ipam", "ranges": [[{"subnet": "` + subnet + `"}]], "routes": [{"dst": "0.0.0.0/0"}]}`
	}
	list := func(name, plugins string) plan.Kind {
		return plan.Kind{Name: name, Conf: json.RawMessage(`{"cniVersion": "1.0.0", "name": "` + name + `", "plugins": [` + plugins + `]}`)}
	}
	return []plan.Kind{
		list(nested, `{"type": "bridge", "bridge": "cni0", "isGateway": true, "ipMasq": true, "ipam": `+ipam("10.88.0.0/16")+`},
			{"type": "portmap", "capabilities": {"portMappings": true}}`),
		list(fused, `{"type": "brfuse", "network": "`+network+`", "capabilities": {"portMappings": true}}`),
		list(pooled, `{"type": "brfuse", "network": "`+warmNetwork+`", "capabilities": {"portMappings": true}}`),
		list(moved, `{"type": "host-device", "hwaddr": "`+spareMAC+`", "ipam": `+ipam("10.89.0.0/16")+`}`),
	}
}

// measureCNI has the guest's client take the times, and completes them by what
// agent and daemon have logged. The pool has one vNIC, which each warm ADD has to
// find there.
func (r *rig) measureCNI(ctx context.Context, rounds int, rec *samples.Recorder) error {
	if err := r.site.FillPool(ctx, vmName, warmNetwork, 1); err != nil {
		return err
	}
	if err := r.runPlan(ctx, rounds, rec); err != nil {
		return err
	}
	p, err := r.site.Pool(ctx, vmName, warmNetwork)
	if err != nil {
		return err
	}
	if want := uint64(rounds + warmUps); p.GetHits() != want || p.GetMisses() != 0 || p.GetParked() != 1 {
		return fmt.Errorf("pool of network %s: %d attaches took a vnic, %d found none, %d vnics are parked; not %d, 0, 1",
			warmNetwork, p.GetHits(), p.GetMisses(), p.GetParked(), want)
	}
	return nil
}

func (r *rig) runPlan(ctx context.Context, rounds int, rec *samples.Recorder) error {
	p, err := json.Marshal(plan.Plan{Dir: plugins, Rounds: rounds, WarmUps: warmUps, Rest: rest, Kinds: kinds()})
	if err != nil {
		return err
	}
	if err := r.guest.Put(ctx, "/run/plan.json", p, 0o644); err != nil {
		return err
	}
	out, err := r.guest.Output(ctx, client, "/run/plan.json")
	if err != nil {
		return err
	}
	daemon, err := os.ReadFile(r.site.DaemonLog())
	if err != nil {
		return err
	}
	agent, err := r.guest.Get(ctx, agentLog)
	if err != nil {
		return err
	}
	steps, err := readSteps(string(daemon), string(agent))
	if err != nil {
		return err
	}
	for in := bufio.NewScanner(strings.NewReader(out)); in.Scan(); {
		var s plan.Sample
		if err := json.Unmarshal(in.Bytes(), &s); err != nil {
			return fmt.Errorf("read the client's output: %w", err)
		}
		if err := record(rec, s, steps[call{s.Pod, s.Verb}]); err != nil {
			return err
		}
	}
	return nil
}

// record records a call, with its parts if it is one of brfuse's.
func record(rec *samples.Recorder, s plan.Sample, parts []part) error {
	rec.Begin(s.Round)
	series := s.Verb + "/" + s.Kind
	rec.Add(series, s.Took)
	if s.Kind != fused && s.Kind != pooled || s.Verb == plan.Start {
		return nil
	}
	var agent, total time.Duration
	for _, p := range parts {
		switch p.name {
		case partAgent:
			agent = p.took
		case partTotal:
			total = p.took
		}
		rec.Add(series+"/"+p.name, p.took)
	}
	if agent == 0 || total == 0 {
		return fmt.Errorf("pod %s: the logs don't have all of %s: %v", s.Pod, s.Verb, parts)
	}
	rec.Add(series+"/"+partPlugin, s.Took-agent)
	rec.Add(series+"/"+partChannel, agent-total)
	return nil
}

package main

import (
	"errors"
	"fmt"
	"regexp"
	"strings"
	"time"

	"github.com/brfuse/brfuse/integration/engines/bench/plan"
)

const agentLog = "/run/log/brfuse-agent.log"

// Parts of a call of brfuse's, beside the daemon's steps.
const (
	partPlugin  = "plugin"  // all that is not the agent's: starting the plugin, the socket, the result
	partAgent   = "agent"   // from the request until the answer is ready
	partChannel = "channel" // of that, what is not the daemon's
	partTotal   = "total"   // the daemon's
)

// call names a call of CNI.
type call struct{ pod, verb string }

type part struct {
	name string
	took time.Duration
}

var (
	daemonLine = regexp.MustCompile(`msg=(attached|detached) .*key="?[^ "]*/([^/ "]+)/eth0"? (?:vnic=\S+ )?took=\S+ steps="?\[(.*?)\]`)
	daemonStep = regexp.MustCompile(`\{Step:(\w+) Duration:([^} ]+)\}`)
	agentLine  = regexp.MustCompile(`msg="cni request done" .*verb=(\w+) .*container=(\S+) .*took=(\S+)`)
)

// readSteps returns what daemon and agent have logged of each call.
func readSteps(daemon, agent string) (map[call][]part, error) {
	all := map[call][]part{}
	var errs []error
	add := func(c call, name, took string) {
		d, err := time.ParseDuration(took)
		if err != nil {
			errs = append(errs, fmt.Errorf("log of %s of %s: %w", c.verb, c.pod, err))
		}
		all[c] = append(all[c], part{name, d})
	}
	for line := range strings.Lines(daemon) {
		m := daemonLine.FindStringSubmatch(line)
		if m == nil {
			continue
		}
		c := call{m[2], plan.Add}
		if m[1] == "detached" {
			c.verb = plan.Del
		}
		for _, s := range daemonStep.FindAllStringSubmatch(m[3], -1) {
			add(c, s[1], s[2])
		}
	}
	for line := range strings.Lines(agent) {
		if m := agentLine.FindStringSubmatch(line); m != nil {
			add(call{m[2], m[1]}, partAgent, m[3])
		}
	}
	return all, errors.Join(errs...)
}

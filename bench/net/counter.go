package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"strconv"
	"strings"
	"time"

	"github.com/brfuse/brfuse/bench/internal/rig"
	"github.com/brfuse/brfuse/bench/internal/window"
	"github.com/brfuse/brfuse/internal/netcost"
	"github.com/brfuse/brfuse/internal/netload"
)

// takeLimit bounds the reading of this machine's counters.
const takeLimit = 10 * time.Second

// counter counts for one load, from its first measured message to its last. The
// server counts in its guest. A client on the hypervisor counts there; one in a guest
// counts there too, and tells this program when to count for the hypervisors.
type counter struct {
	rig   *rig.Rig
	setup *rig.Setup
	tell  *window.Listener

	hosts netcost.Cost // of the hypervisors, when the client is in a guest
	err   error
}

// costs are what was counted where.
type costs struct {
	guests map[string]netcost.Cost // by what names of its devices begin with
	hosts  netcost.Cost
}

// start returns more arguments of the client.
func (c *counter) start(ctx context.Context) (args []string, err error) {
	var pids []string
	for _, vm := range c.rig.VMs() {
		pids = append(pids, strconv.Itoa(vm.PID()))
	}
	if c.setup.Client.Guest() == nil {
		return []string{"--pids", strings.Join(pids, ",")}, nil
	}
	c.tell, err = c.rig.Listen(ctx, c.begin)
	if err != nil {
		return nil, err
	}
	return []string{"--everywhere", "--tell", c.tell.Addr().String()}, nil
}

// options are what is counted on the hypervisors.
func (c *counter) options() netcost.Options {
	o := netcost.Options{Vhost: true}
	for _, h := range c.rig.Hosts() {
		o.Namespaces = append(o.Namespaces, h.Host().Path())
	}
	for _, vm := range c.rig.VMs() {
		o.PIDs = append(o.PIDs, vm.PID())
	}
	return o
}

func (c *counter) begin() func() {
	before, err := c.take()
	return func() {
		after, errAfter := c.take()
		c.hosts, c.err = after.Since(before), errors.Join(err, errAfter)
	}
}

func (c *counter) take() (netcost.Snapshot, error) {
	ctx, cancel := context.WithTimeout(context.Background(), takeLimit)
	defer cancel()
	return netcost.Take(ctx, c.options())
}

// stop ends the listening, whatever became of the load.
func (c *counter) stop() error {
	if c.tell == nil {
		return nil
	}
	return errors.Join(c.tell.Close(), c.err)
}

// seen returns what was counted of a load that is over.
func (c *counter) seen(res netload.Result) (costs, error) {
	server, err := read(res.Remote)
	if err != nil {
		return costs{}, fmt.Errorf("counters of the server's guest: %w", err)
	}
	client, err := read(res.Local)
	if err != nil {
		return costs{}, fmt.Errorf("counters of the client: %w", err)
	}
	all := costs{guests: map[string]netcost.Cost{"": inGuest(c.setup.Server, server)}}
	if c.tell == nil {
		all.hosts = c.onHosts(client)
		return all, nil
	}
	if c.hosts.Elapsed == 0 {
		return costs{}, errors.New("counters of the hypervisors: the client told nothing")
	}
	all.guests["client-"] = inGuest(c.setup.Client, client)
	all.hosts = c.onHosts(c.hosts)
	return all, nil
}

// read reads what a netcost.Observer has told.
func read(raw json.RawMessage) (netcost.Cost, error) {
	var c struct {
		netcost.Cost
		Error string `json:"error"`
	}
	if len(raw) == 0 {
		return c.Cost, errors.New("there are none")
	}
	if err := json.Unmarshal(raw, &c); err != nil {
		return c.Cost, err
	}
	if c.Error != "" {
		return c.Cost, errors.New(c.Error)
	}
	return c.Cost, nil
}

// inGuest gives the namespaces of a guest the names that samples have: "pod" and
// "guest", the first one, and "overlay" for that between them.
func inGuest(p *rig.Place, cost netcost.Cost) netcost.Cost {
	return rename(cost, func(path string) string {
		switch {
		case path == "" && p.Netns() != "":
			return "pod"
		case path == "" || strings.HasPrefix(path, "/proc/"):
			return "guest"
		}
		return "overlay"
	})
}

// onHosts gives the namespaces of the hypervisors theirs.
func (c *counter) onHosts(cost netcost.Cost) netcost.Cost {
	hosts := c.rig.Hosts()
	return rename(cost, func(path string) string {
		if path == "" || path == hosts[0].Host().Path() {
			return "host"
		}
		return "client-host"
	})
}

func rename(cost netcost.Cost, name func(path string) string) netcost.Cost {
	for i := range cost.Devices {
		cost.Devices[i].Namespace = name(cost.Devices[i].Namespace)
	}
	for i := range cost.Namespaces {
		cost.Namespaces[i].Namespace = name(cost.Namespaces[i].Namespace)
	}
	return cost
}

package agentd

import (
	"context"
	"errors"
	"log/slog"
	"sync"
	"time"

	"github.com/brfuse/brfuse/guestside"
	"github.com/brfuse/brfuse/guestside/containers"
	"github.com/brfuse/brfuse/guestside/hostclient"
	"github.com/brfuse/brfuse/vnic"
)

// FrontDoor is where a container engine asks for vNICs. One that also has the
// method HandedBack(vnic.ID, vnic.MAC) is told of vNICs that come back to the
// first namespace; see guestside.Config.OnHandedBack.
type FrontDoor interface {
	// Serve serves until ctx ends. It is called once.
	Serve(ctx context.Context) error
}

// Door says how to open a front door. It is opened anew when it failed.
type Door struct {
	// Name is for people.
	Name string
	// Open makes the front door, which is served then.
	Open func(host *hostclient.Client, agent *guestside.Agent) (FrontDoor, error)
}

// Setup is what [Serve] needs. Its zero value is usable.
type Setup struct {
	// Channel is where the daemon is; see [Config].
	Channel string
	// Agent sets up the agent. Serve sets its callbacks.
	Agent guestside.Config
	// Containers says where container engines have their things.
	Containers containers.Config
	// Doors are opened for the guest's container engines.
	Doors []Door
	// NoBench refuses to measure for the daemon.
	NoBench bool
	// Version is the agent's, for people to read.
	Version string
	// Log gets what is worth knowing. Default: nothing is logged.
	Log *slog.Logger
}

// Serve makes an agent and serves it on a channel, and its front doors in the
// guest, until ctx ends: what the program brfuse-agent does. A front door that
// can't be opened, or fails, is logged and opened again later; the others and the
// channel go on.
func Serve(ctx context.Context, s Setup) (err error) {
	if s.Log == nil {
		s.Log = slog.New(slog.DiscardHandler)
	}
	reports, backs := new(Reports), new(listeners)
	s.Agent.Log, s.Agent.OnReturned, s.Agent.OnHandedBack = s.Log, reports.Returned, backs.handedBack
	agent, err := guestside.New(s.Agent)
	if err != nil {
		return err
	}
	defer func() {
		if cerr := agent.Close(); err == nil {
			err = cerr
		}
	}()
	meter := openBench(ctx, s)
	client := hostclient.New(hostclient.Config{Log: s.Log})
	var doors sync.WaitGroup
	defer doors.Wait()
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	for _, d := range s.Doors {
		doors.Go(func() { keepOpen(ctx, d, client, agent, backs, s.Log.With("door", d.Name)) })
	}
	resolve := func(ctx context.Context, runtime, container string) (vnic.Container, error) {
		return containers.Resolve(ctx, s.Containers, runtime, container)
	}
	return Run(ctx, Config{
		Agent: agent, Channel: s.Channel, Reports: reports, Client: client, Resolve: resolve, Bench: meter, Version: s.Version, Log: s.Log,
	})
}

// How long it takes until a front door that failed is opened again: longer each
// time.
const (
	doorMin = time.Second
	doorMax = time.Minute
)

// keepOpen serves a front door until ctx ends.
func keepOpen(ctx context.Context, d Door, host *hostclient.Client, agent *guestside.Agent, backs *listeners, log *slog.Logger) {
	for wait := doorMin; ; wait = min(2*wait, doorMax) {
		began := time.Now()
		err := serveDoor(ctx, d, host, agent, backs)
		if ctx.Err() != nil {
			return
		}
		if time.Since(began) > doorMax { // it was open for long
			wait = doorMin
		}
		log.Error("front door is closed", "again", wait, "error", err)
		if pause(ctx, wait) != nil {
			return
		}
	}
}

// errDoor is returned when a front door ended for no reason.
var errDoor = errors.New("it ended by itself")

func serveDoor(ctx context.Context, d Door, host *hostclient.Client, agent *guestside.Agent, backs *listeners) error {
	door, err := d.Open(host, agent)
	if err != nil {
		return err
	}
	if l, ok := door.(listener); ok {
		defer backs.add(l)()
	}
	if err := door.Serve(ctx); err != nil {
		return err
	}
	return errDoor
}

// listener is a front door that is told of vNICs that came back.
type listener interface {
	HandedBack(id vnic.ID, mac vnic.MAC)
}

// listeners passes on what an agent tells to the front doors that are open.
type listeners struct {
	mu  sync.Mutex // guards what is below
	all map[*listener]struct{}
}

// add returns how to take l away again.
func (ls *listeners) add(l listener) (remove func()) {
	ls.mu.Lock()
	defer ls.mu.Unlock()
	if ls.all == nil {
		ls.all = map[*listener]struct{}{}
	}
	key := &l
	ls.all[key] = struct{}{}
	return func() {
		ls.mu.Lock()
		defer ls.mu.Unlock()
		delete(ls.all, key)
	}
}

func (ls *listeners) handedBack(id vnic.ID, mac vnic.MAC) {
	ls.mu.Lock()
	all := make([]listener, 0, len(ls.all))
	for l := range ls.all {
		all = append(all, *l)
	}
	ls.mu.Unlock()
	for _, l := range all {
		l.HandedBack(id, mac)
	}
}

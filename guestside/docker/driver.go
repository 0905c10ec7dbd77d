// Package docker is a network and address driver of Docker ("remote driver"),
// served in a guest on a unix socket that dockerd finds by itself. Containers of
// a docker network of the driver brfuse have a vNIC of the hypervisor each.
//
// dockerd moves the vNIC itself: the hypervisor's daemon is asked for one that is
// handed over, which is then in the guest's first namespace, and dockerd takes it
// from there and brings it back. What dockerd was told is kept in one file, since
// it tells of its networks only once; what it doesn't tell, because it died, is
// found by comparing with the links of the guest and the attachments of the host.
// Docker's own API is never called.
package docker

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net/netip"
	"path/filepath"
	"strings"
	"time"

	"github.com/brfuse/brfuse/internal/keylock"
	"github.com/brfuse/brfuse/vnic"
)

// Host is the hypervisor's daemon. Its methods are safe for concurrent use and
// return soon after their ctx ends; a daemon that is away is a
// [vnic.ErrHostUnavailable].
type Host interface {
	VNICs
	Addresses
	// Notify returns a channel of its own that holds a token when a session with
	// the daemon has begun.
	Notify() <-chan struct{}
}

// VNICs are the host's calls about attachments. See the interface Orders of
// package guestlink.
type VNICs interface {
	Attach(ctx context.Context, req vnic.Request) (vnic.Attachment, error)
	Detach(ctx context.Context, pod, iface string) error
	Attachments(ctx context.Context, manager string) ([]vnic.Attachment, error)
	Publish(ctx context.Context, pod, iface string, ports []vnic.PortMapping) error
}

// Addresses are the host's calls about networks and addresses.
type Addresses interface {
	Networks(ctx context.Context) ([]vnic.Network, error)
	Reserve(ctx context.Context, network string, want netip.Addr, ipv6 bool) (netip.Prefix, error)
	Unreserve(ctx context.Context, network string, addrs []netip.Addr) error
	Reservations(ctx context.Context) ([]vnic.Reservation, error)
}

// Agent knows the guest's links.
type Agent interface {
	// AtHome returns the name of a vNIC in the guest's first namespace, and
	// whether it is there. It waits for nobody.
	AtHome(mac vnic.MAC) (link string, ok bool)
}

// DefaultSocket is where dockerd looks for a driver of the name "brfuse".
const DefaultSocket = "/run/docker/plugins/brfuse.sock"

// Config sets up a [Driver].
type Config struct {
	// Host is the hypervisor's daemon. Required.
	Host Host
	// Agent is the guest's. Required.
	Agent Agent
	// StateDir is the folder of what is remembered. It is made when it isn't
	// there. Required.
	StateDir string
	// Socket is where the driver is served; its file name without ".sock" is the
	// driver's name. Default: [DefaultSocket].
	Socket string
	// Network is the one that docker networks are of when they name none. Default:
	// the only one that the guest may ask for.
	Network string
	// Log gets what goes wrong. Default: nothing is logged.
	Log *slog.Logger

	// Timeout bounds a call of dockerd. Default: 20 s; dockerd gives up after 30.
	Timeout time.Duration
	// Grace is how long dockerd has to end an endpoint whose vNIC came back before
	// the driver does it. Default: 10 s.
	Grace time.Duration
	// Unjoined is how long an endpoint may be without a container. Default: 2 min.
	Unjoined time.Duration
	// Kept is how long an address may be reserved without a use. Default: 5 min.
	Kept time.Duration
	// Retry is how often is tried again what the host refused. Default: 30 s.
	Retry time.Duration
}

// Driver answers dockerd. It is safe for concurrent use: calls about one endpoint
// wait for each other, others don't.
type Driver struct {
	cfg   Config
	name  string
	log   *slog.Logger
	book  *book
	ipam  *ipam
	locks keylock.Locks[string] // by docker's endpoint ID; taken before the book's
	wake  chan struct{}         // holds a token when there is something to reconcile
}

// New returns a driver that knows what one of the same StateDir knew. Its file,
// if it makes no sense, is put aside, and what can be is asked from the host later.
func New(cfg Config) (*Driver, error) {
	if cfg.Host == nil || cfg.Agent == nil || cfg.StateDir == "" {
		return nil, fmt.Errorf("start docker driver: host, agent and state folder are required: %w", vnic.ErrInvalid)
	}
	if cfg.Socket == "" {
		cfg.Socket = DefaultSocket
	}
	if cfg.Log == nil {
		cfg.Log = slog.New(slog.DiscardHandler)
	}
	for d, otherwise := range map[*time.Duration]time.Duration{
		&cfg.Timeout: 20 * time.Second, &cfg.Grace: 10 * time.Second, &cfg.Unjoined: 2 * time.Minute,
		&cfg.Kept: 5 * time.Minute, &cfg.Retry: 30 * time.Second,
	} {
		if *d <= 0 {
			*d = otherwise
		}
	}
	b, err := openBook(filepath.Join(cfg.StateDir, "docker.json"), cfg.Log)
	if err != nil {
		return nil, fmt.Errorf("start docker driver: %w", err)
	}
	d := &Driver{
		cfg: cfg, log: cfg.Log, book: b, wake: make(chan struct{}, 1),
		name: strings.TrimSuffix(filepath.Base(cfg.Socket), ".sock"),
	}
	d.ipam = &ipam{d: d, held: map[place]int{}, asked: map[string]int{}, idle: map[place]time.Time{}, list: true}
	return d, nil
}

// iface is the interface that all of dockerd's attachments have: it names the
// vNIC in the container itself, and an endpoint has one.
const iface = "eth0"

// manager is what the driver calls itself to the host.
const manager = "docker"

// Labels of attachments.
const (
	labelNetwork  = "docker.network"
	labelEndpoint = "docker.endpoint"
)

// poke has the reconciler look.
func (d *Driver) poke() {
	select {
	case d.wake <- struct{}{}:
	default:
	}
}

// detach takes an endpoint's vNIC away. When the host can't do it now it is owed,
// and done later. The caller holds the endpoint's lock and has taken the endpoint
// from the book.
func (d *Driver) detach(ctx context.Context, endpoint string) error {
	ctx, cancel := context.WithTimeout(ctx, d.cfg.Timeout/2)
	defer cancel()
	err := d.cfg.Host.Detach(ctx, endpoint, iface)
	if err == nil || errors.Is(err, vnic.ErrNotFound) {
		return d.book.update(func(s *state) bool {
			_, owed := s.Leaving[endpoint]
			delete(s.Leaving, endpoint)
			return owed
		})
	}
	d.log.Warn("vnic of an endpoint is not taken away yet; tried again later", "endpoint", short(endpoint), "error", err)
	return errors.Join(err, d.owe(endpoint))
}

// owe notes that the vNIC of an endpoint is to be taken away.
func (d *Driver) owe(endpoint string) error {
	return d.book.update(func(s *state) bool {
		_, owed := s.Leaving[endpoint]
		s.Leaving[endpoint] = struct{}{}
		return !owed
	})
}

// lock waits for other calls about an endpoint. When it is unlocked the reconciler
// looks at what the call has left.
func (d *Driver) lock(ctx context.Context, what, endpoint string) (unlock func(), err error) {
	free, err := d.locks.Lock(ctx, endpoint)
	if err != nil {
		return nil, fmt.Errorf("%s endpoint %s: wait for another call: %w", what, short(endpoint), err)
	}
	return func() { free(); d.poke() }, nil
}

// short returns what people see of docker's IDs.
func short(id string) string { return id[:min(len(id), 12)] }

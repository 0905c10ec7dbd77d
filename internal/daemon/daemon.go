// Package daemon is brfused: it joins the host half, the links to the guests
// and the orchestrator, and serves the public API on a unix socket and,
// with mutual TLS, over TCP. A call about what another hypervisor has is forwarded to
// that one's daemon.
package daemon

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"os"
	"os/user"
	"strconv"
	"sync"
	"time"

	"github.com/brfuse/brfuse/internal/tlsfiles"
	"github.com/brfuse/brfuse/internal/unixsock"
)

// Config says how a daemon runs.
type Config struct {
	Socket string // path of the API's unix socket; required
	Group  string // group that may use the socket beside root; default: none
	State  string // path of the database; required without a shared store
	// Cluster is set when other daemons share the store.
	Cluster Cluster
	// Names is the domain below which the names of pods are served on the gateways.
	// Default: [names.DefaultDomain]; [NoNames]: none are.
	Names string
	// PublishPorts are the ports of this host that guests may have published.
	// Default: none.
	PublishPorts PortRange
	// APIListen is HOST:PORT where the API is served over TCP too, to clients and to
	// the daemons of other hypervisors. Default: nowhere.
	APIListen string
	// TLS are the files of the daemon's certificate. Required with APIListen.
	TLS tlsfiles.Files
	// Metrics is HOST:PORT or unix:PATH where numbers are served to Prometheus. Default:
	// nowhere.
	Metrics string
	// OTLPEndpoint is where traces are sent; see [tracing.Config]. Default: where the
	// environment says, or nowhere.
	OTLPEndpoint string
	Log          *slog.Logger
}

// stopLimit bounds how long running calls may go on after the daemon was told
// to stop.
const stopLimit = 10 * time.Second

// Run serves until ctx ends. Attachments stay: they belong to their pods, not
// to the daemon.
func Run(ctx context.Context, cfg Config) error {
	// First of all: a daemon beside another one would take its taps for garbage.
	release, err := claim(ctx, claimName, cfg.Log)
	if err != nil {
		return err
	}
	defer release()
	if cfg.Cluster, err = cfg.Cluster.complete(); err != nil {
		return err
	}
	if err := checkDomain(cfg.Names); err != nil {
		return err
	}
	tls, err := openTLS(cfg)
	if err != nil {
		return err
	}
	// Callers wait until the sockets are served.
	at, err := listenAll(ctx, cfg)
	if err != nil {
		return err
	}
	defer at.close() // the servers have closed them, unless the parts could not be made
	tell, err := openTelemetry(ctx, cfg)
	if err != nil {
		return err
	}
	defer tell.close(ctx)
	p, err := newParts(ctx, cfg, tell)
	if err != nil {
		return err
	}
	defer p.close()
	quiet, err := tell.serve(ctx, cfg.Metrics, p)
	if err != nil {
		return err
	}
	defer quiet()
	left := p.benchLeftovers(ctx) // before a client begins another one
	var sweep sync.WaitGroup
	sweep.Go(func() { p.dropBenches(ctx, left) })
	defer sweep.Wait()
	api := NewAPI(APIConfig{Log: cfg.Log, Orch: p.orch, VMs: p, Directory: p.orch, TLS: tls, Tracing: tell.tracing})
	defer api.Close()
	cfg.Log.Info("serving", "socket", cfg.Socket, "tcp", cfg.APIListen, "state", cfg.state())
	if err := at.serve(ctx, api); err != nil {
		return err
	}
	cfg.Log.Info("stopped")
	return nil
}

// listen makes the socket, for root and the group, if one is named.
func listen(ctx context.Context, path, group string) (net.Listener, error) {
	gid := -1
	if group != "" {
		var err error
		if gid, err = groupID(group); err != nil {
			return nil, err
		}
	}
	l, err := unixsock.Listen(ctx, path, 0o755)
	if err != nil {
		return nil, err
	}
	if gid < 0 {
		return l, nil
	}
	if err := grant(path, gid); err != nil {
		return nil, errors.Join(fmt.Errorf("socket group %s: %w", group, err), l.Close())
	}
	return l, nil
}

func groupID(name string) (int, error) {
	g, err := user.LookupGroup(name)
	if err != nil {
		return 0, fmt.Errorf("socket group: %w", err)
	}
	gid, err := strconv.Atoi(g.Gid)
	if err != nil {
		return 0, fmt.Errorf("socket group %s: gid %q: %w", name, g.Gid, err)
	}
	return gid, nil
}

// grant lets a group use the socket.
func grant(path string, gid int) error {
	if err := os.Chown(path, -1, gid); err != nil {
		return err
	}
	return os.Chmod(path, 0o660)
}

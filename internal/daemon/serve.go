package daemon

import (
	"context"
	"errors"
	"fmt"
	"net"
	"sync"
	"time"

	"google.golang.org/grpc"
)

// listeners are where the API is served.
type listeners struct {
	unix net.Listener
	tcp  net.Listener // nil: nowhere
	addr string       // of tcp, as others are told it
}

func listenAll(ctx context.Context, cfg Config) (at listeners, err error) {
	at.addr = cfg.APIListen
	if at.unix, err = listen(ctx, cfg.Socket, cfg.Group); err != nil {
		return at, err
	}
	if cfg.APIListen == "" {
		return at, nil
	}
	var lc net.ListenConfig
	if at.tcp, err = lc.Listen(ctx, "tcp", cfg.APIListen); err != nil {
		return at, errors.Join(fmt.Errorf("serve the API over TCP: %w", err), at.unix.Close())
	}
	return at, nil
}

// close closes those that no server has closed.
func (at listeners) close() {
	_ = at.unix.Close()
	if at.tcp != nil {
		_ = at.tcp.Close()
	}
}

// serve serves until ctx ends, and then until the calls have ended, or until stopLimit.
// When one of the servers fails, so do the others.
func (at listeners) serve(ctx context.Context, api *API) error {
	servers := map[net.Listener]*grpc.Server{at.unix: api.Server(ctx)}
	if at.tcp != nil {
		servers[at.tcp] = api.ServerTLS(ctx)
	}
	failed := make(chan error, len(servers))
	var running sync.WaitGroup
	for l, srv := range servers {
		running.Go(func() {
			if err := srv.Serve(l); err != nil {
				failed <- fmt.Errorf("serve %s: %w", l.Addr(), err)
			}
		})
	}
	defer running.Wait()
	end := (*grpc.Server).GracefulStop
	var err error
	select {
	case err = <-failed:
		end = (*grpc.Server).Stop
	case <-ctx.Done():
	}
	var stopping sync.WaitGroup
	for _, srv := range servers {
		force := time.AfterFunc(stopLimit, srv.Stop)
		stopping.Go(func() {
			defer force.Stop()
			end(srv)
		})
	}
	stopping.Wait()
	return err
}

package docker

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"sync"
	"time"

	"github.com/brfuse/brfuse/internal/unixsock"
)

// Limits of what dockerd sends.
const (
	maxBody   = 1 << 20 // bytes of a request; a container with a thousand ports has 100 KiB
	maxHeader = 16 << 10
	readLimit = 10 * time.Second // to read a request
	idleLimit = 5 * time.Minute  // of a connection
	stopLimit = 5 * time.Second  // for calls that are under way at the end
)

// mediaType is the one of Docker's plugin protocol.
const mediaType = "application/vnd.docker.plugins.v1.1+json"

// Serve listens on the socket, answers dockerd and reconciles until ctx ends, and
// returns its reason. It is called once.
func (d *Driver) Serve(ctx context.Context) error {
	l, err := unixsock.Listen(ctx, d.cfg.Socket, 0o700)
	if err != nil {
		return fmt.Errorf("serve docker driver: %w", err)
	}
	return d.serve(ctx, l)
}

// serve is Serve on a listener, which it closes.
func (d *Driver) serve(ctx context.Context, l net.Listener) error {
	calls, endCalls := context.WithCancel(context.WithoutCancel(ctx))
	defer endCalls()
	srv := &http.Server{
		Handler: d.handler(calls), MaxHeaderBytes: maxHeader,
		ReadTimeout: readLimit, IdleTimeout: idleLimit,
	}
	ctx, cancel := context.WithCancelCause(ctx)
	defer cancel(nil)
	var wg sync.WaitGroup
	defer wg.Wait()
	wg.Go(func() { d.reconcile(ctx) })
	wg.Go(func() { cancel(srv.Serve(l)) })
	<-ctx.Done()
	if shutdown(ctx, srv) != nil {
		endCalls()
		if shutdown(ctx, srv) != nil {
			_ = srv.Close()
		}
	}
	return context.Cause(ctx)
}

// shutdown takes no more calls, and waits a while for those that are under way.
func shutdown(ctx context.Context, srv *http.Server) error {
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), stopLimit)
	defer cancel()
	return srv.Shutdown(ctx)
}

// call answers a request.
type call func(ctx context.Context, body []byte) (any, error)

// handler returns what answers dockerd, without the socket. Calls end with life.
func (d *Driver) handler(life context.Context) http.Handler {
	mux := http.NewServeMux()
	for name, fn := range d.calls() {
		mux.Handle("/"+name, d.serveCall(life, name, fn))
	}
	return mux // it says "404 page not found" to others, which dockerd knows as "not implemented"
}

// calls are those of the protocol. See https://github.com/moby/moby, folders
// daemon/libnetwork/drivers/remote/api and daemon/libnetwork/ipams/remote/api.
func (d *Driver) calls() map[string]call {
	return map[string]call{
		"Plugin.Activate": answer(d.activate),
		"NetworkDriver.GetCapabilities": answer(func(context.Context, struct{}) (capabilities, error) {
			return capabilities{Scope: "local", ConnectivityScope: "global"}, nil
		}),
		"NetworkDriver.CreateNetwork":               answer(d.createNetwork),
		"NetworkDriver.DeleteNetwork":               answer(d.deleteNetwork),
		"NetworkDriver.AllocateNetwork":             answer(allocateNetwork),
		"NetworkDriver.FreeNetwork":                 answer(nothing),
		"NetworkDriver.GwAllocCheck":                answer(gwAllocCheck),
		"NetworkDriver.CreateEndpoint":              answer(d.createEndpoint),
		"NetworkDriver.EndpointOperInfo":            answer(d.operInfo),
		"NetworkDriver.DeleteEndpoint":              answer(d.deleteEndpoint),
		"NetworkDriver.Join":                        answer(d.join),
		"NetworkDriver.Leave":                       answer(d.leave),
		"NetworkDriver.ProgramExternalConnectivity": answer(d.program),
		"NetworkDriver.RevokeExternalConnectivity":  answer(d.revoke),
		"NetworkDriver.DiscoverNew":                 answer(nothing),
		"NetworkDriver.DiscoverDelete":              answer(nothing),
		"IpamDriver.GetCapabilities": answer(func(context.Context, struct{}) (ipamCapabilities, error) {
			return ipamCapabilities{}, nil
		}),
		"IpamDriver.GetDefaultAddressSpaces": answer(d.ipam.addressSpaces),
		"IpamDriver.RequestPool":             answer(d.ipam.requestPool),
		"IpamDriver.ReleasePool":             answer(d.ipam.releasePool),
		"IpamDriver.RequestAddress":          answer(d.ipam.requestAddress),
		"IpamDriver.ReleaseAddress":          answer(d.ipam.releaseAddress),
	}
}

// errMalformed is returned when a request is not what the protocol says.
var errMalformed = errors.New("malformed request")

// answer makes a call of a function with typed arguments.
func answer[Q, A any](fn func(ctx context.Context, q Q) (A, error)) call {
	return func(ctx context.Context, body []byte) (any, error) {
		var q Q
		if err := decode(body, &q); err != nil {
			return nil, err
		}
		return fn(ctx, q)
	}
}

// decode reads a request into q. An empty body is an empty request: dockerd sends
// none when a call has no arguments.
func decode(body []byte, q any) error {
	if len(body) > 0 {
		if err := json.Unmarshal(body, q); err != nil {
			return fmt.Errorf("%w: %w", errMalformed, err)
		}
	}
	if c, ok := q.(interface{ check() error }); ok {
		if err := c.check(); err != nil {
			return fmt.Errorf("%w: %w", errMalformed, err)
		}
	}
	return nil
}

// failed is the answer to a call that failed. The network driver's client looks
// for the one, the IPAM driver's for the other.
type failed struct {
	Err   string
	Error string
}

// serveCall serves one call. It goes on when dockerd hangs up, and ends with life.
func (d *Driver) serveCall(life context.Context, name string, fn call) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if r.Method != http.MethodPost {
			d.reply(w, http.StatusMethodNotAllowed, failedBy(fmt.Errorf("%s: use POST", name)))
			return
		}
		body, err := io.ReadAll(http.MaxBytesReader(w, r.Body, maxBody))
		if err != nil {
			d.reply(w, http.StatusRequestEntityTooLarge, failedBy(fmt.Errorf("%s: read request: %w", name, err)))
			return
		}
		ctx, cancel := context.WithTimeout(life, d.cfg.Timeout)
		defer cancel()
		began := time.Now()
		a, err := fn(ctx, body)
		if r.Context().Err() != nil {
			d.hungUp(body)
		}
		switch {
		case errors.Is(err, errMalformed):
			d.log.Warn("docker sent what makes no sense", "call", name, "error", err)
			d.reply(w, http.StatusBadRequest, failedBy(fmt.Errorf("%s: %w", name, err)))
		case err != nil:
			d.log.Warn("call of docker failed", "call", name, "took", time.Since(began), "error", err)
			d.reply(w, http.StatusOK, failedBy(err))
		default:
			d.log.Debug("call of docker", "call", name, "took", time.Since(began))
			d.reply(w, http.StatusOK, a)
		}
	})
}

func failedBy(err error) failed { return failed{err.Error(), err.Error()} }

func (d *Driver) reply(w http.ResponseWriter, status int, a any) {
	raw, err := json.Marshal(a)
	if err != nil { // no answer has what can't be encoded
		status, raw = http.StatusInternalServerError, []byte(`{"Err":"encode answer","Error":"encode answer"}`)
		d.log.Error("encode answer to docker", "error", err)
	}
	w.Header().Set("Content-Type", mediaType)
	w.WriteHeader(status)
	if _, err := w.Write(append(raw, '\n')); err != nil {
		d.log.Debug("docker has hung up", "error", err)
	}
}

package daemon

import (
	"context"
	"fmt"
	"net"
	"slices"
	"strconv"
	"strings"
	"sync"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/backoff"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/credentials"
	"google.golang.org/grpc/keepalive"
	"google.golang.org/grpc/metadata"
	"google.golang.org/grpc/status"

	brfusev1 "github.com/brfuse/brfuse/api/brfuse/v1"
	"github.com/brfuse/brfuse/internal/rpcerr"
	"github.com/brfuse/brfuse/internal/tlsfiles"
	"github.com/brfuse/brfuse/vnic"
)

// Directory knows the hypervisors that share a store, and which of them has what. It
// is safe for concurrent use.
type Directory interface {
	// Hypervisor returns the name of the daemon's own; empty: it shares its store with
	// nobody. It stays the same.
	Hypervisor() string
	// HypervisorOf returns the one that has a VM, or [vnic.ErrUnknownVM]. What the
	// daemon's own one has it knows also while the store does not answer.
	HypervisorOf(ctx context.Context, vm string) (vnic.Hypervisor, error)
	// HypervisorOfAttachment returns the one that has an attachment, or
	// [vnic.ErrNotFound]; as HypervisorOf does.
	HypervisorOfAttachment(ctx context.Context, id vnic.ID) (vnic.Hypervisor, error)
	// HypervisorsOfPod returns the names of those that are known to have a pod of that
	// name. Nobody is asked.
	HypervisorsOfPod(pod string) []string
	// Hypervisors returns all of them, in the order of their names.
	Hypervisors(ctx context.Context) ([]vnic.HypervisorStatus, error)
	// RemoveHypervisor releases all that a dead one holds, and forgets it.
	RemoveHypervisor(ctx context.Context, name string) error
}

// forwardedKey is the metadata that a forwarded call carries, with the name of the
// hypervisor that forwarded it. Such a call is never forwarded again.
const forwardedKey = "brfuse-forwarded"

// isForwarded says whether the call came from another daemon.
func isForwarded(ctx context.Context) bool {
	return len(metadata.ValueFromIncomingContext(ctx, forwardedKey)) > 0
}

// Limits of connections to other daemons. One that does not answer is given up after
// dialLimit, or, in a call, after pingTime and pingLimit.
const (
	dialLimit = 5 * time.Second
	redialMax = time.Second // between attempts
	idleLimit = time.Minute // without a call a connection is closed, and a lost one is not dialled
)

// peers are the daemons of other hypervisors. Connections are made when they are
// needed and kept for the next call.
type peers struct {
	self string
	tls  *tlsfiles.Source // nil: they can't be reached
	dial func(ctx context.Context, addr string) (net.Conn, error)
	more []grpc.DialOption // of all connections

	mu     sync.Mutex       // guards the following
	known  map[string]*peer // by name
	closed bool
}

// peer is the daemon of another hypervisor.
type peer struct {
	brfusev1.BrfuseClient

	vnic.Hypervisor
	self string
	conn *grpc.ClientConn
}

func newPeers(self string, src *tlsfiles.Source, more ...grpc.DialOption) *peers {
	return &peers{self: self, tls: src, more: more, known: map[string]*peer{}, dial: func(ctx context.Context, addr string) (net.Conn, error) {
		return new(net.Dialer).DialContext(ctx, "tcp", addr)
	}}
}

// get returns the daemon of a hypervisor. It does not wait for the connection.
func (p *peers) get(h vnic.Hypervisor) (*peer, error) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if have := p.known[h.Name]; have != nil {
		if have.API == h.API {
			return have, nil
		}
		p.dropLocked(have)
	}
	conn, err := p.connectLocked(h)
	if err != nil {
		return nil, fmt.Errorf("hypervisor %s: %w: %w", h.Name, err, vnic.ErrHypervisorUnavailable)
	}
	pr := &peer{BrfuseClient: brfusev1.NewBrfuseClient(conn), Hypervisor: h, self: p.self, conn: conn}
	p.known[h.Name] = pr
	return pr, nil
}

func (p *peers) connectLocked(h vnic.Hypervisor) (*grpc.ClientConn, error) {
	switch {
	case p.closed:
		return nil, fmt.Errorf("this brfused, of %s, is stopping", p.self)
	case h.API == "":
		return nil, fmt.Errorf("it serves no API to others: start its brfused with --api-listen, or call it there")
	case p.tls == nil:
		return nil, fmt.Errorf("this brfused, of %s, has no certificate to call others: start it with --tls-cert, --tls-key and --tls-ca", p.self)
	}
	host, _, err := net.SplitHostPort(h.API)
	if err != nil {
		return nil, fmt.Errorf("its API is at no HOST:PORT: %w", err)
	}
	return grpc.NewClient("passthrough:///"+h.API, append(slices.Clip(p.more),
		grpc.WithTransportCredentials(credentials.NewTLS(p.tls.Client(h.Name, host))),
		grpc.WithContextDialer(p.dial), // nor by a proxy
		grpc.WithKeepaliveParams(keepalive.ClientParameters{Time: pingTime, Timeout: pingLimit}),
		grpc.WithConnectParams(grpc.ConnectParams{
			Backoff:           backoff.Config{BaseDelay: redialMax / 10, Multiplier: 2, Jitter: 0.2, MaxDelay: redialMax},
			MinConnectTimeout: dialLimit,
		}),
		grpc.WithIdleTimeout(idleLimit), grpc.WithDisableServiceConfig(),
	)...)
}

// keep closes the connections to all that are not there any more.
func (p *peers) keep(list []vnic.HypervisorStatus) {
	there := map[string]bool{}
	for _, h := range list {
		there[h.Name] = h.State != vnic.HypervisorReleased
	}
	p.mu.Lock()
	defer p.mu.Unlock()
	for name, pr := range p.known {
		if !there[name] {
			p.dropLocked(pr)
		}
	}
}

// close closes all connections, and there are no new ones.
func (p *peers) close() {
	p.mu.Lock()
	p.closed = true
	p.mu.Unlock()
	p.keep(nil)
}

func (p *peers) dropLocked(pr *peer) {
	delete(p.known, pr.Name)
	_ = pr.conn.Close() // its only error is that it was closed before
}

// mark returns the context of a call that is forwarded. It ends with the caller's.
func (p *peer) mark(ctx context.Context) context.Context {
	return metadata.AppendToOutgoingContext(ctx, forwardedKey, p.self)
}

// failure returns the error of a forwarded call: the daemon's own words, or
// [vnic.ErrHypervisorUnavailable] when it was not reached or did not answer.
func (p *peer) failure(ctx context.Context, err error) error {
	st := status.Convert(err)
	err = rpcerr.Decode(err)
	lost := st.Code() == codes.Unavailable || st.Code() == codes.Canceled && ctx.Err() == nil
	if !lost || vnic.CodeOf(err) != "" {
		return err
	}
	return fmt.Errorf("hypervisor %s at %s: %s: see that it runs and is reached; when it is gone for good, `brfuse hosts rm %s`: %w",
		p.Name, p.API, reason(st.Message()), p.Name, vnic.ErrHypervisorUnavailable)
}

// reason takes away what gRPC wraps around the reason of a lost connection.
func reason(msg string) string {
	if _, rest, ok := strings.Cut(msg, "desc = "); ok {
		if quoted, err := strconv.QuotedPrefix(rest); err == nil {
			msg, _ = strconv.Unquote(quoted) // which it is
		}
	}
	for _, wrapping := range []string{"transport: ", "Error while dialing: "} {
		msg = strings.TrimPrefix(msg, wrapping)
	}
	return msg
}

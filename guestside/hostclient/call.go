package hostclient

import (
	"context"
	"errors"
	"fmt"
	"time"

	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	agentv1 "github.com/brfuse/brfuse/api/agent/v1"
	"github.com/brfuse/brfuse/internal/rpcerr"
	"github.com/brfuse/brfuse/vnic"
)

// remedy is what to look after when the daemon is away.
const remedy = "is brfused running on the hypervisor, and this vm registered there (`brfuse vm list`)?"

// call makes a call, a second time when its session ends before the answer. what
// says for people what the call is about.
func (c *Client) call(ctx context.Context, what string, limit time.Duration, do func(context.Context, agentv1.HostService) error) error {
	limited, cancel := context.WithTimeout(ctx, limit)
	defer cancel()
	select {
	case c.slots <- struct{}{}:
		defer func() { <-c.slots }()
	case <-limited.Done():
		return gaveUp(ctx, what, limited.Err())
	}
	var ended Session
	for first := true; ; first = false {
		s, err := c.await(limited, ended)
		if err == nil {
			err = do(limited, agentv1.NewHostClient(s.Client()))
		}
		switch {
		case err == nil:
			return nil
		case s != nil && answered(err):
			return answer(err)
		case limited.Err() != nil:
			return gaveUp(ctx, what, limited.Err())
		case s == nil:
			return fmt.Errorf("%s: %w", what, err)
		case s.Alive() && !ending(err):
			return fmt.Errorf("%s: %w", what, err) // such as an answer that makes no sense
		case !first:
			return fmt.Errorf("%s: %w: the session ended, twice: %w", what, vnic.ErrHostUnavailable, err)
		}
		ended = s
		c.cfg.Log.Debug("call again in the next session", "call", what, "error", err)
	}
}

// gaveUp is the error of a call whose caller canceled it or whose time is up.
func gaveUp(ctx context.Context, what string, err error) error {
	if errors.Is(ctx.Err(), context.Canceled) {
		return fmt.Errorf("%s: %w", what, ctx.Err())
	}
	return fmt.Errorf("%s: %w: no answer in time: %w", what, vnic.ErrHostUnavailable, err)
}

// await returns a live session other than one that is known to end, waiting for it
// up to the grace.
func (c *Client) await(ctx context.Context, ended Session) (Session, error) {
	timer := time.NewTimer(c.cfg.Grace)
	defer timer.Stop()
	for {
		s, changed := c.current()
		if s != nil && s != ended && s.Alive() {
			return s, nil
		}
		select {
		case <-changed:
		case <-timer.C:
			return nil, fmt.Errorf("%w: no session for %s; %s", vnic.ErrHostUnavailable, c.cfg.Grace, remedy)
		case <-ctx.Done():
			return nil, ctx.Err()
		}
	}
}

// answered tells whether an error is the daemon's answer.
func answered(err error) bool {
	_, ok := status.FromError(err)
	return ok && !ending(err)
}

// ending tells whether the daemon says that the session ends, and that it didn't
// begin with the call. It says so before this side notices.
func ending(err error) bool {
	st, ok := status.FromError(err)
	return ok && st.Code() == codes.Unavailable && vnic.CodeOf(rpcerr.Decode(err)) == ""
}

// answer returns an error of the daemon in its words.
func answer(err error) error {
	decoded := rpcerr.Decode(err)
	switch {
	case vnic.CodeOf(decoded) != "":
		return decoded
	case status.Code(err) == codes.Unimplemented:
		return fmt.Errorf("brfused on the hypervisor is older than this agent: %w: %w", vnic.ErrUnsupported, decoded)
	case errors.Is(decoded, context.DeadlineExceeded): // of the daemon's
		return fmt.Errorf("%w: %w", vnic.ErrHostUnavailable, decoded)
	}
	return decoded
}

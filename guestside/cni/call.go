package cni

import (
	"bufio"
	"errors"
	"fmt"
	"net"
	"time"

	"github.com/containernetworking/cni/pkg/types"

	"github.com/brfuse/brfuse/guestside/cni/cniapi"
)

// answerSlack is how much longer than asked for the agent is waited for, so that
// its own word on what took so long arrives.
const answerSlack = 2 * time.Second

// awayError is returned when the agent does not answer.
type awayError struct {
	socket string
	err    error
}

// Error implements error.
func (e *awayError) Error() string {
	return fmt.Sprintf("ask brfuse-agent at %s: %v; start it (systemctl start brfuse-agent), or set \"socket\" in the CNI configuration", e.socket, e.err)
}

// Unwrap implements the interface of package errors.
func (e *awayError) Unwrap() error { return e.err }

// As lets it be taken for a CNI error that tells the runtime to repeat the call.
func (e *awayError) As(target any) bool {
	t, ok := target.(**types.Error)
	if ok {
		*t = types.NewError(types.ErrTryAgainLater, "brfuse-agent is unavailable", e.Error())
	}
	return ok
}

// call sends a request to the agent and returns its response.
func call(c config, req cniapi.Request) (cniapi.Response, error) {
	end := time.Now().Add(c.timeout() + answerSlack)
	conn, err := (&net.Dialer{Deadline: end}).Dial("unix", c.Socket)
	if err != nil {
		return cniapi.Response{}, &awayError{c.Socket, err}
	}
	defer conn.Close()
	if err = conn.SetDeadline(end); err == nil {
		err = cniapi.Write(conn, req)
	}
	if errors.Is(err, cniapi.ErrTooLong) {
		return cniapi.Response{}, types.NewError(types.ErrInvalidNetworkConfig, "the request is too long", err.Error())
	}
	if err != nil {
		return cniapi.Response{}, &awayError{c.Socket, err}
	}
	r, err := cniapi.ReadResponse(bufio.NewReader(conn))
	var e *cniapi.Error
	if err != nil && !errors.As(err, &e) {
		return r, &awayError{c.Socket, fmt.Errorf("no answer: %w", err)}
	}
	return r, err
}

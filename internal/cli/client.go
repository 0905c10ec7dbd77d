package cli

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net"
	"os"
	"strings"
	"text/tabwriter"
	"time"

	"google.golang.org/protobuf/encoding/protojson"
	"google.golang.org/protobuf/proto"

	brfusev1 "github.com/brfuse/brfuse/api/brfuse/v1"
	"github.com/brfuse/brfuse/internal/rpcerr"
)

// call runs f with a client of the daemon, and a deadline.
func (a *app) call(ctx context.Context, f func(context.Context, brfusev1.BrfuseClient) error) error {
	conn, err := a.connect(ctx)
	if err != nil {
		return err
	}
	defer conn.Close()
	limited, cancel := context.WithTimeout(ctx, a.timeout)
	defer cancel()
	deadline, _ := limited.Deadline()
	err = rpcerr.Decode(f(limited, brfusev1.NewBrfuseClient(conn)))
	switch {
	case ctx.Err() != nil:
		return err
	case errors.Is(err, context.DeadlineExceeded) && limited.Err() != nil, // else it is one of the daemon's deadlines
		errors.Is(err, context.Canceled) && time.Until(deadline) < time.Second: // the daemon has noticed first
		return fmt.Errorf("no answer from brfused within --timeout %s: %w", a.timeout, context.DeadlineExceeded)
	}
	return err
}

// probeSocket tells in plain words why the daemon can't be reached: gRPC would
// wrap the reason in its own.
func probeSocket(ctx context.Context, path string) error {
	var d net.Dialer
	conn, err := d.DialContext(ctx, "unix", path)
	switch {
	case err == nil:
		return conn.Close()
	case errors.Is(err, os.ErrPermission):
		return fmt.Errorf("connect to brfused: no permission for %s: run as root or as a member of the socket's group (brfused --socket-group): %w", path, os.ErrPermission)
	case errors.Is(err, os.ErrNotExist):
		return fmt.Errorf("connect to brfused: no socket %s: start brfused, or name its socket by --socket: %w", path, os.ErrNotExist)
	}
	return fmt.Errorf("connect to brfused at %s: is it running?: %w", path, err)
}

// print writes m as JSON, or by the table function.
func (a *app) print(m proto.Message, table func(w *tabwriter.Writer)) error {
	if a.output == "json" {
		raw, err := protojson.MarshalOptions{EmitDefaultValues: true}.Marshal(m)
		if err != nil {
			return fmt.Errorf("encode answer: %w", err)
		}
		var b bytes.Buffer
		if err := json.Indent(&b, raw, "", "  "); err != nil { // protojson's spacing is random on purpose
			return fmt.Errorf("encode answer: %w", err)
		}
		b.WriteByte('\n')
		_, err = a.main.Stdout.Write(b.Bytes())
		return err
	}
	w := tabwriter.NewWriter(a.main.Stdout, 0, 0, 2, ' ', 0)
	table(w)
	return w.Flush()
}

// join shows a list in a table's cell.
func join(s []string) string {
	if len(s) == 0 {
		return "-"
	}
	return strings.Join(s, ",")
}

// orDash shows a value in a table's cell.
func orDash(s string) string {
	if s == "" {
		return "-"
	}
	return s
}

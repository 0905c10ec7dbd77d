package fused

import (
	"context"
	"errors"
	"fmt"
	"net"
	"os"
	"path/filepath"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/backoff"
	"google.golang.org/grpc/credentials/insecure"

	"github.com/brfuse/brfuse/integration/vmlab"
)

const (
	startLimit = 30 * time.Second // until daemon and agent are ready
	stopLimit  = 10 * time.Second
	logTail    = 4000 // bytes
)

// daemon is a brfused and a connection to it.
type daemon struct {
	proc *vmlab.Process
	log  string
	conn *grpc.ClientConn
}

// startDaemon starts brfused as it is started in production. It may not serve
// yet when startDaemon returns.
func startDaemon(cfg Config) (*daemon, error) {
	d := &daemon{log: filepath.Join(cfg.Dir, "brfused.log")}
	socket := filepath.Join(cfg.Dir, "brfused.sock")
	log, err := os.Create(d.log)
	if err != nil {
		return nil, err
	}
	defer log.Close() // the daemon has its own
	cmd := cfg.Net.Command(cfg.Brfused, "--socket", socket, "--state", filepath.Join(cfg.Dir, "brfuse.db"))
	cmd.Stdout, cmd.Stderr = log, log
	if d.proc, err = vmlab.StartProcess(cmd); err != nil {
		return nil, err
	}
	if d.conn, err = dial(socket); err != nil {
		d.proc.Kill()
		return nil, err
	}
	return d, nil
}

func dial(socket string) (*grpc.ClientConn, error) {
	soon := grpc.ConnectParams{Backoff: backoff.Config{BaseDelay: askAgain, Multiplier: 1, MaxDelay: askAgain}, MinConnectTimeout: time.Second}
	return grpc.NewClient("passthrough:///"+socket,
		grpc.WithTransportCredentials(insecure.NewCredentials()), grpc.WithConnectParams(soon),
		grpc.WithContextDialer(func(ctx context.Context, path string) (net.Conn, error) {
			return new(net.Dialer).DialContext(ctx, "unix", path)
		}))
}

// explain adds the end of the daemon's log to an error.
func (f *Fused) explain(err error) error {
	raw, rerr := os.ReadFile(f.daemon.log)
	if rerr != nil {
		return errors.Join(err, rerr)
	}
	return fmt.Errorf("%w\n--- brfused:\n%s", err, raw[max(0, len(raw)-logTail):])
}

// PID is the daemon's process id.
func (f *Fused) PID() int { return f.daemon.proc.PID() }

// Close ends the daemon in good order.
func (f *Fused) Close() error {
	err := f.daemon.conn.Close()
	if f.conn != nil {
		err = errors.Join(err, f.conn.Close())
	}
	if serr := f.daemon.proc.Signal(os.Interrupt); serr != nil && !errors.Is(serr, os.ErrProcessDone) {
		err = errors.Join(err, serr)
	}
	patience := time.NewTimer(stopLimit)
	defer patience.Stop()
	select {
	case <-f.daemon.proc.Done():
	case <-patience.C:
		err = errors.Join(err, fmt.Errorf("await the end of brfused: %s have passed", stopLimit))
	}
	f.daemon.proc.Kill()
	return err
}

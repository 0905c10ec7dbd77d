package cli

import (
	"context"
	"encoding/json"
	"fmt"
	"time"

	brfusev1 "github.com/brfuse/brfuse/api/brfuse/v1"
	"github.com/brfuse/brfuse/internal/netpath"
)

// pathOptions are those of doctor --path.
type pathOptions struct {
	req   brfusev1.PathRequest
	watch time.Duration // between two looks; 0: there is one
}

// check finds what is wrong on the command line.
func (o *pathOptions) check() error {
	switch {
	case o.req.GetPod() == "":
		return usagef("--path needs a pod: the name of one that is attached, or with --vm the name or path of a network namespace in the vm, or a process id")
	case o.req.GetRuntime() != "" && o.req.GetVm() == "":
		return usagef("--runtime needs --vm: a container is looked for in one vm")
	case o.watch < 0:
		return usagef("watch %s is negative", o.watch)
	}
	return nil
}

// path prints what a packet of a pod crosses.
func (a *app) path(ctx context.Context, o *pathOptions) error {
	if err := o.check(); err != nil {
		return err
	}
	r, err := a.look(ctx, &o.req)
	if err != nil {
		return err
	}
	if o.watch > 0 {
		earlier := r
		t := time.NewTimer(o.watch)
		defer t.Stop()
		select {
		case <-t.C:
		case <-ctx.Done():
			return fmt.Errorf("watch counters for %s: %w", o.watch, ctx.Err())
		}
		if r, err = a.look(ctx, &o.req); err != nil {
			return err
		}
		r.Since(earlier)
	}
	if a.output == "json" {
		return a.printJSON(r)
	}
	return r.Write(a.main.Stdout)
}

// look asks for the path once.
func (a *app) look(ctx context.Context, req *brfusev1.PathRequest) (*netpath.Report, error) {
	r := new(netpath.Report)
	return r, a.call(ctx, func(ctx context.Context, cl brfusev1.BrfuseClient) error {
		got, err := cl.Path(ctx, req)
		if err != nil {
			return err
		}
		if err := json.Unmarshal([]byte(got.GetReport()), r); err != nil {
			return fmt.Errorf("decode path: %w", err)
		}
		return nil
	})
}

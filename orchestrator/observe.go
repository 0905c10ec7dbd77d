package orchestrator

import (
	"context"
	"errors"
	"os"
	"slices"

	"github.com/brfuse/brfuse/orchestrator/store"
	"github.com/brfuse/brfuse/vnic"
)

// Operation is what an [Observer] is told of.
type Operation string

// Operations.
const (
	OpAttach Operation = "attach"
	OpDetach Operation = "detach"
)

// Observer is told of each attach and detach that was asked for, and of its steps, but
// not of what is tried again in the background. Its methods, and what they return, are
// safe for concurrent use and return at once.
type Observer interface {
	// Begin is called when an operation begins. It returns the context to do it with,
	// and what is called at its end: with the attachment, or as much of it as is known.
	Begin(ctx context.Context, op Operation) (context.Context, func(vnic.Attachment, error))
	// Step is called when a step of an operation begins; steps may overlap. What it
	// returns is called at the end, with what a guest says of the step's parts, which
	// came one after the other; most have none.
	Step(ctx context.Context, op Operation, name string) (context.Context, func([]vnic.Timing, error))
}

// observedKey is the key in a context of the observed operation that it belongs to.
type observedKey struct{}

// observed is an operation with those who are told of it.
type observed struct {
	op        Operation
	observers []Observer
}

// observe tells the observers that an operation begins.
func (o *Orchestrator) observe(ctx context.Context, op Operation) (context.Context, func(vnic.Attachment, error)) {
	if len(o.cfg.Observers) == 0 {
		return ctx, func(vnic.Attachment, error) {}
	}
	ctx = context.WithValue(ctx, observedKey{}, observed{op, o.cfg.Observers})
	ends := make([]func(vnic.Attachment, error), len(o.cfg.Observers))
	for i, ob := range o.cfg.Observers {
		ctx, ends[i] = ob.Begin(ctx, op)
	}
	return ctx, func(a vnic.Attachment, err error) {
		for _, end := range slices.Backward(ends) {
			end(a, err)
		}
	}
}

// beginStep tells the observers of ctx's operation, if it has any, that a step begins.
func beginStep(ctx context.Context, name string) (context.Context, func([]vnic.Timing, error)) {
	in, ok := ctx.Value(observedKey{}).(observed)
	if !ok {
		return ctx, func([]vnic.Timing, error) {}
	}
	ends := make([]func([]vnic.Timing, error), len(in.observers))
	for i, ob := range in.observers {
		ctx, ends[i] = ob.Step(ctx, in.op, name)
	}
	return ctx, func(parts []vnic.Timing, err error) {
		for _, end := range slices.Backward(ends) {
			end(parts, err)
		}
	}
}

// asked returns a, or what was asked for when there is no attachment.
func asked(a vnic.Attachment, req vnic.Request) vnic.Attachment {
	if a.ID == "" {
		a.Request = req
	}
	return a
}

// OutcomeOther is the [Outcome] of an error of no known kind.
const OutcomeOther = "other"

// Outcome names the kind of an error, for numbers: "ok" of none, the code of one of
// package vnic, else one of a few
// words.
func Outcome(err error) string {
	if err == nil {
		return "ok"
	}
	if code := vnic.CodeOf(err); code != "" {
		return string(code)
	}
	for _, k := range []struct {
		err  error
		name string
	}{
		{store.ErrUnavailable, "store_unavailable"},
		{store.ErrUnclear, "store_unclear"},
		{store.ErrCompacted, "compacted"},
		{os.ErrClosed, "closed"},
		{context.Canceled, "canceled"},
		{context.DeadlineExceeded, "deadline_exceeded"},
	} {
		if errors.Is(err, k.err) {
			return k.name
		}
	}
	return OutcomeOther
}

// AgentUp says whether there is a session with the agent of a VM that runs, as far as
// is known. Nobody is asked.
func (o *Orchestrator) AgentUp(vm string) bool { return o.seen.usableAgent(vm) == nil }

// Leased returns how many addresses pods of a network have, on all hypervisors. The
// store is not asked.
func (o *Orchestrator) Leased(network string) (v4, v6 int) { return o.fabric.Leased(network) }

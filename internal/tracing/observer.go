package tracing

import (
	"context"
	"time"

	"go.opentelemetry.io/otel/attribute"
	"go.opentelemetry.io/otel/codes"
	"go.opentelemetry.io/otel/trace"

	"github.com/brfuse/brfuse/orchestrator"
	"github.com/brfuse/brfuse/vnic"
)

var _ orchestrator.Observer = (*Tracing)(nil)

// Begin implements [orchestrator.Observer]: an operation is a span.
func (t *Tracing) Begin(ctx context.Context, op orchestrator.Operation) (context.Context, func(vnic.Attachment, error)) {
	ctx, span := t.tracer.Start(ctx, string(op))
	return ctx, func(a vnic.Attachment, err error) {
		span.SetAttributes(
			attribute.String("brfuse.attachment", string(a.ID)), attribute.String("brfuse.vm", a.Request.VM),
			attribute.String("brfuse.pod", a.Request.Pod), attribute.String("brfuse.interface", a.Request.Interface),
			attribute.String("brfuse.network", a.Request.Network),
		)
		finish(span, err)
	}
}

// Step implements [orchestrator.Observer]: a step is a span in the operation's, and its
// parts are spans in that. When these began is a guess: the last one ended with the step.
func (t *Tracing) Step(ctx context.Context, _ orchestrator.Operation, name string) (context.Context, func([]vnic.Timing, error)) {
	ctx, span := t.tracer.Start(ctx, name)
	return ctx, func(parts []vnic.Timing, err error) {
		end := time.Now()
		at := end
		for _, p := range parts {
			at = at.Add(-p.Duration)
		}
		for _, p := range parts {
			_, part := t.tracer.Start(ctx, "guest "+p.Step, trace.WithTimestamp(at))
			at = at.Add(p.Duration)
			part.End(trace.WithTimestamp(at))
		}
		finish(span, err, trace.WithTimestamp(end))
	}
}

// finish ends a span with the outcome.
func finish(span trace.Span, err error, opts ...trace.SpanEndOption) {
	if err != nil {
		span.SetStatus(codes.Error, err.Error())
		span.SetAttributes(attribute.String("error.type", orchestrator.Outcome(err)))
	}
	span.End(opts...)
}

package tracing

import (
	"bytes"
	"context"
	"log/slog"
	"strings"
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
	sdktrace "go.opentelemetry.io/otel/sdk/trace"
)

// failing is an exporter that says err.
type failing struct {
	sdktrace.SpanExporter
	err error
}

func (f *failing) ExportSpans(context.Context, []sdktrace.ReadOnlySpan) error { return f.err }

// TestFailuresAreLogged: once, until it has worked again.
func TestFailuresAreLogged(t *testing.T) {
	var log bytes.Buffer
	f := &failing{}
	l := &logged{SpanExporter: f, log: slog.New(slog.NewTextHandler(&log, nil))}
	for i, step := range []struct {
		err   error
		lines int // so far
	}{{nil, 0}, {assert.AnError, 1}, {assert.AnError, 1}, {nil, 1}, {assert.AnError, 2}} {
		f.err = step.err
		require.NoError(t, l.ExportSpans(t.Context(), nil))
		assert.Equal(t, step.lines, strings.Count(log.String(), "traces are lost"), "after export %d", i)
	}
}

package daemon

import (
	"log/slog"
	"path/filepath"
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/brfuse/brfuse/orchestrator/store"
	"github.com/brfuse/brfuse/orchestrator/store/memstore"
	"github.com/brfuse/brfuse/vnic"
)

// TestTelemetry: without being asked, the daemon counts nothing, listens nowhere and
// sends nothing.
func TestTelemetry(t *testing.T) {
	for _, name := range []string{"OTEL_EXPORTER_OTLP_ENDPOINT", "OTEL_EXPORTER_OTLP_TRACES_ENDPOINT", "OTEL_SDK_DISABLED", "OTEL_TRACES_EXPORTER"} {
		t.Setenv(name, "")
	}
	log, socket, s := slog.New(slog.DiscardHandler), "unix:"+filepath.Join(t.TempDir(), "m"), memstore.New()

	none, err := openTelemetry(t.Context(), Config{Log: log})
	require.NoError(t, err)
	assert.Empty(t, none.observers())
	assert.Same(t, s, none.store(s))
	stop, err := none.serve(t.Context(), "", nil)
	require.NoError(t, err)
	stop()
	none.close(t.Context())

	both, err := openTelemetry(t.Context(), Config{Log: log, Metrics: socket, OTLPEndpoint: "http://127.0.0.1:1"})
	require.NoError(t, err)
	assert.Len(t, both.observers(), 2)
	assert.NotEqual(t, store.Store(s), both.store(s))

	_, err = openTelemetry(t.Context(), Config{Log: log, Metrics: socket})
	require.ErrorIs(t, err, vnic.ErrInUse)
	_, err = openTelemetry(t.Context(), Config{Log: log, Metrics: socket, OTLPEndpoint: "nowhere"})
	require.ErrorIs(t, err, vnic.ErrInvalid)
	both.close(t.Context())

	again, err := openTelemetry(t.Context(), Config{Log: log, Metrics: socket})
	require.NoError(t, err, "the socket is free again")
	assert.Len(t, again.observers(), 1)
	again.close(t.Context())
}

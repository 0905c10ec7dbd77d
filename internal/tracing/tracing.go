// Package tracing sends traces of attaches and detaches, with their steps, and of calls
// of the API to an OpenTelemetry collector by OTLP over gRPC.
//
// Traces are for who asks for them: without an endpoint there is no [Tracing], and the
// methods of a nil one cost nothing and add nothing. The standard variables of the
// environment hold where no option says otherwise: OTEL_EXPORTER_OTLP_*, OTEL_SERVICE_NAME,
// OTEL_RESOURCE_ATTRIBUTES, OTEL_TRACES_SAMPLER and OTEL_BSP_*, see
// https://opentelemetry.io/docs/specs/otel/configuration/sdk-environment-variables/.
//
// A collector that is slow or gone holds up nothing: spans wait in a queue of bounded
// length, and are dropped when that is full.
package tracing

import (
	"cmp"
	"context"
	"fmt"
	"log/slog"
	"net"
	"net/url"
	"strings"
	"time"

	"go.opentelemetry.io/otel/attribute"
	"go.opentelemetry.io/otel/exporters/otlp/otlptrace/otlptracegrpc"
	"go.opentelemetry.io/otel/sdk/resource"
	sdktrace "go.opentelemetry.io/otel/sdk/trace"
	"go.opentelemetry.io/otel/trace"

	"github.com/brfuse/brfuse/vnic"
)

// Config says where traces go, and whose they are.
type Config struct {
	// Endpoint is http://HOST:PORT, or https://HOST:PORT for TLS, which HOST:PORT alone
	// means too. Default: what the environment says.
	Endpoint string
	// Getenv is as [os.Getenv]. Required.
	Getenv     func(string) string
	Hypervisor string // name of this one; may be empty
	Version    string // of the daemon
	Log        *slog.Logger
}

// Tracing makes spans and sends them. It is safe for concurrent use, also when it is
// nil. Make it with [Start].
type Tracing struct {
	provider *sdktrace.TracerProvider
	tracer   trace.Tracer
}

// asked says whether somebody wants traces.
func (c Config) asked() bool {
	switch {
	case strings.EqualFold(c.Getenv("OTEL_SDK_DISABLED"), "true"), c.Getenv("OTEL_TRACES_EXPORTER") == "none":
		return false
	}
	return cmp.Or(c.Endpoint, c.Getenv("OTEL_EXPORTER_OTLP_TRACES_ENDPOINT"), c.Getenv("OTEL_EXPORTER_OTLP_ENDPOINT")) != ""
}

// options returns those of the exporter that the environment does not decide.
func (c Config) options() ([]otlptracegrpc.Option, error) {
	protocol := cmp.Or(c.Getenv("OTEL_EXPORTER_OTLP_TRACES_PROTOCOL"), c.Getenv("OTEL_EXPORTER_OTLP_PROTOCOL"), "grpc")
	if protocol != "grpc" {
		return nil, fmt.Errorf("OTLP by %s: set OTEL_EXPORTER_OTLP_PROTOCOL to grpc: %w", protocol, vnic.ErrUnsupported)
	}
	if c.Endpoint == "" {
		return nil, nil
	}
	endpoint := c.Endpoint
	if !strings.Contains(endpoint, "://") {
		endpoint = "https://" + endpoint
	}
	u, err := url.Parse(endpoint)
	if err == nil {
		_, _, err = net.SplitHostPort(u.Host)
	}
	if err != nil || u.Scheme != "http" && u.Scheme != "https" || u.Path != "" {
		return nil, fmt.Errorf("OTLP endpoint %q: give http://HOST:PORT, or https://HOST:PORT for TLS: %w", c.Endpoint, vnic.ErrInvalid)
	}
	return []otlptracegrpc.Option{otlptracegrpc.WithEndpointURL(endpoint)}, nil
}

// Start returns what sends traces, or nil when nobody asks for them. It does not wait
// for the collector. Close it.
func Start(ctx context.Context, c Config) (*Tracing, error) {
	if !c.asked() {
		return nil, nil
	}
	opts, err := c.options()
	if err != nil {
		return nil, fmt.Errorf("send traces: %w", err)
	}
	exporter, err := otlptracegrpc.New(ctx, opts...)
	if err != nil {
		return nil, fmt.Errorf("send traces: %w", err)
	}
	res, err := resource.New(ctx, resource.WithAttributes(
		attribute.String("service.name", "brfused"), attribute.String("service.version", c.Version),
		attribute.String("service.instance.id", c.Hypervisor),
	), resource.WithFromEnv(), resource.WithTelemetrySDK())
	if err != nil {
		c.Log.Warn("traces lack some attributes of the environment", "error", err)
	}
	provider := sdktrace.NewTracerProvider(sdktrace.WithBatcher(&logged{SpanExporter: exporter, log: c.Log}), sdktrace.WithResource(res))
	return &Tracing{provider: provider, tracer: provider.Tracer("github.com/brfuse/brfuse")}, nil
}

// closeLimit bounds how long Close waits for the collector.
const closeLimit = 5 * time.Second

// Close sends what is waiting, for some seconds at most.
func (t *Tracing) Close(ctx context.Context) error {
	if t == nil {
		return nil
	}
	ctx, cancel := context.WithTimeout(ctx, closeLimit)
	defer cancel()
	return t.provider.Shutdown(ctx)
}

// logged is an exporter whose failures are logged, the first of those in a row, and not
// told to OpenTelemetry, which would print them. For the goroutine of one batcher.
type logged struct {
	sdktrace.SpanExporter
	log     *slog.Logger
	failing bool
}

// ExportSpans implements [sdktrace.SpanExporter].
func (l *logged) ExportSpans(ctx context.Context, spans []sdktrace.ReadOnlySpan) error {
	err := l.SpanExporter.ExportSpans(ctx, spans)
	if err != nil && !l.failing {
		l.log.Warn("traces are lost until the collector answers", "error", err)
	}
	l.failing = err != nil
	return nil
}

package tracing_test

import (
	"context"
	"fmt"
	"log/slog"
	"net"
	"net/netip"
	"slices"
	"strings"
	"sync"
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
	collectorv1 "go.opentelemetry.io/proto/otlp/collector/trace/v1"
	tracev1 "go.opentelemetry.io/proto/otlp/trace/v1"
	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials/insecure"

	brfusev1 "github.com/brfuse/brfuse/api/brfuse/v1"
	"github.com/brfuse/brfuse/internal/tracing"
	"github.com/brfuse/brfuse/orchestrator"
	"github.com/brfuse/brfuse/orchestrator/orchestratortest"
	"github.com/brfuse/brfuse/orchestrator/store/memstore"
	"github.com/brfuse/brfuse/vnic"
)

// collector is an OpenTelemetry collector.
type collector struct {
	collectorv1.UnimplementedTraceServiceServer

	mu    sync.Mutex
	spans []*tracev1.Span   // guarded by mu
	from  map[string]string // guarded by mu; attributes of who sent them
}

// Export implements [collectorv1.TraceServiceServer].
func (c *collector) Export(_ context.Context, req *collectorv1.ExportTraceServiceRequest) (*collectorv1.ExportTraceServiceResponse, error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	for _, r := range req.GetResourceSpans() {
		for _, kv := range r.GetResource().GetAttributes() {
			c.from[kv.GetKey()] = kv.GetValue().GetStringValue()
		}
		for _, s := range r.GetScopeSpans() {
			c.spans = append(c.spans, s.GetSpans()...)
		}
	}
	return &collectorv1.ExportTraceServiceResponse{}, nil
}

// listen serves on a port of the loopback until the test ends, and returns where.
func listen(t *testing.T, srv *grpc.Server) string {
	t.Helper()
	l, err := new(net.ListenConfig).Listen(t.Context(), "tcp", "127.0.0.1:0")
	require.NoError(t, err)
	done := make(chan error, 1)
	go func() { done <- srv.Serve(l) }()
	t.Cleanup(func() {
		srv.Stop()
		assert.NoError(t, <-done)
	})
	return l.Addr().String()
}

// start returns a collector and what sends to it.
func start(t *testing.T) (*collector, *tracing.Tracing) {
	t.Helper()
	c := &collector{from: map[string]string{}}
	srv := grpc.NewServer()
	collectorv1.RegisterTraceServiceServer(srv, c)
	tr, err := tracing.Start(t.Context(), tracing.Config{
		Endpoint: "http://" + listen(t, srv), Getenv: nothing, Hypervisor: "hv1", Version: "v1.2.3", Log: slog.New(slog.DiscardHandler),
	})
	require.NoError(t, err)
	require.NotNil(t, tr)
	return c, tr
}

func nothing(string) string { return "" }

// tree prints the spans below a parent, by their begin.
func (c *collector) tree(parent []byte, indent string) string {
	var children []*tracev1.Span
	for _, s := range c.spans {
		if string(s.GetParentSpanId()) == string(parent) {
			children = append(children, s)
		}
	}
	slices.SortStableFunc(children, func(a, b *tracev1.Span) int { return int(a.GetStartTimeUnixNano()) - int(b.GetStartTimeUnixNano()) })
	var b strings.Builder
	for _, s := range children {
		b.WriteString(indent + s.GetName())
		if s.GetStatus().GetCode() == tracev1.Status_STATUS_CODE_ERROR {
			fmt.Fprintf(&b, " error %s: %s", attributes(s)["error.type"], s.GetStatus().GetMessage())
		}
		b.WriteString("\n" + c.tree(s.GetSpanId(), indent+"  "))
	}
	return b.String()
}

func attributes(s *tracev1.Span) map[string]string {
	m := map[string]string{}
	for _, kv := range s.GetAttributes() {
		m[kv.GetKey()] = kv.GetValue().GetStringValue()
	}
	return m
}

func TestAttach(t *testing.T) {
	c, tr := start(t)
	world := orchestratortest.New()
	world.Boot("vm1", "web", "db")
	conn := world.Conn()
	orch, err := orchestrator.New(t.Context(), orchestrator.Config{
		Store: memstore.New(), Host: conn, Guest: conn, VMs: conn, Observers: []orchestrator.Observer{tr},
	})
	require.NoError(t, err)
	t.Cleanup(func() { assert.NoError(t, orch.Close()) })
	require.NoError(t, orch.AddVM(t.Context(), vnic.VM{Name: "vm1", QMP: "/run/vm1.qmp", Channel: "/run/vm1.agent"}))
	_, err = orch.CreateNetwork(t.Context(), vnic.Network{Name: "blue", Subnets: []netip.Prefix{netip.MustParsePrefix("10.1.0.0/24")}})
	require.NoError(t, err)

	a, err := orch.Attach(t.Context(), vnic.Request{Key: vnic.Key{VM: "vm1", Pod: "web", Interface: "eth0"}, Network: "blue"})
	require.NoError(t, err)
	world.Before("plug", func(context.Context) error { return vnic.ErrUnsupported })
	_, err = orch.Attach(t.Context(), vnic.Request{Key: vnic.Key{VM: "vm1", Pod: "db", Interface: "eth0"}, Network: "blue"})
	require.ErrorIs(t, err, vnic.ErrUnsupported)
	_, err = orch.Detach(t.Context(), a.ID)
	require.NoError(t, err)
	require.NoError(t, tr.Close(t.Context()))

	assert.Equal(t, `attach
  lease
  prepare
  plug
  move
    guest appear
    guest move
  configure
attach error unsupported: attach db/eth0 in vm1: phase leased: plug: not supported here
  lease
  prepare
  plug error unsupported: not supported here
  release
  unplug
detach
  release
  unplug
`, c.tree(nil, ""))
	roots := slices.DeleteFunc(slices.Clone(c.spans), func(s *tracev1.Span) bool { return len(s.GetParentSpanId()) > 0 })
	require.Len(t, roots, 3)
	assert.Equal(t, map[string]string{
		"brfuse.attachment": string(a.ID), "brfuse.vm": "vm1", "brfuse.pod": "web", "brfuse.interface": "eth0", "brfuse.network": "blue",
	}, attributes(roots[0]))
	assert.Equal(t, map[string]string{
		"brfuse.attachment": "", "brfuse.vm": "vm1", "brfuse.pod": "db", "brfuse.interface": "eth0", "brfuse.network": "blue", "error.type": "unsupported",
	}, attributes(roots[1]))
	for _, s := range c.spans {
		assert.LessOrEqual(t, s.GetStartTimeUnixNano(), s.GetEndTimeUnixNano(), s.GetName())
	}
	assert.Equal(t, "brfused", c.from["service.name"])
	assert.Equal(t, "hv1", c.from["service.instance.id"])
	assert.Equal(t, "v1.2.3", c.from["service.version"])
}

// TestCalls: a call's server goes on with its client's trace. Watches are left out.
func TestCalls(t *testing.T) {
	c, tr := start(t)
	srv := grpc.NewServer(tr.ServerOptions()...)
	brfusev1.RegisterBrfuseServer(srv, brfusev1.UnimplementedBrfuseServer{})
	conn, err := grpc.NewClient("passthrough:///"+listen(t, srv),
		append(tr.DialOptions(), grpc.WithTransportCredentials(insecure.NewCredentials()))...)
	require.NoError(t, err)
	client := brfusev1.NewBrfuseClient(conn)
	stream, err := client.Watch(t.Context(), &brfusev1.WatchRequest{})
	require.NoError(t, err)
	_, err = stream.Recv()
	require.ErrorContains(t, err, "not implemented")
	_, err = client.List(t.Context(), &brfusev1.ListRequest{})
	require.ErrorContains(t, err, "not implemented")
	require.NoError(t, conn.Close())
	srv.Stop() // when the server's span has ended
	require.NoError(t, tr.Close(t.Context()))
	require.Len(t, c.spans, 2)
	assert.Equal(t, c.spans[0].GetTraceId(), c.spans[1].GetTraceId())
	for _, s := range c.spans {
		assert.Equal(t, "brfuse.v1.Brfuse/List", s.GetName())
	}
	assert.Contains(t, [][]byte{c.spans[0].GetSpanId(), c.spans[1].GetSpanId()}, slices.Concat(c.spans[0].GetParentSpanId(), c.spans[1].GetParentSpanId()))
}

func TestAsked(t *testing.T) {
	cases := []struct {
		name     string
		endpoint string
		env      map[string]string
		on       bool
		err      string
	}{
		{name: "nobody"},
		{name: "by option", endpoint: "http://127.0.0.1:4317", on: true},
		{name: "with TLS", endpoint: "collector.example:4317", on: true},
		{name: "by environment", env: map[string]string{"OTEL_EXPORTER_OTLP_ENDPOINT": "http://127.0.0.1:4317"}, on: true},
		{name: "for traces", env: map[string]string{"OTEL_EXPORTER_OTLP_TRACES_ENDPOINT": "http://127.0.0.1:4317"}, on: true},
		{name: "switched off", endpoint: "http://127.0.0.1:4317", env: map[string]string{"OTEL_SDK_DISABLED": "true"}},
		{name: "to nowhere", endpoint: "http://127.0.0.1:4317", env: map[string]string{"OTEL_TRACES_EXPORTER": "none"}},
		{
			name: "by HTTP", endpoint: "http://127.0.0.1:4318", env: map[string]string{"OTEL_EXPORTER_OTLP_PROTOCOL": "http/protobuf"},
			err: "set OTEL_EXPORTER_OTLP_PROTOCOL to grpc",
		},
		{name: "no port", endpoint: "http://collector.example", err: "give http://HOST:PORT"},
		{name: "another scheme", endpoint: "unix:///run/otel.sock", err: "give http://HOST:PORT"},
		{name: "a path", endpoint: "http://127.0.0.1:4317/v1/traces", err: "give http://HOST:PORT"},
	}
	for _, c := range cases {
		t.Run(c.name, func(t *testing.T) {
			tr, err := tracing.Start(t.Context(), tracing.Config{
				Endpoint: c.endpoint, Getenv: func(k string) string { return c.env[k] }, Log: slog.New(slog.DiscardHandler),
			})
			if c.err != "" {
				require.ErrorContains(t, err, c.err)
				return
			}
			require.NoError(t, err)
			assert.Equal(t, c.on, tr != nil)
			assert.Len(t, tr.ServerOptions(), len(tr.DialOptions()))
			assert.Equal(t, c.on, len(tr.ServerOptions()) == 1)
			require.NoError(t, tr.Close(t.Context()))
		})
	}
}

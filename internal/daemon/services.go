package daemon

import (
	"context"
	"fmt"
	"math"

	brfusev1 "github.com/brfuse/brfuse/api/brfuse/v1"
	"github.com/brfuse/brfuse/orchestrator"
	"github.com/brfuse/brfuse/vnic"
)

// Publish implements [brfusev1.BrfuseServer].
func (s *server) Publish(ctx context.Context, req *brfusev1.PublishRequest) (*brfusev1.Service, error) {
	v, err := serviceFromProto(req.GetService())
	if err != nil {
		return nil, err
	}
	if v.Network == "" {
		if v.Network, err = s.onlyNetwork(ctx); err != nil {
			return nil, err
		}
	}
	got, err := s.orch.SetService(ctx, v)
	if err != nil {
		return nil, err
	}
	return serviceToProto(got), nil
}

// ListServices implements [brfusev1.BrfuseServer].
func (s *server) ListServices(ctx context.Context, _ *brfusev1.ListServicesRequest) (*brfusev1.ListServicesResponse, error) {
	list, err := s.orch.Services(ctx)
	if err != nil {
		return nil, err
	}
	res := &brfusev1.ListServicesResponse{}
	for _, v := range list {
		res.Services = append(res.Services, serviceToProto(v))
	}
	return res, nil
}

// Unpublish implements [brfusev1.BrfuseServer].
func (s *server) Unpublish(ctx context.Context, req *brfusev1.UnpublishRequest) (*brfusev1.UnpublishResponse, error) {
	return &brfusev1.UnpublishResponse{}, s.orch.RemoveService(ctx, req.GetName())
}

func serviceToProto(v orchestrator.Reached) *brfusev1.Service {
	return &brfusev1.Service{
		Name: v.Name, Network: v.Network, Protocol: v.Protocol, Port: uint32(v.Port), Target: uint32(v.Target),
		Pod: v.Pod, Labels: v.Labels, Mode: string(v.Mode), Ready: clampUint32(v.Ready),
	}
}

func serviceFromProto(m *brfusev1.Service) (vnic.Service, error) {
	for _, p := range []uint32{m.GetPort(), m.GetTarget()} {
		if p > math.MaxUint16 {
			return vnic.Service{}, fmt.Errorf("port %d is not in 1-65535: %w", p, vnic.ErrInvalid)
		}
	}
	return vnic.Service{
		Name: m.GetName(), Network: m.GetNetwork(), Protocol: m.GetProtocol(),
		Port: uint16(m.GetPort()), Target: uint16(m.GetTarget()), //nolint:gosec // checked above
		Pod: m.GetPod(), Labels: m.GetLabels(), Mode: vnic.ServiceMode(m.GetMode()),
	}, nil
}

package daemon

import (
	"context"
	"fmt"

	"google.golang.org/protobuf/types/known/timestamppb"

	brfusev1 "github.com/brfuse/brfuse/api/brfuse/v1"
	"github.com/brfuse/brfuse/orchestrator"
	"github.com/brfuse/brfuse/vnic"
)

// alone says whether the daemon shares its store with nobody.
func (s *server) alone() bool { return s.dir == nil || s.dir.Hypervisor() == "" }

// errAlone is the error of calls about hypervisors when there is but one.
var errAlone = fmt.Errorf("this brfused shares its store with no other: start it with --store etcd://... and --hypervisor NAME: %w", vnic.ErrUnsupported)

// ListHypervisors implements the call of that name.
func (s *server) ListHypervisors(ctx context.Context, _ *brfusev1.ListHypervisorsRequest) (*brfusev1.ListHypervisorsResponse, error) {
	if s.alone() {
		return nil, errAlone
	}
	list, err := s.dir.Hypervisors(ctx)
	if err != nil {
		return nil, err
	}
	res := &brfusev1.ListHypervisorsResponse{}
	for _, h := range list {
		m := hypervisorToProto(h)
		m.Self = h.Name == s.dir.Hypervisor()
		res.Hypervisors = append(res.Hypervisors, m)
	}
	return res, nil
}

// RemoveHypervisor implements the call of that name.
func (s *server) RemoveHypervisor(ctx context.Context, req *brfusev1.RemoveHypervisorRequest) (*brfusev1.RemoveHypervisorResponse, error) {
	if s.alone() {
		return nil, errAlone
	}
	if err := vnic.CheckHypervisorName(req.GetName()); err != nil {
		return nil, err
	}
	return &brfusev1.RemoveHypervisorResponse{}, s.dir.RemoveHypervisor(ctx, req.GetName())
}

// listAll lists the attachments of all hypervisors, as the store has them: also of those
// that are dead.
func (s *server) listAll(ctx context.Context, filter orchestrator.Filter) (*brfusev1.ListResponse, error) {
	list, err := s.orch.ListAll(ctx, filter)
	if err != nil {
		return nil, err
	}
	res := &brfusev1.ListResponse{}
	for _, l := range list {
		m := attachmentToProto(l.Attachment)
		m.Hypervisor, m.HypervisorDead = l.Hypervisor, l.Dead
		res.Attachments = append(res.Attachments, m)
	}
	return res, nil
}

func hypervisorToProto(h vnic.HypervisorStatus) *brfusev1.Hypervisor {
	m := &brfusev1.Hypervisor{
		Name: h.Name, Mtu: clampUint32(h.MTU), Api: h.API, Version: h.Version, State: h.State, Attachments: clampUint32(h.Attachments),
	}
	if h.Underlay.IsValid() {
		m.Underlay = h.Underlay.String()
	}
	if !h.Started.IsZero() {
		m.Started = timestamppb.New(h.Started)
	}
	return m
}

package daemon

import (
	"context"

	"google.golang.org/protobuf/types/known/durationpb"

	brfusev1 "github.com/brfuse/brfuse/api/brfuse/v1"
	"github.com/brfuse/brfuse/vnic"
)

func (s *server) SetPool(ctx context.Context, req *brfusev1.SetPoolRequest) (*brfusev1.Pool, error) {
	p := vnic.Pool{
		VM: req.GetVm(), Network: req.GetNetwork(), Low: clampInt(req.GetLow()), High: clampInt(req.GetHigh()),
		Queues: clampInt(req.GetQueues()),
	}
	if req.GetIdle() != nil {
		p.Idle = req.GetIdle().AsDuration()
	}
	if err := s.orch.SetPool(ctx, p); err != nil {
		return nil, err
	}
	pools, err := s.orch.Pools(ctx)
	if err != nil {
		return nil, err
	}
	for _, st := range pools {
		if st.VM == p.VM && st.Network == p.Network {
			return poolToProto(st), nil
		}
	}
	return &brfusev1.Pool{Vm: p.VM, Network: p.Network}, nil // removed again meanwhile
}

func (s *server) ListPools(ctx context.Context, _ *brfusev1.ListPoolsRequest) (*brfusev1.ListPoolsResponse, error) {
	pools, err := s.orch.Pools(ctx)
	if err != nil {
		return nil, err
	}
	res := &brfusev1.ListPoolsResponse{}
	for _, p := range pools {
		res.Pools = append(res.Pools, poolToProto(p))
	}
	return res, nil
}

func (s *server) RemovePool(ctx context.Context, req *brfusev1.RemovePoolRequest) (*brfusev1.RemovePoolResponse, error) {
	return &brfusev1.RemovePoolResponse{}, s.orch.RemovePool(ctx, req.GetVm(), req.GetNetwork())
}

func poolToProto(p vnic.PoolStatus) *brfusev1.Pool {
	return &brfusev1.Pool{
		Vm: p.VM, Network: p.Network, Low: clampUint32(p.Low), High: clampUint32(p.High), Idle: durationpb.New(p.Idle),
		Queues: clampUint32(p.Queues), Parked: clampUint32(p.Parked), Filling: clampUint32(p.Filling), InUse: clampUint32(p.InUse),
		Hits: p.Hits, Misses: p.Misses, LastError: p.LastError,
	}
}

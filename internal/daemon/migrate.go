package daemon

import (
	"context"

	brfusev1 "github.com/brfuse/brfuse/api/brfuse/v1"
	"github.com/brfuse/brfuse/vnic"
)

func (s *server) MigrateVM(ctx context.Context, req *brfusev1.MigrateVMRequest) (*brfusev1.VM, error) {
	to := vnic.VM{Name: req.GetName(), QMP: req.GetQmp(), Channel: req.GetChannel()}
	vm, err := s.orch.MigrateVM(ctx, req.GetName(), to, req.GetTimeout().AsDuration())
	if err != nil {
		return nil, err
	}
	return s.vm(ctx, vm)
}

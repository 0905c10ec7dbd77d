package orchestrator

import (
	"context"
	"fmt"
	"slices"
	"strings"

	"github.com/brfuse/brfuse/orchestrator/store"
	"github.com/brfuse/brfuse/vnic"
)

// Filter chooses attachments. An empty field means: any.
type Filter struct {
	VM, Pod, Network, Manager string
}

func (f Filter) match(a vnic.Attachment) bool {
	return (f.VM == "" || f.VM == a.Request.VM) && (f.Pod == "" || f.Pod == a.Request.Pod) &&
		(f.Network == "" || f.Network == a.Request.Network) && (f.Manager == "" || f.Manager == a.Request.Manager)
}

// Get returns an attachment, or [vnic.ErrNotFound].
func (o *Orchestrator) Get(ctx context.Context, id vnic.ID) (vnic.Attachment, error) {
	r, err := o.read(ctx, id)
	switch {
	case err != nil:
		return vnic.Attachment{}, fmt.Errorf("get attachment %s: %w", id, err)
	case r == nil:
		return vnic.Attachment{}, fmt.Errorf("get attachment %s: see `brfuse list`: %w", id, vnic.ErrNotFound)
	}
	return r.Attachment, nil
}

// List returns the attachments that f chooses, in the order of VM, pod and
// interface; also those that are being made or undone.
func (o *Orchestrator) List(ctx context.Context, f Filter) ([]vnic.Attachment, error) {
	list, err := listOf(ctx, o.cfg.Store, f)
	return list, wrap(err, "list attachments")
}

// listOf is List of the hypervisor whose part of the store db is.
func listOf(ctx context.Context, db store.Store, f Filter) ([]vnic.Attachment, error) {
	records, err := recordsOf(ctx, db, f.VM)
	if err != nil {
		return nil, err
	}
	var list []vnic.Attachment
	for _, r := range records {
		if f.match(r.Attachment) {
			list = append(list, r.Attachment)
		}
	}
	slices.SortFunc(list, func(a, b vnic.Attachment) int {
		return strings.Compare(a.Request.String(), b.Request.String())
	})
	return list, nil
}

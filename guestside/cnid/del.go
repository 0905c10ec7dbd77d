package cnid

import (
	"context"
	"fmt"
	"slices"
	"strings"

	"github.com/brfuse/brfuse/guestside/cni/cniapi"
	"github.com/brfuse/brfuse/vnic"
)

// del takes a vNIC away. That there is none is no error.
func (s *Server) del(ctx context.Context, req cniapi.Request) outcome {
	if err := s.detach(ctx, req.Key()); err != nil {
		return failed(errorOf(req, err))
	}
	return outcome{}
}

func (s *Server) detach(ctx context.Context, k cniapi.Attachment) error {
	unlock, err := s.locks.Lock(ctx, k)
	if err != nil {
		return fmt.Errorf("await another call for %s %s: %w", k.ContainerID, k.Interface, context.Cause(ctx))
	}
	defer unlock()
	return s.cfg.Host.Detach(ctx, k.ContainerID, k.Interface)
}

// maxTold is how many of the vNICs that a garbage collection leaves its error names.
const maxTold = 16

// gc takes away all vNICs of a CNI network but those that are said to be valid.
// What fails doesn't keep it from the rest, as long as there is time.
func (s *Server) gc(ctx context.Context, req cniapi.Request) outcome {
	all, err := s.cfg.Host.Attachments(ctx, cniapi.Manager)
	if err != nil {
		return failed(errorOf(req, err))
	}
	var first *cniapi.Error
	var details []string
	left := 0
	for _, k := range garbage(all, req) {
		err := context.Cause(ctx)
		if err == nil {
			err = s.detach(ctx, k)
		}
		if err == nil {
			continue
		}
		e := errorOf(req, fmt.Errorf("detach %s of container %s: %w", k.Interface, k.ContainerID, err))
		if first == nil {
			first = e
		}
		if left++; left <= maxTold {
			details = append(details, e.Details)
		}
	}
	if first == nil {
		return outcome{}
	}
	if left > maxTold {
		details = append(details, fmt.Sprintf("and %d others", left-maxTold))
	}
	first.Details = strings.Join(details, "\n")
	return failed(first)
}

// garbage returns the attachments of a CNI network that are not valid.
func garbage(all []vnic.Attachment, req cniapi.Request) (list []cniapi.Attachment) {
	for _, a := range all {
		k := cniapi.Attachment{ContainerID: a.Request.Pod, Interface: a.Request.Interface}
		if a.Request.Manager == cniapi.Manager && a.Request.Labels[cniapi.LabelNetwork] == req.Conf && !slices.Contains(req.Valid, k) {
			list = append(list, k)
		}
	}
	return list
}

package cnid

import (
	"context"
	"fmt"
	"strings"

	"github.com/brfuse/brfuse/guestside/cni/cniapi"
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

// gc takes away all vNICs of a CNI network but those that are said to be valid.
// What fails doesn't keep it from the rest.
func (s *Server) gc(ctx context.Context, req cniapi.Request) outcome {
	all, err := s.cfg.Host.Attachments(ctx, cniapi.Manager)
	if err != nil {
		return failed(errorOf(req, err))
	}
	valid := map[cniapi.Attachment]bool{}
	for _, k := range req.Valid {
		valid[k] = true
	}
	var first *cniapi.Error
	var details []string
	for _, a := range all {
		k := cniapi.Attachment{ContainerID: a.Request.Pod, Interface: a.Request.Interface}
		if a.Request.Manager != cniapi.Manager || a.Request.Labels[cniapi.LabelNetwork] != req.Conf || valid[k] {
			continue
		}
		err := s.detach(ctx, k)
		if err == nil {
			continue
		}
		e := errorOf(req, fmt.Errorf("detach %s of container %s: %w", k.Interface, k.ContainerID, err))
		details = append(details, e.Details)
		if first == nil {
			first = e
		}
	}
	if first == nil {
		return outcome{}
	}
	first.Details = strings.Join(details, "\n")
	return failed(first)
}

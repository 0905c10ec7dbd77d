package names

import (
	"errors"
	"fmt"

	"github.com/brfuse/brfuse/vnic"
)

// Put adds a record to a network, or replaces the one of that id; it costs what its
// own names cost, however many others there are. Names that can't be served are left
// out, counted and logged. Errors are [vnic.ErrUnknownNetwork] and, for an id that is
// none, [vnic.ErrInvalid].
func (s *Server) Put(network string, r Record) error {
	sv, err := s.get(network)
	if err != nil {
		return err
	}
	return sv.put(r)
}

func (n *served) put(r Record) error {
	if _, err := vnic.ParseID(string(r.ID)); err != nil {
		return fmt.Errorf("names of network %s: %w", n.network.Name, err)
	}
	if left, changed := n.zone.put(r); changed && left > 0 {
		n.log.Warn("some names of an attachment can't be names in DNS", "id", r.ID, "names", r.Names, "left out", left)
	}
	return nil
}

// Delete removes a record from a network. One that isn't there is no error; a network
// that isn't served is a [vnic.ErrUnknownNetwork].
func (s *Server) Delete(network string, id vnic.ID) error {
	sv, err := s.get(network)
	if err != nil {
		return err
	}
	sv.zone.drop(id)
	return nil
}

// Replace makes those records the only ones of a network. Those that stay are answered
// meanwhile. Errors are those of Put; records beside the ones that are wrong
// are taken.
func (s *Server) Replace(network string, records []Record) error {
	sv, err := s.get(network)
	if err != nil {
		return err
	}
	ids := make(map[vnic.ID]bool, len(records))
	var errs []error
	for _, r := range records {
		ids[r.ID] = true
		errs = append(errs, sv.put(r))
	}
	sv.zone.keep(ids)
	return errors.Join(errs...)
}

package containers

import (
	"fmt"
	"slices"
	"strings"

	"github.com/brfuse/brfuse/vnic"
)

// entry is a container of which an engine has files.
type entry struct {
	id    string
	names []string
	pod   string // the ID of the sandbox that it is in, if that is another's
	spec  spec
	// where tells entries of the same ID apart, and is shown.
	where string
	pid   func() (int, error)
}

// owner returns the ID of what the network namespace was made for.
func (e entry) owner() string {
	if e.pod != "" {
		return e.pod
	}
	return e.id
}

// title is how an error calls an entry.
func (e entry) title() string {
	if len(e.names) == 0 {
		return e.where + "/" + e.id
	}
	return fmt.Sprintf("%s/%s (%s)", e.where, e.id, e.names[0])
}

// pick returns the entry that is meant: by its ID, else by a name, else by the
// beginning of its ID. Several that share a pod are as good as its sandbox.
func pick(all []entry, ref string) (entry, error) {
	for _, is := range []func(entry) bool{
		func(e entry) bool { return e.id == ref || e.where+"/"+e.id == ref },
		func(e entry) bool { return slices.Contains(e.names, ref) },
		func(e entry) bool { return strings.HasPrefix(e.id, ref) },
	} {
		var found []entry
		for _, e := range all {
			if is(e) {
				found = append(found, e)
			}
		}
		if len(found) > 0 {
			return only(found)
		}
	}
	return entry{}, fmt.Errorf("none of %d has that ID or name; it must be running: %w", len(all), vnic.ErrUnknownContainer)
}

const shown = 8 // of those that are ambiguous

func only(found []entry) (entry, error) {
	best := found[0]
	for _, e := range found[1:] {
		if e.where != best.where || e.owner() != best.owner() {
			return entry{}, fmt.Errorf("%d match: %s; give the whole ID, with what stands before it: %w",
				len(found), titles(found), vnic.ErrUnknownContainer)
		}
		if e.pod == "" {
			best = e // the sandbox itself
		}
	}
	return best, nil
}

func titles(all []entry) string {
	var s []string
	for _, e := range all[:min(len(all), shown)] {
		s = append(s, e.title())
	}
	if len(all) > shown {
		s = append(s, "...")
	}
	return strings.Join(s, ", ")
}

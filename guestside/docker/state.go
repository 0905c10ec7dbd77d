package docker

import (
	"cmp"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"log/slog"
	"net/netip"
	"os"
	"path/filepath"
	"sync"
	"time"

	"github.com/brfuse/brfuse/vnic"
)

// state is what the driver remembers.
type state struct {
	Version int `json:"version"`
	// Rebuild says that the file was lost: what the host has of an earlier life is
	// taken in instead of taken away.
	Rebuild   bool                 `json:"rebuild,omitempty"`
	Networks  map[string]*network  `json:"networks"`  // by docker's ID
	Endpoints map[string]*endpoint `json:"endpoints"` // by docker's ID
	Pools     map[string]*pool     `json:"pools"`     // by PoolID
	// Leaving are endpoints that dockerd has forgotten, and the host perhaps not.
	Leaving map[string]struct{} `json:"leaving,omitempty"`
}

// stateVersion is the one of the file's form.
const stateVersion = 1

// network is a docker network.
type network struct {
	Name      string         `json:"name"` // brfuse's
	Subnets   []netip.Prefix `json:"subnets"`
	Gateways  []netip.Addr   `json:"gateways"`
	Internal  bool           `json:"internal,omitempty"`
	Options   options        `json:"options,omitzero"`
	Auxiliary []netip.Addr   `json:"auxiliary,omitempty"` // reserved as long as the network is there
	Adopted   bool           `json:"adopted,omitempty"`   // known by an attachment of the host only, so without its options
}

// endpoint is one vNIC of a container.
type endpoint struct {
	Network   string             `json:"network"` // docker's ID
	Asked     asked              `json:"asked"`
	ID        vnic.ID            `json:"id"`             // the attachment's
	VNIC      vnic.ID            `json:"vnic,omitempty"` // the vNIC's, empty for the attachment's
	Name      string             `json:"name"`           // brfuse's network
	MAC       vnic.MAC           `json:"mac"`
	PCI       string             `json:"pci,omitempty"`
	Addresses []netip.Prefix     `json:"addresses"` // those that dockerd knows of
	Gateways  []netip.Addr       `json:"gateways,omitempty"`
	Ports     []vnic.PortMapping `json:"ports,omitempty"`
	Unpublish bool               `json:"unpublish,omitempty"` // the host has yet to take Ports back
	Joined    bool               `json:"joined,omitempty"`

	since time.Time // when it was made, joined, left or read from the file
	away  bool      // the vNIC was elsewhere since it was joined
	back  time.Time // when it was seen to have come back; zero: it hasn't
	// forsaken says that the dockerd that made it is likely gone: it hung up before
	// the answer, or another one has begun to use the driver.
	forsaken bool
}

// vnic returns the id of the endpoint's vNIC.
func (e *endpoint) vnic() vnic.ID { return cmp.Or(e.VNIC, e.ID) }

// asked is the interface that dockerd asked for.
type asked struct {
	IPv4 netip.Prefix `json:"ipv4,omitzero"`
	IPv6 netip.Prefix `json:"ipv6,omitzero"`
	MAC  vnic.MAC     `json:"mac,omitzero"`
}

// pool is an address pool that dockerd uses.
type pool struct {
	Network string       `json:"network"` // brfuse's
	Subnet  netip.Prefix `json:"subnet"`
	Gateway netip.Addr   `json:"gateway"`
	Refs    int          `json:"refs"`
}

func (s *state) complete() {
	s.Version = stateVersion
	if s.Networks == nil {
		s.Networks = map[string]*network{}
	}
	if s.Endpoints == nil {
		s.Endpoints = map[string]*endpoint{}
	}
	if s.Pools == nil {
		s.Pools = map[string]*pool{}
	}
	if s.Leaving == nil {
		s.Leaving = map[string]struct{}{}
	}
}

// book keeps a state in memory and in a file. It is safe for concurrent use.
// Lock order: writing, mu.
type book struct {
	path string

	mu      sync.Mutex // guards what is below
	state   state
	changes uint64

	writing sync.Mutex // held to write the file; guards written
	written uint64     // the last change that is in the file
}

// openBook reads a book's file. One that makes no sense is put aside.
func openBook(path string, log *slog.Logger) (*book, error) {
	if err := os.MkdirAll(filepath.Dir(path), 0o700); err != nil {
		return nil, fmt.Errorf("make state folder: %w", err)
	}
	b := &book{path: path}
	raw, err := os.ReadFile(path)
	switch {
	case errors.Is(err, fs.ErrNotExist):
		b.state.Rebuild = true
	case err != nil:
		return nil, fmt.Errorf("read state: %w", err)
	default:
		if b.state, err = parseState(raw); err != nil {
			aside := path + ".broken"
			if rerr := os.Rename(path, aside); rerr != nil {
				return nil, fmt.Errorf("put broken state aside: %w", rerr)
			}
			log.Error("state of the docker driver makes no sense; it is put aside, and what the host knows is taken instead",
				"file", aside, "error", err)
			b.state = state{Rebuild: true}
		}
	}
	b.state.complete()
	return b, nil
}

// parseState reads the text of a state.
func parseState(raw []byte) (state, error) {
	var s state
	if err := json.Unmarshal(raw, &s); err != nil {
		return state{}, err
	}
	if s.Version != stateVersion {
		return state{}, fmt.Errorf("version %d is not %d", s.Version, stateVersion)
	}
	for id, n := range s.Networks {
		if n == nil || len(n.Gateways) != len(n.Subnets) {
			return state{}, fmt.Errorf("network %s is not whole", id)
		}
	}
	for id, p := range s.Pools {
		if p == nil || !p.Subnet.IsValid() {
			return state{}, fmt.Errorf("pool %s is not whole", id)
		}
	}
	now := time.Now()
	for id, e := range s.Endpoints {
		if e == nil || e.MAC.IsZero() {
			return state{}, fmt.Errorf("endpoint %s is not whole", id)
		}
		e.since = now
		e.away = e.Joined // it is not known whether it was, so say that dockerd has taken it
	}
	s.complete()
	return s, nil
}

// view calls fn with the state. fn changes no more than what the file does not have.
// What is in the file of a network, endpoint or pool doesn't change either, once it
// is in the state: another takes its place. So pointers to them may be kept.
func (b *book) view(fn func(s *state)) {
	b.mu.Lock()
	defer b.mu.Unlock()
	fn(&b.state)
}

// update calls fn, which says whether it changed the state, and returns when that
// is in the file. When writing fails the change stays in memory.
func (b *book) update(fn func(s *state) (changed bool)) error {
	b.mu.Lock()
	if !fn(&b.state) {
		b.mu.Unlock()
		return nil
	}
	b.changes++
	change := b.changes
	b.mu.Unlock()
	return b.write(change)
}

// write returns when a change is in the file. Changes that wait for one write are
// written together by the next.
func (b *book) write(change uint64) error {
	b.writing.Lock()
	defer b.writing.Unlock()
	if b.written >= change {
		return nil
	}
	b.mu.Lock()
	change = b.changes
	raw, err := json.MarshalIndent(b.state, "", "\t")
	b.mu.Unlock()
	if err != nil {
		return fmt.Errorf("write state: %w", err)
	}
	if err := replace(b.path, append(raw, '\n')); err != nil {
		return fmt.Errorf("write state: %w", err)
	}
	b.written = change
	return nil
}

// replace gives a file new content, so that a crash leaves the old or the new.
func replace(path string, content []byte) (err error) {
	f, err := os.OpenFile(path+".new", os.O_WRONLY|os.O_CREATE|os.O_TRUNC, 0o600)
	if err != nil {
		return err
	}
	_, err = f.Write(content)
	if err = errors.Join(err, f.Sync(), f.Close()); err != nil {
		return err
	}
	if err := os.Rename(path+".new", path); err != nil {
		return err
	}
	dir, err := os.Open(filepath.Dir(path))
	if err != nil {
		return err
	}
	return errors.Join(dir.Sync(), dir.Close())
}

package site

import (
	"context"
	"encoding/json"
	"fmt"
	"regexp"
	"slices"
	"strings"
	"time"

	brfusev1 "github.com/brfuse/brfuse/api/brfuse/v1"
	"github.com/brfuse/brfuse/integration/vmlab"
)

// Attachment is what the command line's JSON has of one.
type Attachment struct {
	ID        string            `json:"id"`
	Device    string            `json:"device"`
	Pod       string            `json:"pod"`
	Interface string            `json:"interface"`
	Phase     string            `json:"phase"`
	MAC       string            `json:"mac"`
	Addresses []string          `json:"addresses"`
	Labels    map[string]string `json:"labels"`
	Tap       string            `json:"tap"`
	Slot      string            `json:"slot"`
	GuestPCI  string            `json:"guestPci"`
	Timings   []struct {
		Step string `json:"step"`
	} `json:"timings"`
}

// Addr returns the address of a family without its prefix length.
func (a Attachment) Addr(v6 bool) string {
	for _, p := range a.Addresses {
		if addr, _, _ := strings.Cut(p, "/"); strings.Contains(addr, ":") == v6 {
			return addr
		}
	}
	return ""
}

// List returns the attachments that the command line lists.
func (s *Site) List(ctx context.Context) ([]Attachment, error) {
	var res struct {
		Attachments []Attachment `json:"attachments"`
	}
	err := s.BrfuseJSON(ctx, &res, "list")
	return res.Attachments, err
}

// Truths are the ids of vNICs that each place has, looked up without brfuse: by
// QEMU's other monitor, ip, nft, and what the guest's kernel has.
type Truths struct {
	Store   []string // those of attachments
	Parked  int      // how many more pools have
	Devices []string // in QEMU
	Netdevs []string // in QEMU
	Taps    []string
	Up      []string // taps that are up
	Ports   []string // taps that are in a bridge, or up at an uplink
	Rules   []string // taps with rules
	MACs    int      // virtio NICs in the guest, in any namespace
}

func (tr Truths) String() string {
	return fmt.Sprintf("store %v, %d parked, devices %v, netdevs %v, taps %v, up %v, bridge ports %v, rules %v, NICs in the guest %d",
		tr.Store, tr.Parked, tr.Devices, tr.Netdevs, tr.Taps, tr.Up, tr.Ports, tr.Rules, tr.MACs)
}

// Agree tells whether all places have the same: QEMU, host and guest the vNICs of
// attachments and those that are parked, bridges and rules the former only.
func (tr Truths) Agree() bool {
	if len(tr.Devices) != len(tr.Store)+tr.Parked || tr.MACs != len(tr.Devices) {
		return false
	}
	for _, id := range tr.Store {
		if !slices.Contains(tr.Devices, id) {
			return false
		}
	}
	return slices.Equal(tr.Netdevs, tr.Devices) && slices.Equal(tr.Taps, tr.Devices) &&
		slices.Equal(tr.Up, tr.Store) && slices.Equal(tr.Ports, tr.Store) && slices.Equal(tr.Rules, tr.Store)
}

// LookAround asks all places. A guest that is gone has nothing.
func (s *Site) LookAround(ctx context.Context, vm *vmlab.VM) (tr Truths, err error) {
	atts, err := s.List(ctx)
	if err != nil {
		return tr, err
	}
	for _, a := range atts {
		tr.Store = append(tr.Store, a.Device)
	}
	slices.Sort(tr.Store)
	if tr.Parked, err = s.parked(ctx, vm.Name()); err != nil {
		return tr, err
	}
	if err := tr.askHost(ctx, s); err != nil {
		return tr, err
	}
	if tr.Rules, err = s.RuleIDs(ctx); err != nil {
		return tr, err
	}
	select {
	case <-vm.Done():
		return tr, nil
	default:
	}
	if err := tr.askQEMU(ctx, vm); err != nil {
		return tr, err
	}
	nics, err := vm.Output(ctx, "sh", "-c", "for d in /sys/bus/virtio/drivers/virtio_net/virtio*; do [ -e $d ] && echo $d; done; true")
	tr.MACs = len(strings.Fields(nics))
	return tr, err
}

// parked returns how many vNICs the pools of a VM have that no attachment has. One
// that is on its way is an error.
func (s *Site) parked(ctx context.Context, vm string) (n int, err error) {
	cl, err := s.Client()
	if err != nil {
		return 0, err
	}
	res, err := cl.ListPools(ctx, &brfusev1.ListPoolsRequest{})
	if err != nil {
		return 0, err
	}
	for _, p := range res.GetPools() {
		if p.GetVm() != vm {
			continue
		}
		if n += int(p.GetParked()); p.GetFilling() != 0 {
			return n, fmt.Errorf("pool of network %s is being filled", p.GetNetwork())
		}
	}
	return n, nil
}

// askHost looks at the links of the daemon's namespace.
func (tr *Truths) askHost(ctx context.Context, s *Site) error {
	links, err := s.Output(ctx, "ip", "-o", "link")
	if err != nil {
		return err
	}
	for line := range strings.Lines(links) {
		fields := strings.Fields(line)
		name, uplink, _ := strings.Cut(strings.Trim(fields[1], ":"), "@")
		id, ok := strings.CutPrefix(name, "brf")
		if !ok {
			continue
		}
		tr.Taps = append(tr.Taps, id)
		up := slices.Contains(strings.Split(strings.Trim(fields[2], "<>"), ","), "UP")
		if up {
			tr.Up = append(tr.Up, id)
		}
		if strings.Contains(line, " master ") || up && uplink != "" {
			tr.Ports = append(tr.Ports, id)
		}
	}
	slices.Sort(tr.Taps)
	slices.Sort(tr.Up)
	slices.Sort(tr.Ports)
	return nil
}

// Output runs a command in the daemon's namespace, which has to succeed.
func (s *Site) Output(ctx context.Context, argv ...string) (string, error) {
	res, err := s.Net.Run(ctx, argv...)
	if err == nil {
		err = res.Err()
	}
	return res.Stdout, err
}

// RuleIDs returns the taps that the anti-spoofing table has elements for.
func (s *Site) RuleIDs(ctx context.Context) ([]string, error) {
	out, err := s.Output(ctx, "nft", "list", "ruleset")
	if err != nil {
		return nil, err
	}
	seen := map[string]bool{}
	for _, word := range strings.FieldsFunc(out, func(r rune) bool { return strings.ContainsRune("\" ,{}\n\t", r) }) {
		if id, ok := strings.CutPrefix(word, "brf"); ok && len(id) == 10 && strings.Trim(id, "0123456789abcdef") == "" {
			seen[id] = true
		}
	}
	var ids []string
	for id := range seen {
		ids = append(ids, id)
	}
	slices.Sort(ids)
	return ids, nil
}

// netdevName finds network backends, of QMP and of libvirt, in what QEMU prints.
var netdevName = regexp.MustCompile(`\b(?:brfn|hostua-brf)([0-9a-f]{10})\b`)

func (tr *Truths) askQEMU(ctx context.Context, vm *vmlab.VM) error {
	raw, err := vm.Monitor().Do(ctx, "qom-list", map[string]any{"path": "/machine/peripheral"})
	if err != nil {
		return err
	}
	var props []struct {
		Name string `json:"name"`
	}
	if err := json.Unmarshal(raw, &props); err != nil {
		return err
	}
	for _, p := range props {
		if id, ok := strings.CutPrefix(strings.TrimPrefix(p.Name, "ua-"), "brf"); ok && len(id) == 10 {
			tr.Devices = append(tr.Devices, id)
		}
	}
	slices.Sort(tr.Devices)
	raw, err = vm.Monitor().Do(ctx, "human-monitor-command", map[string]any{"command-line": "info network"})
	if err != nil {
		return err
	}
	seen := map[string]bool{}
	for _, m := range netdevName.FindAllSubmatch(raw, -1) {
		seen[string(m[1])] = true
	}
	for id := range seen {
		tr.Netdevs = append(tr.Netdevs, id)
	}
	slices.Sort(tr.Netdevs)
	return nil
}

// Settle waits until all places agree and nothing is on its way, and returns
// what they have.
func (s *Site) Settle(ctx context.Context, vm *vmlab.VM) (tr Truths, err error) {
	ctx, cancel := context.WithTimeout(ctx, time.Minute)
	defer cancel()
	err = Until(ctx, "agreement of store, QEMU, host and guest", func(ctx context.Context) (bool, error) {
		atts, err := s.List(ctx)
		if err != nil {
			return false, err
		}
		for _, a := range atts {
			if a.Phase != "ready" {
				return false, fmt.Errorf("attachment %s is in phase %s", a.ID, a.Phase)
			}
		}
		if tr, err = s.LookAround(ctx, vm); err != nil {
			return false, err
		}
		if !tr.Agree() {
			return false, fmt.Errorf("they differ: %s", tr)
		}
		return true, nil
	})
	return tr, err
}

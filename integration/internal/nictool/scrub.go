package main

import (
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"slices"
	"strings"
	"time"
)

// dirt is what a tenant does to its vNIC, by a script in its pod, with eth0 as $1.
type dirt struct {
	Name   string
	Script string
}

// scrubbed tells of one tenant.
type scrubbed struct {
	Name string
	// Dirty are the lines by which the pod's view of its vNIC differs from that of a
	// tenant who does nothing, once the script has run.
	Dirty []string
	// Left are those by which the vNIC then differs, at home, from what it was when
	// it was new, and Seen those by which the last tenant's first view does.
	Left, Seen []string
	Took       time.Duration // the Retrieve
	Rebound    bool          // its device was given its driver anew
	Err        string
}

// progress tells people how far it is, also on the console, should no end come.
func progress(format string, args ...any) {
	fmt.Fprintf(os.Stderr, format, args...)
	_ = os.WriteFile("/dev/console", fmt.Appendf(nil, format, args...), 0)
}

// inPod runs a script in a pod's namespace with a /sys of its own.
func inPod(pod, script, link string) (string, error) {
	return output("nsenter", "--net=/run/netns/"+pod, "unshare", "-m", "/bin/sh", "-c", "mount -t sysfs sysfs /sys\n"+script, "sh", link)
}

func output(argv ...string) (string, error) {
	out, err := exec.Command(argv[0], argv[1:]...).Output() //nolint:noctx // ends with the guest
	if exit, ok := errors.AsType[*exec.ExitError](err); ok {
		err = fmt.Errorf("%w: %s", err, exit.Stderr)
	}
	return string(out), err
}

// viewOf returns what a look tells, without what is a link's name.
func viewOf(text, link string) []string {
	lines := strings.Split(strings.ReplaceAll(text, link, "LINK"), "\n")
	slices.Sort(lines)
	return slices.Compact(lines)
}

// beyond returns the lines that only one of two views has.
func beyond(a, b []string) (lines []string) {
	for _, l := range a {
		if !slices.Contains(b, l) {
			lines = append(lines, "- "+l)
		}
	}
	for _, l := range b {
		if !slices.Contains(a, l) {
			lines = append(lines, "+ "+l)
		}
	}
	return lines
}

// tenancy is a vNIC and what it looks like when nobody has done anything to it.
type tenancy struct {
	*bench
	index          string
	athome, tenant []string
}

// scrub has one tenant after the other dirty a vNIC, as the file tells, and writes
// what was left of each.
func scrub(mac, file, out string) error {
	b, err := os.ReadFile(file)
	if err != nil {
		return err
	}
	var dirts []dirt
	if err := json.Unmarshal(b, &dirts); err != nil {
		return err
	}
	t := &tenancy{}
	if t.bench, err = newBench(mac); err != nil {
		return err
	}
	if _, err := t.retrieve(); err != nil {
		return err
	}
	if t.athome, err = t.lookHome(); err != nil {
		return err
	}
	if t.index, err = t.linkIndex(); err != nil {
		return err
	}
	var all []scrubbed
	for i, d := range dirts {
		t.m.Netns = fmt.Sprintf("tenant%d", i)
		s := scrubbed{Name: d.Name}
		start := time.Now()
		if err := t.endure(d, i == len(dirts)-1, &s); err != nil {
			s.Err = err.Error()
		}
		progress("tenant %s: %s, rebound %v, dirty %d, left %q, error %s\n", d.Name, time.Since(start), s.Rebound, len(s.Dirty), s.Left, s.Err)
		all = append(all, s)
	}
	return write(out, all)
}

func (t *tenancy) lookHome() ([]string, error) {
	name := t.m.ID.LinkName()
	out, err := output(os.Args[0], "look", name)
	return viewOf(out, name), err
}

func (t *tenancy) lookPod() ([]string, error) {
	out, err := inPod(t.m.Netns, os.Args[0]+" look $1", "eth0")
	return viewOf(out, "eth0"), err
}

// awaitUp waits until the kernel shows the link as up, which it does a while after
// it is, and for which it has no event but the one that may have been.
func (t *tenancy) awaitUp() error {
	_, err := inPod(t.m.Netns, `i=0
until [ "$(cat /sys/class/net/$1/operstate)" = up ]; do
	[ $i -lt 100 ] || { echo "eth0 is not shown as up within 10 s" >&2; exit 1; }
	i=$((i+1))
	sleep 0.1
done`, "eth0")
	return err
}

// endure is one tenant's time.
func (t *tenancy) endure(d dirt, last bool, s *scrubbed) (err error) {
	if _, err := output("ip", "netns", "add", t.m.Netns); err != nil {
		return err
	}
	defer func() {
		_, delErr := output("ip", "netns", "del", t.m.Netns)
		err = errors.Join(err, delErr)
	}()
	if _, err := t.attach(); err != nil {
		return err
	}
	if t.tenant == nil || last {
		if err := t.awaitUp(); err != nil {
			return err
		}
		seen, err := t.lookPod()
		if err != nil {
			return err
		}
		if t.tenant == nil {
			t.tenant = seen
		}
		s.Seen = beyond(t.tenant, seen)
	}
	if _, err := inPod(t.m.Netns, "set -e\n"+d.Script, "eth0"); err != nil {
		return fmt.Errorf("dirty: %w", err)
	}
	// A script may have renamed it.
	dirty, err := t.lookPod()
	if err != nil {
		return err
	}
	s.Dirty = beyond(t.tenant, dirty)
	if s.Took, err = t.retrieve(); err != nil {
		return err
	}
	if _, err = t.retrieve(); err != nil { // waits until the first has ended, which is after its answer
		return err
	}
	now, err := t.lookHome()
	s.Left = beyond(t.athome, now)
	if err != nil {
		return err
	}
	index, err := t.linkIndex()
	s.Rebound, t.index = index != t.index, index
	return err
}

func (t *tenancy) linkIndex() (string, error) {
	return output("cat", "/sys/class/net/"+t.m.ID.LinkName()+"/ifindex")
}

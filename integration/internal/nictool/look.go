package main

import (
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
)

// questions are what programs tell of a link, which is LINK in them. Those of one
// program are asked at once.
var questions = []struct {
	argv  []string
	stdin string
}{
	{[]string{"ip", "-d", "-o", "-force", "-batch", "-"}, `link show dev LINK
route show table all dev LINK
-6 route show table all dev LINK
rule show
-6 rule show
neigh show dev LINK nud permanent
neigh show proxy dev LINK
maddr show dev LINK
-4 netconf show dev LINK
-6 netconf show dev LINK
token show dev LINK
`},
	{[]string{"ip", "-o", "addr", "show", "dev", "LINK"}, ""}, // in a batch it tells none
	{[]string{"tc", "-d", "-force", "-batch", "-"}, `qdisc show dev LINK
filter show dev LINK
filter show dev LINK ingress
filter show dev LINK egress
`},
	{[]string{"bridge", "fdb", "show", "dev", "LINK"}, ""},
	{[]string{"nft", "list", "ruleset"}, ""},
	{[]string{"ethtool", "-k", "LINK"}, ""},
	{[]string{"ethtool", "-c", "LINK"}, ""},
	{[]string{"ethtool", "-g", "LINK"}, ""},
	{[]string{"ethtool", "-l", "LINK"}, ""},
	{[]string{"ethtool", "-x", "LINK"}, ""},
	{[]string{"ethtool", "LINK"}, ""},
}

// passing are the files that tell what happens on a link, or which one it is, and
// not what it is set to.
var passing = []string{
	"carrier", "carrier_changes", "carrier_up_count", "carrier_down_count", "ifindex", "iflink", "operstate", "uevent",
	"inflight", "limit", "stall_cnt", "stall_max", "traffic_class", "tx_timeout",
}

// look writes all that there is to know of a link, a line a fact.
func look(w io.Writer, link string) error {
	for _, q := range questions {
		argv := strings.Split(strings.ReplaceAll(strings.Join(q.argv, " "), "LINK", link), " ")
		cmd := exec.Command(argv[0], argv[1:]...) //nolint:noctx // ends with the guest
		cmd.Stdin = strings.NewReader(strings.ReplaceAll(q.stdin, "LINK", link))
		// What a kernel or a link lacks makes the program fail, each time.
		out, _ := cmd.Output()
		about := strings.Join(q.argv[:min(2, len(q.argv))], " ")
		for line := range strings.Lines(string(out)) {
			index, rest, ok := strings.Cut(line, ": ")
			if ok && strings.Trim(index, "0123456789") == "" {
				line = rest // its index is nobody's affair
			}
			if index, rest, ok = strings.Cut(line, ":\t"); ok && strings.Trim(index, "0123456789") == "" {
				line = rest
			}
			if !strings.Contains(line, "Link detected") {
				fmt.Fprintf(w, "%s: %s\n", about, strings.TrimSpace(line))
			}
		}
	}
	class := "/sys/class/net/" + link
	names, err := os.ReadDir(class + "/")
	if errors.Is(err, fs.ErrNotExist) {
		fmt.Fprintln(w, "no such link")
		return nil
	}
	if err != nil {
		return err
	}
	for _, n := range names {
		if strings.HasPrefix(n.Name(), "upper_") || strings.HasPrefix(n.Name(), "lower_") || n.Name() == "master" {
			fmt.Fprintln(w, "stacked:", n.Name())
		}
	}
	dirs := []string{class + "/", class + "/queues/"}
	for _, family := range []string{"ipv4", "ipv6"} {
		dirs = append(dirs, "/proc/sys/net/"+family+"/conf/"+link+"/", "/proc/sys/net/"+family+"/neigh/"+link+"/")
	}
	for _, dir := range dirs {
		lookInto(w, dir)
	}
	return nil
}

// lookInto writes what is in the files of a folder. One that isn't there has none.
func lookInto(w io.Writer, dir string) {
	depth := strings.Count(dir, "/")
	_ = filepath.WalkDir(dir, func(path string, e fs.DirEntry, err error) error {
		if err != nil {
			return nil //nolint:nilerr // not readable for anybody
		}
		if e.IsDir() && strings.HasSuffix(dir, "/queues/") || path == dir {
			return nil
		}
		if e.IsDir() || strings.Count(path, "/") > depth+4 {
			return fs.SkipDir
		}
		for _, p := range passing {
			if e.Name() == p {
				return nil
			}
		}
		if e.Type().IsRegular() {
			b, err := os.ReadFile(path)
			fmt.Fprintf(w, "%s: %q %v\n", path, b, err)
		}
		return nil
	})
}

package engines

import (
	"bytes"
	"embed"
	"io/fs"
	"os"
	"os/exec"
	"strings"

	"github.com/brfuse/brfuse/integration/vmlab"
)

//go:embed files
var files embed.FS

// packages are Debian's; the rest comes along.
var packages = []string{
	"docker.io", "containerd", "runc", "podman", "crun", "conmon",
	"containernetworking-plugins", "golang-github-containers-common", "golang-github-containers-image",
	"iptables", "nftables", "iproute2", "procps", "dash", "busybox-static",
}

// needless is what fills the disk and nobody runs.
var needless = []string{
	"/usr/bin/dnet", "/usr/sbin/ovrouter", "/usr/bin/perl*", "/usr/share/perl*", "/usr/bin/gpg*",
	"/usr/bin/containerd-shim", "/usr/bin/containerd-shim-runc-v1",
}

// links are what the packages' scripts would have made.
var links = map[string]string{
	"/usr/sbin/iptables":          "xtables-nft-multi",
	"/usr/sbin/iptables-save":     "xtables-nft-multi",
	"/usr/sbin/iptables-restore":  "xtables-nft-multi",
	"/usr/sbin/ip6tables":         "xtables-nft-multi",
	"/usr/sbin/ip6tables-save":    "xtables-nft-multi",
	"/usr/sbin/ip6tables-restore": "xtables-nft-multi",
	"/opt/cni/bin":                "../../usr/lib/cni",
	"/var/run":                    "../run",
}

// Images are the names of the container images in the guest, as docker has
// them; containerd and podman have them by the same.
const (
	Busybox = "docker.io/library/bb:1"  // busybox's applets
	Pause   = "docker.io/local/pause:1" // sleeps, for sandboxes
)

// archivePath is where a guest has the container images.
const archivePath = "/var/lib/images.tar"

// Recipe returns the recipe of the guests' disk.
func Recipe() (vmlab.Disk, error) {
	busybox, err := exec.LookPath("busybox")
	if err != nil {
		return vmlab.Disk{}, err
	}
	program, err := os.ReadFile(busybox)
	if err != nil {
		return vmlab.Disk{}, err
	}
	var archive bytes.Buffer
	if err := writeArchive(&archive, program, []image{
		{Busybox, []string{"/bin/sh"}},
		{Pause, []string{"/bin/sleep", "1000000000"}},
	}); err != nil {
		return vmlab.Disk{}, err
	}
	over := map[string][]byte{archivePath: archive.Bytes(), "/var/tmp/": nil, "/etc/containers/net.d/": nil}
	err = fs.WalkDir(files, "files", func(path string, d fs.DirEntry, err error) error {
		if err != nil || d.IsDir() {
			return err
		}
		over[strings.TrimPrefix(path, "files")], err = files.ReadFile(path)
		return err
	})
	return vmlab.Disk{
		Name: "engines", Packages: packages, Files: over, Links: links, Remove: needless, MiB: 1200,
	}, err
}

// Modules are the kernel modules that the engines need: a guest's disk has none.
var Modules = []string{
	"virtio_blk", "overlay", "bridge", "br_netfilter", "veth", "nf_tables", "nft_compat", "nft_chain_nat", "nft_ct", "nft_masq",
	"nft_nat", "nft_redir", "nft_limit", "nft_fib_inet", "nf_conntrack_netlink",
	"xt_addrtype", "xt_comment", "xt_conntrack", "xt_mark", "xt_MASQUERADE", "xt_nat", "xt_multiport", "xt_statistic", "xt_tcpudp",
	"xt_REDIRECT", "ipt_REJECT", "ip_tables", "ip6_tables", "iptable_nat", "iptable_filter", "ip6table_nat", "ip6table_filter",
	"sch_tbf", "sch_ingress", "act_mirred", "ifb",
}

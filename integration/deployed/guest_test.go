package deployed

import (
	"context"
	"errors"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/brfuse/brfuse/integration/site"
	"github.com/brfuse/brfuse/integration/vmlab"
)

// limit bounds the test, in its context.
const limit = 8 * time.Minute

// distribution is a guest's disk with systemd, udev and systemd-networkd. No
// maintainer script was run, so the users are made here.
func distribution(ctx context.Context, t *testing.T, lab *vmlab.Lab) string {
	t.Helper()
	disk, err := lab.BuildDisk(ctx, vmlab.Disk{
		Name: "systemd", MiB: 600,
		Packages: []string{"systemd", "udev", "iproute2", "nftables", "kmod", "util-linux", "dash"},
		Files: map[string][]byte{
			"/etc/passwd":     []byte("root:x:0:0::/root:/bin/sh\nsystemd-network:x:998:998::/:/usr/sbin/nologin\nnobody:x:65534:65534::/:/usr/sbin/nologin\n"),
			"/etc/group":      []byte("root:x:0:\ntty:x:5:\nkvm:x:103:\nsystemd-network:x:998:\nnogroup:x:65534:\n"),
			"/etc/os-release": []byte("ID=test\n"),
			"/etc/machine-id": []byte("0123456789abcdef0123456789abcdef\n"),
			// What a distribution configures by itself.
			"/etc/systemd/network/50-all.network": []byte("[Match]\nType=ether\n\n[Network]\nDHCP=yes\n"),
			"/var/tmp/":                           nil,
		},
		Links: map[string]string{
			"/etc/systemd/system/default.target":                                   "/lib/systemd/system/multi-user.target",
			"/etc/systemd/system/multi-user.target.wants/systemd-networkd.service": "/lib/systemd/system/systemd-networkd.service",
			"/etc/systemd/system/multi-user.target.wants/brfuse-agent.service":     "../brfuse-agent.service",
			"/var/run": "../run",
		},
	})
	require.NoError(t, err)
	return disk
}

// installed is where deploy's files go in the guest.
func installed(ctx context.Context, t *testing.T, lab *vmlab.Lab) map[string]string {
	t.Helper()
	files := map[string]string{}
	for _, program := range []string{"brfused", "brfuse-agent"} {
		bin, err := lab.GoBuild(ctx, "./cmd/"+program)
		require.NoError(t, err)
		files["/usr/local/bin/"+program] = bin
	}
	cli, err := lab.GoBuild(ctx, "./cmd/brfuse")
	require.NoError(t, err)
	files["/usr/local/bin/brfuse"] = cli
	for from, to := range map[string]string{
		"systemd/*": "/etc/systemd/system/", "udev/*": "/etc/udev/rules.d/", "networkd/*": "/etc/systemd/network/",
	} {
		names, err := filepath.Glob("../../deploy/" + from)
		require.NoError(t, err)
		for _, name := range names {
			here, err := filepath.Abs(name)
			require.NoError(t, err)
			files[to+filepath.Base(name)] = here
		}
	}
	return files
}

// await waits for three minutes at most.
func await(ctx context.Context, what string, is func(context.Context) (bool, error)) error {
	ctx, cancel := context.WithTimeout(ctx, 3*time.Minute)
	defer cancel()
	return site.Until(ctx, what, is)
}

// machine is a guest in which systemd runs, as the first process of a process
// namespace of its own.
type machine struct {
	*vmlab.VM
	init string // systemd's process ID
}

// sh runs a script among systemd's services.
func (m machine) sh(ctx context.Context, script string) (vmlab.Result, error) {
	return m.Run(ctx, "/usr/bin/nsenter", "-t", m.init, "-m", "-p", "/bin/sh", "-c", "PATH=$PATH:/usr/local/bin; "+script)
}

func (m machine) must(ctx context.Context, t *testing.T, script string) string {
	t.Helper()
	res, err := m.sh(ctx, script)
	require.NoError(t, err)
	require.Zero(t, res.Code, "%s\n%s%s", script, res.Stdout, res.Stderr)
	return res.Stdout
}

func bootMachine(ctx context.Context, t *testing.T, s *site.Site, disk string) machine {
	t.Helper()
	// A NIC of the VM's own, beside the slots of vNICs.
	vm, err := s.BootConfig(ctx, vmlab.Config{Name: "vm1", Disk: disk, Mem: 512, ExtraArgs: []string{
		"-netdev", "user,id=own,restrict=on", "-device", "virtio-net-pci,netdev=own,mac=52:54:00:00:00:01,romfile=",
	}})
	require.NoError(t, err)
	_, err = vm.Start(ctx, vmlab.Command{Argv: []string{"/usr/bin/unshare", "--pid", "--fork", "--mount-proc", "/lib/systemd/systemd"}})
	require.NoError(t, err)
	m := machine{VM: vm}
	require.NoError(t, await(ctx, "systemd", func(ctx context.Context) (bool, error) {
		res, err := vm.Run(ctx, "pidof", "systemd")
		m.init = strings.TrimSpace(res.Stdout)
		return err == nil && m.init != "", err
	}))
	return m
}

// TestUnits starts the units under systemd in a guest, with udev and
// systemd-networkd, and gives a pod of that guest a vNIC.
func TestUnits(t *testing.T) {
	skip := t.Skipf
	if os.Getenv("CI") != "" {
		skip = t.Fatalf
	}
	if testing.Short() {
		t.Skip("boots a guest")
	}
	if os.Geteuid() != 0 {
		skip("needs root")
	}
	ctx, cancel := context.WithTimeout(t.Context(), limit)
	defer cancel()
	lab, err := vmlab.Open(ctx, vmlab.Options{})
	if errors.Is(err, vmlab.ErrMissing) {
		skip("%v", err)
	}
	require.NoError(t, err)
	dir, err := os.MkdirTemp("", "brf") //nolint:usetesting // TempDir's paths are too long for a socket
	require.NoError(t, err)
	defer os.RemoveAll(dir)
	s, err := site.New(ctx, lab, site.Options{Dir: dir, AgentByHand: true, Image: vmlab.Image{
		Files:   installed(ctx, t, lab),
		Modules: []string{"virtio_blk", "tun", "bridge", "nf_tables", "nft_chain_nat", "nft_masq", "nft_ct", "nft_limit", "nft_fib_inet", "nft_nat", "nft_meta_bridge", "nft_objref"},
	}})
	require.NoError(t, err)
	defer func() { assert.NoError(t, s.Close()) }()
	require.NoError(t, s.StartDaemon(ctx))
	_, err = s.MustBrfuse(ctx, "network", "create", "blue", "--subnet", "10.231.0.0/24")
	require.NoError(t, err)
	m := bootMachine(ctx, t, s, distribution(ctx, t, lab))
	defer func() {
		if t.Failed() {
			res, _ := m.sh(context.WithoutCancel(ctx), "journalctl -b --no-pager | tail -n 80; systemctl --no-pager --failed; ip -br link")
			t.Log(res.Stdout, res.Stderr)
		}
	}()
	require.NoError(t, s.AddVM(ctx, m.VM), "the agent's unit has started, and its agent has found the channel")
	t.Run("agent", func(t *testing.T) { testAgent(ctx, t, s, m) })
	t.Run("network managers", func(t *testing.T) { testManagers(ctx, t, m) })
	t.Run("daemon", func(t *testing.T) { testDaemon(ctx, t, m) })
}

// testAgent attaches a pod, kills the agent, and removes the pod's namespace: the
// vNIC comes back only if the agent's unit keeps no copy of the mount.
func testAgent(ctx context.Context, t *testing.T, s *site.Site, m machine) {
	t.Helper()
	m.must(ctx, t, "ip netns add db")
	_, err := s.MustBrfuse(ctx, "attach", "--pod", "db", "--vm", "vm1", "--network", "blue", "--ip", "10.231.0.7")
	require.NoError(t, err)
	_, err = s.Output(ctx, "ping", "-c", "1", "-W", "5", "10.231.0.7")
	require.NoError(t, err)
	assert.Equal(t, "1", strings.TrimSpace(m.must(ctx, t, "ip netns exec db cat /proc/sys/net/ipv6/conf/eth0/accept_ra | wc -l")))

	pid := func() string { return strings.TrimSpace(m.must(ctx, t, "systemctl show -P MainPID brfuse-agent")) }
	before := pid()
	m.must(ctx, t, "systemctl kill -s KILL brfuse-agent")
	require.NoError(t, await(ctx, "another agent", func(context.Context) (bool, error) {
		now := pid()
		return now != "0" && now != before, nil
	}))
	require.NoError(t, s.AwaitAgent(ctx, "vm1"))
	m.must(ctx, t, "ip netns del db")
	require.NoError(t, await(ctx, "the attachment's end", func(ctx context.Context) (bool, error) {
		out, err := s.MustBrfuse(ctx, "list")
		return !strings.Contains(out, "db"), err
	}))
	assert.NotRegexp(t, "level=(WARN|ERROR)", m.must(ctx, t, "journalctl -u brfuse-agent --no-pager"))
}

// testManagers plugs a NIC where brfuse's are, and looks what udev and
// systemd-networkd make of it and of the VM's own.
func testManagers(ctx context.Context, t *testing.T, m machine) {
	t.Helper()
	_, err := m.Monitor().Do(ctx, "device_add", map[string]any{
		"driver": "virtio-net-pci", "id": "late", "bus": "brf-br1", "addr": "1f", "mac": "02:00:5e:00:53:01", "romfile": "",
	})
	require.NoError(t, err)
	const mine, its = "52:54:00:00:00:01", "02:00:5e:00:53:01"
	require.NoError(t, await(ctx, "networkd to know the nic", func(ctx context.Context) (bool, error) {
		res, err := m.sh(ctx, script(its, `grep -q ADMIN_STATE /run/systemd/netif/links/$index`))
		return res.Code == 0, err
	}))
	m.must(ctx, t, "udevadm settle --timeout=30")
	properties := m.must(ctx, t, script(its, "udevadm info -q property /sys/class/net/$name"))
	for _, p := range []string{"BRFUSE=1", "NM_UNMANAGED=1", "ID_NET_LINK_FILE=/etc/systemd/network/10-brfuse.link"} {
		assert.Contains(t, properties, p)
	}
	assert.Regexp(t, `^eth\d+\n$`, m.must(ctx, t, script(its, "echo $name")), "udev renames it not")
	assert.Contains(t, m.must(ctx, t, script(its, "cat /run/systemd/netif/links/$index")), "ADMIN_STATE=unmanaged")

	properties = m.must(ctx, t, script(mine, "udevadm info -q property /sys/class/net/$name"))
	assert.NotContains(t, properties, "BRFUSE")
	assert.NotContains(t, properties, "NM_UNMANAGED")
	assert.Regexp(t, "ADMIN_STATE=config", m.must(ctx, t, script(mine, "cat /run/systemd/netif/links/$index")))
}

// script runs a command with the name and index of the link that has a MAC.
func script(mac, command string) string {
	return `for l in /sys/class/net/*; do
  if [ "$(cat $l/address)" = ` + mac + ` ]; then name=${l##*/} index=$(cat $l/ifindex); ` + command + `; exit; fi
done; exit 9`
}

// testDaemon starts the daemon's unit in the guest, which is a hypervisor as far
// as links, rules and sysctls go.
func testDaemon(ctx context.Context, t *testing.T, m machine) {
	t.Helper()
	m.must(ctx, t, "systemctl start brfused")
	require.NoError(t, await(ctx, "brfused in the guest", func(ctx context.Context) (bool, error) {
		res, err := m.sh(ctx, "brfuse network list")
		return res.Code == 0, err
	}))
	m.must(ctx, t, "brfuse network create red --subnet 10.77.0.0/24 --subnet fd00:77::/64")
	assert.Contains(t, m.must(ctx, t, "nft list tables"), "brfuse")
	assert.Contains(t, m.must(ctx, t, "ip -o addr show bf-red"), "10.77.0.1/24")
	assert.Equal(t, "1\n", m.must(ctx, t, "cat /proc/sys/net/ipv4/ip_forward"))
	doctor, err := m.sh(ctx, "brfuse doctor")
	require.NoError(t, err)
	assert.Regexp(t, `(?m)^ok +tap `, doctor.Stdout)
	assert.NotRegexp(t, `(?m)^fail`, doctor.Stdout)
	m.must(ctx, t, "brfuse network rm red")
	m.must(ctx, t, "systemctl stop brfused && test -d /run/brfuse && test -S /run/brfuse/cni.sock")
}

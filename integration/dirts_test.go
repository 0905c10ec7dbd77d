package integration

// dirt is what a tenant does to its vNIC, by a script in its pod with the link as $1,
// and what shows that it did. The link is named LINK there.
type dirt struct{ name, script, shows string }

// tenant is one who does all of that.
type tenant struct {
	name  string
	dirts []dirt
	// rebound says that moving and a message don't undo it, so that the device has to
	// be given its driver anew.
	rebound bool
}

// sysctls is the folder of the pod's settings.
const sysctls = "cd /proc/sys/net; "

// tenants do all that has been thought of to a vNIC. What one of them does goes
// together.
var tenants = []tenant{
	{name: "nothing"},
	{name: "link down", rebound: true, dirts: []dirt{ // its buffers are the device's, which fills them as long as it can
		{"down", "ip link set $1 down", "state DOWN"},
	}},
	{name: "what pods do", dirts: []dirt{
		{"addresses", "ip addr add 10.9.9.9/24 dev $1; ip addr add fd09::9/64 dev $1", "fd09::9/64"},
		{"routes", "ip route add 198.51.100.0/24 dev $1; ip -6 route add fd99::/64 dev $1; ip route add table 99 default dev $1", "table 99"},
		{"rules", "ip rule add iif $1 table 99", "iif LINK lookup 99"},
		{"neighbour", "ip neigh add 10.1.0.77 lladdr 02:00:5e:00:53:77 dev $1 nud permanent", "10.1.0.77"},
		{"neighbour of ipv6", "ip neigh add fd00:1::77 lladdr 02:00:5e:00:53:77 dev $1 nud permanent", "fd00:1::77"},
		{"proxied neighbour", "ip neigh add proxy 10.1.0.78 dev $1", "10.1.0.78"},
		{"queueing discipline", "tc qdisc replace dev $1 root tbf rate 1mbit burst 10k latency 50ms", "qdisc tbf"},
		{"clsact", "tc qdisc add dev $1 clsact", "qdisc clsact"},
		{"filters", "tc filter add dev $1 ingress protocol ip u32 match u32 0 0 flowid 1:1", "u32"},
		{"netdev chain", "nft add table netdev t; nft 'add chain netdev t c { type filter hook ingress device '$1' priority 0; }'", "chain c"},
		{"xdp generic", "ip link set dev $1 xdpgeneric pinned /bpf/pass", "xdpgeneric"},
		{"alternative names", "ip link property add dev $1 altname mine altname also-mine", "altname also-mine"},
		{"alias", "ip link set $1 alias mine", "alias mine"},
		{"promiscuous", "ip link set $1 promisc on", "PROMISC"},
		{"all multicast", "ip link set $1 allmulticast on", "ALLMULTI"},
		{"dynamic", "ip link set $1 dynamic on", "DYNAMIC"},
		{"mtu", "ip link set $1 mtu 1300", "mtu 1300"},
		{"transmit queue", "ip link set $1 txqueuelen 77", "qlen 77"},
		{"vlan", "ip link add link $1 name v7 type vlan id 7; ip link set v7 up", "upper_v7"},
		{"multicast filter", "ip maddr add 33:33:00:00:00:77 dev $1", "33:33:00:00:00:77"},
		{"unicast filter", "bridge fdb add 02:00:5e:00:53:97 dev $1 self", "02:00:5e:00:53:97"},
		{"address generation", "ip link set $1 addrgenmode random", "addrgenmode random"},
		{"token", sysctls + "echo 1 > ipv6/conf/$1/autoconf; echo 1 > ipv6/conf/$1/accept_ra; ip token set ::77 dev $1", "::77"},
		{"sysctls of ipv4", sysctls + "echo 1 > ipv4/conf/$1/proxy_arp; echo 2 > ipv4/conf/$1/rp_filter", `LINK/proxy_arp: "1`},
		{"sysctls of ipv6", sysctls + "echo 1 > ipv6/conf/$1/forwarding; echo 7 > ipv6/conf/$1/hop_limit", `LINK/hop_limit: "7`},
		{"sysctls of neighbours", sysctls + "echo 7 > ipv4/neigh/$1/mcast_solicit", `LINK/mcast_solicit: "7`},
		{"sysctls of ipv6 neighbours", sysctls + "echo 7 > ipv6/neigh/$1/gc_stale_time", `LINK/gc_stale_time: "7`},
	}},
	{name: "mac", rebound: true, dirts: []dirt{{"mac", "ip link set $1 address 02:00:5e:00:53:99", "02:00:5e:00:53:99"}}},
	{name: "mac and back", rebound: true, dirts: []dirt{
		{"mac", "ip link set $1 address 02:00:5e:00:53:99; ip link set $1 address 02:00:5e:00:53:07", `addr_assign_type: "3`},
	}},
	{name: "bridge port", dirts: []dirt{
		{"no arp", "ip link set $1 arp off", "NOARP"},
		{"master", "ip link add br0 type bridge; ip link set $1 master br0", "master br0"},
	}},
	{name: "macvlan", dirts: []dirt{
		{"no multicast", "ip link set $1 multicast off", "<BROADCAST,UP"},
		{"xdp native", "ip link set dev $1 xdpdrv pinned /bpf/pass", "prog/xdp id"},
		{"macvlan", "ip link add link $1 name m0 type macvlan mode bridge; ip link set m0 up", "upper_m0"},
	}},
	{name: "ipvlan", dirts: []dirt{
		{"ipvlan", "ip link add link $1 name i0 type ipvlan mode l2; ip link set i0 up", "upper_i0"},
		{"ipv6 off", sysctls + "echo 1 > ipv6/conf/$1/disable_ipv6", `LINK/disable_ipv6: "1`},
	}},
	{name: "another name", dirts: []dirt{{"name", "ip link set $1 down; ip link set $1 name mine; ip link set mine up", "no such link"}}},
	{name: "link attributes", rebound: true, dirts: []dirt{
		{"broadcast address", "ip link set $1 broadcast 02:00:5e:00:53:98", "02:00:5e:00:53:98"},
		{"group", "ip link set $1 group 7", "group 7"},
		{"dormant", "ip link set $1 mode dormant", "mode DORMANT"},
		{"segment size", "ip link set $1 gso_max_size 1500", "gso_max_size 1500"},
		{"segments", "ip link set $1 gso_max_segs 3", "gso_max_segs 3"},
	}},
	{name: "ethtool", rebound: true, dirts: []dirt{
		{"offloads", "ethtool -K $1 gso off gro off sg off", "generic-segmentation-offload: off"},
		{"speed", "ethtool -s $1 speed 100 duplex half", "Speed: 100Mb/s"},
	}},
	{name: "rings", rebound: true, dirts: []dirt{{"rings", "ethtool -G $1 rx 128 tx 128", "128"}}},
	{name: "coalescing", rebound: true, dirts: []dirt{
		{"coalescing", "ip link set $1 down; ethtool -C $1 tx-frames 0; ip link set $1 up", "tx-frames: 0"},
	}},
	{name: "sysfs", rebound: true, dirts: []dirt{
		{"threaded", "echo 1 > /sys/class/net/$1/threaded", `threaded: "1`},
		{"deferred interrupts", "echo 3 > /sys/class/net/$1/napi_defer_hard_irqs", `napi_defer_hard_irqs: "3`},
		{"flush timeout", "echo 20000 > /sys/class/net/$1/gro_flush_timeout", `gro_flush_timeout: "20000`},
		{"receive steering", "echo 3 > /sys/class/net/$1/queues/rx-0/rps_cpus", `rps_cpus: "3`},
		{"flows", "echo 64 > /sys/class/net/$1/queues/rx-0/rps_flow_cnt", `rps_flow_cnt: "64`},
		{"byte limits", "echo 1000 > /sys/class/net/$1/queues/tx-0/byte_queue_limits/limit_max", `limit_max: "1000`},
	}},
	{name: "bpf link", rebound: true, dirts: []dirt{{"xdp by a bpf_link", nicTool + " pin /bpf/link $1", "prog/xdp id"}}},
	{name: "nothing again"},
}

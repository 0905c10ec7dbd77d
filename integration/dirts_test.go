package integration

// dirt is what a tenant does to its vNIC, by a script in its pod, with the link as $1.
type dirt struct{ Name, Script string }

// sysctls is the folder of the pod's settings.
const sysctls = "cd /proc/sys/net; "

// dirts are all ways to change a vNIC that have been thought of.
var dirts = []dirt{
	{"addresses", "ip addr add 10.9.9.9/24 dev $1; ip addr add fd09::9/64 dev $1"},
	{"routes", "ip route add 198.51.100.0/24 dev $1; ip -6 route add fd99::/64 dev $1; ip route add table 99 default dev $1"},
	{"rules", "ip rule add iif $1 table 99"},
	{"neighbours", "ip neigh add 10.1.0.77 lladdr 02:00:5e:00:53:77 dev $1 nud permanent; ip neigh add fd00:1::77 lladdr 02:00:5e:00:53:77 dev $1 nud permanent"},
	{"proxied neighbours", "ip neigh add proxy 10.1.0.78 dev $1"},
	{"queueing discipline", "tc qdisc replace dev $1 root tbf rate 1mbit burst 10k latency 50ms"},
	{"filters", "tc qdisc add dev $1 clsact; tc filter add dev $1 ingress protocol ip u32 match u32 0 0 flowid 1:1; tc filter add dev $1 egress protocol ip u32 match u32 0 0 flowid 1:1"},
	{"netdev chain", "nft add table netdev t; nft 'add chain netdev t c { type filter hook ingress device '$1' priority 0; }'"},
	{"xdp generic", "ip link set dev $1 xdpgeneric pinned /bpf/pass"},
	{"xdp native", "ip link set dev $1 xdpdrv pinned /bpf/pass"},
	{"xdp by a bpf_link", nicTool + " pin /bpf/link $1"},
	{"alternative names", "ip link property add dev $1 altname mine altname also-mine"},
	{"alias", "ip link set $1 alias mine"},
	{"promiscuous", "ip link set $1 promisc on"},
	{"all multicast", "ip link set $1 allmulticast on"},
	{"no arp", "ip link set $1 arp off"},
	{"dynamic", "ip link set $1 dynamic on"},
	{"no multicast", "ip link set $1 multicast off"},
	{"mtu", "ip link set $1 mtu 1300"},
	{"mac", "ip link set $1 address 02:00:5e:00:53:99"},
	{"broadcast address", "ip link set $1 broadcast 02:00:5e:00:53:98"},
	{"transmit queue", "ip link set $1 txqueuelen 77"},
	{"group", "ip link set $1 group 7"},
	{"another name", "ip link set $1 down; ip link set $1 name mine; ip link set mine up"},
	{"dormant", "ip link set $1 mode dormant"},
	{"bridge port", "ip link add br0 type bridge; ip link set $1 master br0"},
	{"vlan", "ip link add link $1 name v7 type vlan id 7; ip link set v7 up"},
	{"macvlan", "ip link add link $1 name m0 type macvlan mode passthru; ip link set m0 up"},
	{"ipvlan", "ip link add link $1 name i0 type ipvlan mode l2; ip link set i0 up"},
	{"multicast filter", "ip maddr add 33:33:00:00:00:77 dev $1"},
	{"unicast filter", "bridge fdb add 02:00:5e:00:53:97 dev $1 self"},
	{"address generation", "ip link set $1 addrgenmode random"},
	{"token", sysctls + "echo 1 > ipv6/conf/$1/autoconf; echo 1 > ipv6/conf/$1/accept_ra; ip token set ::77 dev $1"},
	{"sysctls of ipv4", sysctls + "echo 1 > ipv4/conf/$1/proxy_arp; echo 2 > ipv4/conf/$1/rp_filter; echo 1 > ipv4/conf/$1/forwarding"},
	{"sysctls of ipv6", sysctls + "echo 2 > ipv6/conf/$1/accept_ra; echo 1 > ipv6/conf/$1/forwarding; echo 7 > ipv6/conf/$1/hop_limit"},
	{"ipv6 off", sysctls + "echo 1 > ipv6/conf/$1/disable_ipv6"},
	{"sysctls of neighbours", sysctls + "echo 7 > ipv4/neigh/$1/mcast_solicit; echo 7 > ipv6/neigh/$1/gc_stale_time"},
	{"offloads", "ethtool -K $1 gso off gro off sg off"},
	{"coalescing", "ip link set $1 down; ethtool -C $1 tx-frames 0; ip link set $1 up"},
	{"rings", "ethtool -G $1 rx 128 tx 128"},
	{"speed", "ethtool -s $1 speed 100 duplex half"},
	{"segmentation", "ip link set $1 gso_max_size 1500; ip link set $1 gso_max_segs 3"},
	{"gro size", "ip link set $1 gro_max_size 2000"},
	{"threaded", "echo 1 > /sys/class/net/$1/threaded"},
	{"deferred interrupts", "echo 3 > /sys/class/net/$1/napi_defer_hard_irqs; echo 20000 > /sys/class/net/$1/gro_flush_timeout"},
	{"receive steering", "echo 3 > /sys/class/net/$1/queues/rx-0/rps_cpus; echo 64 > /sys/class/net/$1/queues/rx-0/rps_flow_cnt"},
	{"byte limits", "cd /sys/class/net/$1/queues/tx-0/byte_queue_limits; echo 1000 > limit_max; echo 10 > limit_min; echo 7 > hold_time"},
}

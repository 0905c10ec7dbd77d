package names

import (
	"net/netip"
	"slices"
	"strings"
	"testing"

	"github.com/miekg/dns"
	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/brfuse/brfuse/vnic"
)

// text returns an answer, its records in order of the alphabet, without TTLs and the
// numbers of SOAs: one record a line.
func text(m *dns.Msg) string {
	var b strings.Builder
	b.WriteString(dns.RcodeToString[m.Rcode])
	if m.Authoritative {
		b.WriteString(" aa")
	}
	for i, rrs := range [][]dns.RR{m.Answer, m.Ns, m.Extra} {
		var lines []string
		for _, rr := range rrs {
			f := strings.Fields(rr.String())
			if rr.Header().Rrtype == dns.TypeSOA {
				f = f[:5]
			}
			lines = append(lines, "\n"+[]string{"", "ns ", "extra "}[i]+strings.Join(slices.Concat(f[:1], f[3:]), " "))
		}
		slices.Sort(lines)
		b.WriteString(strings.Join(lines, ""))
	}
	return b.String()
}

const (
	soa       = "\nns blue.brfuse.internal. SOA blue.brfuse.internal."
	parentSOA = "\nns brfuse.internal. SOA blue.brfuse.internal."
	extra1    = "\nextra 00000000a1.blue.brfuse.internal. A 127.9.0.11\nextra 00000000a1.blue.brfuse.internal. AAAA fd00:9::11"
	extra2    = "\nextra 00000000a2.blue.brfuse.internal. A 127.9.0.12\nextra 00000000a2.blue.brfuse.internal. AAAA fd00:9::12"
	glue      = "\nextra blue.brfuse.internal. A 127.9.0.1\nextra blue.brfuse.internal. AAAA fd00:9::1"
	reverse   = "\nns 9.127.in-addr.arpa. SOA blue.brfuse.internal."
	apex6     = "0.0.0.0.0.0.0.0.9.0.0.0.0.0.d.f.ip6.arpa."
)

func TestOwnNames(t *testing.T) {
	r := newBlue(t, Config{})
	r.put(web(), twin(), db())
	const zone = ".blue.brfuse.internal."
	low6 := strings.Repeat(".0", 14) + "." + apex6
	for _, c := range []struct {
		name   string
		rrtype uint16
		want   string
	}{
		{"web" + zone, dns.TypeA, "NOERROR aa\nweb" + zone + " A 127.9.0.11\nweb" + zone + " A 127.9.0.12"},
		{"web" + zone, dns.TypeAAAA, "NOERROR aa\nweb" + zone + " AAAA fd00:9::11\nweb" + zone + " AAAA fd00:9::12"},
		{"web-1.shop" + zone, dns.TypeA, "NOERROR aa\nweb-1.shop" + zone + " A 127.9.0.11"},
		{"00000000a2" + zone, dns.TypeA, "NOERROR aa\n00000000a2" + zone + " A 127.9.0.12"},
		{"WeB" + zone, dns.TypeMX, "NOERROR aa" + soa},
		{"WEB-2.Shop.BLUE.brfuse.INTERNAL.", dns.TypeA, "NOERROR aa\nWEB-2.Shop.BLUE.brfuse.INTERNAL. A 127.9.0.12"},
		{"web" + zone, dns.TypeANY, "NOERROR aa\nweb" + zone + ` HINFO "RFC8482" ""`},
		{"nobody" + zone, dns.TypeANY, "NXDOMAIN aa" + soa},
		{"nobody" + zone, dns.TypeA, "NXDOMAIN aa" + soa},
		{"under.web" + zone, dns.TypeA, "NXDOMAIN aa" + soa},
		// Empty non-terminals.
		{"shop" + zone, dns.TypeA, "NOERROR aa" + soa},
		{"_tcp.web" + zone, dns.TypeSRV, "NOERROR aa" + soa},
		{"_udp.web" + zone, dns.TypeSRV, "NXDOMAIN aa" + soa},
		// Not ready.
		{"db" + zone, dns.TypeA, "NOERROR aa" + soa},
		{"00000000b1" + zone, dns.TypeA, "NOERROR aa" + soa},
		{"_5432._tcp.db" + zone, dns.TypeSRV, "NOERROR aa" + soa},
		{"20.0.9.127.in-addr.arpa.", dns.TypePTR, "NOERROR aa\n20.0.9.127.in-addr.arpa. PTR db" + zone},
		// Ports.
		{"_http._tcp.web" + zone, dns.TypeSRV, "NOERROR aa\n_http._tcp.web" + zone + " SRV 0 1 80 00000000a1" + zone +
			"\n_http._tcp.web" + zone + " SRV 0 1 8080 00000000a2" + zone + extra1 + extra2},
		{"_80._tcp.web" + zone, dns.TypeSRV, "NOERROR aa\n_80._tcp.web" + zone + " SRV 0 1 80 00000000a1" + zone + extra1},
		{"_8080._tcp.web-2.shop" + zone, dns.TypeSRV, "NOERROR aa\n_8080._tcp.web-2.shop" + zone + " SRV 0 1 8080 00000000a2" + zone + extra2},
		{"_80._tcp.web" + zone, dns.TypeA, "NOERROR aa" + soa},
		{"_81._tcp.web" + zone, dns.TypeSRV, "NXDOMAIN aa" + soa},
		// The apex and what is above it.
		{zone[1:], dns.TypeNS, "NOERROR aa\nblue.brfuse.internal. NS blue.brfuse.internal." + glue},
		{zone[1:], dns.TypeSOA, "NOERROR aa\n" + strings.TrimPrefix(soa, "\nns ")},
		{zone[1:], dns.TypeA, "NOERROR aa\nblue.brfuse.internal. A 127.9.0.1"},
		{zone[1:], dns.TypeTXT, "NOERROR aa" + soa},
		{zone[1:], dns.TypeDS, "NOERROR aa" + parentSOA},
		{"brfuse.internal.", dns.TypeA, "NOERROR aa" + parentSOA},
		{"brfuse.internal.", dns.TypeNS, "NOERROR aa\nbrfuse.internal. NS blue.brfuse.internal." + glue},
		{"web.red.brfuse.internal.", dns.TypeA, "NXDOMAIN aa" + parentSOA},
		{`web\.blue.brfuse.internal.`, dns.TypeA, "NXDOMAIN aa" + parentSOA},
		// Addresses.
		{"11.0.9.127.in-addr.arpa.", dns.TypePTR, "NOERROR aa\n11.0.9.127.in-addr.arpa. PTR web-1.shop" + zone},
		{"1.0.9.127.in-addr.arpa.", dns.TypePTR, "NOERROR aa\n1.0.9.127.in-addr.arpa. PTR blue.brfuse.internal."},
		{"99.0.9.127.in-addr.arpa.", dns.TypePTR, "NXDOMAIN aa" + reverse},
		{"0.9.127.in-addr.arpa.", dns.TypePTR, "NOERROR aa" + reverse},
		{"1.9.127.in-addr.arpa.", dns.TypePTR, "NXDOMAIN aa" + reverse},
		{"9.127.in-addr.arpa.", dns.TypePTR, "NOERROR aa" + reverse},
		{"011.0.9.127.in-addr.arpa.", dns.TypePTR, "NXDOMAIN aa" + reverse},
		{"a.11.0.9.127.in-addr.arpa.", dns.TypePTR, "NXDOMAIN aa" + reverse},
		{"1.1" + low6, dns.TypePTR, "NOERROR aa\n1.1" + low6 + " PTR web-1.shop" + zone},
		{"3.1" + low6, dns.TypePTR, "NXDOMAIN aa\nns " + apex6 + " SOA blue.brfuse.internal."},
		{"1" + low6, dns.TypePTR, "NOERROR aa\nns " + apex6 + " SOA blue.brfuse.internal."},
	} {
		t.Run(c.name+" "+dns.Type(c.rrtype).String(), func(t *testing.T) {
			r := &rig{Server: r.Server, t: t, at: r.at}
			assert.Equal(t, c.want, text(r.ask(c.name, c.rrtype)))
		})
	}
	assert.Zero(t, r.Stats()["blue"].Forwarded, "nothing of ours is for others")
}

// last returns the last field of a record.
func last(rr dns.RR) string {
	f := strings.Fields(rr.String())
	return f[len(f)-1]
}

// A client asks for A and AAAA in turn: the answers of each type start with another
// record every time.
func TestRecordsTakeTurns(t *testing.T) {
	r := newBlue(t, Config{})
	r.put(web(), twin())
	first := map[uint16][]string{}
	for range 4 {
		for _, rrtype := range []uint16{dns.TypeA, dns.TypeAAAA, dns.TypeSRV} {
			name := "web.blue.brfuse.internal."
			if rrtype == dns.TypeSRV {
				name = "_http._tcp." + name
			}
			m := r.ask(name, rrtype)
			require.Len(t, m.Answer, 2)
			first[rrtype] = append(first[rrtype], last(m.Answer[0]))
		}
	}
	for rrtype, firsts := range first {
		assert.Equal(t, firsts[:2], firsts[2:], dns.Type(rrtype))
		assert.NotEqual(t, firsts[0], firsts[1], dns.Type(rrtype))
	}
}

func TestTTLs(t *testing.T) {
	for _, c := range []struct {
		config Config
		want   uint32
	}{{Config{}, 5}, {Config{TTL: 60e9}, 60}} {
		r := newBlue(t, c.config)
		r.put(web())
		assert.Equal(t, c.want, r.ask("web.blue.brfuse.internal.", dns.TypeA).Answer[0].Header().Ttl)
		no := r.ask("nobody.blue.brfuse.internal.", dns.TypeA).Ns[0].(*dns.SOA)
		assert.Equal(t, []uint32{c.want, c.want}, []uint32{no.Hdr.Ttl, no.Minttl}, "RFC 2308")
	}
}

func TestChangesCountInTheSerial(t *testing.T) {
	r := newBlue(t, Config{})
	serial := func() uint32 {
		return r.ask("blue.brfuse.internal.", dns.TypeSOA).Answer[0].(*dns.SOA).Serial
	}
	before := serial()
	r.put(web(), web(), web())
	require.NoError(t, r.Delete("blue", web().ID))
	require.NoError(t, r.Delete("blue", web().ID))
	assert.Equal(t, before+2, serial(), "one put and one delete changed something")
}

// An id can't be taken by a pod that is named so.
func TestIDsWin(t *testing.T) {
	r := newBlue(t, Config{})
	mallory := Record{ID: "00000000c1", Names: []string{string(web().ID)}, Addresses: addrs("127.9.0.66"), Ready: true}
	r.put(web(), mallory)
	assert.Equal(t, "NOERROR aa\n00000000a1.blue.brfuse.internal. A 127.9.0.11", text(r.ask("00000000a1.blue.brfuse.internal.", dns.TypeA)))
}

func TestReverseZonesOfOddSubnets(t *testing.T) {
	ptr := func(a string) string {
		name, err := dns.ReverseAddr(a)
		require.NoError(t, err)
		return name
	}
	for _, c := range []struct {
		subnet, name string
		apex         string // empty: not ours
	}{
		{"10.0.0.0/8", ptr("10.1.2.3"), "10.in-addr.arpa."},
		{"10.0.0.0/8", "10.in-addr.arpa.", "10.in-addr.arpa."},
		{"10.0.0.0/8", "in-addr.arpa.", ""},
		{"10.0.0.0/8", ptr("11.1.2.3"), ""},
		{"10.9.16.0/20", ptr("10.9.17.3"), "17.9.10.in-addr.arpa."},
		{"10.9.16.0/20", "31.9.10.in-addr.arpa.", "31.9.10.in-addr.arpa."},
		{"10.9.16.0/20", "32.9.10.in-addr.arpa.", ""},
		{"10.9.16.0/20", "9.10.in-addr.arpa.", ""},
		{"10.9.16.0/20", "x.9.10.in-addr.arpa.", ""},
		{"10.9.0.64/26", ptr("10.9.0.64"), "0.9.10.in-addr.arpa."},
		{"10.9.0.64/26", ptr("10.9.0.128"), ""},
		{"10.9.0.64/26", "0.9.10.in-addr.arpa.", ""},
		{"10.9.0.64/26", "x.65.0.9.10.in-addr.arpa.", "0.9.10.in-addr.arpa."},
		{"fd00:9::/62", ptr("fd00:9::7"), strings.Repeat("0.", 7) + "0.9.0.0.0.0.0.d.f.ip6.arpa."},
		{"fd00:9::/62", ptr("fd00:9:0:4::7"), ""},
		{"fd00:9::/126", ptr("fd00:9::1"), strings.Repeat("0.", 23) + "9.0.0.0.0.0.d.f.ip6.arpa."},
		{"fd00:9::/126", ptr("fd00:9::4"), ""},
		{"fd00:9::/126", "ip6.arpa.", ""},
		{"fd00:9::/126", "example.com.", ""},
	} {
		t.Run(c.subnet+" "+c.name, func(t *testing.T) {
			n, err := vnic.Network{Name: "odd", Subnets: []netip.Prefix{netip.MustParsePrefix(c.subnet)}}.Complete()
			require.NoError(t, err)
			z, err := newZone(Config{}.withDefaults(), n)
			require.NoError(t, err)
			apex, ok := z.authority(dns.Question{Name: c.name, Qtype: dns.TypePTR}, c.name)
			assert.Equal(t, c.apex, apex)
			assert.Equal(t, c.apex != "", ok)
		})
	}
}

// An answer of too many records has some of them, others each time, and fits.
func TestManyReplicas(t *testing.T) {
	r := newBlue(t, Config{})
	r.replicas(600)
	seen := map[string]bool{}
	for range 600 {
		m := r.ask("web.blue.brfuse.internal.", dns.TypeA)
		require.True(t, m.Truncated)
		require.NotEmpty(t, m.Answer)
		m.Compress = true
		require.LessOrEqual(t, m.Len(), dns.MinMsgSize)
		seen[m.Answer[0].(*dns.A).A.String()] = true
	}
	assert.Len(t, seen, 600)
	m := r.send(new(dns.Msg).SetQuestion("_80._tcp.web.blue.brfuse.internal.", dns.TypeSRV), "tcp")
	assert.False(t, m.Truncated)
	assert.Len(t, m.Answer, maxAnswer)
	assert.Len(t, m.Extra, maxAnswer)
}

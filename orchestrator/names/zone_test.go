package names

import (
	"fmt"
	"maps"
	"math/rand/v2"
	"net/netip"
	"slices"
	"strings"
	"sync"
	"testing"

	"github.com/miekg/dns"
	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/brfuse/brfuse/vnic"
)

func newBlueZone(tb testing.TB) *zone {
	tb.Helper()
	z, err := newZone(Config{}.withDefaults(), blue())
	require.NoError(tb, err)
	return z
}

// dump returns all that a zone has, independent of the order it came in.
func dump(z *zone) string {
	var b strings.Builder
	for _, name := range slices.Sorted(maps.Keys(z.nodes)) {
		n := z.nodes[name]
		fmt.Fprintf(&b, "%s %d", name, n.refs)
		for k, list := range n.members {
			var ids []string
			for i, m := range list {
				if m.at != i {
					ids = append(ids, "misplaced")
				}
				ids = append(ids, fmt.Sprintf("%s:%d", m.record.ID, m.port))
			}
			slices.Sort(ids)
			fmt.Fprintf(&b, " %d=%s", k, strings.Join(ids, ","))
		}
		b.WriteByte('\n')
	}
	fmt.Fprintln(&b, len(z.entries), z.left)
	return b.String()
}

// After whatever changes a zone is as one that has only ever seen what is left.
func TestZoneForgetsAll(t *testing.T) {
	rng := rand.New(rand.NewPCG(1, 2))
	empty := dump(newBlueZone(t))
	names := []string{"web", "Web", "shop/web", "web.shop", "a/b/c", "no..name", "db"}
	for range 50 {
		z, now := newBlueZone(t), map[vnic.ID]Record{}
		for range 60 {
			id := vnic.ID(fmt.Sprintf("%010x", rng.IntN(12)))
			if rng.IntN(3) == 0 {
				z.drop(id)
				delete(now, id)
				continue
			}
			r := Record{ID: id, Ready: rng.IntN(3) > 0}
			for range rng.IntN(4) {
				r.Names = append(r.Names, names[rng.IntN(len(names))])
				r.Addresses = append(r.Addresses, netip.AddrFrom4([4]byte{127, 9, byte(rng.IntN(2)), byte(10 + rng.IntN(9))}))
				r.Ports = append(r.Ports, Port{Name: []string{"", "http", "b d"}[rng.IntN(3)], Number: uint16(rng.IntN(4)), Protocol: vnic.TCP})
			}
			z.put(r)
			now[id] = r
		}
		fresh := newBlueZone(t)
		for _, r := range now {
			fresh.put(r)
		}
		require.Equal(t, dump(fresh), dump(z))
		z.keep(nil)
		require.Equal(t, empty, dump(z))
	}
}

func TestReplace(t *testing.T) {
	r := newBlue(t, Config{})
	r.put(web(), twin())
	next := twin()
	next.Addresses = addrs("127.9.0.13")
	require.NoError(t, r.Replace("blue", []Record{next, db()}))
	assert.Equal(t, "NOERROR aa\nweb.blue.brfuse.internal. A 127.9.0.13", text(r.ask("web.blue.brfuse.internal.", dns.TypeA)))
	assert.Equal(t, dns.RcodeNameError, r.ask("11.0.9.127.in-addr.arpa.", dns.TypePTR).Rcode)
	assert.Equal(t, 2, r.Stats()["blue"].Records)

	err := r.Replace("blue", []Record{{ID: "bad"}, web()})
	require.ErrorIs(t, err, vnic.ErrInvalid)
	assert.Equal(t, 1, r.Stats()["blue"].Records, "the others are taken")
}

func TestRecordsAreTheCallersOwn(t *testing.T) {
	r := newBlue(t, Config{})
	rec := web()
	r.put(rec)
	rec.Names[1], rec.Addresses[0] = "other", netip.MustParseAddr("127.9.0.66")
	assert.Equal(t, "NOERROR aa\nweb.blue.brfuse.internal. A 127.9.0.11", text(r.ask("web.blue.brfuse.internal.", dns.TypeA)))
	r.put(rec)
	assert.Equal(t, "NOERROR aa\nother.blue.brfuse.internal. A 127.9.0.66", text(r.ask("other.blue.brfuse.internal.", dns.TypeA)))
}

func TestNamesThatCannotBeServed(t *testing.T) {
	r := newBlue(t, Config{})
	rec := web()
	rec.Names = []string{"a..b", "ok", strings.Repeat("x", 64), strings.Repeat("x.", 120) + "x"}
	rec.Ports = []Port{{Number: 80, Protocol: vnic.TCP, Name: "bad name"}, {Number: 0, Protocol: vnic.TCP}, {Number: 80, Protocol: ""}}
	r.put(rec)
	assert.Equal(t, 6, r.Stats()["blue"].Unserved)
	assert.Equal(t, dns.RcodeSuccess, r.ask("ok.blue.brfuse.internal.", dns.TypeA).Rcode)
	assert.Len(t, r.ask("_80._tcp.ok.blue.brfuse.internal.", dns.TypeSRV).Answer, 1)
	assert.Equal(t, "ok.blue.brfuse.internal.", r.ask("11.0.9.127.in-addr.arpa.", dns.TypePTR).Answer[0].(*dns.PTR).Ptr, "the first that is served")
	rec.Names = nil
	r.put(rec)
	assert.Equal(t, "00000000a1.blue.brfuse.internal.", r.ask("11.0.9.127.in-addr.arpa.", dns.TypePTR).Answer[0].(*dns.PTR).Ptr)
	require.NoError(t, r.Delete("blue", rec.ID))
	assert.Zero(t, r.Stats()["blue"].Unserved)
}

// Changes and queries at once: answers are whole at any time.
func TestConcurrentUse(t *testing.T) {
	r := newBlue(t, Config{})
	r.put(web())
	var wg sync.WaitGroup
	stop := make(chan struct{})
	wg.Go(func() {
		for i := 0; ; i++ {
			select {
			case <-stop:
				return
			default:
			}
			next := twin()
			next.Ready = i%2 == 0
			_ = r.Put("blue", next)
			_ = r.Replace("blue", []Record{web(), next, db()})
			_ = r.Delete("blue", db().ID)
			r.Stats()
		}
	})
	for range 200 {
		m := r.ask("_http._tcp.web.blue.brfuse.internal.", dns.TypeSRV)
		require.NotEmpty(t, m.Answer, "one is always ready")
		require.Len(t, m.Extra, 2*len(m.Answer))
	}
	close(stop)
	wg.Wait()
}

func BenchmarkPut(b *testing.B) {
	for _, n := range []int{100, 10_000} {
		b.Run(fmt.Sprintf("of=%d", n), func(b *testing.B) {
			z := newBlueZone(b)
			record := func(i int, ready bool) Record {
				return Record{
					ID: vnic.ID(fmt.Sprintf("%010x", i)), Names: []string{fmt.Sprintf("web-%d", i), "web"}, Ready: ready,
					Addresses: []netip.Addr{netip.AddrFrom4([4]byte{127, 9, byte(i >> 8), byte(i)})},
					Ports:     []Port{{Number: 80, Protocol: vnic.TCP}},
				}
			}
			for i := range n {
				z.put(record(i, true))
			}
			for i := 0; b.Loop(); i++ {
				z.put(record(i%n, i/n%2 == 1))
			}
		})
	}
}

func BenchmarkLookup(b *testing.B) {
	z := newBlueZone(b)
	z.put(web())
	z.put(twin())
	q := dns.Question{Name: "web.blue.brfuse.internal.", Qtype: dns.TypeA, Qclass: dns.ClassINET}
	for b.Loop() {
		apex, _ := z.authority(q, q.Name)
		z.lookup(q, q.Name, apex)
	}
}

package names

import (
	"strings"
	"testing"

	"github.com/miekg/dns"
	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/brfuse/brfuse/vnic"
)

func TestLabel(t *testing.T) {
	long := strings.Repeat("x", 63)
	for _, c := range []struct {
		name, want string // empty: an error
	}{
		{"web", "web"},
		{"Web-1_a", "web-1_a"},
		{"web.shop", "web.shop"},
		{"shop/web", "web.shop"},
		{"a/b.c/d", "d.b.c.a"},
		{long, long},
		{strings.Join([]string{long, long, long, long[:61]}, "."), strings.Join([]string{long, long, long, long[:61]}, ".")},
		{strings.Join([]string{long, long, long, long[:62]}, "."), ""},
		{long + "x", ""},
		{"", ""},
		{"a..b", ""},
		{"a.", ""},
		{".a", ""},
		{"a/", ""},
		{"a/_b", ""},
		{"_80._tcp.web", ""},
		{"web._tcp", ""},
		{"w b", ""},
		{"wéb", ""},
		{`a\.b`, ""},
		{"*", ""},
	} {
		got, err := Label(c.name)
		assert.Equal(t, c.want, got, c.name)
		if c.want == "" {
			require.ErrorIs(t, err, vnic.ErrInvalid, c.name)
		}
	}
}

func FuzzLabel(f *testing.F) {
	for _, s := range []string{"web", "Shop/Web", "a..b", "a/_b", strings.Repeat("x.", 127), "\xff", "K"} {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, name string) {
		got, err := Label(name)
		if err != nil {
			require.ErrorIs(t, err, vnic.ErrInvalid)
			require.Empty(t, got)
			return
		}
		again, err := Label(got)
		require.NoError(t, err)
		require.Equal(t, got, again, "what is mapped stays")
		require.Equal(t, dns.CanonicalName(got), got+".")
		b := make([]byte, 255)
		n, err := dns.PackDomainName(got+".", b, 0, nil, false)
		require.NoError(t, err)
		wire, _, err := dns.UnpackDomainName(b[:n], 0)
		require.NoError(t, err)
		require.Equal(t, got+".", wire, "nothing is escaped")
	})
}

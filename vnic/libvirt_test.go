package vnic

import (
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
)

func TestParseLibvirt(t *testing.T) {
	for _, c := range []struct {
		name, in string
		want     LibvirtDomain
		uri      string
	}{
		{"system", "qemu:///system/web1", LibvirtDomain{Name: "web1"}, "qemu:///system"},
		{"session", "qemu:///session/web1", LibvirtDomain{Name: "web1", Session: true}, "qemu:///session"},
		{
			"socket", "qemu+unix:///system/web1?socket=/a/b",
			LibvirtDomain{Name: "web1", Socket: "/a/b"},
			"qemu+unix:///system?socket=/a/b",
		},
		{"unusual name", "qemu:///system/a%20b%3Fc", LibvirtDomain{Name: "a b?c"}, "qemu:///system"},
	} {
		t.Run(c.name, func(t *testing.T) {
			d, err := ParseLibvirt(c.in)
			require.NoError(t, err)
			assert.Equal(t, c.want, d)
			assert.Equal(t, c.in, d.String())
			assert.Equal(t, c.uri, d.URI())
		})
	}
}

func TestParseLibvirtRefuses(t *testing.T) {
	for _, c := range []struct{ name, in, says string }{
		{"empty", "", "only domains of libvirt's QEMU driver"},
		{"no domain", "qemu:///system", "no domain behind"},
		{"empty domain", "qemu:///system/", "no domain's name"},
		{"slash", "qemu:///system/a/b", "has a slash"},
		{"escaped slash", "qemu:///system/a%2fb", "has a slash"},
		{"control character", "qemu:///system/a%0ab", "unprintable"},
		{"ssh", "qemu+ssh://host/system/web1", "run brfused on the hypervisor"},
		{"tls", "qemu+tls://host/system/web1", "run brfused on the hypervisor"},
		{"tcp to itself", "qemu+tcp:///system/web1", "run brfused on the hypervisor"},
		{"host", "qemu://host/system/web1", "run brfused on the hypervisor"},
		{"xen", "xen:///system/web1", "only domains of libvirt's QEMU driver"},
		{"mode", "qemu:///embed/web1", "no domain behind"},
		{"parameter", "qemu:///system/web1?keyfile=x", "parameter keyfile"},
		{"relative socket", "qemu+unix:///system/web1?socket=a", "no clean absolute path"},
		{"domain behind the socket", "qemu+unix:///system?socket=/a/b/web1", "no domain behind"},
		{"bad escape", "qemu:///system/%zz", "not a URI"},
	} {
		t.Run(c.name, func(t *testing.T) {
			_, err := ParseLibvirt(c.in)
			require.ErrorIs(t, err, ErrInvalid)
			assert.ErrorContains(t, err, c.says)
		})
	}
}

// FuzzParseLibvirt: what is accepted has one way to be written.
func FuzzParseLibvirt(f *testing.F) {
	for _, s := range []string{"qemu:///system/web1", "qemu+unix:///session/a%20b?socket=/a/b%26c", "qemu+ssh://h/system/x", "qemu:///system/a;b"} {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, s string) {
		d, err := ParseLibvirt(s)
		if err != nil {
			require.ErrorIs(t, err, ErrInvalid)
			return
		}
		again, err := ParseLibvirt(d.String())
		require.NoError(t, err, d.String())
		assert.Equal(t, d, again)
	})
}

package vnic_test

import (
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/brfuse/brfuse/vnic"
)

func TestNewIDIsParsedAndRecognised(t *testing.T) {
	id := vnic.NewID()
	parsed, err := vnic.ParseID(string(id))
	require.NoError(t, err)
	assert.Equal(t, id, parsed)
	for _, name := range []string{id.TapName(), id.DeviceID(), id.NetdevID(), id.LinkName()} {
		got, ok := vnic.IDFromName(name)
		assert.True(t, ok, name)
		assert.Equal(t, id, got, name)
	}
	assert.LessOrEqual(t, len(id.TapName()), 15, "the kernel's limit for interface names")
	assert.NotEqual(t, id, vnic.NewID())
}

func TestParseIDRefuses(t *testing.T) {
	for _, s := range []string{"", "0123456789ab", "012345678", "012345678G", "0123456A89", " 12345678"} {
		_, err := vnic.ParseID(s)
		assert.ErrorIs(t, err, vnic.ErrInvalid, "%q", s)
	}
}

func TestIDFromNameRefusesForeignNames(t *testing.T) {
	for _, s := range []string{"", "brf", "eth0", "brf012345678", "brf01234567890", "brfx0123456789", "vnet0123456789", "brfn012345678"} {
		_, ok := vnic.IDFromName(s)
		assert.False(t, ok, "%q", s)
	}
}

func FuzzIDFromName(f *testing.F) {
	f.Add("brf0123456789")
	f.Add("brfn0123456789")
	f.Fuzz(func(t *testing.T, name string) {
		id, ok := vnic.IDFromName(name)
		if ok && id.TapName() != name && id.NetdevID() != name {
			t.Errorf("IDFromName(%q) = %s, which makes no such name", name, id)
		}
	})
}

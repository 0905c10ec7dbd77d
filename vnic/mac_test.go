package vnic_test

import (
	"encoding/json"
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/brfuse/brfuse/vnic"
)

func TestNewMACIsLocalUnicast(t *testing.T) {
	for range 64 {
		m := vnic.NewMAC()
		assert.Equal(t, byte(0x02), m[0]&0x03, "%s", m)
	}
}

func TestParseMAC(t *testing.T) {
	tests := []struct {
		name, in, want string
		err            error
	}{
		{name: "colons", in: "02:00:5e:00:53:01", want: "02:00:5e:00:53:01"},
		{name: "dashes and capitals", in: "02-00-5E-00-53-01", want: "02:00:5e:00:53:01"},
		{name: "group address", in: "01:00:5e:00:00:01", err: vnic.ErrInvalid},
		{name: "broadcast", in: "ff:ff:ff:ff:ff:ff", err: vnic.ErrInvalid},
		{name: "zero", in: "00:00:00:00:00:00", err: vnic.ErrInvalid},
		{name: "eight octets", in: "02:00:5e:10:00:00:00:01", err: vnic.ErrInvalid},
		{name: "words", in: "eth0", err: vnic.ErrInvalid},
		{name: "empty", in: "", err: vnic.ErrInvalid},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			m, err := vnic.ParseMAC(tt.in)
			if tt.err != nil {
				assert.ErrorIs(t, err, tt.err)
				return
			}
			require.NoError(t, err)
			assert.Equal(t, tt.want, m.String())
		})
	}
}

func TestLinkLocal(t *testing.T) {
	m, err := vnic.ParseMAC("34:56:78:9a:bc:de") // the example of RFC 4291, appendix A
	require.NoError(t, err)
	assert.Equal(t, "fe80::3656:78ff:fe9a:bcde", m.LinkLocal().String())
}

func TestMACInJSON(t *testing.T) {
	type doc struct {
		M vnic.MAC `json:"m"`
	}
	m, err := vnic.ParseMAC("02:00:5e:00:53:01")
	require.NoError(t, err)
	raw, err := json.Marshal(doc{m})
	require.NoError(t, err)
	assert.JSONEq(t, `{"m":"02:00:5e:00:53:01"}`, string(raw))
	var back doc
	require.NoError(t, json.Unmarshal(raw, &back))
	assert.Equal(t, m, back.M)
	require.NoError(t, json.Unmarshal([]byte(`{"m":""}`), &back))
	assert.True(t, back.M.IsZero())
	assert.Error(t, json.Unmarshal([]byte(`{"m":"x"}`), &back))
}

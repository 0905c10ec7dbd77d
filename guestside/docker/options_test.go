package docker

import (
	"testing"

	"github.com/stretchr/testify/assert"

	"github.com/brfuse/brfuse/vnic"
)

func TestParseRate(t *testing.T) {
	for _, c := range []struct {
		given string
		want  uint64 // 0: an error
	}{
		{"500000", 500_000},
		{"5k", 5_000},
		{"10M", 10_000_000},
		{"10m", 10_000_000}, // as Docker's command line has it in a driver-opt
		{"1G", 1_000_000_000},
		{"1g", 1_000_000_000},
		{"", 0},
		{"0", 0},
		{"M", 0},
		{"1MM", 0},
		{"1T", 0},
		{"-1", 0},
		{"18446744073709551615G", 0},
	} {
		t.Run(c.given, func(t *testing.T) {
			got, err := parseRate(c.given)
			assert.Equal(t, c.want, got)
			if c.want == 0 {
				assert.ErrorIs(t, err, vnic.ErrInvalid)
			} else {
				assert.NoError(t, err)
			}
		})
	}
}

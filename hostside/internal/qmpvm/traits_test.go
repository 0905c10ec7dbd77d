package qmpvm

import (
	"testing"

	"github.com/stretchr/testify/assert"
)

func TestTrim(t *testing.T) {
	for _, c := range []struct {
		name            string
		emulated, vhost bool
		want            args
	}{
		{"emulated", true, false, args{"ioeventfd": false}},
		{"emulated, with vhost", true, true, args{}},
		{"KVM", false, false, args{}},
	} {
		t.Run(c.name, func(t *testing.T) {
			a := args{}
			traits{emulated: c.emulated}.trim(a, c.vhost)
			assert.Equal(t, c.want, a)
		})
	}
}

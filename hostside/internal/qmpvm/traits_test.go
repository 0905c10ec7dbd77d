package qmpvm

import (
	"testing"

	"github.com/stretchr/testify/assert"
)

func TestTrim(t *testing.T) {
	for _, c := range []struct {
		name            string
		emulated, vhost bool
		used            int
		want            args
	}{
		{"emulated, few", true, false, 64, args{}},
		{"emulated, many", true, false, 65, args{"ioeventfd": false}},
		{"emulated, many, with vhost", true, true, 65, args{}},
		{"KVM, many", false, false, 65, args{}},
	} {
		t.Run(c.name, func(t *testing.T) {
			a := args{}
			traits{emulated: c.emulated}.trim(a, c.vhost, c.used)
			assert.Equal(t, c.want, a)
		})
	}
}

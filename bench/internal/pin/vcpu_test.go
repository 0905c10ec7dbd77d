package pin

import (
	"testing"

	"github.com/stretchr/testify/assert"
)

func TestVCPU(t *testing.T) {
	for _, tt := range []struct {
		name string
		want []int // nil: no vCPU
	}{
		{"CPU 0/KVM", []int{4}},
		{"CPU 1/TCG", []int{6}},
		{"CPU 2/TCG", []int{4}}, // more vCPUs than CPUs
		{"ALL CPUs/TCG", []int{4, 6}},
		{"qemu-system-x86", nil},
		{"IO mon_iothread", nil},
		{"CPU x", nil},
	} {
		t.Run(tt.name, func(t *testing.T) {
			got, is := vcpu(tt.name, []int{4, 6})
			assert.Equal(t, tt.want, got)
			assert.Equal(t, tt.want != nil, is)
		})
	}
}

package port

import (
	"testing"

	"github.com/stretchr/testify/assert"

	"github.com/brfuse/brfuse/internal/rtnl"
	"github.com/brfuse/brfuse/vnic"
)

func TestShapeOf(t *testing.T) {
	for _, tt := range []struct {
		name string
		rate vnic.Rate
		mtu  int
		want rtnl.Shape
	}{
		{"a tenth of a second", vnic.Rate{Bits: 80_000_000}, 1500, rtnl.Shape{Rate: 10_000_000, Burst: 1_000_000, Queue: 2_000_000}},
		{"some frames", vnic.Rate{Bits: vnic.MinRate}, 1500, rtnl.Shape{Rate: 1000, Burst: 15_180, Queue: 30_360}},
		{"a burst", vnic.Rate{Bits: 80_000_000, Burst: 80_000}, 1500, rtnl.Shape{Rate: 10_000_000, Burst: 10_000, Queue: 1_010_000}},
		{"a burst of less than a frame", vnic.Rate{Bits: 80_000_000, Burst: 8}, 9000, rtnl.Shape{Rate: 10_000_000, Burst: 9018, Queue: 1_009_018}},
		{"the largest", vnic.Rate{Bits: vnic.MaxRate, Burst: vnic.MaxRate}, 1500, rtnl.Shape{Rate: 125_000_000_000, Burst: 1<<32 - 1, Queue: 1<<32 - 1}},
	} {
		t.Run(tt.name, func(t *testing.T) { assert.Equal(t, tt.want, shapeOf(tt.rate, tt.mtu)) })
	}
}

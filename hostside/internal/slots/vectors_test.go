package slots

import (
	"fmt"
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
)

func TestChoose(t *testing.T) {
	const enough = 4096
	for _, c := range []struct {
		name           string
		room           Room
		queues, others int
		want           int
	}{
		{"room for all", Room{100, enough}, 1, 30, 3},
		{"several queues", Room{100, enough}, 4, 30, 9},
		{"several queues, and two are left for each other", Room{9 + 60, enough}, 4, 30, 9},
		{"one less", Room{8 + 60, enough}, 4, 30, 2},
		{"the last slot", Room{3, enough}, 1, 0, 3},
		{"the last slot, two left", Room{2, enough}, 1, 0, 2},
		{"one left", Room{1, enough}, 1, 0, 0},
		{"used up", Room{-30, enough}, 1, 4, 0},
		{"the memory map has room for all to come", Room{1000, 7 + 4*30}, 1, 30, 3},
		{"the memory map has room for fewer", Room{1000, 6 + 4*30}, 1, 30, 0},
	} {
		t.Run(c.name, func(t *testing.T) {
			assert.Equal(t, c.want, c.room.Choose(c.queues, c.others))
		})
	}
}

func TestBounds(t *testing.T) {
	assert.Equal(t, Room{163, 3846}, Bounds(1, 1))
	assert.Equal(t, Room{352, 3846}, Bounds(2, 8))
	assert.Zero(t, Bounds(1, 500).Vectors)
	assert.Equal(t, Room{160, 3839}, Bounds(1, 1).Take(3))
	assert.Equal(t, Room{163, 3842}, Bounds(1, 1).Take(0))
	assert.Equal(t, 961, MaxVNICs)
}

// TestTableVectors fills machines: what guest and QEMU have is never exceeded,
// and each vNIC gets what is promised.
func TestTableVectors(t *testing.T) {
	for _, c := range []struct {
		name                string
		buses, cpus, queues int
		kinds               map[int]int // vectors -> how many vNICs
	}{
		{"a bridge on one CPU", 1, 1, 1, map[int]int{3: 31}},
		{"two on one", 2, 1, 1, map[int]int{3: 38, 2: 24}},
		{"eight on two", 8, 2, 1, map[int]int{2: 176, 0: 72}},
		{"eight on four", 8, 4, 1, map[int]int{3: 248}},
		{"fourteen on two", 14, 2, 1, map[int]int{2: 173, 0: 261}},
		{"four queues", 1, 4, 4, map[int]int{9: 31}},
		{"twenty on sixteen", 20, 16, 1, map[int]int{3: 455, 0: 165}},
		{"all that there are", 31, 16, 1, map[int]int{0: 961}},
	} {
		t.Run(c.name, func(t *testing.T) {
			var buses []Bus
			for i := range c.buses {
				buses = append(buses, Bus{Name: fmt.Sprint(i), Class: ACPIBridge, NoZero: true})
			}
			s := table(buses...)
			kinds, room := map[int]int{}, Bounds(c.cpus, c.buses)
			for i := range 31 * c.buses {
				slot, ok := s.Reserve(fmt.Sprint(i))
				require.True(t, ok)
				n := s.Vectors(slot, c.queues, c.cpus)
				s.Land(fmt.Sprint(i))
				kinds[n]++
				room = room.Take(n)
			}
			assert.Equal(t, c.kinds, kinds)
			assert.GreaterOrEqual(t, room.Vectors, 0)
			assert.GreaterOrEqual(t, room.Sections, 0)
		})
	}
}

// TestTableFullBeforeQEMUAborts has more slots than QEMU has memory sections for.
func TestTableFullBeforeQEMUAborts(t *testing.T) {
	var buses []Bus
	for i := range 33 {
		buses = append(buses, Bus{Name: fmt.Sprint(i), Class: ACPIBridge})
	}
	s := table(buses...)
	_, total, _ := s.Counts()
	assert.Equal(t, MaxVNICs, total, "of 1056")
	for i := range MaxVNICs {
		slot, ok := s.Reserve(fmt.Sprint(i))
		require.True(t, ok)
		require.Zero(t, s.Vectors(slot, 1, 64))
	}
	_, ok := s.Reserve("excess")
	assert.False(t, ok)
	s.Release("5")
	_, ok = s.Reserve("another")
	assert.True(t, ok)
}

func TestTableVectorsOfOthersAndFreed(t *testing.T) {
	bus := Bus{
		Name: "br", Class: ACPIBridge, NoZero: true,
		Taken: map[int]string{1: "/greedy", 2: "/plain"}, Vectors: map[int]int{1: 157},
	}
	s := table(bus)
	a, ok := s.Reserve("a")
	require.True(t, ok)
	assert.Equal(t, 2, s.Vectors(a, 1, 1), "of 163, 158 are taken")
	b, ok := s.Reserve("b")
	require.True(t, ok)
	assert.Equal(t, 2, s.Vectors(b, 1, 1))
	c, ok := s.Reserve("c")
	require.True(t, ok)
	assert.Zero(t, s.Vectors(c, 1, 1))
	s.Release("a")
	assert.Equal(t, 2, s.Vectors(c, 1, 1), "what was freed can be had again")
	s.Land("c")
	s.Release("/greedy")
	assert.Equal(t, 3, s.Vectors(b, 1, 1))
}

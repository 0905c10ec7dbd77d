package slots

import (
	"fmt"
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
)

func TestVectors(t *testing.T) {
	for _, c := range []struct {
		name                       string
		queues, budget, used, free int
		want                       int
	}{
		{"room for all", 1, 100, 0, 31, 3},
		{"several queues", 4, 100, 0, 31, 9},
		{"several queues, and two are left for each other", 4, 9 + 60, 0, 31, 9},
		{"one less", 4, 8 + 60, 0, 31, 2},
		{"the last slot", 1, 100, 97, 1, 3},
		{"the last slot, two left", 1, 100, 98, 1, 2},
		{"one left", 1, 100, 99, 1, 0},
		{"used up", 1, 100, 130, 5, 0},
	} {
		t.Run(c.name, func(t *testing.T) {
			assert.Equal(t, c.want, Vectors(c.queues, c.budget, c.used, c.free))
		})
	}
}

func TestBudget(t *testing.T) {
	assert.Equal(t, 163, Budget(1, 1))
	assert.Equal(t, 352, Budget(2, 8))
	assert.Zero(t, Budget(1, 500))
}

// TestTableVectors fills machines: what the guest has is never exceeded, and
// each vNIC gets what is promised.
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
	} {
		t.Run(c.name, func(t *testing.T) {
			var buses []Bus
			for i := range c.buses {
				buses = append(buses, Bus{Name: fmt.Sprint(i), Class: ACPIBridge, NoZero: true})
			}
			s := table(buses...)
			kinds, used := map[int]int{}, 0
			for i := range 31 * c.buses {
				slot, ok := s.Reserve(fmt.Sprint(i))
				require.True(t, ok)
				n := s.Vectors(slot, c.queues, c.cpus)
				s.Land(fmt.Sprint(i))
				kinds[n]++
				used += n
			}
			assert.Equal(t, c.kinds, kinds)
			assert.LessOrEqual(t, used, Budget(c.cpus, c.buses))
		})
	}
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

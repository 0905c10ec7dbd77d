package qmpvm

import (
	"fmt"
	"sync"
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
)

func table(buses ...bus) *slotTable {
	t := newSlotTable()
	t.merge(t.mark(), buses)
	return t
}

func reserve(t *testing.T, s *slotTable, owner string) string {
	t.Helper()
	got, ok := s.reserve(owner)
	require.True(t, ok)
	return got.String()
}

func TestSlotsOrder(t *testing.T) {
	s := table(
		bus{name: "shpc", class: shpcBridge},
		bus{name: "native", class: nativePort},
		bus{name: "port", class: acpiPort},
		bus{name: "wired", class: acpiPort, taken: map[int]string{0: "/bridge"}, wired: map[int]bool{0: true}},
		bus{name: "br", class: acpiBridge, taken: map[int]string{1: "/x"}},
	)
	used, total, acpi := s.counts()
	assert.Equal(t, "1 64 true", fmt.Sprint(used, total, acpi))
	var got []string
	for i := range 34 {
		if name := reserve(t, s, fmt.Sprint(i)); i < 2 || i > 28 {
			got = append(got, name)
		}
	}
	assert.Equal(t, []string{"br/02", "br/03", "br/1f", "port/00", "native/00", "shpc/01", "shpc/02"}, got)
}

func TestSlotsFreedLastIsUsedLast(t *testing.T) {
	s := table(bus{name: "br", class: acpiBridge})
	assert.Equal(t, "br/01", reserve(t, s, "a"))
	assert.Equal(t, "br/02", reserve(t, s, "b"))
	s.release("a")
	assert.Equal(t, "br/03", reserve(t, s, "c"))
	for i := 4; i <= 31; i++ {
		reserve(t, s, fmt.Sprint(i))
	}
	assert.Equal(t, "br/01", reserve(t, s, "d"))
	_, ok := s.reserve("e")
	assert.False(t, ok)
}

func TestSlotsMerge(t *testing.T) {
	look := func(taken map[int]string) bus { return bus{name: "br", class: acpiBridge, taken: taken} }
	t.Run("a plug under way is left alone", func(t *testing.T) {
		s := table(look(nil))
		reserve(t, s, "mine")
		s.merge(s.mark(), []bus{look(nil)})
		assert.Equal(t, "br/02", reserve(t, s, "other"))
	})
	t.Run("what changed after the look began is left alone", func(t *testing.T) {
		s := table(look(nil))
		mark := s.mark()
		reserve(t, s, "mine")
		s.land("mine")
		s.merge(mark, []bus{look(nil)})
		used, _, _ := s.counts()
		assert.Equal(t, 1, used)
		s.merge(s.mark(), []bus{look(nil)})
		used, _, _ = s.counts()
		assert.Zero(t, used, "a later look counts")
	})
	t.Run("others come and go", func(t *testing.T) {
		s := table(look(nil))
		s.merge(s.mark(), []bus{look(map[int]string{1: "/x", 2: "/y"})})
		assert.Equal(t, "br/03", reserve(t, s, "mine"))
		s.release("/y")
		used, _, _ := s.counts()
		assert.Equal(t, 2, used)
	})
	t.Run("a bridge leaves and comes back", func(t *testing.T) {
		s := table(look(nil))
		s.merge(s.mark(), nil)
		_, ok := s.reserve("mine")
		assert.False(t, ok)
		s.merge(s.mark(), []bus{look(nil)})
		assert.Equal(t, "br/01", reserve(t, s, "mine"))
	})
	t.Run("a refused slot waits for the next look", func(t *testing.T) {
		s := table(look(nil))
		got, _ := s.reserve("mine")
		s.refused(got)
		assert.Equal(t, "br/02", reserve(t, s, "mine"))
		s.merge(s.mark(), []bus{look(nil)})
		used, _, _ := s.counts()
		assert.Equal(t, 1, used)
	})
}

func TestSlotsConcurrent(t *testing.T) {
	s := table(bus{name: "a", class: acpiBridge}, bus{name: "b", class: acpiBridge})
	var wg sync.WaitGroup
	for i := range 62 {
		wg.Go(func() {
			owner := fmt.Sprint(i)
			for range 100 {
				got, ok := s.reserve(owner)
				if assert.True(t, ok) {
					assert.Equal(t, owner, got.owner)
					s.release(owner)
				}
			}
		})
	}
	wg.Wait()
	used, total, _ := s.counts()
	assert.Equal(t, "0 62", fmt.Sprint(used, total))
}

func BenchmarkSlots(b *testing.B) {
	var buses []bus
	for i := range 14 {
		buses = append(buses, bus{name: fmt.Sprint("br", i), class: acpiBridge})
	}
	s := table(buses...)
	for b.Loop() {
		s.reserve("x")
		s.release("x")
	}
}

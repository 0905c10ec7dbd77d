package slots

import (
	"fmt"
	"sync"
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
)

func table(buses ...Bus) *Table {
	t := New()
	t.Merge(t.Mark(), buses)
	return t
}

func reserve(t *testing.T, s *Table, owner string) string {
	t.Helper()
	got, ok := s.Reserve(owner)
	require.True(t, ok)
	return got.String()
}

func TestSlotsOrder(t *testing.T) {
	s := table(
		Bus{Name: "shpc", Class: SHPCBridge, NoZero: true},
		Bus{Name: "native", Class: NativePort},
		Bus{Name: "port", Class: ACPIPort},
		Bus{Name: "wired", Class: ACPIPort, Taken: map[int]string{0: "/bridge"}, Wired: map[int]bool{0: true}},
		Bus{Name: "br", Class: ACPIBridge, NoZero: true, Taken: map[int]string{1: "/x"}},
	)
	used, total, acpi := s.Counts()
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
	s := table(Bus{Name: "br", Class: ACPIBridge, NoZero: true})
	assert.Equal(t, "br/01", reserve(t, s, "a"))
	assert.Equal(t, "br/02", reserve(t, s, "b"))
	s.Release("a")
	assert.Equal(t, "br/03", reserve(t, s, "c"))
	for i := 4; i <= 31; i++ {
		reserve(t, s, fmt.Sprint(i))
	}
	assert.Equal(t, "br/01", reserve(t, s, "d"))
	_, ok := s.Reserve("e")
	assert.False(t, ok)
}

func TestSlotsMerge(t *testing.T) {
	look := func(taken map[int]string) Bus { return Bus{Name: "br", Class: ACPIBridge, NoZero: true, Taken: taken} }
	t.Run("a plug under way is left alone", func(t *testing.T) {
		s := table(look(nil))
		reserve(t, s, "mine")
		s.Merge(s.Mark(), []Bus{look(nil)})
		assert.Equal(t, "br/02", reserve(t, s, "other"))
	})
	t.Run("what changed after the look began is left alone", func(t *testing.T) {
		s := table(look(nil))
		mark := s.Mark()
		reserve(t, s, "mine")
		s.Land("mine")
		s.Merge(mark, []Bus{look(nil)})
		used, _, _ := s.Counts()
		assert.Equal(t, 1, used)
		s.Merge(s.Mark(), []Bus{look(nil)})
		used, _, _ = s.Counts()
		assert.Zero(t, used, "a later look counts")
	})
	t.Run("others come and go", func(t *testing.T) {
		s := table(look(nil))
		s.Merge(s.Mark(), []Bus{look(map[int]string{1: "/x", 2: "/y"})})
		assert.Equal(t, "br/03", reserve(t, s, "mine"))
		s.Release("/y")
		used, _, _ := s.Counts()
		assert.Equal(t, 2, used)
	})
	t.Run("a bridge leaves and comes back", func(t *testing.T) {
		s := table(look(nil))
		s.Merge(s.Mark(), nil)
		_, ok := s.Reserve("mine")
		assert.False(t, ok)
		s.Merge(s.Mark(), []Bus{look(nil)})
		assert.Equal(t, "br/01", reserve(t, s, "mine"))
	})
	t.Run("a refused slot waits for the next look", func(t *testing.T) {
		s := table(look(nil))
		got, _ := s.Reserve("mine")
		s.Refused(got)
		assert.Equal(t, "br/02", reserve(t, s, "mine"))
		s.Merge(s.Mark(), []Bus{look(nil)})
		used, _, _ := s.Counts()
		assert.Equal(t, 1, used)
	})
}

// TestSlotsCancel: a plug found its device in another slot than the one it had reserved.
// TestSlotsHold: a device that the guest has sent away, and that is put back, keeps its
// slot, whatever a look sees meanwhile.
func TestSlotsHold(t *testing.T) {
	without := Bus{Name: "br", Class: ACPIBridge, NoZero: true}
	with := without
	with.Taken = map[int]string{1: "a"}
	for name, held := range map[string]bool{"before the look": true, "after it": false} {
		t.Run(name, func(t *testing.T) {
			s := table(with)
			if held {
				s.Hold("br/01", "a")
			}
			s.Merge(s.Mark(), []Bus{without})
			assert.Equal(t, held, s.Owners()["br/01"] == "a")
			s.Hold("br/01", "a")
			s.Merge(s.Mark(), []Bus{without})
			assert.Equal(t, map[string]string{"br/01": "a"}, s.Owners())
			for i := range 30 {
				assert.NotEqual(t, "br/01", reserve(t, s, fmt.Sprint(i)))
			}
			_, ok := s.Reserve("more")
			assert.False(t, ok)
			s.Land("a")
			used, _, _ := s.Counts()
			assert.Equal(t, 31, used)
			s.Release("a")
			assert.Equal(t, "br/01", reserve(t, s, "b"))
			s.Hold("br/01", "a")
			s.Hold("br/99", "a")
			assert.Equal(t, "b", s.Owners()["br/01"], "somebody else has it")
		})
	}
}

func TestSlotsCancel(t *testing.T) {
	s := table(Bus{Name: "br", Class: ACPIBridge, NoZero: true})
	got, _ := s.Reserve("mine")
	s.Merge(s.Mark(), []Bus{{Name: "br", Class: ACPIBridge, NoZero: true, Taken: map[int]string{2: "mine"}}})
	s.Cancel(got, "mine")
	used, _, _ := s.Counts()
	assert.Equal(t, 1, used)
	s.Release("mine")
	got, _ = s.Reserve("other")
	s.Cancel(got, "mine")
	used, _, _ = s.Counts()
	assert.Equal(t, 1, used, "it is the other's")
}

func TestSlotsConcurrent(t *testing.T) {
	s := table(Bus{Name: "a", Class: ACPIBridge, NoZero: true}, Bus{Name: "b", Class: ACPIBridge, NoZero: true})
	var wg sync.WaitGroup
	for i := range 62 {
		wg.Go(func() {
			owner := fmt.Sprint(i)
			for range 100 {
				got, ok := s.Reserve(owner)
				if assert.True(t, ok) {
					assert.Equal(t, owner, got.owner)
					s.Release(owner)
				}
			}
		})
	}
	wg.Wait()
	used, total, _ := s.Counts()
	assert.Equal(t, "0 62", fmt.Sprint(used, total))
}

func BenchmarkSlots(b *testing.B) {
	var buses []Bus
	for i := range 14 {
		buses = append(buses, Bus{Name: fmt.Sprint("br", i), Class: ACPIBridge, NoZero: true})
	}
	s := table(buses...)
	for b.Loop() {
		s.Reserve("x")
		s.Release("x")
	}
}

func TestSlotsDeviceZero(t *testing.T) {
	for _, c := range []struct {
		name  string
		bus   Bus
		total int
		last  string
	}{
		{"bridge without SHPC: last of all", Bus{Name: "br", Class: ACPIBridge}, 32, "br/00"},
		{"bridge with SHPC", Bus{Name: "br", Class: ACPIBridge, NoZero: true}, 31, "br/1f"},
		{"what stands there never leaves", Bus{Name: "br", Class: ACPIBridge, Taken: map[int]string{0: "/x"}, Wired: map[int]bool{0: true}}, 31, "br/1f"},
		{"port", Bus{Name: "rp", Class: NativePort}, 1, "rp/00"},
	} {
		t.Run(c.name, func(t *testing.T) {
			s := table(c.bus)
			_, total, _ := s.Counts()
			assert.Equal(t, c.total, total)
			last := ""
			for i := range c.total {
				last = reserve(t, s, fmt.Sprint(i))
			}
			assert.Equal(t, c.last, last)
		})
	}
}

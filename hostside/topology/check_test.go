package topology

import (
	"testing"

	"github.com/stretchr/testify/assert"
)

func TestCheck(t *testing.T) {
	good := Running{Name: "vm1", State: "running", ACPI: true, Slots: 62, Used: 3, Agent: true}
	for _, c := range []struct {
		name   string
		change func(*Running)
		vnics  int
		bad    string // what is not OK
		says   string
	}{
		{"all is well", func(*Running) {}, 62, "", ""},
		{"too few slots", func(*Running) {}, 63, "slots", "3 of 62 in use, 63 wanted: boot the vm with what `brfuse topology --vnics 63` prints"},
		{"native", func(r *Running) { r.ACPI = false }, 2, "hotplug", "native: an unplug takes over 5 s; boot the vm with conventional bridges, and with ACPI hotplug on"},
		{"no agent", func(r *Running) { r.Agent = false }, 2, "channel", "no agent answers: give the vm the virtio-serial port org.brfuse.agent.0, and run brfuse-agent in it"},
		{"gone", func(r *Running) { r.State = "gone" }, 2, "state", "vm vm1 is gone: its slots aren't known; see `brfuse vm list`"},
	} {
		t.Run(c.name, func(t *testing.T) {
			r := good
			c.change(&r)
			var bad []Finding
			for _, f := range Check(r, c.vnics) {
				if !f.OK {
					bad = append(bad, f)
				}
			}
			if c.bad == "" {
				assert.Empty(t, bad)
				return
			}
			assert.Equal(t, []Finding{{What: c.bad, Detail: c.says}}, bad)
		})
	}
}

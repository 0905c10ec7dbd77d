package main

// group is a panel of the plot.
type group struct {
	title string
	bars  []bar
}

// bar is a series in a panel.
type bar struct {
	label  string
	series string
	kind   kind
}

// kind says how a bar is coloured.
type kind int

const (
	floor kind = iota // what brfuse is compared with
	cold              // brfuse, plugging and unplugging
	warm              // brfuse, by a pool
	kinds
)

// groups are what is drawn of those series that there are.
func groups() []group {
	return []group{
		{"Attach, until the pod answers", []bar{
			{"raw floor: plug and move", "attach/floor", floor},
			{"brfuse, cold", "attach/cold", cold},
			{"bare guest move", "attach/bare", floor},
			{"brfuse, warm", "attach/warm", warm},
		}},
		{"Detach", []bar{
			{"raw floor: unplug", "detach/floor", floor},
			{"brfuse, cold", "detach/cold", cold},
			{"bare move back", "detach/bare", floor},
			{"brfuse, to the pool", "detach/warm", warm},
		}},
		{"CNI, one call in the guest", []bar{
			{"ADD, bridge and portmap", "ADD/bridge", floor},
			{"ADD, host-device", "ADD/host-device", floor},
			{"ADD, brfuse, cold", "ADD/brfuse", cold},
			{"ADD, brfuse, warm", "ADD/brfuse-warm", warm},
			{"DEL, bridge and portmap", "DEL/bridge", floor},
			{"DEL, host-device", "DEL/host-device", floor},
			{"DEL, brfuse, cold", "DEL/brfuse", cold},
			{"DEL, brfuse, to the pool", "DEL/brfuse-warm", warm},
		}},
		{"16 attaches, until all calls have returned", []bar{
			{"cold, in turn", "batch/cold/serial", cold},
			{"cold, at once", "batch/cold/concurrent", cold},
			{"warm, in turn", "batch/warm/serial", warm},
			{"warm, at once", "batch/warm/concurrent", warm},
		}},
	}
}

// present leaves out the bars without samples, and the groups without bars.
func present(all []group, series map[string][]float64) []group {
	var there []group
	for _, g := range all {
		var bars []bar
		for _, b := range g.bars {
			if len(series[b.series]) > 0 {
				bars = append(bars, b)
			}
		}
		if len(bars) > 0 {
			there = append(there, group{g.title, bars})
		}
	}
	return there
}

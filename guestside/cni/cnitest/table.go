package cnitest

import "testing"

// row is a rule of the specification, or a promise of brfuse.
type row struct {
	name string
	run  func(b *bench)
}

// Run runs the table. Rows run one after the other, and each leaves nothing.
func Run(t *testing.T, e Env) {
	t.Helper()
	for _, rows := range [][]row{addRows(), delRows(), checkRows(), gcRows(), envRows(), awayRows(), ipamRows()} {
		for _, r := range rows {
			t.Run(r.name, func(t *testing.T) { r.run(newBench(t, e)) })
		}
	}
}

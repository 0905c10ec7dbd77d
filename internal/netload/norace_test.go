//go:build !race

package netload

const raceEnabled = false

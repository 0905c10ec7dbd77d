// Package plan is what the benchmark of CNI plugins and its client in the guest
// say to each other, in JSON.
package plan

import (
	"encoding/json"
	"time"
)

// Plan is what the client is to do: in each round one ADD and one DEL of every
// kind, another kind first each time.
type Plan struct {
	// Dir is where the plugins are.
	Dir string `json:"dir"`
	// Rounds are measured, after WarmUps that are told of too.
	Rounds  int `json:"rounds"`
	WarmUps int `json:"warmUps"`
	// Rest is the time before each call, for what is still going on after the one
	// before.
	Rest  time.Duration `json:"restNanoseconds"`
	Kinds []Kind        `json:"kinds"`
}

// Kind is a network of pods.
type Kind struct {
	Name string `json:"name"`
	// Conf is the list of plugin configurations.
	Conf json.RawMessage `json:"conf"`
}

// Verbs that are timed. [Start] is the plainest call of the list's first plugin,
// which only prints the versions that it knows: what starting it takes.
const (
	Add   = "ADD"
	Del   = "DEL"
	Start = "VERSION"
)

// Sample is a line of the client's output.
type Sample struct {
	// Round is counted from 1; those up to 0 were to warm up.
	Round int           `json:"round"`
	Kind  string        `json:"kind"`
	Verb  string        `json:"verb"`
	Pod   string        `json:"pod"` // the container ID
	Took  time.Duration `json:"nanoseconds"`
}

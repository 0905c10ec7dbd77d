package docker

import (
	"encoding/json"
	"fmt"
	"maps"
	"slices"
	"strconv"
	"strings"

	"github.com/brfuse/brfuse/vnic"
)

// options are what people give by -o of docker network create.
type options struct {
	MTU       int            `json:"mtu,omitempty"`
	Queues    int            `json:"queues,omitempty"`
	Bandwidth vnic.Bandwidth `json:"bandwidth,omitzero"`
	Prefix    string         `json:"prefix,omitempty"` // of the interface's name in the container
}

// ownPrefix may stand before each option of brfuse.
const ownPrefix = "com.brfuse."

// The options that there are, for people.
const (
	containerOptions = "mtu, queues, ingress, egress and " + optMTU
	networkOptions   = "network, " + optPrefix + ", " + containerOptions
)

// parseOptions reads the options of a network and the network of brfuse in them.
func parseOptions(given map[string]string) (o options, network string, err error) {
	for _, k := range slices.Sorted(maps.Keys(given)) {
		v := given[k]
		switch key := strings.TrimPrefix(k, ownPrefix); key {
		case "network":
			network, err = v, vnic.CheckNetworkName(v)
		case optPrefix:
			o.Prefix, err = v, checkIfPrefix(v)
		default:
			err = o.set(key, v, networkOptions)
		}
		if err != nil {
			return options{}, "", fmt.Errorf("option %s=%s: %w", k, v, err)
		}
	}
	return o, network, nil
}

// set sets an option that a network has and a container can have instead; known are
// those that there are.
func (o *options) set(key, value, known string) (err error) {
	switch key {
	case "mtu", optMTU:
		o.MTU, err = number(value, vnic.MinMTU, vnic.MaxMTU)
	case "queues":
		o.Queues, err = number(value, 1, vnic.MaxQueues)
	case "ingress":
		o.Bandwidth.Ingress.Bits, err = parseRate(value)
	case "egress":
		o.Bandwidth.Egress.Bits, err = parseRate(value)
	default:
		return fmt.Errorf("unknown; there are %s: %w", known, vnic.ErrInvalid)
	}
	if err != nil {
		return err
	}
	return o.Bandwidth.Validate()
}

// of returns o with what a container has of its own, by the driver-opt of its
// --network. Others than strings, and those of Docker itself, are not for drivers.
func (o options) of(container bag) (options, error) {
	for _, k := range slices.Sorted(maps.Keys(container)) {
		var v string
		if strings.HasPrefix(k, "com.docker.") || json.Unmarshal(container[k], &v) != nil {
			continue
		}
		if err := o.set(strings.TrimPrefix(k, ownPrefix), v, containerOptions); err != nil {
			return o, fmt.Errorf("option %s=%s of the container: %w", k, v, err)
		}
	}
	return o, nil
}

func number(s string, low, high int) (int, error) {
	n, err := strconv.Atoi(s)
	if err != nil || n < low || n > high {
		return 0, fmt.Errorf("not a number in %d-%d: %w", low, high, vnic.ErrInvalid)
	}
	return n, nil
}

// parseRate reads bits per second, such as 500000, 10M or 1G. The letter may be
// small: Docker's command line makes it so in the driver-opt of a --network.
func parseRate(s string) (uint64, error) {
	digits := strings.TrimRight(s, "kKmMgG")
	factor, ok := map[string]uint64{"": 1, "k": 1e3, "m": 1e6, "g": 1e9}[strings.ToLower(s[len(digits):])]
	n, err := strconv.ParseUint(digits, 10, 64)
	if err != nil || !ok || n == 0 || n > vnic.MaxRate/factor {
		return 0, fmt.Errorf("not a rate in bits per second, such as 500000, 10M or 1G: %w", vnic.ErrInvalid)
	}
	return n * factor, nil
}

// checkIfPrefix checks what an interface's name begins with: room for two digits
// has to be left.
func checkIfPrefix(s string) error { return vnic.CheckInterface(s + "99") }

package bench

import (
	"encoding/json"
	"fmt"
	"time"

	"github.com/brfuse/brfuse/internal/netcost"
	"github.com/brfuse/brfuse/internal/netload"
)

// toResult takes from a result what the daemon is told.
func toResult(r netload.Result) (Result, error) {
	out := Result{Elapsed: r.Elapsed, Sent: r.Sent, Received: r.Received, Lost: r.Lost, Bytes: r.Bytes}
	if r.Latency != nil {
		text, err := r.Latency.MarshalText()
		if err != nil {
			return Result{}, err
		}
		out.Latency = string(text)
	}
	var err error
	if out.Client, err = toCost(r.Local); err != nil {
		return Result{}, fmt.Errorf("cost in this vm: %w", err)
	}
	if out.Server, err = toCost(r.Remote); err != nil {
		return Result{}, fmt.Errorf("cost in the other vm: %w", err)
	}
	return out, nil
}

// maxDrops is how many devices' drops are told.
const maxDrops = 32

// toCost reads what an observer told.
func toCost(raw json.RawMessage) (c Cost, err error) {
	var told struct {
		netcost.Cost
		Error string `json:"error"`
	}
	if err := json.Unmarshal(raw, &told); err != nil {
		return c, fmt.Errorf("read it: %w", err)
	}
	if told.Error != "" {
		return c, fmt.Errorf("it could not be counted: %.256q", told.Error)
	}
	cpu := told.CPU
	c = Cost{Elapsed: told.Elapsed, User: seconds(cpu.User), System: seconds(cpu.System), Softirq: seconds(cpu.Softirq), IRQ: seconds(cpu.IRQ)}
	for _, p := range told.Namespaces {
		c.Retransmits += p.TCP.Retransmitted
	}
	for _, d := range told.Devices {
		if n := d.Drops(); n > 0 && len(c.Drops) < maxDrops {
			if c.Drops == nil {
				c.Drops = map[string]uint64{}
			}
			c.Drops[d.Name] += n
		}
	}
	return c, nil
}

// maxCPU is the most seconds of CPU that fit a time.Duration.
const maxCPU = 1e9

func seconds(s float64) time.Duration {
	if !(s >= 0 && s <= maxCPU) { // NaN, too
		return -1 // which the daemon refuses
	}
	return time.Duration(s * float64(time.Second))
}

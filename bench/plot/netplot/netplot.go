// Package netplot draws what the network benchmarks have measured, laid out as the
// figures that the field quotes: by message size, beside native, by flows, and by
// where the time goes.
package netplot

import (
	"errors"
	"fmt"
	"image/color"
	"os"
	"path/filepath"

	"github.com/brfuse/brfuse/bench/internal/result"
)

// Draw writes those figures to a folder that there are samples for, as SVG files,
// and returns their names. The folder is made if it isn't there.
func Draw(dir string, set *result.Set) ([]string, error) {
	var all []figure
	for _, draw := range []func(*result.Set) ([]figure, error){
		throughput, roundTrips, packets, normalised, overlay, flows, cpu, interrupts, instructions,
	} {
		figures, err := draw(set)
		if err != nil {
			return nil, err
		}
		all = append(all, figures...)
	}
	if len(all) == 0 {
		return nil, errors.New("the files have none of the samples that are drawn")
	}
	if err := os.MkdirAll(dir, 0o755); err != nil {
		return nil, fmt.Errorf("make folder of plots: %w", err)
	}
	names := make([]string, len(all))
	for i, f := range all {
		names[i] = f.name + ".svg"
		if err := f.file(filepath.Join(dir, names[i])); err != nil {
			return nil, err
		}
	}
	return names, nil
}

func (f figure) file(path string) (err error) {
	out, err := os.Create(path)
	if err != nil {
		return fmt.Errorf("create plot: %w", err)
	}
	defer func() { err = errors.Join(err, out.Close()) }()
	return f.write(out)
}

// colours are those of topologies, in all figures.
var colours = map[string]color.Color{
	result.Native:        color.NRGBA{0x77, 0x77, 0x77, 0xff},
	result.Veth:          color.NRGBA{0xa6, 0xcf, 0xe8, 0xff},
	result.Bridged:       color.NRGBA{0x5b, 0xa3, 0xd9, 0xff},
	result.NAT:           color.NRGBA{0x1f, 0x4e, 0x96, 0xff},
	result.Fused:         color.NRGBA{0xe0, 0x7b, 0x20, 0xff},
	result.OverlayLinux:  color.NRGBA{0xc3, 0xa5, 0xdb, 0xff},
	result.OverlayNested: color.NRGBA{0x6f, 0x3f, 0x9c, 0xff},
	result.OverlayFused:  color.NRGBA{0xb5, 0x3a, 0x2a, 0xff},
}

// other is the colour of a topology that isn't known here.
var other = color.NRGBA{0x3a, 0x9c, 0x5f, 0xff}

func colourOf(topology string) color.Color {
	if c, ok := colours[topology]; ok {
		return c
	}
	return other
}

// legendOf has the topologies in their colours.
func legendOf(topologies []string) []entry {
	all := make([]entry, len(topologies))
	for i, t := range topologies {
		all[i] = entry{t, colourOf(t)}
	}
	return all
}

// size tells bytes shortly.
func size(n int) string {
	if n >= 1024 && n%1024 == 0 {
		return fmt.Sprintf("%d KiB", n/1024)
	}
	return fmt.Sprintf("%d B", n)
}

// ofKind returns a rig's workloads of a kind, of one flow, by size; those that have
// a metric.
func ofKind(set *result.Set, rig, kind, metric string) []result.Workload {
	var all []result.Workload
	for _, w := range set.Workloads(rig, metric) {
		if w.Kind == kind && w.Flows == 1 && w.Size > 0 {
			all = append(all, w)
		}
	}
	return all
}

// directions are the two of a stream.
var directions = []struct{ suffix, title string }{{"", "the pod sends"}, {"_rx", "the pod receives"}}

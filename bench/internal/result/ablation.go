package result

// Ladder says what each layer of a nested network adds to what a message costs.
type Ladder struct {
	Rig      string
	Workload Workload
	Metric   string
	Base     float64 // the median of native
	Layers   []Layer
	// Nested and Fused are ratios to native: of all layers together, and of none
	// of them.
	Nested, Fused Ratio
}

// Layer is a rung.
type Layer struct {
	Name     string // what is added
	Topology string // and what there is with it
	Added    float64
	Step     Ratio // to the rung below
}

// Share is what a layer adds, as a fraction of native.
func (l Ladder) Share(layer Layer) float64 { return layer.Added / l.Base }

// Ablated are the workloads that are looked at.
var Ablated = []string{RoundTrip, Stream, StreamRx, Datagrams, DatagramRx, Connects}

// rungs are the layers, from native on.
var rungs = []struct{ name, topology string }{
	{"veth", Veth}, {"bridge", Bridged}, {"NAT", NAT},
}

// Ablation returns the ladders of time, of the guest's CPU time and of the guest's
// instructions that there are samples for.
func (s *Set) Ablation() []Ladder {
	var all []Ladder
	for _, rig := range s.Rigs() {
		for _, name := range Ablated {
			w := ParseWorkload(name)
			for _, metric := range []string{w.TimeOf(), w.GuestTimeOf(), w.InstructionsOf()} {
				if l, ok := s.ladder(rig, w, metric); ok {
					all = append(all, l)
				}
			}
		}
	}
	return all
}

func (s *Set) ladder(rig string, w Workload, metric string) (Ladder, bool) {
	at := func(topology string) Ref { return Ref{rig, topology, w.Name, metric} }
	native := at(Native)
	l := Ladder{
		Rig: rig, Workload: w, Metric: metric, Base: s.Summary(native).Median,
		Nested: s.Ratio(at(NAT), native), Fused: s.Ratio(at(Fused), native),
	}
	below, last, name := native, l.Base, ""
	for _, rung := range rungs {
		if name != "" {
			name += " and "
		}
		name += rung.name
		sum := s.Summary(at(rung.topology))
		if sum.N == 0 {
			continue // the next one adds both
		}
		l.Layers = append(l.Layers, Layer{name, rung.topology, sum.Median - last, s.Ratio(at(rung.topology), below)})
		below, last, name = at(rung.topology), sum.Median, ""
	}
	return l, l.Base > 0 && len(l.Layers) > 0
}

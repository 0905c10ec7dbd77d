package docker

import (
	"context"
	"fmt"
	"maps"
	"net"
	"net/http"
	"os"
	"slices"
	"strings"
)

// ServeOn is Serve on a listener.
func ServeOn(ctx context.Context, d *Driver, l net.Listener) error { return d.serve(ctx, l) }

// Handler returns what answers dockerd, without the socket.
func (d *Driver) Handler() http.Handler { return d.handler(context.Background()) }

// StateText returns what a driver's file has, a line each.
func StateText(path string) string {
	raw, err := os.ReadFile(path)
	if err != nil {
		return "driver: no file\n"
	}
	s, err := parseState(raw)
	if err != nil {
		return fmt.Sprintf("driver: %v\n", err)
	}
	var b strings.Builder
	if s.Rebuild {
		b.WriteString("driver: is to be rebuilt\n")
	}
	for _, id := range slices.Sorted(maps.Keys(s.Networks)) {
		n := s.Networks[id]
		fmt.Fprintf(&b, "driver: network %s is %s", id, n.Name)
		if n.Internal {
			b.WriteString(", internal")
		}
		if len(n.Auxiliary) > 0 {
			fmt.Fprintf(&b, ", without %v", n.Auxiliary)
		}
		b.WriteByte('\n')
	}
	for _, id := range slices.Sorted(maps.Keys(s.Pools)) {
		fmt.Fprintf(&b, "driver: pool %s, %d uses\n", id, s.Pools[id].Refs)
	}
	for _, id := range slices.Sorted(maps.Keys(s.Endpoints)) {
		e := s.Endpoints[id]
		fmt.Fprintf(&b, "driver: endpoint %s of %s is %s, %v", id, e.Network, e.ID, e.Addresses)
		if e.Joined {
			b.WriteString(", joined")
		}
		for _, p := range e.Ports {
			fmt.Fprintf(&b, ", port %s", p)
		}
		if e.Unpublish {
			b.WriteString(", ports to be taken back")
		}
		b.WriteByte('\n')
	}
	for _, id := range slices.Sorted(maps.Keys(s.Leaving)) {
		fmt.Fprintf(&b, "driver: endpoint %s is to be taken away\n", id)
	}
	return b.String()
}
